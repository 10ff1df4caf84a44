"""Remove: an added range whose blocks are all offline leaves the kernel.

Source: ``mm/memory_hotplug.c: try_remove_memory, offline_and_remove_memory``.
"""

from __future__ import annotations

import errno

from altmap.model.kernel import rfc2018
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.allocator import free_pages
from altmap.model.kernel.offline import check_hosts_no_memmap, memory_block_offline
from altmap.model.kernel.online import memory_block_online
from altmap.model.kernel.pagetables import free_page_tables
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.structpages import marked_frames
from altmap.model.kernel.zone import MOVABLE
from altmap.pfn import PfnRange
from altmap.trace import OK, Outcome

__all__ = ("offline_all", "offline_and_remove_memory", "try_remove_memory")


def try_remove_memory(kernel: Kernel, addition: Addition) -> Outcome:
    """Remove an added range whose blocks are all offline."""
    pfns = addition.pfns
    if kernel.nr_online(pfns):
        return Outcome.refused(errno.EBUSY, "try_remove_memory", f"{pfns} has online blocks")
    refusal = check_hosts_no_memmap(kernel, pfns)
    if refusal is not None:
        return refusal
    rfc2018.check_order_of_removal(kernel, addition)
    rfc2018.keep_marks(kernel, addition)
    function = kernel.policy.placement.written_at_add
    if addition.memmap.self_hosted and function is not None:
        # Unmapping looks at each page of the memmap for the marks that the add left.
        kernel.touch("read", marked_frames(addition), "free_pagetable", "marks in the memmap")
    kernel.additions.remove(addition)
    kernel.added_blocks -= kernel.blocks(pfns)
    kernel.self_hosted -= pfns
    # HWPoison pages leave the count with their block (memory.c: remove_memory_block).
    kernel.poisoned -= pfns
    free_pages(kernel, addition.host_pages)
    free_page_tables(kernel)
    names = kernel.block_names(pfns)
    kernel.log.note("removed", f"{names} removed", pfns, "try_remove_memory")
    return OK


def offline_and_remove_memory(kernel: Kernel, pfns: PfnRange, *, worker: str = "") -> Outcome:
    """Offline every online block of one added range, then remove it.

    If a block cannot go offline, those that did are onlined to the kind of zone that they had.
    """
    blocks = [kernel.block_pfns(id_) for id_ in kernel.block_ids(pfns)]
    outcome = offline_all(kernel, blocks, worker=worker)
    if not outcome:
        return outcome
    addition = kernel.addition_of(pfns.start)
    if addition is None or addition.pfns != pfns:
        return Outcome.refused(
            errno.EINVAL, "try_remove_memory", f"{pfns} is not what one add brought"
        )
    return try_remove_memory(kernel, addition)


def offline_all(kernel: Kernel, blocks: list[PfnRange], *, worker: str = "") -> Outcome:
    """Offline those of the blocks that are online, all or none.

    On a refusal, blocks that went offline are onlined to the kind of zone that they had.
    Source: ``mm/memory_hotplug.c: try_offline_memory_block, try_reonline_memory_block``.
    """
    done: list[tuple[PfnRange, str]] = []
    for pfns in blocks:
        if not kernel.nr_online(pfns):
            continue
        zones = kernel.zones_of(pfns)
        movable = bool(zones) and zones[0].name == MOVABLE
        outcome = memory_block_offline(kernel, pfns, worker=worker)
        if not outcome.ends:
            return outcome
        if not outcome:
            for online_pfns, online_type in done:
                memory_block_online(kernel, online_pfns, online_type)
            return outcome
        done.append((pfns, "online_movable" if movable else "online_kernel"))
    return OK
