"""``/proc/zoneinfo`` as the modelled kernel shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from altmap.linux.observation import ZoneInfo
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.model.observe.numbers import gained

__all__ = ("zone_numbers", "zoneinfo_shown")


def zone_numbers(kernel: Kernel, zone: Zone) -> dict[str, int]:
    """Return a zone's pages: present, managed and free."""
    return {
        "present": kernel.nr_present(zone),
        "managed": kernel.nr_managed(zone),
        "free": kernel.nr_free(zone),
    }


def zoneinfo_shown(
    base: tuple[ZoneInfo, ...] | None,
    kernel: Kernel,
    start: Mapping[tuple[int, str], Mapping[str, int]],
    now: Mapping[tuple[int, str], Mapping[str, int]],
) -> tuple[ZoneInfo, ...] | None:
    """Return the base's zones, and those of nodes that came with added memory, as they are now."""
    if base is None:
        return None
    shown = []
    for info in _with_new_nodes(base, kernel):
        zone = kernel.zones.get(info.key)
        if zone is None:  # a zone that is not modelled, such as Device
            shown.append(info if info.pages.get("present") else _unpopulated(info))
        else:
            gains = gained(start.get(info.key, {}), now[info.key])
            shown.append(_one_zone(info, zone, gains, base))
    return tuple(_with_node_stats(shown, base))


def _with_new_nodes(base: tuple[ZoneInfo, ...], kernel: Kernel) -> Iterator[ZoneInfo]:
    """Yield the zones of the base, then those of nodes that came with added memory."""
    yield from base
    known = {zone.node for zone in base}
    for node in sorted({add.node for add in kernel.additions} - known):
        for zone in base:
            if zone.node == base[0].node:
                pages = dict.fromkeys(zone.pages, 0)
                yield ZoneInfo(node, zone.name, pages, (0,) * len(zone.protection))


def _one_zone(
    info: ZoneInfo, zone: Zone, gains: Mapping[str, int], base: tuple[ZoneInfo, ...]
) -> ZoneInfo:
    pages = dict(info.pages)
    for name, gain in gains.items():
        pages[name] = max(0, pages.get(name, 0) + gain)
    pages["spanned"] = len(zone.span)
    if "cma" in pages:
        pages["cma"] = zone.cma_nr_pages
    info = _with_watermarks(replace(info, pages=pages), zone)
    return _populated(info, zone, base) if pages["present"] else _unpopulated(info)


def _with_watermarks(info: ZoneInfo, zone: Zone) -> ZoneInfo:
    marks = zone.watermarks
    pages = dict(info.pages)
    for name in ("min", "low", "high", "promo"):
        if name in pages:
            pages[name] = getattr(marks, name)
    # Zones above ZONE_MOVABLE (Device) manage nothing, so the last reserve repeats.
    last = marks.protection[-1] if marks.protection else 0
    protection = (*marks.protection, *(last,) * len(info.protection))
    return replace(info, pages=pages, protection=protection[: len(info.protection)])


def _unpopulated(info: ZoneInfo) -> ZoneInfo:
    """Return the zone without the lines that only a populated zone has."""
    return replace(info, stats={}, pagesets=(), tail={}, node_stats={})


def _populated(info: ZoneInfo, zone: Zone, base: tuple[ZoneInfo, ...]) -> ZoneInfo:
    """Return the zone with the lines that only a populated zone has."""
    shape = info if info.stats else next((z for z in base if z.stats), info)
    stats = dict(info.stats) or dict.fromkeys(shape.stats, 0)
    if "nr_free_pages" in stats:
        stats["nr_free_pages"] = info.pages["free"]
    pagesets = info.pagesets or tuple(
        {name: value if name == "cpu" else 0 for name, value in pageset.items()}
        for pageset in shape.pagesets
    )
    tail = dict(info.tail) or dict.fromkeys(shape.tail, 0)
    tail["start_pfn"] = zone.span.start
    return replace(info, stats=stats, pagesets=pagesets, tail=tail)


def _with_node_stats(zones: Sequence[ZoneInfo], base: tuple[ZoneInfo, ...]) -> Iterator[ZoneInfo]:
    """Yield the zones with each node's statistics in its first populated zone."""
    stats = {zone.node: zone.node_stats for zone in zones if zone.node_stats}
    for zone in base:
        if zone.node_stats:
            stats.setdefault(zone.node, zone.node_stats)
    names = next(iter(stats.values()), {})
    seen: set[int] = set()
    for zone in zones:
        if zone.stats and zone.node not in seen:
            seen.add(zone.node)
            yield replace(zone, node_stats=stats.get(zone.node) or dict.fromkeys(names, 0))
        else:
            yield replace(zone, node_stats={})
