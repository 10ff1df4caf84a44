"""Watermarks and lowmem reserves: recomputed whenever memory goes online or offline."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from altmap.kernel.state import Kernel
from altmap.kernel.zone import MOVABLE, Zone

__all__ = ("Watermarks", "watermarks")

_SCALE_FACTOR = 10  # vm.watermark_scale_factor, of 10000
#: vm.lowmem_reserve_ratio; zones not named have no reserve.
_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32}
#: khugepaged wants two pageblocks per zone, and one for each pair of the three pcp migratetypes.
_KHUGEPAGED_PAGEBLOCKS = 2 + 3 * 3


@dataclass(frozen=True, slots=True)
class Watermarks:
    """One zone's watermarks in pages, and its reserve against each zone of the node."""

    min: int
    low: int
    high: int
    promo: int
    protection: tuple[int, ...]


def watermarks(
    kernel: Kernel, managed: dict[tuple[int, str], int], *, khugepaged: bool = True
) -> dict[tuple[int, str], Watermarks]:
    """Return each zone's watermarks for the given managed pages.

    Parameters
    ----------
    kernel : Kernel
    managed : dict
        ``(node, zone)`` to managed pages.
    khugepaged : bool
        Transparent huge pages are enabled, so khugepaged raises ``min_free_kbytes``.

    Notes
    -----
    Source: ``mm/page_alloc.c: init_per_zone_wmark_min, __setup_per_zone_wmarks,
    setup_per_zone_lowmem_reserve``; ``mm/khugepaged.c: set_recommended_min_free_kbytes``. The
    kernel starts from the high watermarks it had; here their fixed point is taken.
    """
    page_kib = kernel.arch.page_size_bytes // 1024
    high = dict.fromkeys(managed, 0)
    marks: dict[tuple[int, str], tuple[int, int, int, int]] = {}
    for _ in range(3):
        lowmem = _free_buffer_nr_pages(kernel, managed, high)
        min_free = max(128, min(262144, isqrt(16 * lowmem * page_kib))) // page_kib
        marks = _marks(kernel, managed, min_free)
        high = {key: mark[2] for key, mark in marks.items()}
        if khugepaged:
            wanted = min(
                _khugepaged_nr_pages(kernel, managed),
                _free_buffer_nr_pages(kernel, managed, high) // 20,
            )
            if wanted > min_free:
                marks = _marks(kernel, managed, wanted)
                high = {key: mark[2] for key, mark in marks.items()}
    return {
        key: Watermarks(*mark, _protection(kernel.node_zones(key[0]), key, managed))
        for key, mark in marks.items()
    }


def _free_buffer_nr_pages(
    kernel: Kernel, managed: dict[tuple[int, str], int], high: dict[tuple[int, str], int]
) -> int:
    """Return ``nr_free_buffer_pages``: kernel zones above their high watermark."""
    return sum(
        max(0, managed[key] - high[key]) for key in managed if key[1] != MOVABLE
    ) if kernel.zones else 0


def _khugepaged_nr_pages(kernel: Kernel, managed: dict[tuple[int, str], int]) -> int:
    populated = sum(1 for key in managed if key[1] != MOVABLE and kernel.zones[key].present)
    return _KHUGEPAGED_PAGEBLOCKS * kernel.arch.pageblock_nr_pages * populated


def _marks(
    kernel: Kernel, managed: dict[tuple[int, str], int], min_free_nr_pages: int
) -> dict[tuple[int, str], tuple[int, int, int, int]]:
    counts_movable = kernel.release.lowmem_includes_movable
    lowmem = sum(n for key, n in managed.items() if counts_movable or key[1] != MOVABLE)
    marks = {}
    for key, nr_pages in managed.items():
        share = min_free_nr_pages * nr_pages // lowmem if lowmem else 0
        least = share
        if key[1] == MOVABLE and not counts_movable:
            least = min(max(nr_pages // 1024, 32), 128)
        distance = max(share >> 2, nr_pages * _SCALE_FACTOR // 10000)
        marks[key] = (least, least + distance, least + 2 * distance, least + 3 * distance)
    return marks


def _protection(
    zones: list[Zone], key: tuple[int, str], managed: dict[tuple[int, str], int]
) -> tuple[int, ...]:
    ratio = _RESERVE_RATIO.get(key[1], 0) if managed[key] else 0
    names = [zone.name for zone in zones]
    reserves, above = [], 0
    for zone in zones:
        if names.index(zone.name) > names.index(key[1]):
            above += managed[zone.key]
        reserves.append(above // ratio if ratio else 0)
    return tuple(reserves)
