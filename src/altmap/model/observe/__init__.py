"""What the modelled machine would show: Linux's files, as numbers that carry on from the start.

The model predicts changes. Each number is the one that the machine showed at its start, plus what
the kernel's sets gained or lost since; so a start captured on a real machine keeps all that the
model knows nothing about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from altmap.linux.kpageflags import PageFlag
from altmap.linux.observation import (
    Block,
    MemoryFolder,
    NodeFolder,
    Observation,
    PageRun,
    Resource,
    ZoneInfo,
)
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.hugetlb import nr_huge
from altmap.model.kernel.online import zone_for_pfn_range
from altmap.model.kernel.pagetables import direct_map_leaves
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import totalreserve_nr_pages
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.releases import Release
from altmap.pfn import PfnRange, PfnSet, PfnStride

__all__ = ("Observer", "free_chunks")


#: The line of /proc/meminfo that an accounting may add.
_COUNTER = "PageMetadata"


@dataclass(frozen=True, slots=True)
class _Counts:
    present: int
    managed: int
    free: int


class Observer:
    """Looks at a kernel, starting from an observation of it.

    Parameters
    ----------
    kernel : Kernel
        In its start state.
    base : Observation
        What the machine showed then.
    blank : bool
        The base's numbers are all zero, so every number shown is the kernel's own.
    pages : bool
        Also show per-page files (kpageflags, buddyinfo); off, a look costs no page walk.
    """

    def __init__(
        self, kernel: Kernel, base: Observation, *, blank: bool = False, pages: bool = True
    ) -> None:
        self._kernel = kernel
        self._base = base
        self._pages = pages
        self._start = {
            zone.key: _Counts(0, 0, 0) if blank else self._counts(zone)
            for zone in kernel.zones.values()
        }
        self._start_chunks = {
            zone.key: [0] * self._nr_orders if blank or not pages else self._chunks(zone)
            for zone in kernel.zones.values()
        }
        self._start_memmap = 0 if blank else kernel.memmap_nr_pages()
        self._start_additions = [] if blank else list(kernel.additions)
        self._start_regions = 0 if blank else len(kernel.regions)
        self._start_maps = {} if blank else _direct_map_kib(kernel)
        self._blank = blank
        self._start_huge = {} if blank else _hugetlb_numbers(kernel, None)
        self._start_node_huge = (
            {}
            if blank
            else {node: _hugetlb_numbers(kernel, node) for node in kernel.online_nodes()}
        )
        self._start_poisoned = 0 if blank else kernel.nr_poisoned()
        self._reserve = 0 if blank else totalreserve_nr_pages(kernel)

    def look(self) -> Observation:
        """Return what the machine shows now."""
        counts = {zone.key: self._counts(zone) for zone in self._kernel.zones.values()}
        base = self._base
        return replace(
            base,
            meminfo=self._meminfo(counts),
            vmstat=self._vmstat(counts),
            zoneinfo=self._zoneinfo(counts),
            buddyinfo=self._buddyinfo(),
            iomem=self._iomem(),
            kpageflags=self._kpageflags(),
            memory=self._memory(),
            nodes=self._nodes(counts),
        )

    # --- counters --------------------------------------------------------------------------

    def _counts(self, zone: Zone) -> _Counts:
        kernel = self._kernel
        return _Counts(kernel.nr_present(zone), kernel.nr_managed(zone), kernel.nr_free(zone))

    def _gained(self, counts: dict[tuple[int, str], _Counts], what: str) -> int:
        return sum(
            getattr(now, what) - getattr(self._start[key], what) for key, now in counts.items()
        )

    @property
    def _nr_ballooned(self) -> int:
        """Pages that a balloon has gained since the start, where none was known of."""
        return len(self._kernel.ballooned)

    def _kib(self, nr_pages: int) -> int:
        return nr_pages * self._kernel.arch.page_size_bytes // 1024

    def _meminfo(self, counts: dict[tuple[int, str], _Counts]) -> dict[str, int] | None:
        if self._base.meminfo is None:
            return None
        total, free = self._gained(counts, "managed"), self._gained(counts, "free")
        gains = {
            "MemTotal": self._kib(total),
            "MemFree": self._kib(free),
            "MemAvailable": self._kib(free - totalreserve_nr_pages(self._kernel) + self._reserve),
        }
        huge = _hugetlb_numbers(self._kernel, None)
        gains |= _gains(huge, self._start_huge)
        gains["CommitLimit"] = self._commit_limit_kib(total, gains["Hugetlb"])
        gains["HardwareCorrupted"] = self._kib(self._kernel.nr_poisoned() - self._start_poisoned)
        filled = self._kib(sum(len(pages) for pages in self._kernel.files.values()))
        gains |= {"Shmem": filled, "Cached": filled, "Balloon": self._kib(self._nr_ballooned)}
        now = _direct_map_kib(self._kernel)
        gains |= {name: kib - self._start_maps.get(name, 0) for name, kib in now.items()}
        small = "DirectMap2M" if self._kernel.tunables.direct_map_2m else "DirectMap4k"
        if self._blank and small in gains:
            gains[small] += self._kib(len(self._kernel.boot_ram))
        shown = {
            name: max(0, value + gains.get(name, 0)) for name, value in self._base.meminfo.items()
        }
        if self._kernel.policy.accounting.meminfo_line:
            shown[_COUNTER] = self._kib(max(0, self._kernel.memmap_nr_pages()))
        return shown

    def _commit_limit_kib(self, gained_nr_pages: int, gained_huge_kib: int) -> int:
        """Return what the commit limit gains: half of all pages but huge ones, whole pages.

        Source: ``mm/util.c: vm_commit_limit``, with the default ``overcommit_ratio``.
        """
        assert self._base.meminfo is not None  # asked for by who fills it in
        meminfo, kib = self._base.meminfo, self._kib(1)
        before = (meminfo.get("MemTotal", 0) - meminfo.get("Hugetlb", 0)) // kib
        gained = gained_nr_pages - gained_huge_kib // kib
        return self._kib((before + gained) // 2) - self._kib(before // 2)

    def _vmstat(self, counts: dict[tuple[int, str], _Counts]) -> dict[str, int] | None:
        if self._base.vmstat is None:
            return None
        gains = {
            "nr_free_pages": self._gained(counts, "free"),
            "nr_memmap_pages": self._kernel.memmap_nr_pages() - self._start_memmap,
            "nr_balloon_pages": self._nr_ballooned,
        }
        shown = {name: value + gains.get(name, 0) for name, value in self._base.vmstat.items()}
        # An unsigned long of the kernel wraps.
        return {name: value % (1 << 64) for name, value in shown.items()}

    # --- zones -----------------------------------------------------------------------------

    def _zoneinfo(self, counts: dict[tuple[int, str], _Counts]) -> tuple[ZoneInfo, ...] | None:
        if self._base.zoneinfo is None:
            return None
        shown = [self._one_zone(zone, counts) for zone in self._with_new_nodes()]
        return tuple(self._with_node_stats(shown))

    def _with_new_nodes(self) -> Iterator[ZoneInfo]:
        """Yield the zones of the base, then those of nodes that came with added memory."""
        base = self._base.zoneinfo or ()
        yield from base
        known = {zone.node for zone in base}
        for node in sorted({add.node for add in self._kernel.additions} - known):
            for zone in base:
                if zone.node == base[0].node:
                    pages = dict.fromkeys(zone.pages, 0)
                    yield ZoneInfo(node, zone.name, pages, (0,) * len(zone.protection))

    def _one_zone(
        self,
        info: ZoneInfo,
        counts: dict[tuple[int, str], _Counts],
    ) -> ZoneInfo:
        zone = self._kernel.zones.get(info.key)
        if zone is None:
            return _unpopulated(info) if self._blank else info
        start, now = self._start[info.key], counts[info.key]
        pages = dict(info.pages)
        for name in ("free", "present", "managed"):
            gained = getattr(now, name) - getattr(start, name)
            pages[name] = max(0, pages.get(name, 0) + gained)
        pages["spanned"] = len(zone.span)
        info = _with_watermarks(replace(info, pages=pages), zone)
        if not pages["present"]:
            return _unpopulated(info)
        return _populated(info, zone, self._base.zoneinfo or ())

    def _with_node_stats(self, zones: list[ZoneInfo]) -> Iterator[ZoneInfo]:
        """Yield the zones with each node's statistics in its first populated zone."""
        stats = {zone.node: zone.node_stats for zone in zones if zone.node_stats}
        base = self._base.zoneinfo or ()
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

    # --- pages -----------------------------------------------------------------------------

    def _buddyinfo(self) -> dict[tuple[int, str], tuple[int, ...]] | None:
        base = self._base.buddyinfo
        if base is None or not self._pages:
            return base
        blank = (0,) * self._nr_orders
        return {
            zone.key: tuple(
                max(0, before + now - start)
                for before, now, start in zip(
                    base.get(zone.key, blank),
                    self._chunks(zone),
                    self._start_chunks[zone.key],
                    strict=False,
                )
            )
            for zone in self._kernel.zones.values()
            if zone.present
        }

    @property
    def _nr_orders(self) -> int:
        return self._kernel.arch.max_page_order + 1

    def _chunks(self, zone: Zone) -> list[int]:
        return free_chunks(self._kernel.free(zone), self._nr_orders)

    def _kpageflags(self) -> tuple[PageRun, ...] | None:
        if self._base.kpageflags is None or not self._pages:
            return self._base.kpageflags
        kernel, release = self._kernel, self._kernel.release
        section = kernel.arch.section_nr_pages
        end = max(
            -(-kernel.max_pfn // section) * section,
            sum(run.nr_pages for run in self._base.kpageflags),
        )
        layers: list[tuple[PfnSet, int]] = []
        changed = kernel.pages_of(kernel.changed.blocks) | kernel.changed.pages
        shown = changed & kernel.pages_of(kernel.online_blocks)
        present = PfnSet()
        for zone in kernel.zones.values():
            present |= zone.present & shown
        for pages, flags in (
            (kernel.self_hosted, release.memmap_page_flags),
            (kernel.never_onlined, PageFlag.OFFLINE | PageFlag.DIRTY),
            (kernel.fake_offline, PageFlag.OFFLINE),
            (kernel.reserved, PageFlag.RESERVED),
            (kernel.poisoned, PageFlag.HWPOISON),
            (_heads(kernel), PageFlag.COMPOUND_HEAD | PageFlag.HUGE),
            (kernel.hugetlb_pages(), PageFlag.COMPOUND_TAIL | PageFlag.HUGE),
            (kernel.movable, PageFlag.LRU),
            (kernel.used, 0),
            (present, PageFlag.BUDDY),
        ):
            layers.append((pages & present, flags))
            present = present - pages
        return tuple(_overlay(self._base.kpageflags, changed, layers, end, release))

    # --- resources, blocks, nodes ----------------------------------------------------------

    def _iomem(self) -> tuple[Resource, ...] | None:
        base = self._base.iomem
        if base is None:
            return None
        page = self._kernel.arch.page_size_bytes
        now = set(self._kernel.additions)
        gone = [add for add in self._start_additions if add not in now]
        new = now.difference(self._start_additions)
        # A line that joins its neighbours is made anew if one of them came or went.
        merged = {add.resource_name for add in (*gone, *new) if add.merges}
        again = [
            add
            for add in self._start_additions
            if add in now and add.merges and add.resource_name in merged
        ]
        lines = list(base)
        for add in gone + again:
            lines = list(_without(lines, add.pfns.start * page, add.pfns.end * page))
        for pfns, name in self._kernel.regions[self._start_regions :]:
            _insert(lines, pfns.start * page, pfns.end * page, name)
        for start, end, name in _resource_lines([*again, *new], page):
            _insert(lines, start, end, name)
        return tuple(lines)

    def _memory(self) -> MemoryFolder | None:
        base, kernel = self._base.memory, self._kernel
        if base is None:
            return None
        blocks = {id_: self._block(id_, base.blocks.get(id_)) for id_ in kernel.added_blocks}
        auto_online = kernel.tunables.auto_online_blocks
        return MemoryFolder(
            base.block_size_bytes,
            base.auto_online_blocks and auto_online,
            blocks,
        )

    def _block(self, id_: int, before: Block | None) -> Block:
        kernel = self._kernel
        pfns = kernel.block_pfns(id_)
        online = id_ in kernel.online_blocks
        state = "online" if online else "offline"
        if before is not None and before.state == state and id_ not in kernel.changed.blocks:
            if online or before.valid_zones is None:
                return before
            return replace(before, valid_zones=self._valid_zones(pfns, online))
        node = kernel.node_of(pfns.start)
        made = Block(
            state,
            phys_device=0,
            removable=True,
            valid_zones=self._valid_zones(pfns, online),
            nodes=(node,) if node is not None and self._base.nodes is not None else (),
        )
        return replace(before, state=state, valid_zones=made.valid_zones) if before else made

    def _valid_zones(self, pfns: PfnRange, online: bool) -> tuple[str, ...]:
        """Source: ``drivers/base/memory.c: valid_zones_show``."""
        kernel = self._kernel
        if online:
            zones = kernel.zones_of(pfns)
            return (zones[0].name,) if len(zones) == 1 else ("none",)
        node = kernel.node_of(pfns.start) or 0
        names = [
            zone_for_pfn_range(kernel, pfns, node, kind).name
            for kind in ("online", "online_kernel", "online_movable")
        ]
        return tuple(dict.fromkeys(names))

    def _nodes(self, counts: dict[tuple[int, str], _Counts]) -> NodeFolder | None:
        base = self._base.nodes
        if base is None:
            return None
        with_memory = {zone.node for zone in self._kernel.zones.values() if zone.present}
        with_normal = {
            zone.node
            for zone in self._kernel.zones.values()
            if zone.present and zone.name != MOVABLE
        }
        lists = dict(base.lists)
        nodes = self._kernel.online_nodes()
        for name, members in (
            ("online", nodes),
            ("has_memory", with_memory),
            ("has_normal_memory", with_normal),
        ):
            if name in lists:
                lists[name] = tuple(sorted(members))
        shape = next(iter(base.meminfo.values()), {})
        meminfo = {
            node: self._node_meminfo(
                node, base.meminfo.get(node) or dict.fromkeys(shape, 0), counts
            )
            for node in sorted(nodes)
            if base.meminfo
        }
        return replace(base, lists=lists, meminfo=meminfo)

    def _node_meminfo(
        self, node: int, base: dict[str, int], counts: dict[tuple[int, str], _Counts]
    ) -> dict[str, int]:
        mine = {key: now for key, now in counts.items() if key[0] == node}
        total, free = self._gained(mine, "managed"), self._gained(mine, "free")
        gains = {
            "MemTotal": self._kib(total),
            "MemFree": self._kib(free),
            "MemUsed": self._kib(total - free),
        }
        gains |= _gains(_hugetlb_numbers(self._kernel, node), self._start_node_huge.get(node, {}))
        return {name: value + gains.get(name, 0) for name, value in base.items()}


def _hugetlb_numbers(kernel: Kernel, node: int | None) -> dict[str, int]:
    """Return the lines on hugetlb of meminfo, of one node or of all.

    Pages are counted of the default size only, KiB of every size.
    Source: ``mm/hugetlb.c: hugetlb_report_meminfo, hugetlb_report_node_meminfo``.
    """
    nr_pages = kernel.arch.pmd_size_bytes // kernel.arch.page_size_bytes
    pool = kernel.hugetlb.get(nr_pages) or HugePool(nr_pages)
    surplus = pool.surplus.values() if node is None else [pool.surplus.get(node, 0)]
    pages = sum(len(each.pages) for each in kernel.hugetlb.values())
    return {
        "HugePages_Total": nr_huge(kernel, pool, pool.pages, node),
        "HugePages_Free": nr_huge(kernel, pool, pool.free_pages, node),
        "HugePages_Surp": sum(surplus),
        "Hugetlb": pages * kernel.arch.page_size_bytes // 1024,
    }


def _gains(now: dict[str, int], start: dict[str, int]) -> dict[str, int]:
    return {name: value - start.get(name, 0) for name, value in now.items()}


def free_chunks(pages: PfnSet, nr_orders: int) -> list[int]:
    """Return how many free chunks of each order the buddy would make of the pages.

    Buddies merge as far as their alignment and the highest order allow.
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


def _heads(kernel: Kernel) -> PfnSet:
    """Return the first page of each huge page."""
    heads = PfnSet()
    for pool in kernel.hugetlb.values():
        for run in pool.pages.ranges():
            heads |= PfnStride(run.start, run.end, pool.nr_pages, 1)
    return heads


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


def _direct_map_kib(kernel: Kernel) -> dict[str, int]:
    """Return what added memory adds to the DirectMap lines of ``/proc/meminfo``, in KiB."""
    if kernel.arch.family == "ppc64le":
        # Mapped LMB by LMB, of which none is large or aligned enough for a leaf of 1 GiB
        # (arch/powerpc/mm/book3s64/radix_pgtable.c: create_physical_mapping).
        mapped = sum(len(addition.pfns) for addition in kernel.additions)
        return {"DirectMap2M": mapped * kernel.arch.page_size_bytes // 1024}
    if not kernel.arch.name.startswith("x86_64"):
        return {}
    large_kib = total_kib = 0
    for addition in kernel.additions + kernel.failed_additions:
        _, large = direct_map_leaves(kernel, addition)
        large_kib += len(large) << 20
        total_kib += len(addition.pfns) * kernel.arch.page_size_bytes // 1024
    small = "DirectMap2M" if kernel.tunables.direct_map_2m else "DirectMap4k"
    return {small: total_kib - large_kib, "DirectMap1G": large_kib}


def _resource_lines(additions: list[Addition], page: int) -> list[tuple[int, int, str]]:
    """Return ``/proc/iomem`` lines of the additions; those that merge join their neighbours."""
    lines: list[tuple[int, int, str]] = []
    before: Addition | None = None
    for add in sorted(additions, key=lambda add: add.pfns):
        start, end = add.pfns.start * page, add.pfns.end * page
        # Only siblings join: what one device has added lies in its own region.
        joins = (
            before is not None
            and (before.merges, before.resource_name) == (add.merges, add.resource_name)
            and before.group is add.group
            and before.pfns.end == add.pfns.start
        )
        if joins and add.merges:
            lines[-1] = (lines[-1][0], end, add.resource_name)
        else:
            lines.append((start, end, add.resource_name))
        before = add
    return lines


def _without(lines: list[Resource], start: int, end: int) -> Iterator[Resource]:
    """Yield the resources without a range of System RAM, which is cut out of a longer line."""
    for line in lines:
        if not line.name.startswith("System RAM") or end <= line.start or line.end <= start:
            yield line
            continue
        if line.start < start:
            yield line._replace(end=start)
        if end < line.end:
            yield line._replace(start=end)


def _insert(lines: list[Resource], start: int, end: int, name: str) -> None:
    """Put a resource where the tree has room: below the innermost line that contains it."""
    depth, at = 0, len(lines)
    for index, line in enumerate(lines):
        if line.start <= start and end <= line.end and line.depth == depth:
            depth += 1
            at = index + 1
        elif line.depth <= depth and line.start >= end:
            at = index
            break
        elif line.end <= start or line.depth > depth:
            at = index + 1
    lines.insert(at, Resource(depth, start, end, name))


def _overlay(
    base: tuple[PageRun, ...],
    changed: PfnSet,
    layers: list[tuple[PfnSet, int]],
    end: int,
    release: Release,
) -> Iterator[PageRun]:
    """Yield the base's runs with changed page frames shown as the layers say, up to *end*."""
    pieces: list[tuple[int, int, int]] = []
    shown = PfnSet()
    for pages, flags in layers:
        shown |= pages
        pieces.extend((run.start, run.end, flags) for run in pages.ranges())
    hidden = changed - shown
    pieces.extend((run.start, run.end, release.nopage_flags) for run in hidden.ranges())
    for run in base:
        if not changed.count(PfnRange(run.start_pfn, run.start_pfn + run.nr_pages)):
            pieces.append((run.start_pfn, run.start_pfn + run.nr_pages, run.flags))
            continue
        kept = PfnSet.of(PfnRange(run.start_pfn, run.start_pfn + run.nr_pages)) - changed
        pieces.extend((part.start, part.end, run.flags) for part in kept.ranges())
    pieces.append((end, end, release.nopage_flags))
    pieces.sort()
    merged: list[list[int]] = []
    for start, stop, flags in _without_gaps(pieces, release.nopage_flags):
        if merged and merged[-1][1] == start and merged[-1][2] == flags:
            merged[-1][1] = stop
        else:
            merged.append([start, stop, flags])
    for start, stop, flags in merged:
        yield PageRun(start, stop - start, flags)


def _without_gaps(
    pieces: list[tuple[int, int, int]], nopage_flags: int
) -> Iterator[tuple[int, int, int]]:
    """Yield sorted pieces, and between them what is beyond the base's end and was never added."""
    reached = 0
    for start, stop, flags in pieces:
        if reached < start:
            yield reached, start, nopage_flags
        if start < stop:
            yield start, stop, flags
        reached = max(reached, stop)
