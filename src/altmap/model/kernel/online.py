"""Online: a memory block's pages go to a zone, and its free pages to the buddy allocator.

Source: ``drivers/base/memory.c: memory_block_online``; ``mm/memory_hotplug.c: online_pages``.
A refused step changes nothing.
"""

from __future__ import annotations

import errno

from altmap.model.kernel import rfc2018
from altmap.model.kernel.addition import Addition, adjust_present_page_count
from altmap.model.kernel.allocator import allocate_on_node
from altmap.model.kernel.auto_movable import auto_movable_zone_for_pfn
from altmap.model.kernel.expected import expect_movable_allocation, expect_unmovable_allocation
from altmap.model.kernel.notify import memory_notify, vetoed
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.structpages import page_init_poison, write_struct_pages
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import (
    MOVABLE,
    Zone,
    default_kernel_zone,
    extend_span,
    shrink_span,
    zone_for_policy,
)
from altmap.model.kernel.zonelists import build_all_zonelists
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome

__all__ = ("memory_block_online", "online_blocks", "present_part", "zone_for_pfn_range")

EHWPOISON = 133  # Python's errno lacks it
#: Watermarks are computed for so many of the last blocks; earlier ones do not show in the result.
_WATERMARK_BLOCKS = 6


def online_blocks(kernel: Kernel, ids: range, online_type: str) -> tuple[Outcome, int]:
    """Online blocks in ascending order; stop at the first refusal.

    Blocks for which the same zone is certain are onlined together, with the same result.

    Returns
    -------
    (Outcome, int)
        The last outcome, and the block it is about.
    """
    block, outcome = ids.start, OK
    while block < ids.stop:
        pfns = PfnRange(kernel.block_pfns(block).start, kernel.block_pfns(ids.stop - 1).end)
        if not _same_zone_for_all(kernel, pfns, online_type):
            pfns = kernel.block_pfns(block)
        outcome = memory_block_online(kernel, pfns, online_type)
        if not outcome:
            return outcome, block
        block = pfns.end // kernel.block_nr_pages
    return outcome, ids.stop - 1


def _same_zone_for_all(kernel: Kernel, pfns: PfnRange, online_type: str) -> bool:
    """Tell whether every block of a range of new blocks is onlined to the same zone."""
    addition = kernel.addition_of(pfns.start)
    if addition is None or pfns.end > addition.pfns.end or kernel.nr_online(pfns):
        return False
    if kernel.notifier or kernel.poisoned.count(pfns):
        return False
    if online_type == "online_movable":
        return True
    if online_type == "online" and kernel.tunables.online_policy == "auto-movable":
        return False
    return not any(zone.intersects(pfns) for zone in kernel.node_zones(addition.node))


def memory_block_online(kernel: Kernel, pfns: PfnRange, online_type: str) -> Outcome:
    """Online one memory block, or several that go to one zone.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
        Whole blocks.
    online_type : str
        ``online``, ``online_kernel`` or ``online_movable``.
    """
    if kernel.nr_online(pfns):
        return Outcome.refused(errno.EINVAL, "state_store", f"{pfns} is online already")
    refusal = _check_poison(kernel, pfns)
    if refusal is not None:
        return refusal
    node = kernel.node_of(pfns.start) or 0
    addition = kernel.addition_of(pfns.start)
    zone = zone_for_pfn_range(kernel, pfns, node, online_type)
    veto = memory_notify(kernel, "MEM_PREPARE_ONLINE", pfns, node)
    if veto is not None:
        return vetoed(veto, "MEM_PREPARE_ONLINE")
    _move_pfn_range_to_zone(kernel, addition, zone, pfns)
    refusal = _going_online(kernel, zone, pfns)
    if refusal is not None:
        return refusal
    first_of_node, first_of_zone = not kernel.has_pages(node), not zone.present
    nr_freed = _online_pages(kernel, addition, zone, pfns)
    if first_of_node:
        memory_notify(kernel, "NODE_ADDED_FIRST_MEMORY", pfns, node)
    memory_notify(kernel, "MEM_ONLINE", pfns, node)
    kernel.log.note(
        "onlined",
        f"{kernel.block_names(pfns)} online in zone {zone.name} of node {node}: "
        f"{len(present_part(kernel, pfns))} pages present, {nr_freed} freed to the buddy allocator",
        pfns,
        "online_pages",
    )
    if first_of_node and kernel.release.node_threads_on_node:
        _start_node_threads(kernel, node)
    if first_of_zone and node in kernel.cpu_nodes:
        _expect_allocations(kernel, zone, pfns)
    return OK


def _start_node_threads(kernel: Kernel, node: int) -> None:
    """Allocate what the node's kswapd and kcompactd are made of: one page stands for their slab.

    A node with CPUs has slabs with room. Without memory in a kernel zone it lies elsewhere. It is
    freed with the node's last memory, so that its block stays.
    Source: ``mm/vmscan.c: kswapd_run``, ``mm/compaction.c: kcompactd_run``
    (``kthread_create_on_node``).
    """
    if node not in kernel.cpu_nodes:
        allocate_on_node(kernel, node, 1)


def _expect_allocations(kernel: Kernel, zone: Zone, pfns: PfnRange) -> None:
    """Note what the node's kernel and processes allocate from its new highest zone."""
    if zone.name != MOVABLE and zone is kernel.kernel_zones(zone.node)[-1]:
        expect_unmovable_allocation(kernel, zone)
    if zone is next(each for each in reversed(kernel.node_zones(zone.node)) if each.present):
        expect_movable_allocation(kernel, zone, kernel.block_pfns(kernel.block_ids(pfns)[0]))


def _check_poison(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Refuse a block with HWPoison pages; before v6.2 they lose their flag instead.

    Source: ``drivers/base/memory.c: memory_block_online``; ``mm/mm_init.c: memmap_init_range``
    writes all flags of a struct page anew.
    """
    poisoned = kernel.poisoned & pfns
    if not poisoned:
        return None
    if kernel.release.keeps_poison_offline:
        return Outcome.refused(
            EHWPOISON,
            "memory_block_online",
            f"{len(poisoned)} pages are HWPoison, the first is pfn {poisoned.min():#x}",
            pfns=poisoned,
            kind="poisoned",
        )
    kernel.poisoned -= poisoned
    kernel.nr_unmarked_poison += len(poisoned)
    return None


def _move_pfn_range_to_zone(
    kernel: Kernel, addition: Addition | None, zone: Zone, pfns: PfnRange
) -> None:
    """Initialise the struct pages of a range, and grow the zone's span by it."""
    if addition is not None and addition.inaccessible and kernel.tunables.debug_vm:
        page_init_poison(kernel, addition, pfns)
    write_struct_pages(kernel, addition, pfns)
    rfc2018.check_chunks(kernel, pfns)
    rfc2018.forget_memmap(kernel, pfns)
    extend_span(zone, pfns)


def _going_online(kernel: Kernel, zone: Zone, pfns: PfnRange) -> Outcome | None:
    """Notify the listeners; on a veto take the range out of the zone again, as the kernel does.

    The span is then recomputed from what is online, so an edge that lay in a hole moves.
    Source: ``mm/memory_hotplug.c: online_pages``, "failed_addition";
    ``drivers/base/memory.c: memory_block_online``.
    """
    actions = ["MEM_GOING_ONLINE"]
    if not kernel.has_pages(zone.node):
        actions.insert(0, "NODE_ADDING_FIRST_MEMORY")
    for action in actions:
        veto = memory_notify(kernel, action, pfns, zone.node)
        if veto is not None:
            memory_notify(kernel, "MEM_CANCEL_ONLINE", pfns, zone.node)
            if len(actions) > 1:
                memory_notify(kernel, "NODE_CANCEL_ADDING_FIRST_MEMORY", pfns, zone.node)
            shrink_span(zone, pfns, kernel.arch.subsection_nr_pages)
            memory_notify(kernel, "MEM_FINISH_OFFLINE", pfns, zone.node)
            return vetoed(veto, action)
    return None


def _online_pages(kernel: Kernel, addition: Addition | None, zone: Zone, pfns: PfnRange) -> int:
    """Make pages present and free them, and set watermarks; return how many were freed."""
    present, first_of_zone = present_part(kernel, pfns), not zone.present
    zone.present |= present
    if first_of_zone:
        build_all_zonelists(kernel)
    kernel.online_blocks |= kernel.blocks(pfns)
    kernel.onlined = _with_last(kernel.onlined, pfns)
    kernel.changed.blocks |= kernel.blocks(pfns)
    nr_freed = _online_pages_range(kernel, present, kernel.self_hosted.count(pfns))
    adjust_present_page_count(addition, zone, len(present))
    nr_blocks = len(kernel.block_ids(pfns))
    missing_blocks = range(min(nr_blocks, _WATERMARK_BLOCKS) - 1, -1, -1)
    init_per_zone_wmark_min(
        kernel, zone, [left * (nr_freed // nr_blocks) for left in missing_blocks]
    )
    return nr_freed


def _with_last(onlined: tuple[PfnRange, ...], pfns: PfnRange) -> tuple[PfnRange, ...]:
    if onlined and onlined[-1].end == pfns.start:
        return *onlined[:-1], PfnRange(onlined[-1].start, pfns.end)
    return *onlined, pfns


def _online_pages_range(kernel: Kernel, present: PfnSet | PfnRange, nr_hosted: int) -> int:
    """Free the pages that the online-page callback lets through; return how many.

    Source: ``mm/memory_hotplug.c: online_pages_range``.
    """
    callback = kernel.online_page_callback
    if callback is None:
        return len(present) - nr_hosted
    pages = PfnSet.of(present) - kernel.self_hosted
    freed = callback(pages)
    kept = pages - freed - kernel.reserved
    kernel.fake_offline |= kept
    if kept:
        kernel.log.note(
            "fake-offline",
            f"{len(kept)} pages kept fake-offline by the driver",
            kept,
            "online_page_callback",
        )
    return len(freed)


def present_part(kernel: Kernel, pfns: PfnRange) -> PfnSet | PfnRange:
    """Return the pages of a block that exist: all of an added one, the RAM of a boot block."""
    return kernel.boot_ram & pfns if kernel.boot_ram.count(pfns) else pfns


def zone_for_pfn_range(kernel: Kernel, pfns: PfnRange, node: int, online_type: str) -> Zone:
    """Return the zone that the range would be onlined to (``zone_for_pfn_range``)."""
    kernel_zone = default_kernel_zone(kernel.kernel_zones(node), pfns)
    movable = kernel.movable_zone(node)
    if online_type == "online_kernel":
        return kernel_zone
    if online_type == "online_movable":
        return movable
    if kernel.tunables.online_policy == "auto-movable":
        return auto_movable_zone_for_pfn(kernel, pfns, node)
    return zone_for_policy(kernel_zone, movable, pfns, kernel.tunables.movable_node)
