"""Watermarks and lowmem reserves: computed anew when memory goes online or offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Watermarks, Zone

__all__ = (
    "ShownWatermarks",
    "adjust_managed_page_count",
    "adopt_watermarks",
    "init_per_zone_wmark_min",
    "si_mem_available_nr_pages",
    "totalreserve_nr_pages",
)

#: A zone's managed pages and watermarks, as a machine shows them.
ShownWatermarks = tuple[int, Watermarks]

_SCALE_FACTOR = 10  # vm.watermark_scale_factor, of 10000
#: vm.lowmem_reserve_ratio; zones not named have no reserve.
_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32}
#: khugepaged wants two pageblocks per zone, and one for each pair of the three pcp migratetypes.
_KHUGEPAGED_PAGEBLOCKS = 2 + 3 * 3


def init_per_zone_wmark_min(
    kernel: Kernel, zone: Zone | None = None, missing_nr_pages: Sequence[int] = (0,)
) -> None:
    """Set every zone's watermarks and reserves from its managed pages.

    The high watermarks that are in force enter the result, as in the kernel. Blocks that arrived
    together arrived one after the other, and each set the watermarks anew.
    Source: ``mm/page_alloc.c: init_per_zone_wmark_min, __setup_per_zone_wmarks,
    setup_per_zone_lowmem_reserve``; ``mm/khugepaged.c: set_recommended_min_free_kbytes``.

    Parameters
    ----------
    kernel : Kernel
    zone : Zone, optional
        The zone that pages were onlined to.
    missing_nr_pages : sequence of int
        How many of its pages were not online yet at each time that watermarks were set.
    """
    if not kernel.computes_watermarks:
        return
    online = kernel.online_nodes()
    zones = [each for each in kernel.zones.values() if each.node in online]
    now = [kernel.nr_managed(each) for each in zones]
    managed = now
    for missing in missing_nr_pages:
        managed = [
            nr_pages - missing if each is zone else nr_pages
            for each, nr_pages in zip(zones, now, strict=True)
        ]
        _set_all(kernel, zones, managed)
    _set_reserves(zones, managed)


def adopt_watermarks(kernel: Kernel, shown: Mapping[tuple[int, str], ShownWatermarks]) -> None:
    """Set the managed pages and watermarks that a machine shows, and the rule that it follows.

    With or without khugepaged, the rule must give the ``min_free_kbytes`` in force. Zones' shares
    may differ: they were set before the kernel freed the last of its boot memory. If neither
    agrees, ``min_free_kbytes`` was set by hand, and watermarks stay as they are.

    Parameters
    ----------
    kernel : Kernel
    shown : mapping
        Zone to its managed pages and watermarks; zones that are left out have none.
    """
    for key, (managed, _) in shown.items():
        zone = kernel.zones[key]
        zone.managed_offset = managed - kernel.nr_managed(zone)
    kernel.computes_watermarks = any(
        _rule_holds(kernel, shown, khugepaged) for khugepaged in (True, False)
    )
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks()
    _show(kernel, shown)


def _show(kernel: Kernel, shown: Mapping[tuple[int, str], ShownWatermarks]) -> None:
    for key, (_, marks) in shown.items():
        kernel.zones[key].watermarks = marks


def _rule_holds(
    kernel: Kernel, shown: Mapping[tuple[int, str], ShownWatermarks], khugepaged: bool
) -> bool:
    _show(kernel, shown)
    kernel.tunables.khugepaged = khugepaged
    in_force = _min_free_nr_pages(kernel)
    init_per_zone_wmark_min(kernel)
    computed = _min_free_nr_pages(kernel)
    return abs(in_force - computed) <= computed // 50 + len(shown)


def _min_free_nr_pages(kernel: Kernel) -> int:
    return sum(z.watermarks.min for z in kernel.zones.values() if z.name != MOVABLE)


def si_mem_available_nr_pages(kernel: Kernel) -> int:
    """Return MemAvailable in pages, but for caches and slab that could be reclaimed.

    Source: ``mm/show_mem.c: si_mem_available``.
    """
    return max(0, kernel.free_nr_pages() - totalreserve_nr_pages(kernel))


def adjust_managed_page_count(kernel: Kernel) -> None:
    """Set the reserves anew after a change of managed pages outside of online and offline.

    Watermarks stay, and so do the reserves on releases that do not set them here.
    Source: ``mm/page_alloc.c: adjust_managed_page_count``.
    """
    if not kernel.computes_watermarks or not kernel.release.reserves_follow_managed:
        return
    online = kernel.online_nodes()
    zones = [zone for zone in kernel.zones.values() if zone.node in online]
    _set_reserves(zones, [kernel.nr_managed(zone) for zone in zones])


def totalreserve_nr_pages(kernel: Kernel) -> int:
    """Return the free pages that are not available to processes.

    They are summed up when watermarks or reserves are set: pages that a driver takes out of a zone
    later still count.
    Source: ``mm/page_alloc.c: calculate_totalreserve_pages``; MemAvailable leaves them out
    (``mm/show_mem.c: si_mem_available``).
    """
    total = 0
    for zone in kernel.zones.values():
        marks = zone.watermarks
        managed = marks.managed if kernel.computes_watermarks else None
        reserve = max(marks.protection, default=0) + marks.high
        total += min(kernel.nr_managed(zone) if managed is None else managed, reserve)
    return total


def _set_all(kernel: Kernel, zones: list[Zone], managed: list[int]) -> None:
    page_kib = kernel.arch.page_size_bytes // 1024
    free_kib = _free_buffer_nr_pages(zones, managed) * page_kib
    min_free = max(128, min(262144, isqrt(16 * free_kib))) // page_kib
    _set(kernel, zones, managed, min_free)
    if kernel.tunables.khugepaged:
        # populated_zone() asks for present pages, whether any is managed yet or not.
        populated = sum(1 for zone in zones if zone.name != MOVABLE and zone.present)
        wanted = min(
            _KHUGEPAGED_PAGEBLOCKS * kernel.arch.pageblock_nr_pages * populated,
            _free_buffer_nr_pages(zones, managed) // 20,
        )
        if wanted > min_free:
            _set(kernel, zones, managed, wanted)


def _free_buffer_nr_pages(zones: list[Zone], managed: list[int]) -> int:
    """Return ``nr_free_buffer_pages``: kernel zones' pages above their high watermark."""
    return sum(
        max(0, nr_pages - zone.watermarks.high)
        for zone, nr_pages in zip(zones, managed, strict=True)
        if zone.name != MOVABLE
    )


def _set(kernel: Kernel, zones: list[Zone], managed: list[int], min_free_nr_pages: int) -> None:
    """Set the watermarks; the reserves, which no watermark depends on, stay."""
    counts_movable = kernel.release.lowmem_includes_movable
    lowmem = sum(
        nr_pages
        for zone, nr_pages in zip(zones, managed, strict=True)
        if counts_movable or zone.name != MOVABLE
    )
    for zone, nr_pages in zip(zones, managed, strict=True):
        share = min_free_nr_pages * nr_pages // lowmem if lowmem else 0
        least = share
        if zone.name == MOVABLE and not counts_movable:
            least = min(max(nr_pages // 1024, 32), 128)
        step = max(share >> 2, nr_pages * _SCALE_FACTOR // 10000)
        zone.watermarks = Watermarks(
            least,
            least + step,
            least + 2 * step,
            least + 3 * step,
            zone.watermarks.protection,
            nr_pages,
        )


def _set_reserves(zones: list[Zone], managed: list[int]) -> None:
    """Set each zone's reserve against each zone of its node, lowest first."""
    counts = list(zip(zones, managed, strict=True))
    for zone, nr_pages in counts:
        ratio = _RESERVE_RATIO.get(zone.name, 0) if nr_pages else 0
        reserves, above, is_above = [], 0, False
        for other, nr_other in counts:
            if other.node != zone.node:
                continue
            above += nr_other if is_above else 0
            is_above |= other is zone
            reserves.append(above // ratio if ratio else 0)
        marks = zone.watermarks
        zone.watermarks = Watermarks(
            marks.min, marks.low, marks.high, marks.promo, tuple(reserves), nr_pages
        )
