"""How far a field may be from its prediction, derived from what the real kernel shows.

The model predicts what hotplug changes. What processes and kernel objects use meanwhile it does not
predict, so that free memory may differ by it, and only by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.linux.observation import Observation, page_size_bytes

__all__ = (
    "FILES_KIB",
    "FIRMWARE_PAGES",
    "FLOOR_PAGES",
    "FREE_KIB",
    "FREE_PAGES",
    "ROUNDED_PAGES",
    "SHARED_FREE_PAGES",
    "SHARE_PAGES",
    "ZONE_FREE_PAGES",
    "Tolerance",
    "page_kib",
)

#: Slab of one memory block: its device, its kernfs nodes, the usage maps of its sections.
_SLAB_PAGES_PER_BLOCK = 16
#: What the guest's shell and kernel threads allocate and free, kernel stacks and page tables aside.
_PROCESS_PAGES = 512
_STACKS_AND_TABLES = ("KernelStack", "PageTables")
#: Of kernel mappings: a module that is loaded takes a large page where the kernel keeps such for
#: code (mm/execmem.c: execmem_cache_populate_alloc).
_VMALLOC = ("VmallocUsed",)
#: Pages of 4 KiB that hv_balloon allocates at once; as many as a pageblock has.
_UNIT_PAGES = 512
#: Pageblocks of which a balloon of single pages leaves the free pages to processes: a movable one,
#: and a reclaimable one.
_KEPT_PAGEBLOCKS = 2
#: Page cache of the guest's own programs and files.
_FILES_KIB = 512
#: Tables that the firmware puts at the end of low memory.
_FIRMWARE_PAGES = 16


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far observation and prediction may be apart, the bound included.

    Attributes
    ----------
    rule : str
        The derivation in words, with its unit.
    derive : callable
        Takes what the real kernel showed at its start and shows now; returns the bound, in the
        field's own unit, and its derivation with the numbers filled in, the unit first.
    """

    rule: str
    derive: Callable[[Observation, Observation], tuple[int, str]]


def page_kib(seen: Observation) -> int:
    """Return the page size of the machine in KiB; 4 where its files do not tell."""
    return (page_size_bytes(seen) or 4096) // 1024


def _free_pages(start: Observation, now: Observation) -> tuple[int, str]:
    pages, why = _unpredicted(start, now)
    return pages, f"pages: {why}"


def _zone_free_pages(start: Observation, now: Observation) -> tuple[int, str]:
    """Return the bound of one zone.

    Where a process has a page, it gives one huge page fewer. A zone that was used down to its low
    watermark has its per-CPU lists besides, and another zone has that much less.
    """
    pages, why = _unpredicted(start, now)
    listed = sum(
        zone.nr_on_cpu_lists
        for zone in now.zoneinfo or ()
        if 0 < zone.pages.get("free", 0) <= zone.pages.get("low", 0)
    )
    if listed:
        pages, why = pages + listed, f"{why}, {listed} on per-CPU lists beside the low watermark"
    meminfo = now.meminfo or {}
    unit = meminfo.get("Hugepagesize", 0) // page_kib(now) if meminfo.get("HugePages_Total") else 0
    if unit:
        return -(-pages // unit) * unit, f"pages: whole huge pages of {unit} for {why}"
    return pages, f"pages: {why}"


def _free_kib(start: Observation, now: Observation) -> tuple[int, str]:
    pages, why = _unpredicted(start, now)
    return pages * page_kib(now), f"kB: {pages} pages, {why}"


def _share_pages(start: Observation, now: Observation) -> tuple[int, str]:
    pages, why = _unpredicted(start, now)
    if now.balloon is not None:
        kept = max([_KEPT_PAGEBLOCKS * _UNIT_PAGES, *_in_small_chunks(now)])
        return kept + pages, f"pages: {kept} in pageblocks that processes share, {why}"
    return -(-pages // _UNIT_PAGES) * _UNIT_PAGES, f"pages: units of {_UNIT_PAGES} for {why}"


def _shared_free_pages(start: Observation, now: Observation) -> tuple[int, str]:
    pages, why = _unpredicted(start, now)
    share, _ = _share_pages(start, now)
    return share + pages, f"pages: {share} of managed pages, {why}"


def _in_small_chunks(seen: Observation) -> list[int]:
    """Return each zone's free pages in chunks below a pageblock: processes have a page beside."""
    return [
        sum(count << order for order, count in enumerate(chunks) if 1 << order < _UNIT_PAGES)
        for chunks in (seen.buddyinfo or {}).values()
    ]


def _floor_pages(start: Observation, now: Observation) -> tuple[int, str]:
    """Return by how much a balloon's pages may differ that a guest gave down to its floor.

    It gives what is available above the floor, which of 128 MiB or more falls by a quarter at most
    of what MemTotal falls, so that a difference grows by a third.
    """
    pages, why = _unpredicted(start, now)
    listed = max(sum(z.nr_on_cpu_lists for z in seen.zoneinfo or ()) for seen in (start, now))
    most = -(-(pages + listed) * 4 // 3)
    return most, f"pages: 4/3 of {listed} on per-CPU lists, {why}"


def _unpredicted(start: Observation, now: Observation) -> tuple[int, str]:
    """Return the pages that slab and processes may have taken or freed since the start."""
    # A block that has gone may leave slab behind, so that the larger number counts.
    blocks = max((len(seen.memory.blocks) for seen in (start, now) if seen.memory), default=0)
    processes = _PROCESS_PAGES + _change(_STACKS_AND_TABLES, start, now)
    mapped = _change(_VMALLOC, start, now)
    why = (
        f"{_SLAB_PAGES_PER_BLOCK} of slab for each of {blocks} blocks, "
        f"{processes} of processes that started or ended"
    ) + (f", {mapped} of kernel mappings" if mapped else "")
    return _SLAB_PAGES_PER_BLOCK * blocks + processes + mapped, why


def _change(keys: tuple[str, ...], start: Observation, now: Observation) -> int:
    """Return by how many pages the sum of meminfo's *keys*, which are in kB, has changed."""
    was, is_now = (sum((seen.meminfo or {}).get(key, 0) for key in keys) for seen in (start, now))
    return abs(is_now - was) // page_kib(now)


_FREE_RULE = (
    f"{_SLAB_PAGES_PER_BLOCK} pages for each memory block, {_PROCESS_PAGES} pages, and the changes "
    f"of {' and '.join(_STACKS_AND_TABLES)}, and of {_VMALLOC[0]}"
)
FREE_PAGES = Tolerance(_FREE_RULE, _free_pages)
ZONE_FREE_PAGES = Tolerance(
    f"{_FREE_RULE}; the per-CPU lists of zones at their low watermark; with a pool of huge pages "
    "all that in whole ones of them",
    _zone_free_pages,
)
SHARE_PAGES = Tolerance(
    f"{_FREE_RULE}; Hyper-V: all that in whole units of {_UNIT_PAGES} pages, which its balloon "
    f"takes; Xen: {_KEPT_PAGEBLOCKS} pageblocks that processes share besides, or what a zone has "
    "free in chunks below a pageblock, of which its balloon takes no page at first",
    _share_pages,
)
SHARED_FREE_PAGES = Tolerance(
    f"that of the zone's managed pages, and once more {_FREE_RULE}", _shared_free_pages
)
ROUNDED_PAGES = Tolerance(
    "2 pages for each zone: its part of min, and what is added to it, are rounded down",
    lambda _start, now: (
        2 * len(now.zoneinfo or ()),
        f"pages: 2 of rounding for each of {len(now.zoneinfo or ())} zones",
    ),
)
FREE_KIB = Tolerance(f"{_FREE_RULE}; in kB", _free_kib)
FLOOR_PAGES = Tolerance(
    f"4/3 of the pages on per-CPU lists, which MemAvailable lacks, and {_FREE_RULE}: the floor "
    "falls by up to a quarter of what MemTotal falls",
    _floor_pages,
)
FILES_KIB = Tolerance(
    f"{_FILES_KIB} kB of the guest's own programs and files",
    lambda _start, _now: (_FILES_KIB, "kB: the guest's own programs and files"),
)
FIRMWARE_PAGES = Tolerance(
    f"{_FIRMWARE_PAGES} pages of the firmware's tables at the end of low memory",
    lambda _start, _now: (_FIRMWARE_PAGES, "pages: the firmware's tables at the end of low memory"),
)
