"""Add, online, offline and remove, in the kernel's order of steps.

Functions have the names of the kernel's (``mm/memory_hotplug.c``, ``drivers/base/memory.c``). A
refusal is an :class:`~altmap.trace.Outcome`; a step that is refused changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from altmap.model.kernel import rfc2018
from altmap.model.kernel.hugetlb import dissolve_free_hugetlb_folios, migrate_hugetlb
from altmap.model.kernel.isolation import (
    endless_retry,
    scan_movable_pages,
    start_isolate_page_range,
)
from altmap.model.kernel.memmap import AddRequest, Memmap
from altmap.model.kernel.notifier import NotifierVeto
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.kernel.state import Addition, Kernel, MemoryGroup
from altmap.model.kernel.touch import Touch
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import (
    MOVABLE,
    Zone,
    default_kernel_zone,
    extend_span,
    shrink_span,
    zone_for_policy,
)
from altmap.pfn import PfnRange, PfnSet, PfnStride
from altmap.trace import OK, Outcome

__all__ = (
    "add_memory_resource",
    "memory_block_offline",
    "memory_block_online",
    "offline_and_remove_memory",
    "online_blocks",
    "read_dump",
    "settle",
    "try_remove_memory",
    "zone_for_pfn_range",
)

EHWPOISON = 133  # Python's errno lacks it
#: Blocks whose arrival one after the other is followed to set watermarks exactly.
_WATERMARK_MEMORY = 6


# --- add -----------------------------------------------------------------------------------


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
        The part that the driver knows to be readable and writable by now, for placements that ask.
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
    request = AddRequest(
        pfns,
        asks,
        kernel.block_nr_pages,
        kernel.memmap_mode(),
        usable,
        tuple([other.memmap for other in kernel.additions if other.node == node]),
    )
    memmap = kernel.policy.placement.place(kernel.arch, kernel.release, request)
    if isinstance(memmap, Outcome):
        return memmap
    addition = Addition(pfns, node, memmap, group, resource_name, merges, inaccessible=inaccessible)
    refusal = _populate(kernel, addition)
    if refusal is not None:
        return refusal
    if memmap.self_hosted:
        _place_memmap(kernel, addition)
    if kernel.tunables.debug_vm and not inaccessible:
        _poison(kernel, addition)
    if memmap.self_hosted and kernel.policy.placement.written_at_add is not None:
        function = kernel.policy.placement.written_at_add
        kernel.touch("write", _marked_frames(addition), function, "marks in the memmap")
    if kernel.fails_block_devices:
        return _take_back(kernel, addition)
    rfc2018.revive_marks(kernel, addition)
    kernel.additions.append(addition)
    kernel.max_pfn = max(kernel.max_pfn, pfns.end)
    if not rfc2018.creates_memory_blocks(kernel):
        kernel.note("bug", f"{pfns} added without memory blocks", pfns, "__add_section")
        return OK
    kernel.added_blocks |= kernel.blocks(pfns)
    kernel.changed_blocks |= kernel.blocks(pfns)
    ids = kernel.block_ids(pfns)
    kernel.note("added", f"{_blocks(ids)} added, offline", pfns, "add_memory_resource")
    if kernel.tunables.auto_online_blocks != "offline":
        # The first failure stops the walk and its error is dropped (walk_memory_blocks).
        online_blocks(kernel, ids, kernel.tunables.auto_online_blocks)
    return OK


def _take_back(kernel: Kernel, addition: Addition) -> Outcome:
    """Undo an add whose memory blocks cannot be created: an injected failure.

    Releases that forget the altmap on this way give its frames to the buddy, of memory that is
    gone. Source: ``mm/memory_hotplug.c: add_memory_resource, create_altmaps_and_memory_blocks``.
    """
    kernel.fails_block_devices = False
    if kernel.release.frees_altmap_of_failed_add and addition.memmap.self_hosted:
        # A memmap for each block: the first block fails, so the others were not tried.
        nr_pages = addition.memmap.unit_nr_pages
        first = PfnRange(addition.pfns.start, addition.pfns.start + nr_pages)
        freed = kernel.self_hosted & first
        kernel.note(
            "bug",
            f"{len(freed)} frames of memory that is gone given to the buddy",
            freed,
            "arch_remove_memory",
        )
    kernel.self_hosted -= addition.pfns
    kernel.free_pages(addition.host_pages)
    _free_page_tables(kernel)
    return Outcome.refused(
        errno.ENOMEM,
        "create_memory_block_devices",
        f"no memory block for {addition.pfns} could be created (injected)",
    )


def _check_range(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome | None:
    page = kernel.arch.page_size_bytes
    limit = (1 << kernel.arch.max_physmem_bits) // page
    if pfns.end > limit:
        return Outcome.refused(
            errno.E2BIG,
            "mhp_range_allowed",
            f"{pfns} ends above pfn {limit:#x}, the end of what can be mapped",
        )
    if kernel.boot_ram.count(pfns) or kernel.overlaps_addition(pfns):
        return Outcome.refused(
            errno.EEXIST, "register_memory_resource", f"{pfns} overlaps System RAM"
        )
    block = kernel.block_nr_pages
    if not pfns or pfns.start % block or len(pfns) % block:
        return Outcome.refused(
            errno.EINVAL,
            "check_hotplug_memory_range",
            f"{pfns} is not aligned to memory blocks of {block * page:#x} bytes",
        )
    if not kernel.node_zones(node):
        return Outcome.refused(
            errno.EINVAL, "add_memory_resource", f"node {node} is not a possible node"
        )
    return None


def _populate(kernel: Kernel, addition: Addition) -> Outcome | None:
    """Take the pages that the add costs: memmap from existing memory, and page tables."""
    if addition.memmap.host is not None:
        addition.host_pages = PfnSet([addition.memmap.host])
        kernel.note(
            "memmap-placed",
            f"memmap of {addition.pfns}: {len(addition.host_pages)} pages of a host section",
            addition.host_pages,
            "vmemmap_populate",
        )
    elif not addition.memmap.self_hosted:
        nr_pages = kernel.arch.memmap_nr_pages(len(addition.pfns))
        available = kernel.available_nr_pages(nr_pages)
        host = _allocate_for_add(kernel, addition.node, min(nr_pages, available))
        if host is None or nr_pages > available:
            # __add_pages leaves the sections that it added before it ran out of memory.
            addition.host_pages = host or PfnSet()
            kernel.leftovers.append(addition)
            kernel.max_pfn = max(kernel.max_pfn, addition.pfns.end)
            if kernel.release.uncounts_failed_memmap:
                # section_deactivate takes back what nobody had counted.
                section = kernel.arch.section_nr_pages
                kernel.memmap_drift_nr_pages -= kernel.arch.memmap_nr_pages(section)
            return Outcome.refused(
                errno.ENOMEM,
                "vmemmap_populate",
                f"the memmap needs {nr_pages} free pages in kernel zones of existing memory, "
                f"there are {available}; those taken until then are lost",
            )
        addition.host_pages = host
        kernel.note(
            "memmap-placed",
            f"memmap of {addition.pfns}: {nr_pages} pages of existing memory",
            host,
            "vmemmap_populate",
        )
    needed = page_table_nr_pages(kernel, [*kernel.additions, addition])
    tables = _allocate_for_add(kernel, addition.node, max(0, needed - len(kernel.page_tables)))
    kernel.fails_allocation = 0
    if tables is None:
        kernel.free_pages(addition.host_pages)
        return Outcome.refused(
            errno.ENOMEM, "arch_add_memory", "no free page for the page tables of the new range"
        )
    kernel.page_tables |= tables
    return None


def _allocate_for_add(kernel: Kernel, node: int, nr_pages: int) -> PfnSet | None:
    """Allocate what an add costs, unless a failure of this allocation was asked for."""
    if nr_pages and kernel.fails_allocation:
        kernel.fails_allocation -= 1
        if not kernel.fails_allocation:
            return None
    return kernel.allocate(node, nr_pages)


def _place_memmap(kernel: Kernel, addition: Addition) -> None:
    hosted = addition.memmap.hosted()
    kernel.self_hosted |= hosted
    kernel.note(
        "memmap-placed",
        f"memmap of {addition.pfns}: {len(hosted)} pages of the range itself, "
        f"from pfn {addition.pfns.start + addition.memmap.offset_nr_pages:#x}",
        hosted,
        "vmemmap_populate",
    )


def _poison(kernel: Kernel, addition: Addition, pfns: PfnRange | None = None) -> None:
    """Fill the whole memmap with ones (``mm/debug.c: page_init_poison``, CONFIG_DEBUG_VM).

    Where nothing may be touched before, that of the blocks that go online
    (``mm/memory_hotplug.c: mhp_init_memmap_on_memory``).
    """
    memmap = addition.memmap
    frames = memmap.frames_of(pfns or addition.pfns)
    if not memmap.self_hosted:
        frames = addition.host_pages
    kernel.touch("write", frames, "page_init_poison", "poison over the memmap")


def _marked_frames(addition: Addition) -> PfnSet:
    """Return the frames that hold the struct pages of the memmap pages themselves."""
    memmap = addition.memmap
    frames = PfnSet()
    for unit in range(addition.pfns.start, addition.pfns.end, memmap.unit_nr_pages):
        start = unit + memmap.offset_nr_pages
        frames |= memmap.frames_of(PfnRange(start, start + memmap.hosted_nr_pages))
    return frames


# --- online --------------------------------------------------------------------------------


def online_blocks(kernel: Kernel, ids: range, online_type: str) -> tuple[Outcome, int]:
    """Online blocks in ascending order; stop at the first refusal.

    Blocks for which the same zone is certain are onlined together, which changes no result.

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
    zones = kernel.node_zones(addition.node)
    return not any(zone.intersects(pfns) for zone in zones) and not any(
        zone.span.start >= pfns.end for zone in zones if zone.span
    )


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
    veto = kernel.notify("MEM_PREPARE_ONLINE", pfns, node)
    if veto is not None:
        return _vetoed(veto, "MEM_PREPARE_ONLINE")
    if addition is not None and addition.inaccessible and kernel.tunables.debug_vm:
        _poison(kernel, addition, pfns)
    _write_struct_pages(kernel, addition, pfns)
    rfc2018.check_chunks(kernel, pfns)
    rfc2018.forget_memmap(kernel, pfns)
    extend_span(zone, pfns)
    refusal = _going_online(kernel, zone, pfns)
    if refusal is not None:
        return refusal
    present, first_of_zone = _present_part(kernel, pfns), not zone.present
    first_of_node = not kernel.has_pages(node)
    zone.present |= present
    if first_of_zone:
        kernel.build_all_zonelists()
    kernel.online_blocks |= kernel.blocks(pfns)
    kernel.changed_blocks |= kernel.blocks(pfns)
    released = _give_to_buddy(kernel, present, kernel.self_hosted.count(pfns))
    _count_present(addition, zone, len(present))
    nr_blocks = len(kernel.block_ids(pfns))
    # Beyond the last few blocks, earlier watermarks no longer show in the result.
    waiting = range(min(nr_blocks, _WATERMARK_MEMORY) - 1, -1, -1)
    init_per_zone_wmark_min(kernel, zone, [left * (released // nr_blocks) for left in waiting])
    if first_of_node:
        kernel.notify("NODE_ADDED_FIRST_MEMORY", pfns, node)
    kernel.notify("MEM_ONLINE", pfns, node)
    kernel.note(
        "onlined",
        f"{_blocks(kernel.block_ids(pfns))} online in zone {zone.name} of node {node}: "
        f"{len(present)} pages present, {released} given to the buddy",
        pfns,
        "online_pages",
    )
    if first_of_zone and node in kernel.cpu_nodes and zone is kernel.kernel_zones(node)[-1]:
        settle(kernel, zone)
    return OK


def _check_poison(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Refuse a block with withdrawn pages, or forget that they were (before v6.2).

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
            f"{len(poisoned)} pages are withdrawn (HWPoison), the first is pfn {poisoned.min():#x}",
            pfns=poisoned,
            kind="poisoned",
        )
    kernel.poisoned -= poisoned
    kernel.nr_forgotten_poison += len(poisoned)
    return None


def _going_online(kernel: Kernel, zone: Zone, pfns: PfnRange) -> Outcome | None:
    """Ask the listeners; on a veto take the range out of the zone again, as the kernel does.

    The span is then recomputed from what is online, so an edge that lay in a hole moves.
    Source: ``mm/memory_hotplug.c: online_pages``, "failed_addition";
    ``drivers/base/memory.c: memory_block_online``.
    """
    actions = ["MEM_GOING_ONLINE"]
    if not kernel.has_pages(zone.node):
        actions.insert(0, "NODE_ADDING_FIRST_MEMORY")
    for action in actions:
        veto = kernel.notify(action, pfns, zone.node)
        if veto is not None:
            kernel.notify("MEM_CANCEL_ONLINE", pfns, zone.node)
            if len(actions) > 1:
                kernel.notify("NODE_CANCEL_ADDING_FIRST_MEMORY", pfns, zone.node)
            shrink_span(zone, pfns, kernel.arch.subsection_nr_pages)
            kernel.notify("MEM_FINISH_OFFLINE", pfns, zone.node)
            return _vetoed(veto, action)
    return None


def _vetoed(veto: NotifierVeto, action: str) -> Outcome:
    return Outcome.refused(veto.errno, veto.function, f"{action}: {veto.why}", kind="veto")


def settle(kernel: Kernel, zone: Zone) -> None:
    """Let the running kernel allocate from a zone that it did not have before.

    The highest kernel zone of a CPU's node comes first in its zonelist for GFP_KERNEL. A new one
    has no unmovable pageblock yet, so the first unmovable allocation of whoever runs next steals
    the largest chunk at the head of the movable list: the first such chunk that was onlined. How
    many pages follow is not predicted; one stands for them. It is likely, not certain, that one
    stays: page tables go with their process, and slab may not be needed for a while.
    Source: ``mm/page_alloc.c: __rmqueue_fallback``, ``build_zonelists``.
    """
    free = kernel.free(zone)
    if not free:
        return
    chunk = 1 << kernel.arch.max_page_order
    runs = (PfnRange(-(-run.start // chunk) * chunk, run.end) for run in _aligned(free, chunk))
    pfn = next((run.start for run in runs), free.min())
    page = PfnRange(pfn, pfn + 1)
    kernel.used |= page
    kernel.settled |= page
    kernel.note(
        "settled",
        f"zone {zone.name} of node {zone.node} is new: the kernel's next unmovable allocations "
        f"come from memory{pfn // kernel.block_nr_pages}",
        page,
        "__rmqueue_fallback",
        doubt="whether one of them stays is chance",
    )


def _aligned(pages: PfnSet, chunk: int) -> Iterator[PfnRange]:
    """Yield the runs that hold a whole aligned chunk."""
    return (run for run in pages.ranges() if -(-run.start // chunk) * chunk + chunk <= run.end)


def _present_part(kernel: Kernel, pfns: PfnRange) -> PfnSet | PfnRange:
    """Return what exists of a block: all of an added one, the RAM of one that booted."""
    return kernel.boot_ram & pfns if kernel.boot_ram.count(pfns) else pfns


def _write_struct_pages(kernel: Kernel, addition: Addition | None, pfns: PfnRange) -> None:
    """Initialise the struct pages of the range: first those of the memmap pages, then the rest."""
    if addition is None:
        return
    memmap = addition.memmap
    if not memmap.self_hosted:
        frames = _host_frames(kernel, addition, pfns)
        kernel.touch("write", frames, "memmap_init_range", f"the struct pages of {pfns}")
        return
    if kernel.policy.placement.written_at_add or memmap.unit_nr_pages > len(pfns):
        frames = memmap.frames_of(pfns)
        kernel.touch("write", frames, "memmap_init_range", f"the struct pages of {pfns}")
        return
    touches = _touches_of_units(kernel, memmap, pfns)
    if any(kernel.judge(touch) for touch in touches):
        # The kernel goes block by block, so the fault is that of the first block that has one.
        starts = range(pfns.start, pfns.end, memmap.unit_nr_pages)
        units = (PfnRange(start, start + memmap.unit_nr_pages) for start in starts)
        touches = [touch for unit in units for touch in _touches_of_units(kernel, memmap, unit)]
    for touch in touches:
        kernel.touch(touch.access, touch.pfns, touch.function, touch.what)


def _host_frames(kernel: Kernel, addition: Addition, pfns: PfnRange) -> PfnSet:
    """Return the frames of existing memory that hold the struct pages of *pfns*."""
    offset = pfns.start - addition.pfns.start
    last = addition.host_pages.lowest(kernel.arch.memmap_nr_pages(offset + len(pfns)))
    first = kernel.arch.memmap_bytes(offset) // kernel.arch.page_size_bytes
    return last - addition.host_pages.lowest(first)


def _touches_of_units(kernel: Kernel, memmap: Memmap, pfns: PfnRange) -> list[Touch]:
    """Return what onlining whole units writes of their memmaps, in order."""
    arch, unit, base = kernel.arch, memmap.unit_nr_pages, pfns.start + memmap.offset_nr_pages
    own_bytes = arch.memmap_bytes(memmap.hosted_nr_pages)
    first, whole = own_bytes // arch.page_size_bytes, arch.memmap_nr_pages(unit)
    if memmap.offset_nr_pages:
        frames = PfnStride(base, pfns.end, unit, whole)
        return [Touch("write", frames, "memmap_init_range", "the struct pages of every page")]
    own = PfnStride(base, pfns.end, unit, arch.memmap_nr_pages(memmap.hosted_nr_pages))
    rest = PfnStride(base + first, pfns.end, unit, whole - first)
    return [
        Touch("write", own, "mhp_init_memmap_on_memory", "the memmap's own struct pages"),
        Touch("write", rest, "memmap_init_range", "the struct pages of the other pages"),
    ]


def _give_to_buddy(kernel: Kernel, present: PfnSet | PfnRange, nr_hosted: int) -> int:
    """Free the pages that the online-page callback lets go; return how many."""
    callback = kernel.online_callback
    if callback is None:
        return len(present) - nr_hosted
    pages = PfnSet.of(present) - kernel.self_hosted
    released = callback(pages)
    withheld = pages - released
    kernel.fake_offline |= withheld
    if withheld:
        kernel.note(
            "fake-offline",
            f"{len(withheld)} pages withheld by the driver",
            withheld,
            "online_page_callback",
        )
    return len(released)


def _count_present(addition: Addition | None, zone: Zone, nr_pages: int) -> None:
    """Count pages as early, or in their group (``adjust_present_page_count``)."""
    if addition is None:
        zone.early_nr_pages += nr_pages
    elif addition.group is None:
        return
    elif zone.name == MOVABLE:
        addition.group.present_movable_nr_pages += nr_pages
    else:
        addition.group.present_kernel_nr_pages += nr_pages


def zone_for_pfn_range(kernel: Kernel, pfns: PfnRange, node: int, online_type: str) -> Zone:
    """Return the zone that the range would be onlined to (``zone_for_pfn_range``)."""
    kernel_zone = default_kernel_zone(kernel.kernel_zones(node), pfns)
    movable = kernel.movable_zone(node)
    if online_type == "online_kernel":
        return kernel_zone
    if online_type == "online_movable":
        return movable
    if kernel.tunables.online_policy == "auto-movable":
        return _auto_movable_zone(kernel, pfns, node)
    return zone_for_policy(kernel_zone, movable, pfns, kernel.tunables.movable_node)


def _auto_movable_zone(kernel: Kernel, pfns: PfnRange, node: int) -> Zone:
    """Return ZONE_MOVABLE while the ratio allows it (``auto_movable_zone_for_pfn``)."""
    kernel_zones = kernel.kernel_zones(node)
    addition = kernel.addition_of(pfns.start)
    group = addition.group if addition is not None else None
    start, nr_pages = pfns.start, len(pfns)
    if not kernel.tunables.auto_movable_ratio:
        return default_kernel_zone(kernel_zones, pfns)
    if group is not None and not group.unit_nr_pages:
        if group.present_kernel_nr_pages:
            return default_kernel_zone(kernel_zones, pfns)
        nr_pages = group.max_nr_pages - group.present_movable_nr_pages
    elif group is not None and group.unit_nr_pages != nr_pages:
        # The kernel goes on with the end of the unit; only that of a refusal in it is earlier.
        start = pfns.start // group.unit_nr_pages * group.unit_nr_pages
        unit = PfnRange(start, start + group.unit_nr_pages)
        kernel_part = _first_kernel_section(kernel, unit)
        if kernel_part is not None:
            return default_kernel_zone(kernel_zones, PfnRange(kernel_part, kernel_part + nr_pages))
        nr_pages = len(unit) - kernel.pages_of(kernel.online_blocks).count(unit)
        start = unit.end
    checked: list[tuple[list[Zone], int | None]] = [(list(kernel.zones.values()), None)]
    if kernel.tunables.auto_movable_numa_aware:
        checked.append((kernel.node_zones(node), node))
    if all(_ratio_allows(kernel, *zones, group, nr_pages) for zones in checked):
        return kernel.movable_zone(node)
    # The kernel looks for the zone with the length that it checked, not with the block's.
    return default_kernel_zone(kernel_zones, PfnRange(start, start + nr_pages))


def _first_kernel_section(kernel: Kernel, unit: PfnRange) -> int | None:
    """Return the first pfn of a unit that is online in a kernel zone, ``None`` if there is none."""
    starts = [
        (zone.present & unit).min()
        for zone in kernel.zones.values()
        if zone.name != MOVABLE and zone.present.count(unit)
    ]
    return min(starts, default=None)


def _ratio_allows(
    kernel: Kernel, zones: list[Zone], node: int | None, group: MemoryGroup | None, nr_pages: int
) -> bool:
    """Source: ``mm/memory_hotplug.c: auto_movable_can_online_movable``."""
    early = movable = 0
    for zone in zones:
        if zone.name == MOVABLE:
            movable += kernel.nr_present(zone)
        else:
            early += zone.early_nr_pages - zone.cma_nr_pages
            movable += zone.cma_nr_pages
    ratio, needed = kernel.tunables.auto_movable_ratio, 0
    for other in kernel.groups:
        # auto_movable_stats_account_group: what other devices balance within themselves.
        if other is not group and node in (None, other.node):
            share = other.present_movable_nr_pages * 100 // ratio - other.present_kernel_nr_pages
            needed += max(0, share)
            movable -= other.present_movable_nr_pages
    if early <= needed:
        return False
    early -= needed
    if group is not None and group.unit_nr_pages:
        early += group.present_kernel_nr_pages
    return movable + nr_pages <= ratio * early // 100


# --- offline -------------------------------------------------------------------------------


def memory_block_offline(kernel: Kernel, pfns: PfnRange) -> Outcome:
    """Offline one memory block: migrate what can be migrated, refuse otherwise."""
    if not kernel.nr_online(pfns):
        return Outcome.refused(errno.EINVAL, "state_store", f"{pfns} is offline already")
    zones = kernel.zones_of(pfns)
    refusal = _check_offline(kernel, pfns, zones)
    if refusal is not None:
        return refusal
    (zone,) = zones
    refusal = start_isolate_page_range(kernel, pfns, zone)
    if refusal is not None:
        return refusal
    last_of_node = not kernel.has_pages(zone.node, beyond=pfns)
    _read_struct_pages(kernel, pfns)
    refusal = _going_offline(kernel, zone, pfns, last_of_node)
    if refusal is None:
        refusal = _move_out(kernel, zone, pfns)
    if refusal is not None:
        kernel.notify("MEM_CANCEL_OFFLINE", pfns, zone.node)
        if last_of_node:
            kernel.notify("NODE_CANCEL_REMOVING_LAST_MEMORY", pfns, zone.node)
        return refusal
    kernel.changed_blocks |= kernel.blocks(pfns)
    init_per_zone_wmark_min(kernel)
    ids = kernel.block_ids(pfns)
    kernel.note("offlined", f"{_blocks(ids)} offline", pfns, "offline_pages")
    if not zone.present:
        kernel.build_all_zonelists()
    if last_of_node:
        kernel.notify("NODE_REMOVED_LAST_MEMORY", pfns, zone.node)
    kernel.notify("MEM_OFFLINE", pfns, zone.node)
    _uncount(kernel, zone, pfns)
    kernel.notify("MEM_FINISH_OFFLINE", pfns, zone.node)
    return OK


def _going_offline(
    kernel: Kernel, zone: Zone, pfns: PfnRange, last_of_node: bool
) -> Outcome | None:
    """Ask the listeners once the block's free pages are isolated."""
    actions = ["NODE_REMOVING_LAST_MEMORY"] if last_of_node else []
    for action in (*actions, "MEM_GOING_OFFLINE"):
        veto = kernel.notify(action, pfns, zone.node)
        if veto is not None:
            return _vetoed(veto, action)
    if not kernel.arch.offlines_boot_memory and kernel.boot_ram.count(pfns):
        return Outcome.refused(
            errno.EPERM,
            "prevent_bootmem_remove_notifier",
            f"{pfns} is boot memory, which arm64 never offlines",
            kind="veto",
        )
    return None


def _move_out(kernel: Kernel, zone: Zone, pfns: PfnRange) -> Outcome | None:
    """Empty the block and take its pages away, or leave all as it was and say why not."""
    refusal = scan_movable_pages(kernel, pfns)
    if refusal is not None:
        return refusal
    pinned = kernel.pinned & pfns
    moving = (kernel.movable & pfns) - pinned
    kernel.touch("read", moving, "migrate_pages", "pages in use")
    rotation = _huge_pages_may_rotate(kernel, zone, pfns)
    if rotation and not kernel.release.hugetlb_first_in_first_out:
        huge = kernel.hugetlb_pages() & pfns
        return endless_retry("huge pages take each other's place", huge, "hugetlb").doubted(
            "likely", rotation
        )
    zone.present -= pfns
    kernel.online_blocks -= kernel.blocks(pfns)
    targets = _migration_targets(kernel, zone, len(moving))
    stuck, kind = moving, "movable"
    if targets is not None:
        kernel.migrate(moving, targets)
        nodes = _migration_nodes(kernel, zone)
        stuck, kind = migrate_hugetlb(kernel, pfns, nodes, doubt=rotation), "hugetlb"
    if targets is None or stuck or pinned:
        zone.present |= _present_part(kernel, pfns)
        kernel.online_blocks |= kernel.blocks(pfns)
    if pinned:
        # What can move has moved by now, and stays where it is.
        why = f"{len(pinned)} pages are pinned, the first is pfn {pinned.min():#x}"
        return endless_retry(why, pinned, "pinned")
    if targets is None or stuck:
        return endless_retry(f"{len(stuck)} pages find no free page elsewhere", stuck, kind)
    if moving:
        kernel.note("migrated", f"{len(moving)} pages migrated", moving, "do_migrate_range")
    dissolve_free_hugetlb_folios(kernel, pfns)
    kernel.used -= pfns  # what is left are withdrawn pages
    kernel.fake_offline -= pfns
    kernel.never_onlined -= pfns
    kernel.unreferenced -= pfns
    kernel.settled -= pfns
    kernel.percpu -= pfns
    return None


def _huge_pages_may_rotate(kernel: Kernel, zone: Zone, pfns: PfnRange) -> str:
    """Tell why huge pages in use might never leave the block, empty if they will.

    The next target is the huge page that became free last; where that may lie in the same block,
    they can change places for ever (``mm/hugetlb.c: dequeue_hugetlb_folio_node_exact``).
    """
    if not kernel.release.hugetlb_dequeues_isolated:
        return ""
    if zone.node not in _migration_nodes(kernel, zone):
        return ""
    if any(pool.in_use.count(pfns) and pool.free_pages.count(pfns) for pool in kernel.pools()):
        return "huge pages in use may move to free ones of the block that is going offline"
    return ""


def _read_struct_pages(kernel: Kernel, pfns: PfnRange) -> None:
    """Read the struct pages of a block, in search of what cannot be moved."""
    addition = kernel.addition_of(pfns.start)
    if addition is not None:
        frames = (
            addition.memmap.frames_of(pfns)
            if addition.memmap.self_hosted
            else _host_frames(kernel, addition, pfns)
        )
        kernel.touch("read", frames, "has_unmovable_pages", f"the struct pages of {pfns}")


def _check_offline(kernel: Kernel, pfns: PfnRange, zones: list[Zone]) -> Outcome | None:
    if len(zones) != 1:
        return Outcome.refused(errno.EINVAL, "memory_block_offline", f"{pfns} has no single zone")
    if kernel.boot_ram.count(pfns) not in (0, len(pfns)):
        return Outcome.refused(errno.EINVAL, "offline_pages", f"{pfns} has memory holes")
    return _check_guests(kernel, pfns)


def _check_guests(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Refuse while the frames hold the memmap of memory that was added apart from them."""
    for other in kernel.additions:
        if other.memmap.host is not None and other.memmap.host.overlaps(pfns):
            return Outcome.refused(
                errno.EBUSY, "memory_block_offline", f"{pfns} holds the memmap of {other.pfns}"
            )
    return None


def _migration_targets(kernel: Kernel, zone: Zone, nr_pages: int) -> PfnSet | None:
    """Return the free pages that pages of the zone may move to; ``None`` if there are too few."""
    zones = [
        target
        for node in _migration_nodes(kernel, zone)
        for target in reversed(kernel.node_zones(node))
        if zone.name == MOVABLE or target.name != MOVABLE
    ]
    return kernel.find_free(zones, nr_pages)


def _migration_nodes(kernel: Kernel, zone: Zone) -> list[int]:
    """Return the nodes that pages of a zone move to: other nodes with memory, else its own.

    Source: ``mm/memory_hotplug.c: do_migrate_range``.
    """
    with_memory = {target.node for target in kernel.zones.values() if target.present}
    return sorted(with_memory - {zone.node}) or [zone.node]


def _uncount(kernel: Kernel, zone: Zone, pfns: PfnRange) -> None:
    shrink_span(zone, pfns, kernel.arch.subsection_nr_pages)
    _count_present(kernel.addition_of(pfns.start), zone, -len(pfns))


# --- remove --------------------------------------------------------------------------------


def try_remove_memory(kernel: Kernel, addition: Addition) -> Outcome:
    """Remove an added range whose blocks are all offline."""
    pfns = addition.pfns
    if kernel.nr_online(pfns):
        return Outcome.refused(errno.EBUSY, "try_remove_memory", f"{pfns} has online blocks")
    refusal = _check_guests(kernel, pfns)
    if refusal is not None:
        return refusal
    rfc2018.check_order_of_removal(kernel, addition)
    rfc2018.keep_marks(kernel, addition)
    function = kernel.policy.placement.written_at_add
    if addition.memmap.self_hosted and function is not None:
        # Unmapping looks at each page of the memmap for the marks that the add left.
        kernel.touch("read", _marked_frames(addition), "free_pagetable", "marks in the memmap")
    kernel.additions.remove(addition)
    kernel.added_blocks -= kernel.blocks(pfns)
    kernel.self_hosted -= pfns
    # Withdrawn pages leave the count with their block (memory.c: remove_memory_block).
    kernel.poisoned -= pfns
    kernel.free_pages(addition.host_pages)
    _free_page_tables(kernel)
    ids = kernel.block_ids(pfns)
    kernel.note("removed", f"{_blocks(ids)} removed", pfns, "try_remove_memory")
    return OK


def _free_page_tables(kernel: Kernel) -> None:
    """Free the page tables that no added memory needs any more."""
    surplus = len(kernel.page_tables) - page_table_nr_pages(kernel, kernel.additions)
    if surplus > 0:
        freed = kernel.page_tables.highest(surplus)
        kernel.page_tables -= freed
        kernel.free_pages(freed)


def offline_and_remove_memory(kernel: Kernel, pfns: PfnRange) -> Outcome:
    """Offline every block of one add that is online, then remove it.

    If a block refuses, those that went offline come back, each to the kind of zone that it had.
    """
    done: list[tuple[PfnRange, str]] = []
    for block in kernel.block_ids(pfns):
        if block not in kernel.online_blocks:
            continue
        block_pfns = kernel.block_pfns(block)
        zones = kernel.zones_of(block_pfns)
        movable = bool(zones) and zones[0].name == MOVABLE
        outcome = memory_block_offline(kernel, block_pfns)
        if not outcome:
            for online_pfns, online_type in done:
                memory_block_online(kernel, online_pfns, online_type)
            return outcome
        done.append((block_pfns, "online_movable" if movable else "online_kernel"))
    addition = kernel.addition_of(pfns.start)
    if addition is None or addition.pfns != pfns:
        return Outcome.refused(
            errno.EINVAL, "try_remove_memory", f"{pfns} is not what one add brought"
        )
    return try_remove_memory(kernel, addition)


def read_dump(kernel: Kernel, *, exclude_offline: bool) -> Outcome:
    """Read every present page of online blocks, as a dump of the running kernel does.

    Parameters
    ----------
    kernel : Kernel
    exclude_offline : bool
        The reader leaves out pages of type Offline, as makedumpfile can since v5.1's
        "mm/kdump: allow to exclude pages that are logically offline".
    """
    pages = PfnSet()
    for zone in kernel.zones.values():
        pages |= zone.present
    if exclude_offline:
        pages -= kernel.fake_offline
    kernel.touch("read", pages, "read_kcore", "the pages of online blocks")
    return OK


def _blocks(ids: range) -> str:
    return f"memory{ids.start}" if len(ids) == 1 else f"memory{ids.start}-{ids.stop - 1}"
