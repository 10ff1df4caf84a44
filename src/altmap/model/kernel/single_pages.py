"""Single pages from the page allocator: which free pages, of which zone, come first.

A zone's free pages are listed by the migratetype of their pageblock. An allocation takes those of
its own type first. Then it claims free memory of other types: whole pageblocks at first, smaller
chunks not before the lower zones have no whole pageblock left either.
Source: ``mm/page_alloc.c: get_page_from_freelist, alloc_flags_nofragment, __rmqueue`` (6.1 to 7.3;
``__rmqueue_fallback``, in later releases ``__rmqueue_claim`` and ``__rmqueue_steal``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from altmap.model.kernel.allocator import available, in_list_order
from altmap.model.kernel.pool import aligned_chunks, whole_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import PfnSet

__all__ = ("find_movable_pages", "find_unmovable_pages", "unmovable_pageblocks")


def find_unmovable_pages(kernel: Kernel, node: int, nr_pages: int) -> list[PfnSet]:
    """Return free pages for allocations of one unmovable page each (``GFP_HIGHUSER``).

    Returns
    -------
    list of PfnSet
        In the order in which they are allocated; together *nr_pages*, or fewer if the zones are at
        their reserves. Which frames of a set come first is not predicted.
    """
    zones = [zone for zone in reversed(kernel.kernel_zones(node)) if zone.present]
    return _find(kernel, zones, nr_pages, movable=False)


def find_movable_pages(kernel: Kernel, zones: Sequence[Zone], nr_pages: int) -> PfnSet:
    """Return free pages of zones for files and for pages that move, the first zone first.

    Returns
    -------
    PfnSet
        *nr_pages*, or fewer if the zones are at their reserves.
    """
    return PfnSet.of(*_find(kernel, zones, nr_pages, movable=True))


def _find(kernel: Kernel, zones: Sequence[Zone], nr_pages: int, *, movable: bool) -> list[PfnSet]:
    taken, done = list[PfnSet](), PfnSet()
    for zone, pages, mark in _in_order(kernel, zones, movable=movable):
        if len(done) == nr_pages:
            break
        spare = available(kernel, zone, zones, mark) - done.count(zone.present)
        wanted = min(nr_pages - len(done), spare)
        if wanted > 0:
            taken += in_list_order(kernel, pages - done, wanted)
            done = PfnSet.of(*taken)
    return taken


def _in_order(
    kernel: Kernel, zones: Sequence[Zone], *, movable: bool
) -> Iterator[tuple[Zone, PfnSet, str]]:
    """Yield zones with the free pages that they offer, down to which watermark."""
    block = kernel.arch.pageblock_nr_pages
    for mark in ("low", "min"):
        if mark == "low" and _avoids_fragments(kernel, zones):
            for zone in zones:
                own, other = _by_type(kernel, zone, movable=movable)
                yield zone, own, mark
                yield zone, aligned_chunks(other, block), mark
        for zone in zones:
            if not movable:  # of boot memory it is not known which pageblocks are unmovable
                yield zone, kernel.free(zone), mark
                continue
            for pages in _by_type(kernel, zone, movable=True):
                yield zone, pages, mark


def _by_type(kernel: Kernel, zone: Zone, *, movable: bool) -> tuple[PfnSet, PfnSet]:
    """Return the zone's free pages in pageblocks of the allocation's own type, and the others."""
    free = kernel.free(zone)
    unmovable = free & unmovable_pageblocks(kernel, zone)
    return (free - unmovable, unmovable) if movable else (unmovable, free - unmovable)


def _avoids_fragments(kernel: Kernel, zones: Sequence[Zone]) -> bool:
    """Tell whether a first pass leaves pageblocks of other types whole.

    It does where the first zone is ZONE_NORMAL of an architecture with ZONE_DMA32, which must
    have pages if there is more than one node.
    """
    if not zones or zones[0].name != "Normal":
        return False
    below = kernel.zones.get((zones[0].node, "DMA32"))
    return below is not None and (len(kernel.online_nodes()) == 1 or bool(below.present))


def unmovable_pageblocks(kernel: Kernel, zone: Zone) -> PfnSet:
    """Return the pages of pageblocks that unmovable allocations have claimed.

    No file shows the type of a pageblock: one with an unmovable page counts as unmovable, although
    some are reclaimable. An allocation claims the largest free chunk, up to the maximum order
    (``mm/page_alloc.c: __rmqueue_claim``): all its pageblocks, but for those with pages that move.
    ZONE_MOVABLE has none.
    """
    if zone.name == MOVABLE:
        return PfnSet()
    block = kernel.arch.pageblock_nr_pages
    fixed = whole_chunks(kernel.unmovable(zone.span) & zone.present, block)
    claimed = whole_chunks(fixed, max(block, 1 << kernel.arch.max_page_order))
    others = whole_chunks(kernel.movable & (claimed - fixed), block)
    return (claimed - others) & zone.present
