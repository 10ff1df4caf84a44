"""Extractors of counters: meminfo, vmstat, zoneinfo, buddyinfo and the files of nodes.

Pages on per-CPU lists are free, but no counter of free pages includes them. How many there are is
chance, and zoneinfo shows it: every value of free memory here includes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from altmap.compare.side import Key, Side, Values
from altmap.linux.zoneinfo import ZoneInfo

__all__ = (
    "buddy_free",
    "if_shared",
    "meminfo",
    "meminfo_free",
    "node_free",
    "node_huge_pages",
    "node_lists",
    "node_meminfo",
    "of_spanning_zones",
    "shared_managed",
    "shared_watermarks",
    "unless_at_floor",
    "unless_shared",
    "unless_shared_before",
    "vmstat",
    "vmstat_free",
    "with_balloon",
    "zone_free",
    "zone_pages",
    "zone_protection",
    "zone_start",
    "zone_watermark",
)

_Pairs = Iterator[tuple[Key, Any]]


def meminfo(name: str) -> Values:
    """Return the extractor of one line of ``/proc/meminfo``."""

    def values(side: Side) -> _Pairs:
        yield from _line(side.seen.meminfo or {}, name)

    return values


def meminfo_free(name: str) -> Values:
    """Return the extractor of one line of ``/proc/meminfo`` in kB, with per-CPU lists."""

    def values(side: Side) -> _Pairs:
        waiting_kib = _on_cpu_lists(side.seen.zoneinfo or ()) * side.page_kib
        for key, kib in _line(side.seen.meminfo or {}, name):
            yield key, kib + waiting_kib

    return values


def vmstat(name: str) -> Values:
    """Return the extractor of one line of ``/proc/vmstat``."""

    def values(side: Side) -> _Pairs:
        yield from _line(side.seen.vmstat or {}, name)

    return values


def vmstat_free(side: Side) -> _Pairs:
    """Yield ``nr_free_pages``, with per-CPU lists."""
    for key, pages in _line(side.seen.vmstat or {}, "nr_free_pages"):
        yield key, pages + _on_cpu_lists(side.seen.zoneinfo or ())


def zone_pages(name: str) -> Values:
    """Return the extractor of one number of pages of each zone."""

    def values(side: Side) -> _Pairs:
        for zone in side.seen.zoneinfo or ():
            yield from _line(zone.pages, name, zone.key)

    return values


def of_spanning_zones(values: Values) -> Values:
    """Return an extractor of zones without those that span no page.

    Whether a kernel lists them depends on its configuration, not on the layout of memory.
    """

    def kept(side: Side) -> _Pairs:
        spanning = {zone.key for zone in side.seen.zoneinfo or () if zone.pages.get("spanned")}
        yield from (pair for pair in values(side) if pair[0] in spanning)

    return kept


def unless_shared(values: Values) -> Values:
    """Return an extractor of what is certain of a zone, unless zones share a balloon's pages."""
    return lambda side: () if side.shares_zones else values(side)


def unless_shared_before(values: Values) -> Values:
    """Return an extractor of what was set by managed pages that zones may have shared then."""
    return lambda side: () if side.shared_before else values(side)


def if_shared(values: Values) -> Values:
    """Return an extractor of what depends on which zones gave a balloon its pages."""
    return lambda side: values(side) if side.shares_zones else ()


def unless_at_floor(values: Values) -> Values:
    """Return an extractor of what is certain unless a guest had too few pages for its balloon."""
    return lambda side: () if side.ballooned is not None else values(side)


def with_balloon(values: Values, unit: Callable[[Side], int]) -> Values:
    """Return an extractor of the sum of values and the pages of a balloon at the guest's floor.

    How many pages the balloon has is chance, this sum is not. *unit* is what a page counts.
    """

    def total(side: Side) -> _Pairs:
        found = dict(values(side))
        if side.ballooned is not None and found and None not in found.values():
            yield (), sum(found.values()) + unit(side) * side.ballooned

    return total


def shared_managed(side: Side) -> _Pairs:
    """Yield the managed pages of all zones, which is certain whatever zones a balloon has."""
    if side.shares_zones:
        yield (), sum(zone.pages.get("managed", 0) for zone in side.seen.zoneinfo or ())


def zone_watermark(name: str) -> Values:
    """Return the extractor of one watermark of each zone, without the boost.

    A boost follows fragmentation, decays by itself, and is part of every watermark shown.
    """

    def values(side: Side) -> _Pairs:
        for zone in side.seen.zoneinfo or ():
            for key, pages in _line(zone.pages, name, zone.key):
                yield key, pages - zone.pages.get("boost", 0)

    return values


def shared_watermarks(side: Side) -> _Pairs:
    """Yield the sum of each watermark over all zones, which is certain whatever each zone has."""
    for name in ("min", "low", "high", "promo") if side.shared_before else ():
        found = [pages for _, pages in zone_watermark(name)(side)]
        if found:
            yield (name,), sum(found)


def zone_start(side: Side) -> _Pairs:
    """Yield the first spanned pfn of each zone; zones without present pages show none."""
    for zone in side.seen.zoneinfo or ():
        yield zone.key, zone.start_pfn


def zone_protection(side: Side) -> _Pairs:
    """Yield the lowmem reserves of each zone, against each higher zone."""
    for zone in side.seen.zoneinfo or ():
        yield zone.key, zone.protection


def zone_free(side: Side) -> _Pairs:
    """Yield the free pages of each zone, with per-CPU lists."""
    for zone in side.seen.zoneinfo or ():
        for key, pages in _line(zone.pages, "free", zone.key):
            yield key, pages + _on_cpu_lists([zone])


def buddy_free(side: Side) -> _Pairs:
    """Yield the pages in each zone's chunks of buddyinfo, with per-CPU lists."""
    zones = {zone.key: [zone] for zone in side.seen.zoneinfo or ()}
    for key, counts in (side.seen.buddyinfo or {}).items():
        in_chunks = sum(count << order for order, count in enumerate(counts))
        yield key, in_chunks + _on_cpu_lists(zones.get(key, ()))


def node_lists(side: Side) -> _Pairs:
    """Yield the nodes of each list file, such as ``online`` or ``has_memory``."""
    if side.seen.nodes is not None:
        for name, nodes in side.seen.nodes.lists.items():
            yield (name,), nodes


def node_meminfo(name: str) -> Values:
    """Return the extractor of one line of each node's ``meminfo``."""

    def values(side: Side) -> _Pairs:
        if side.seen.nodes is not None:
            for node, table in side.seen.nodes.meminfo.items():
                yield from _line(table, name, (node,))

    return values


def node_huge_pages(side: Side) -> _Pairs:
    """Yield the files below each node's ``hugepages``, where the machine shows them."""
    if side.seen.nodes is not None:
        for node, files in side.seen.nodes.huge_pages.items():
            yield from (((node, name), count) for name, count in files.items())


def node_free(side: Side) -> _Pairs:
    """Yield ``MemFree`` of each node in kB, with per-CPU lists."""
    for key, kib in node_meminfo("MemFree")(side):
        zones = [zone for zone in side.seen.zoneinfo or () if (zone.node,) == key]
        yield key, kib + _on_cpu_lists(zones) * side.page_kib


def _line(table: dict[str, int], name: str, key: Key = ()) -> Iterator[tuple[Key, int]]:
    if name in table:
        yield key, table[name]


def _on_cpu_lists(zones: Iterable[ZoneInfo]) -> int:
    return sum(zone.nr_on_cpu_lists for zone in zones)
