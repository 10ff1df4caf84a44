"""The page allocator: which free pages an allocation gets, and how many a zone can give.

Source: ``mm/page_alloc.c: get_page_from_freelist, __alloc_pages_slowpath, __zone_watermark_ok``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from altmap.model.kernel.pool import aligned_chunks, whole_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.kernel.zonelists import kernel_zonelist
from altmap.pfn import PfnSet

__all__ = (
    "alloc_named",
    "allocate",
    "allocate_on_node",
    "available",
    "available_nr_pages",
    "find_aligned_units",
    "find_free",
    "find_most_free",
    "free_named",
    "free_pages",
    "headroom",
    "in_list_order",
    "takes_onlined_first",
)


def allocate(kernel: Kernel, node: int, nr_pages: int) -> PfnSet | None:
    """Allocate unmovable pages, from the node's kernel zones first; ``None`` if too few."""
    taken = find_free(kernel, list(kernel_zonelist(kernel, node)), nr_pages)
    if taken is not None:
        kernel.used |= taken
    return taken


def allocate_on_node(kernel: Kernel, node: int, nr_pages: int) -> None:
    """Allocate pages that are never freed from a node's own kernel zones, as many as they have."""
    zones = list(reversed(kernel.kernel_zones(node)))
    kernel.used |= find_most_free(kernel, zones, nr_pages)


def free_pages(kernel: Kernel, pages: PfnSet) -> None:
    """Free used pages to the buddy allocator."""
    kernel.used -= pages
    kernel.movable -= pages
    kernel.pinned -= pages
    kernel.clean_cache -= pages
    kernel.swappable -= pages


def alloc_named(kernel: Kernel, name: str, nr_pages: int) -> bool:
    """Allocate unmovable pages that are freed by their name; false if there are too few."""
    taken = allocate(kernel, min(kernel.cpu_nodes), nr_pages)
    if taken is None:
        return False
    kernel.kernel_allocations[name] = taken
    return True


def free_named(kernel: Kernel, name: str) -> None:
    """Free what :func:`alloc_named` allocated."""
    free_pages(kernel, kernel.kernel_allocations.pop(name))


def find_free(kernel: Kernel, zones: Sequence[Zone], nr_pages: int) -> PfnSet | None:
    """Return free pages of the zones, the first zone first; ``None`` if there are too few.

    Each zone gives pages down to its low watermark; only when all have, down to the minimum.
    Source: ``mm/page_alloc.c: get_page_from_freelist, __alloc_pages_slowpath``.
    """
    taken = find_most_free(kernel, zones, nr_pages)
    return taken if len(taken) == nr_pages else None


def find_most_free(kernel: Kernel, zones: Sequence[Zone], nr_pages: int) -> PfnSet:
    """Return what :func:`find_free` does, or as many pages as the zones can give."""
    taken = PfnSet()
    for mark in ("low", "min"):
        for zone in zones:
            left = nr_pages - len(taken)
            spare = available(kernel, zone, zones, mark) - taken.count(zone.present)
            wanted = min(left, spare)
            if wanted <= 0:
                continue
            free = kernel.free(zone)
            free -= taken
            for part in in_list_order(kernel, free, wanted):
                taken |= part
    return taken


def in_list_order(kernel: Kernel, free: PfnSet, wanted: int) -> list[PfnSet]:
    """Return free pages, at most *wanted*, by their place in the buddy allocator's lists.

    The lists are served from their heads, where older memory is: boot memory, then added memory in
    the order in which it went online. Which frames of boot memory a real kernel takes is not
    predicted; the highest free ones stand for them.

    Where :func:`takes_onlined_first`, what is left of a chunk that was claimed before is used up
    first, and less than a pageblock finds a place in boot memory.
    """
    late = [free - kernel.boot_ram, *(free & part for part in kernel.onlined)]
    late[0] -= PfnSet(kernel.onlined)
    early = free - PfnSet.of(*late)
    if not takes_onlined_first(kernel):
        return _first(wanted, early.highest, *(part.lowest for part in late))
    block, chunk = kernel.arch.pageblock_nr_pages, 1 << kernel.arch.max_page_order
    last_first = [part.highest for part in reversed(late)]
    claimed = early & whole_chunks(PfnSet.of(early.highest(1)), chunk)
    if len(claimed) == chunk:
        claimed = PfnSet()
    rest = early - claimed
    if wanted - len(claimed) < block:
        return _first(wanted, claimed.highest, rest.highest, *last_first)
    return _first(wanted, claimed.highest, *last_first, rest.highest)


def _first(wanted: int, *takes: Callable[[int], PfnSet]) -> list[PfnSet]:
    """Return pages, at most *wanted*, of one part after the other."""
    taken = []
    for take in takes:
        part = take(wanted)
        wanted -= len(part)
        if part:
            taken.append(part)
    return taken


def takes_onlined_first(kernel: Kernel) -> bool:
    """Tell whether what went online last is at the head of the lists.

    With ``release.onlined_first`` and more than two pageblocks in a chunk of the maximum order: the
    last pageblock that is no longer isolated frees its whole chunk anew.
    Source: ``mm/page_isolation.c: unset_migratetype_isolate``; ``mm/page_alloc.c:
    move_freepages_block_isolate, split_large_buddy, __free_one_page``.
    """
    chunk = 1 << kernel.arch.max_page_order
    return kernel.release.onlined_first and chunk > 2 * kernel.arch.pageblock_nr_pages


def find_aligned_units(kernel: Kernel, unit_nr_pages: int, nr_units: int) -> PfnSet:
    """Return free aligned units of kernel zones: as many as can be allocated, up to a number.

    An allocation that does not retry (``__GFP_NORETRY | __GFP_NOMEMALLOC``) gets memory down to
    the minimum watermarks.
    """
    taken = PfnSet()
    zones = list(kernel_zonelist(kernel, min(kernel.cpu_nodes)))
    for zone in zones:
        spare = available(kernel, zone, zones, "min") // unit_nr_pages
        wanted = min(spare, nr_units - len(taken) // unit_nr_pages)
        if wanted > 0:
            free = aligned_chunks(kernel.free(zone), unit_nr_pages)
            for part in in_list_order(kernel, free, wanted * unit_nr_pages):
                taken |= part
    return taken


def available_nr_pages(kernel: Kernel, enough: int | None = None) -> int:
    """Return how many pages GFP_KERNEL can allocate until every zone is at its reserve.

    Zones are counted from the highest on, until there is *enough* if that is given.
    """
    zones = [zone for zone in kernel.zones.values() if zone.name != MOVABLE]
    found = 0
    for zone in reversed(zones):
        if enough is not None and found >= enough:
            break
        found += available(kernel, zone, zones, "min")
    return found


def available(kernel: Kernel, zone: Zone, zones: Sequence[Zone], mark: str) -> int:
    """Return how many pages a zone can give to an allocation that may come from the zones.

    It keeps its watermark, its reserve against allocations that could come from higher zones, and
    at the minimum the boost that fragmentation brings when its last large chunks go. Its CMA area
    serves movable pages only; how much of that is free is not known, and all of it is assumed.
    Source: ``mm/page_alloc.c: __zone_watermark_ok, boost_watermark``.

    Parameters
    ----------
    kernel : Kernel
    zone : Zone
    zones : sequence of Zone
        Among them *zone*.
    mark : str
        The watermark: ``low`` or ``min``.
    """
    return max(0, headroom(kernel, zone, zones, mark))


def headroom(kernel: Kernel, zone: Zone, zones: Sequence[Zone], mark: str) -> int:
    """Return the same as :func:`available`; below 0 is what the zone lacks."""
    marks = zone.watermarks
    of_node = kernel.node_zones(zone.node)
    highest = max(index for index, each in enumerate(of_node) if each in zones)
    kept = marks.protection[highest] if highest < len(marks.protection) else 0
    boost = 0 if kept or mark == "low" or zone.name == MOVABLE else kernel.arch.pageblock_nr_pages
    cma = 0 if any(each.name == MOVABLE for each in zones) else zone.cma_nr_pages
    return kernel.nr_free(zone) - cma - int(getattr(marks, mark)) - kept - boost
