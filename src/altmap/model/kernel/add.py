"""Add: memmap, page tables and memory blocks for a new range of memory.

Source: ``mm/memory_hotplug.c: add_memory_resource``; ``drivers/base/memory.c:
create_memory_block_devices``.
"""

from __future__ import annotations

import errno

from altmap.model.kernel import rfc2018
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.allocator import free_pages
from altmap.model.kernel.memmap import AddRequest
from altmap.model.kernel.online import online_blocks
from altmap.model.kernel.pagetables import free_page_tables
from altmap.model.kernel.populate import arch_add_memory
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.structpages import marked_frames, page_init_poison
from altmap.pfn import PfnRange
from altmap.trace import OK, Outcome

__all__ = ("add_memory_resource", "taken")


def add_memory_resource(
    kernel: Kernel,
    pfns: PfnRange,
    node: int,
    *,
    asks: bool,
    usable: PfnRange | None = None,
    group: MemoryGroup | None = None,
    resource_name: str = "System RAM",
    merges: bool = False,
    inaccessible: bool = False,
) -> Outcome:
    """Add a range: memmap, page tables, memory blocks; then online it if that is the default.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
    node : int
    asks : bool
        The driver passes MHP_MEMMAP_ON_MEMORY.
    usable : PfnRange, optional
        The part that the driver knows to be readable and writable now; only placements that were
        proposed use it.
    group : MemoryGroup, optional
        The device's memory group.
    resource_name : str
    merges : bool
        The driver passes MHP_MERGE_RESOURCE.
    inaccessible : bool
        The driver passes MHP_OFFLINE_INACCESSIBLE: the range is not touched before it is online.
    """
    refusal = _check_range(kernel, pfns, node)
    if refusal is not None:
        return refusal
    others = tuple([other.memmap for other in kernel.additions if other.node == node])
    request = AddRequest(pfns, asks, kernel.block_nr_pages, kernel.memmap_mode(), usable, others)
    memmap = kernel.policy.placement.place(kernel.arch, kernel.release, request)
    if isinstance(memmap, Outcome):
        return memmap
    addition = Addition(pfns, node, memmap, group, resource_name, merges, inaccessible=inaccessible)
    refusal = arch_add_memory(kernel, addition)
    if refusal is not None:
        return refusal
    _write_memmap(kernel, addition)
    if kernel.failures.fails_block_devices():
        return _arch_remove_memory(kernel, addition)
    rfc2018.revive_marks(kernel, addition)
    kernel.additions.append(addition)
    kernel.max_pfn = max(kernel.max_pfn, pfns.end)
    if rfc2018.creates_memory_blocks(kernel):
        _create_memory_block_devices(kernel, pfns)
    else:
        kernel.log.note("bug", f"{pfns} added without memory blocks", pfns, "__add_section")
    return OK


def _write_memmap(kernel: Kernel, addition: Addition) -> None:
    """Write the parts of a memmap that are written at add, by some placements and debug kernels."""
    if kernel.tunables.debug_vm and not addition.inaccessible:
        page_init_poison(kernel, addition)
    function = kernel.policy.placement.written_at_add
    if addition.memmap.self_hosted and function is not None:
        kernel.touch("write", marked_frames(addition), function, "marks in the memmap")


def _create_memory_block_devices(kernel: Kernel, pfns: PfnRange) -> None:
    """Make the blocks of an added range appear, and online them if that is the default."""
    kernel.added_blocks |= kernel.blocks(pfns)
    kernel.changed.blocks |= kernel.blocks(pfns)
    names = kernel.block_names(pfns)
    kernel.log.note("added", f"{names} added, offline", pfns, "add_memory_resource")
    if kernel.tunables.auto_online_blocks != "offline":
        # The first failure stops the walk and its error is dropped (walk_memory_blocks).
        online_blocks(kernel, kernel.block_ids(pfns), kernel.tunables.auto_online_blocks)


def _arch_remove_memory(kernel: Kernel, addition: Addition) -> Outcome:
    """Undo an add whose memory blocks cannot be created: an injected failure.

    Releases that lose the altmap in this path free its frames to the buddy allocator, although
    their memory is removed.
    Source: ``mm/memory_hotplug.c: add_memory_resource, create_altmaps_and_memory_blocks``.
    """
    # A memmap for each block: the first block fails, so the others were not tried.
    unit_nr_pages = addition.memmap.unit_nr_pages or len(addition.pfns)
    tried = PfnRange(addition.pfns.start, addition.pfns.start + unit_nr_pages)
    kernel.max_pfn = max(kernel.max_pfn, tried.end)  # update_end_of_memory_vars, never taken back
    if kernel.release.frees_altmap_of_failed_add and addition.memmap.self_hosted:
        freed = kernel.self_hosted & tried
        kernel.log.note(
            "bug",
            f"{len(freed)} frames of removed memory freed to the buddy allocator",
            freed,
            "arch_remove_memory",
        )
    kernel.self_hosted -= addition.pfns
    free_pages(kernel, addition.host_pages)
    free_page_tables(kernel)
    return Outcome.refused(
        errno.ENOMEM,
        "create_memory_block_devices",
        f"no memory block for {addition.pfns} could be created (injected)",
    )


def taken(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Return the refusal of a range at whose addresses System RAM is already.

    Source: ``mm/memory_hotplug.c: register_memory_resource``.
    """
    if not kernel.boot_ram.count(pfns) and not kernel.overlaps_addition(pfns):
        return None
    return Outcome.refused(
        errno.EEXIST,
        "register_memory_resource",
        f"{kernel.addresses(pfns)} overlaps System RAM",
    )


def _check_range(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome | None:
    page = kernel.arch.page_size_bytes
    limit = (1 << kernel.arch.max_physmem_bits) // page
    if pfns.end > limit:
        return Outcome.refused(
            errno.E2BIG,
            "mhp_range_allowed",
            f"{kernel.addresses(pfns)} ends above {limit * page:#x}, the end of what can be mapped",
        )
    refusal = taken(kernel, pfns)
    if refusal is not None:
        return refusal
    block = kernel.block_nr_pages
    if not pfns or pfns.start % block or len(pfns) % block:
        return Outcome.refused(
            errno.EINVAL,
            "check_hotplug_memory_range",
            f"{kernel.addresses(pfns)} is not aligned to memory blocks of {block * page:#x} bytes",
        )
    if not kernel.node_zones(node):
        return Outcome.refused(
            errno.EINVAL, "add_memory_resource", f"node {node} is not a possible node"
        )
    return None
