"""Reclaim: pages that an allocation for migration makes free: clean page cache, and swap.

Migration allocates its targets with ``GFP_USER | __GFP_MOVABLE | __GFP_RETRY_MAYFAIL`` (``mm/
memory_hotplug.c: do_migrate_range``), which wakes kswapd at the low watermarks and then reclaims
directly, as long as free and reclaimable pages of one zone reach its minimum watermark and its
reserve (``mm/page_alloc.c: __alloc_pages_slowpath, should_reclaim_retry``). It never calls the
OOM killer (``__alloc_pages_may_oom``); what other allocations then meet does.

Reclaimable are the LRU lists of files and, where swap has room, those of anonymous pages, which
tmpfs and shared memory are on too (``mm/vmscan.c: zone_reclaimable_pages, can_reclaim_anon_pages``;
``mm/shmem.c: shmem_writepage``). Page cache goes first while there is plenty of it (``mm/vmscan.c:
prepare_scan_control``, ``cache_trim_mode``). Mlocked pages are on no list that is scanned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from altmap.model.kernel.allocator import free_pages, headroom
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.pfn import PfnRange, PfnSet

__all__ = ("Reclaimed", "reclaim")


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Pages that were reclaimed: of page cache dropped, and swapped out."""

    dropped: PfnSet
    swapped: PfnSet


def reclaim(
    kernel: Kernel, zones: Sequence[Zone], zone_of_range: Zone, pfns: PfnRange, nr_pages: int
) -> Reclaimed:
    """Free pages of zones until they can give a number of pages, or nothing is left to reclaim.

    Pages outside the range that is going offline go first. Those inside it are isolated from the
    LRU lists while they are migrated; they are put back if that fails, and can then be reclaimed,
    so that they need not move.

    Parameters
    ----------
    kernel : Kernel
    zones : sequence of Zone
        The zones that may serve the allocation; only their LRU lists are scanned.
    zone_of_range : Zone
        The zone that the range has left; its own pages are scanned if it is among *zones*.
    pfns : PfnRange
        The range that is going offline.
    nr_pages : int
        Pages of the range that have to move.
    """
    keep = kernel.pinned
    dropped, swapped = PfnSet(), PfnSet()
    left = nr_pages - _room_nr_pages(kernel, zones)
    for zone in zones if left > 0 else ():
        gap = max(0, -headroom(kernel, zone, zones, "low"))
        clean, anonymous = _reclaimable(kernel, zone.present - pfns - keep)
        if len(clean) + min(len(anonymous), kernel.swap_free_nr_pages) <= gap:
            continue  # all of it would only fill the zone up to its watermark
        wanted = min(left + gap, len(clean) + len(anonymous))
        taken = _take(kernel, clean, anonymous, wanted)
        left -= len(taken.dropped) + len(taken.swapped) - gap
        dropped |= taken.dropped
        swapped |= taken.swapped
        if left <= 0:
            break
    if left > 0 and zone_of_range in zones:
        taken = _take(kernel, *_reclaimable(kernel, PfnSet.of(pfns) - keep), left)
        dropped |= taken.dropped
        swapped |= taken.swapped
    return Reclaimed(dropped, swapped)


def _room_nr_pages(kernel: Kernel, zones: Sequence[Zone]) -> int:
    return sum(max(0, headroom(kernel, zone, zones, "low")) for zone in zones)


def _reclaimable(kernel: Kernel, among: PfnSet) -> tuple[PfnSet, PfnSet]:
    return kernel.clean_cache & among, kernel.swappable & among


def _take(kernel: Kernel, clean: PfnSet, anonymous: PfnSet, nr_pages: int) -> Reclaimed:
    """Reclaim up to a number of pages: page cache first, then as much as swap has room for."""
    dropped = clean.lowest(nr_pages)
    swapped = anonymous.lowest(min(nr_pages - len(dropped), kernel.swap_free_nr_pages))
    kernel.swap_free_nr_pages -= len(swapped)
    for name, held in kernel.files.items():
        if held.count(swapped.span()) if swapped else 0:
            kernel.files[name] = held - swapped
    free_pages(kernel, dropped | swapped)
    return Reclaimed(dropped, swapped)
