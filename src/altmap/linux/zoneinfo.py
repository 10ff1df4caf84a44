"""``/proc/zoneinfo``: every zone of every online node, empty ones included.

The layout is ``zoneinfo_show_print()`` in ``mm/vmstat.c``. Releases add lines within a section;
which section a line belongs to follows from the lines before it, so new names need no change here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from altmap.linux.lines import Line, add, lines

__all__ = ("LruCounts", "ZoneInfo", "parse", "render")

_HEADER = re.compile(r"Node (\d+), zone +(\S+)", re.ASCII)
_PROTECTION = re.compile(r" *protection: \(((?:\d+(?:, )?)*)\)", re.ASCII)
_PAIR = re.compile(r" +(?:([^:]*[^:\s]):? +)?(\d+)", re.ASCII)
_REQUIRED = ("free", "min", "low", "high", "spanned", "present", "managed")
_THRESHOLD = "vm stats threshold"
_FILE_LRU = ("nr_zone_inactive_file", "nr_zone_active_file")
_ANON_LRU = ("nr_zone_inactive_anon", "nr_zone_active_anon")
#: NR_CPUS of any architecture (``arch/x86/Kconfig, arch/powerpc/platforms/Kconfig.cputype``).
_MOST_CPUS = 8192


class LruCounts(NamedTuple):
    """Pages of a zone that reclaim scans (``mm/vmscan.c: zone_reclaimable_pages``).

    Attributes
    ----------
    file, anonymous : int
        On the lists of files, and on those of anonymous pages and tmpfs.
    write_pending : int
        Dirty or under writeback, of files.
    """

    file: int
    anonymous: int
    write_pending: int


@dataclass(frozen=True, slots=True)
class ZoneInfo:
    """One zone of ``/proc/zoneinfo``; all numbers are pages or counts, in file order.

    Attributes
    ----------
    node, name : int, str
        As in the header line ``Node 0, zone      DMA``.
    pages : dict
        ``free boost min low high promo spanned present managed cma``, those the release has.
    protection : tuple of int
        ``lowmem_reserve`` against each higher zone.
    stats : dict
        Counters after ``protection``: ``nr_free_pages`` ... ``numa_other``. Empty when the zone is
        not populated (the file then ends the zone after ``protection``).
    pagesets : tuple of dict
        One per CPU: ``cpu``, ``count``, ``high``, ``batch``, ..., ``vm stats threshold``.
    tail : dict
        ``node_unreclaimable``, ``start_pfn`` and what later releases add. Empty when unpopulated.
    node_stats : dict
        The ``per-node stats``, which the file prints inside the node's first populated zone; empty
        for the other zones. Linux 4.17 to 4.19 print ``nr_indirectly_reclaimable`` without a name
        (``mm/vmstat.c: vmstat_text``), which is the name ``""``.
    """

    node: int
    name: str
    pages: dict[str, int]
    protection: tuple[int, ...] = ()
    stats: dict[str, int] = field(default_factory=dict)
    pagesets: tuple[dict[str, int], ...] = ()
    tail: dict[str, int] = field(default_factory=dict)
    node_stats: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        """The zone's identity: node and name."""
        return self.node, self.name

    @property
    def nr_on_cpu_lists(self) -> int:
        """Pages on per-CPU lists: free, and in no counter of free pages."""
        return sum(pageset.get("count", 0) for pageset in self.pagesets)

    @property
    def lru(self) -> LruCounts | None:
        """The lists of pages that reclaim scans, ``None`` if the file lacks one of them."""
        if not {*_FILE_LRU, *_ANON_LRU} <= self.stats.keys():
            return None
        return LruCounts(
            sum(self.stats[name] for name in _FILE_LRU),
            sum(self.stats[name] for name in _ANON_LRU),
            self.stats.get("nr_zone_write_pending", 0),
        )

    @property
    def start_pfn(self) -> int | None:
        """First spanned pfn, ``None`` when the file does not show it (unpopulated)."""
        return self.tail.get("start_pfn")

    @property
    def span(self) -> tuple[int, int] | None:
        """First spanned pfn and the end of the span, ``None`` when the file does not show it."""
        if self.start_pfn is None or not self.pages.get("spanned"):
            return None
        return self.start_pfn, self.start_pfn + self.pages["spanned"]

    @property
    def populated(self) -> bool:
        """Whether the zone has present pages; if not, the file ends it after ``protection``."""
        return self.pages.get("present", 0) > 0


def parse(text: str) -> tuple[ZoneInfo, ...]:
    """Return the zones in file order."""
    zones: list[ZoneInfo] = []
    seen: set[tuple[int, str]] = set()
    for header, body in _chunks(text):
        zone = _parse_zone(header, body)
        if zone.key in seen:
            raise header.error("the zone is given twice", _last_nr(header, body))
        seen.add(zone.key)
        zones.append(zone)
    return tuple(zones)


def render(zones: Sequence[ZoneInfo]) -> str:
    """Return the file."""
    return "".join(f"{text}\n" for zone in zones for text in _zone_lines(zone))


def _chunks(text: str) -> Iterator[tuple[Line, list[Line]]]:
    header: Line | None = None
    body: list[Line] = []
    for line in lines(text):
        if line.text.startswith("Node "):
            if header is not None:
                yield header, body
            header, body = line, []
        elif header is None:
            raise line.error("need a line 'Node N, zone NAME' first")
        else:
            body.append(line)
    if header is not None:
        yield header, body


def _parse_zone(header: Line, body: list[Line]) -> ZoneInfo:
    match = _HEADER.fullmatch(header.text)
    if match is None:
        raise header.error("need 'Node N, zone NAME'", _last_nr(header, body))
    tables: dict[str, dict[str, int]] = {"pages": {}, "stats": {}, "tail": {}, "node_stats": {}}
    pagesets: list[dict[str, int]] = []
    protection: tuple[int, ...] = ()
    table = tables["pages"]
    for line in body:
        text = line.text.strip()
        if text == "per-node stats":
            table = tables["node_stats"]
        elif text.startswith("protection:"):
            protection, table = _parse_protection(line), tables["stats"]
        elif text != "pagesets":
            name, value = _parse_pair(line)
            if name == "pages free":
                name, table = "free", tables["pages"]
            elif name == "cpu":
                if len(pagesets) == _MOST_CPUS:
                    raise line.error(f"a zone has at most {_MOST_CPUS} CPUs")
                table = {}
                pagesets.append(table)
            elif name == "node_unreclaimable":
                table = tables["tail"]
            add(table, line, name, value)
    zone = ZoneInfo(
        header.number(match[1]),
        match[2],
        protection=protection,
        pagesets=tuple(pagesets),
        **tables,
    )
    _require_whole(header, body, zone)
    return zone


def _last_nr(header: Line, body: list[Line]) -> int:
    return body[-1].nr if body else header.nr


def _require_whole(header: Line, body: list[Line], zone: ZoneInfo) -> None:
    missing = [name for name in _REQUIRED if name not in zone.pages]
    if zone.populated and zone.start_pfn is None:
        missing.append("start_pfn")
    if missing:
        rule = f"the zone has no line {missing[0]!r}; is the file cut short?"
        raise header.error(rule, _last_nr(header, body))


def _parse_protection(line: Line) -> tuple[int, ...]:
    match = _PROTECTION.fullmatch(line.text)
    if match is None:
        raise line.error("need 'protection: (number, ...)'")
    return tuple(line.number(word) for word in match[1].split(", ") if word)


def _parse_pair(line: Line) -> tuple[str, int]:
    match = _PAIR.fullmatch(line.text)
    if match is None:
        raise line.error("need a name and a number")
    return match[1] or "", line.number(match[2])


def _zone_lines(zone: ZoneInfo) -> Iterator[str]:
    yield f"Node {zone.node}, zone {zone.name:>8}"
    if zone.node_stats:
        yield "  per-node stats"
        yield from _counters(zone.node_stats)
    for name, value in zone.pages.items():
        yield f"  pages free     {value}" if name == "free" else f"        {name:<8} {value}"
    yield f"        protection: ({', '.join(map(str, zone.protection))})"
    if zone.populated:
        yield from _counters(zone.stats)
        yield "  pagesets"
        for pageset in zone.pagesets:
            yield from _pageset_lines(pageset)
        for name, value in zone.tail.items():
            yield f"  {name + ':':<20} {value}"


def _counters(table: dict[str, int]) -> Iterator[str]:
    return (f"      {name:<12} {value}" for name, value in table.items())


def _pageset_lines(pageset: dict[str, int]) -> Iterator[str]:
    # One blank after the longest label: "batch:" up to 6.12, "high_min:" later.
    labels = [name for name in pageset if name not in ("cpu", _THRESHOLD)]
    width = max(map(len, labels), default=0) + 1
    for name, value in pageset.items():
        if name == "cpu":
            yield f"    cpu: {value}"
        elif name == _THRESHOLD:
            yield f"  {name}: {value}"
        else:
            yield f"              {name + ':':<{width}} {value}"
