"""Two traces side by side: what was predicted, what was observed, step by step and file by file.

A field is either exact, or may differ by a tolerance that is derived and stated: what the guest's
own processes and kernel objects use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from itertools import zip_longest
from typing import Any

from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.observation import Observation, ZoneInfo, page_size_bytes
from altmap.linux.pagewords import PageWords
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import GUEST_TO_HOST, StepRecord, Trace

__all__ = ("Comparison", "Difference", "FileVerdict", "Verdict", "compare", "compare_layout")


class Verdict(StrEnum):
    """How a file's prediction fared."""

    EQUAL = "equal"
    TOLERATED = "equal within tolerance"
    DIFFERENT = "different"
    MISSING = "not compared"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as predicted.

    Attributes
    ----------
    field : str
    predicted, observed : str
    tolerance : str
        Empty for an exact field; else what may be between the two, and why.
    source : str
        Where the rule behind the prediction is written.
    within : bool
        The difference is within the tolerance.
    """

    field: str
    predicted: str
    observed: str
    source: str
    tolerance: str = ""
    within: bool = False


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """One file after one step."""

    step: str
    file: str
    verdict: Verdict
    nr_fields: int
    differences: tuple[Difference, ...] = ()


@dataclass(slots=True)
class Comparison:
    """Every file after every step.

    Attributes
    ----------
    predicted, observed : str
        What was compared: ``model 6.12``, ``lab 6.12``.
    files : list of FileVerdict
    provenance : dict of str to str
        Which scenario, kernels, programs: what a reader needs to get the same.
    traces : tuple of Trace
        Prediction and observation.
    """

    predicted: str
    observed: str
    files: list[FileVerdict] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    traces: tuple[Trace, ...] = ()

    def to_builtins(self, scenario: str) -> dict[str, Any]:
        """Return the comparison as JSON's types, without the traces."""
        return {
            "schema": "altmap-comparison",
            "version": 1,
            "scenario": scenario,
            "predicted": self.predicted,
            "observed": self.observed,
            "equal": self.equal,
            "provenance": self.provenance,
            "files": [asdict(file) for file in self.files],
        }

    @property
    def equal(self) -> bool:
        """Whether nothing differs beyond its tolerance."""
        return all(file.verdict is not Verdict.DIFFERENT for file in self.files)


@dataclass(slots=True)
class _File:
    """Collects one file's fields."""

    name: str
    nr_fields: int = 0
    differences: list[Difference] = field(default_factory=list)

    def exact(self, label: str, predicted: object, observed: object, source: str) -> None:
        self.nr_fields += 1
        if predicted != observed:
            self.differences.append(Difference(label, _text(predicted), _text(observed), source))

    def near(
        self, label: str, predicted: int, observed: int, tolerance: int, why: str, source: str
    ) -> None:
        self.nr_fields += 1
        if predicted != observed:
            within = abs(predicted - observed) <= tolerance
            self.differences.append(
                Difference(
                    label, str(predicted), str(observed), source, f"±{tolerance}: {why}", within
                )
            )

    def verdict(self, step: str) -> FileVerdict:
        if not self.nr_fields:
            verdict = Verdict.MISSING
        elif not self.differences:
            verdict = Verdict.EQUAL
        elif all(difference.within for difference in self.differences):
            verdict = Verdict.TOLERATED
        else:
            verdict = Verdict.DIFFERENT
        return FileVerdict(step, self.name, verdict, self.nr_fields, tuple(self.differences))


def compare(predicted: Trace, observed: Trace) -> Comparison:
    """Compare two traces of the same scenario, the prediction first."""
    result = Comparison(
        f"{predicted.target} {predicted.release}", f"{observed.target} {observed.release}"
    )
    start = observed.steps[0].observation
    chosen = PfnSet()
    for index, folder in enumerate(observed.folder_names()):
        mine = predicted.steps[index]
        other = observed.steps[index]
        if index:
            result.files.append(_compare_outcome(folder, mine, other))
            asked = [_requests(step) for step in (mine, other)]
            if any(asked):
                result.files.append(_compare_requests(folder, *asked))
        if mine.observation is None or other.observation is None or start is None:
            continue
        tolerance = _tolerance(start, other.observation)
        chosen = _chosen_by_buddy(chosen, mine)
        for file in _compare_files(mine.observation, other.observation, tolerance, chosen):
            result.files.append(file.verdict(folder))
    return result


def _chosen_by_buddy(before: PfnSet, step: StepRecord) -> PfnSet:
    """Return the page frames that stand for pages that the buddy chose for a balloon."""
    chosen = before.copy()
    for event in step.events:
        if event.pfns is not None and event.kind == "ballooned":
            chosen |= event.pfns
        elif event.pfns is not None and event.kind == "populated":
            chosen -= event.pfns
    return chosen


def compare_layout(booted: Observation, observed: Observation, step: str) -> list[FileVerdict]:
    """Compare a machine booted on paper with a real one: layout only, as use at boot is estimated.

    Zones' extents and memory blocks must be exact. The firmware puts its tables at the end of low
    memory, and how many pages they take varies with the machine: present pages may differ by that.
    """
    zones = _File("proc/zoneinfo (layout)")
    for mine, other in _zone_pairs(booted, observed):
        for name in ("spanned", "present"):
            zones.near(
                f"{_label(mine)} {name}",
                mine.pages.get(name, 0),
                other.pages.get(name, 0),
                _FIRMWARE_PAGES,
                "pages of the firmware's tables at the end of low memory",
                _SOURCES["boot_zones"],
            )
        zones.exact(
            f"{_label(mine)} start_pfn", mine.start_pfn, other.start_pfn, _SOURCES["boot_zones"]
        )
    memory = _File("sys/devices/system/memory")
    _memory(memory, booted, observed)
    return [file.verdict(step) for file in (zones, memory)]


_FIRMWARE_PAGES = 16

# --- what may differ -----------------------------------------------------------------------


#: What other files the guest's programs bring into memory.
_FILE_KIB = 512
#: What a memory block costs in slab: its device, its kernfs nodes, its sections' usage maps.
_PAGES_PER_BLOCK = 16
#: What the guest's shell and kernel threads come and go by, stacks and page tables aside.
_PAGES_OF_PROCESSES = 512


def _tolerance(start: Observation, now: Observation) -> tuple[int, str]:
    """Derive how far free memory may be from its prediction, in pages.

    Pages that wait on per-CPU lists are not counted as free, but zoneinfo tells how many do; they
    are added on both sides, so they need no tolerance.
    """
    blocks = max(len(look.memory.blocks) for look in (start, now) if look.memory)
    processes = _PAGES_OF_PROCESSES + abs(_stacks_and_tables(now) - _stacks_and_tables(start))
    why = (
        f"pages; {_PAGES_PER_BLOCK} of slab for each of {blocks} blocks, "
        f"{processes} of processes that came or went"
    )
    return _PAGES_PER_BLOCK * blocks + processes, why


def _stacks_and_tables(observation: Observation) -> int:
    """Return the pages of kernel stacks and page tables, which meminfo tells."""
    meminfo = observation.meminfo or {}
    return (meminfo.get("KernelStack", 0) + meminfo.get("PageTables", 0)) // _page_kib(observation)


def _on_cpu_lists(observation: Observation, node: int | None = None) -> int:
    """Return the free pages that wait on per-CPU lists, of one node or of all."""
    return sum(
        pageset.get("count", 0)
        for zone in observation.zoneinfo or ()
        if node in (None, zone.node)
        for pageset in zone.pagesets
    )


def _zone_on_cpu_lists(zone: ZoneInfo) -> int:
    return sum(pageset.get("count", 0) for pageset in zone.pagesets)


# --- files ---------------------------------------------------------------------------------

_SOURCES = {
    "total": "mm/memory_hotplug.c: online_pages; drivers/base/memory.c: memory_block_online",
    "free": "mm/page_alloc.c: __free_pages_core; arch/x86/mm/init_64.c (tables, memmap)",
    "hugetlb": "mm/hugetlb.c: set_max_huge_pages, dissolve_free_hugetlb_folios",
    "poison": "mm/memory-failure.c: page_handle_poison",
    "files": "mm/shmem.c: shmem_add_to_page_cache",
    "available": "mm/show_mem.c: si_mem_available; calculate_totalreserve_pages",
    "commit": "mm/util.c: vm_commit_limit",
    "direct_map": "arch/x86/mm/init_64.c: phys_pud_init",
    "memmap_pages": "mm/sparse-vmemmap.c: __populate_section_memmap",
    "spanned": "mm/memory_hotplug.c: resize_zone_range, shrink_zone_span",
    "present": "mm/memory_hotplug.c: adjust_present_page_count",
    "managed": "mm/memory_hotplug.c: online_pages_range, offline_pages",
    "boot_zones": "mm/mm_init.c: calculate_node_totalpages",
    "watermarks": "mm/page_alloc.c: __setup_per_zone_wmarks",
    "protection": "mm/page_alloc.c: setup_per_zone_lowmem_reserve",
    "iomem": "mm/memory_hotplug.c: register_memory_resource",
    "state": "drivers/base/memory.c: memory_block_change_state",
    "valid_zones": "drivers/base/memory.c: valid_zones_show",
    "kpageflags": "fs/proc/page.c: stable_page_flags",
    "memmap_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory",
    "nodes": "mm/memory_hotplug.c: node_states_set_node",
    "parameters": "mm/memory_hotplug.c: module parameters",
    "requests": "drivers/virtio/virtio_mem.c: virtio_mem_send_request",
    "ballooned": "drivers/xen/balloon.c: decrease_reservation",
    "balloon": "drivers/xen/balloon.c: balloon_stats",
    "outcome": "the refusing function that the prediction names",
}


def _compare_outcome(folder: str, predicted: StepRecord, observed: StepRecord) -> FileVerdict:
    file = _File("result")
    mine, other = predicted.outcome, observed.outcome
    source = mine.function or _SOURCES["outcome"]
    file.exact("status", _why(mine.status, mine.why), _why(other.status, other.why), source) if (
        mine.status != other.status
    ) else file.exact("status", mine.status, other.status, source)
    if mine.errno != other.errno and other.errno != "?":
        file.exact("errno", mine.errno, other.errno, source)
    return file.verdict(folder)


#: What a guest's driver asks of its device, where the real kernel logs it.
_REQUEST = re.compile(GUEST_TO_HOST + r"(?:PLUG|UNPLUG|UNPLUG_ALL) 0x.*")


def _requests(step: StepRecord) -> list[str]:
    return [e.text for e in step.events if e.kind == "driver" and _REQUEST.fullmatch(e.text)]


def _compare_requests(folder: str, mine: list[str], other: list[str]) -> FileVerdict:
    """Compare what the driver asked, request by request and in order."""
    file = _File("requests of the driver")
    for number, (a, b) in enumerate(zip_longest(mine, other), start=1):
        file.exact(f"request {number}", a, b, _SOURCES["requests"])
    return file.verdict(folder)


def _why(status: str, why: str) -> str:
    return f"{status} ({why})" if why else status


def _compare_files(
    predicted: Observation,
    observed: Observation,
    tolerance: tuple[int, str],
    chosen: PfnSet,
) -> Iterator[_File]:
    for name, fill in (
        ("proc/meminfo", _meminfo),
        ("proc/vmstat", _vmstat),
        ("proc/zoneinfo", _zoneinfo),
        ("proc/buddyinfo", _buddyinfo),
        ("sys/devices/system/node", _nodes),
    ):
        file = _File(name)
        fill(file, predicted, observed, tolerance)
        yield file
    for name, fill_exact in (
        ("proc/kpageflags", partial(_kpageflags, chosen=chosen)),
        ("proc/iomem", _iomem),
        ("sys/devices/system/memory", _memory),
        ("sys/module/memory_hotplug/parameters", _parameters),
        ("sys/devices/system/xen_memory", _balloon),
    ):
        file = _File(name)
        fill_exact(file, predicted, observed)
        if file.nr_fields or fill_exact is not _balloon:  # few machines have one
            yield file


def _meminfo(
    file: _File, predicted: Observation, observed: Observation, tolerance: tuple[int, str]
) -> None:
    mine, other = predicted.meminfo, observed.meminfo
    if mine is None or other is None:
        return
    pages, why = tolerance
    kib = _page_kib(observed)
    file.exact("MemTotal", mine.get("MemTotal"), other.get("MemTotal"), _SOURCES["total"])
    for name, source in (
        ("CommitLimit", "commit"),
        ("DirectMap1G", "direct_map"),
        ("HugePages_Total", "hugetlb"),
        ("HugePages_Free", "hugetlb"),
        ("HugePages_Surp", "hugetlb"),
        ("Hugetlb", "hugetlb"),
        ("HardwareCorrupted", "poison"),
    ):
        if name in mine and name in other:
            file.exact(name, mine[name], other[name], _SOURCES[source])
    for name in ("Shmem", "Cached"):
        file.near(
            name,
            mine.get(name, 0),
            other.get(name, 0),
            _FILE_KIB,
            "kB of the guest's other files",
            _SOURCES["files"],
        )
    for name, source in (("MemFree", "free"), ("MemAvailable", "available")):
        file.near(
            f"{name} and per-CPU lists",
            mine.get(name, 0) + _on_cpu_lists(predicted) * kib,
            other.get(name, 0) + _on_cpu_lists(observed) * kib,
            pages * kib,
            f"kB; {why}",
            _SOURCES[source],
        )


def _page_kib(observed: Observation) -> int:
    return (page_size_bytes(observed) or 4096) // 1024


def _vmstat(
    file: _File, predicted: Observation, observed: Observation, tolerance: tuple[int, str]
) -> None:
    mine, other = predicted.vmstat, observed.vmstat
    if mine is None or other is None:
        return
    if "nr_memmap_pages" in other:
        file.exact(
            "nr_memmap_pages",
            mine.get("nr_memmap_pages"),
            other["nr_memmap_pages"],
            _SOURCES["memmap_pages"],
        )
    file.near(
        "nr_free_pages and per-CPU lists",
        mine["nr_free_pages"] + _on_cpu_lists(predicted),
        other["nr_free_pages"] + _on_cpu_lists(observed),
        *tolerance,
        _SOURCES["free"],
    )


def _zone_pairs(
    predicted: Observation, observed: Observation
) -> Iterator[tuple[ZoneInfo, ZoneInfo]]:
    others = {zone.key: zone for zone in observed.zoneinfo or ()}
    mine = {zone.key: zone for zone in predicted.zoneinfo or ()}
    for key in dict.fromkeys([*mine, *others]):
        blank = ZoneInfo(key[0], key[1], {})
        yield mine.get(key, blank), others.get(key, blank)


def _label(zone: ZoneInfo) -> str:
    return f"node {zone.node} {zone.name}"


def _zone_field(file: _File, mine: ZoneInfo, other: ZoneInfo, name: str) -> None:
    source = _SOURCES.get(name, _SOURCES["watermarks"])
    file.exact(f"{_label(mine)} {name}", mine.pages.get(name), other.pages.get(name), source)


def _zoneinfo(
    file: _File, predicted: Observation, observed: Observation, tolerance: tuple[int, str]
) -> None:
    for mine, other in _zone_pairs(predicted, observed):
        for name in ("spanned", "present", "managed"):
            _zone_field(file, mine, other, name)
        for name in ("min", "low", "high", "promo"):
            if name in other.pages or name in mine.pages:
                # A boost after fragmentation comes and goes by itself, and is counted in.
                file.exact(
                    f"{_label(mine)} {name} without boost",
                    mine.pages.get(name, 0) - mine.pages.get("boost", 0),
                    other.pages.get(name, 0) - other.pages.get("boost", 0),
                    _SOURCES["watermarks"],
                )
        file.exact(
            f"{_label(mine)} start_pfn", mine.start_pfn, other.start_pfn, _SOURCES["spanned"]
        )
        file.exact(
            f"{_label(mine)} protection",
            mine.protection,
            other.protection,
            _SOURCES["protection"],
        )
        file.near(
            f"{_label(mine)} free and per-CPU lists",
            mine.pages.get("free", 0) + _zone_on_cpu_lists(mine),
            other.pages.get("free", 0) + _zone_on_cpu_lists(other),
            *tolerance,
            _SOURCES["free"],
        )


def _buddyinfo(
    file: _File, predicted: Observation, observed: Observation, tolerance: tuple[int, str]
) -> None:
    mine, other = predicted.buddyinfo, observed.buddyinfo
    if mine is None or other is None:
        return
    for a, b in _zone_pairs(predicted, observed):
        if a.key not in mine and b.key not in other:
            continue
        file.near(
            f"{_label(a)} pages in chunks and per-CPU lists",
            _chunk_pages(mine.get(a.key, ())) + _zone_on_cpu_lists(a),
            _chunk_pages(other.get(b.key, ())) + _zone_on_cpu_lists(b),
            *tolerance,
            _SOURCES["free"],
        )


def _chunk_pages(counts: tuple[int, ...]) -> int:
    return sum(count << order for order, count in enumerate(counts))


def _kpageflags(
    file: _File, predicted: Observation, observed: Observation, *, chosen: PfnSet
) -> None:
    if predicted.kpageflags is None or observed.kpageflags is None:
        return
    mine, other = _classes(predicted.kpageflags), _classes(observed.kpageflags)
    if observed.balloon is None:
        # In a Xen domain the flag of memmap pages marks page tables (arch/x86/xen/mmu_pv.c).
        file.exact(_MEMMAP, mine[_MEMMAP], other[_MEMMAP], _SOURCES["memmap_flags"])
    file.exact(_NO_MEMMAP, mine[_NO_MEMMAP], other[_NO_MEMMAP], _SOURCES["kpageflags"])
    for name, source in (
        ("HWPoison pages", "poison"),
        ("number of pages in huge pages", "hugetlb"),
    ):
        file.exact(name, mine[name], other[name], _SOURCES[source])
    if observed.balloon is None:
        file.exact(_WITHHELD, mine[_WITHHELD], other[_WITHHELD], _SOURCES["kpageflags"])
    else:
        withheld, seen = (PfnSet.of(*flags[_WITHHELD].values()) for flags in (mine, other))
        _ballooned(file, withheld, seen, chosen)


def _ballooned(file: _File, withheld: PfnSet, seen: PfnSet, chosen: PfnSet) -> None:
    """Compare the pages that a balloon withholds.

    What the buddy chose lies anywhere; there must be as many, and all others where predicted.
    """
    if chosen:
        file.exact("number of PageOffline pages", len(withheld), len(seen), _SOURCES["ballooned"])
        withheld = withheld - chosen
        seen = seen & withheld
    file.exact("PageOffline pages", withheld, seen, _SOURCES["kpageflags"])


_MEMMAP = "memmap pages and their flags"
_NO_MEMMAP = "pages without an online memmap"
_WITHHELD = "PageOffline pages and their flags"


def _classes(runs: PageWords) -> dict[str, Any]:
    """Return what must be exact: where memmap pages are, with which flags, and what is no page."""
    memmap: dict[int, PfnSet] = {}
    offline: dict[int, PfnSet] = {}
    nopage, poisoned = PfnSet(), PfnSet()
    nr_huge = 0
    for run in runs:
        pfns = PfnRange(run.start_pfn, run.start_pfn + run.nr_pages)
        if run.flags == PageFlag.NOPAGE:
            nopage |= pfns
        elif run.flags & PageFlag.OFFLINE:
            offline.setdefault(run.flags, PfnSet()).__ior__(pfns)
        elif run.flags & PageFlag.HWPOISON:
            poisoned |= pfns
        elif run.flags & PageFlag.HUGE:
            nr_huge += run.nr_pages
        elif is_memmap(run.flags):
            memmap.setdefault(run.flags, PfnSet()).__ior__(pfns)
    return {
        _MEMMAP: {f"{flags:#x}": s for flags, s in memmap.items()},
        _NO_MEMMAP: nopage,
        _WITHHELD: {f"{flags:#x}": s for flags, s in offline.items()},
        "HWPoison pages": poisoned,
        "number of pages in huge pages": nr_huge,
    }


def _nodes(
    file: _File, predicted: Observation, observed: Observation, tolerance: tuple[int, str]
) -> None:
    mine, other = predicted.nodes, observed.nodes
    if mine is None or other is None:
        return
    for name in other.lists:
        file.exact(name, mine.lists.get(name), other.lists[name], _SOURCES["nodes"])
    pages, why = tolerance
    kib = _page_kib(observed)
    for node, meminfo in other.meminfo.items():
        shown = mine.meminfo.get(node, {})
        file.exact(
            f"node{node} MemTotal",
            shown.get("MemTotal"),
            meminfo.get("MemTotal"),
            _SOURCES["total"],
        )
        for name in ("HugePages_Total", "HugePages_Free", "HugePages_Surp"):
            if name in meminfo:
                file.exact(
                    f"node{node} {name}", shown.get(name), meminfo[name], _SOURCES["hugetlb"]
                )
        file.near(
            f"node{node} MemFree and per-CPU lists",
            shown.get("MemFree", 0) + _on_cpu_lists(predicted, node) * kib,
            meminfo.get("MemFree", 0) + _on_cpu_lists(observed, node) * kib,
            pages * kib,
            f"kB; {why}",
            _SOURCES["free"],
        )


#: System RAM, and the region of a virtio-mem device that holds some.
_RAM = re.compile(r"System RAM|^virtio\d+$")


def _iomem(file: _File, predicted: Observation, observed: Observation) -> None:
    if predicted.iomem is None or observed.iomem is None:
        return
    mine, other = (
        {(line.start, line.end): line.name for line in o.iomem or () if _RAM.search(line.name)}
        for o in (predicted, observed)
    )
    for start, end in sorted({*mine, *other}):
        file.exact(
            f"{start:#x}-{end - 1:#x}",
            mine.get((start, end)),
            other.get((start, end)),
            _SOURCES["iomem"],
        )


def _memory(file: _File, predicted: Observation, observed: Observation) -> None:
    mine, other = predicted.memory, observed.memory
    if mine is None or other is None:
        return
    file.exact("block_size_bytes", mine.block_size_bytes, other.block_size_bytes, "")
    file.exact("auto_online_blocks", mine.auto_online_blocks, other.auto_online_blocks, "")
    for id_ in sorted({*mine.blocks, *other.blocks}):
        a, b = mine.blocks.get(id_), other.blocks.get(id_)
        name = f"memory{id_}"
        file.exact(f"{name}/state", a and a.state, b and b.state, _SOURCES["state"])
        file.exact(
            f"{name}/valid_zones", a and a.valid_zones, b and b.valid_zones, _SOURCES["valid_zones"]
        )
        file.exact(f"{name} nodes", a and a.nodes, b and b.nodes, _SOURCES["state"])


def _balloon(file: _File, predicted: Observation, observed: Observation) -> None:
    mine, other = predicted.balloon, observed.balloon
    if mine is None and other is None:
        return
    source = _SOURCES["balloon"]
    for name in ("target_kb", "current_kb", "low_kb", "high_kb"):
        file.exact(name, getattr(mine, name, None), getattr(other, name, None), source)
    for table in ("meminfo", "vmstat"):
        a, b = getattr(predicted, table) or {}, getattr(observed, table) or {}
        for name in ("Balloon", "nr_balloon_pages"):
            if name in b:
                file.exact(f"proc/{table} {name}", a.get(name), b[name], source)


def _parameters(file: _File, predicted: Observation, observed: Observation) -> None:
    for name, text in observed.parameters.items():
        file.exact(name, predicted.parameters.get(name), text, _SOURCES["parameters"])


def _text(value: object) -> str:
    if isinstance(value, PfnSet):
        shown = [str(run) for run, _ in zip(value.ranges(), range(3), strict=False)]
        return f"{len(value)} pages {' '.join(shown)}" + (" …" if value.nr_ranges() > 3 else "")
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "absent" if value is None else str(value)
