"""``/proc/buddyinfo`` as the modelled kernel shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.pfn import PfnSet

__all__ = ("buddyinfo_shown", "free_chunks", "zone_chunks")


def buddyinfo_shown(
    base: dict[tuple[int, str], tuple[int, ...]] | None,
    kernel: Kernel,
    start: Mapping[tuple[int, str], Sequence[int]],
    now: Mapping[tuple[int, str], Sequence[int]],
) -> dict[tuple[int, str], tuple[int, ...]] | None:
    """Return the free chunks of each populated zone by order; no number falls below 0."""
    if base is None:
        return None
    none = (0,) * _nr_orders(kernel)
    return {
        zone.key: tuple(
            max(0, shown + after - before)
            for shown, before, after in zip(
                base.get(zone.key, none), start.get(zone.key, none), now[zone.key], strict=False
            )
        )
        for zone in kernel.zones.values()
        if kernel.nr_present(zone)
    }


def zone_chunks(kernel: Kernel, zone: Zone) -> list[int]:
    """Return how many free chunks of each order a zone has."""
    return free_chunks(kernel.free(zone), _nr_orders(kernel))


def _nr_orders(kernel: Kernel) -> int:
    return kernel.arch.max_page_order + 1


def free_chunks(pages: PfnSet, nr_orders: int) -> list[int]:
    """Return how many free chunks of each order the buddy allocator makes of the pages.

    Chunks merge as far as their alignment and the highest order allow.
    """
    chunks = [0] * nr_orders
    for run in pages.ranges():
        pfn = run.start
        top = 1 << (nr_orders - 1)
        while pfn < run.end:
            aligned = -(-pfn // top) * top
            if pfn == aligned and run.end - pfn >= top:
                whole = (run.end - pfn) // top
                chunks[-1] += whole
                pfn += whole * top
                continue
            order = min((pfn & -pfn).bit_length() - 1 if pfn else nr_orders - 1, nr_orders - 1)
            while 1 << order > run.end - pfn:
                order -= 1
            chunks[order] += 1
            pfn += 1 << order
    return chunks
