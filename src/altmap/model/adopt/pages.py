"""The page sets of an adopted kernel: from kpageflags, or assumed from the zones' counters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from altmap.linux.kpageflags import ON_LRU, PageFlag
from altmap.linux.observation import Observation
from altmap.linux.pageuse import unmapped_anonymous
from altmap.model.kernel.initial_state import adopt_huge_pages, adopt_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.model.pageblocks import in_movable_pageblocks
from altmap.pfn import PfnSet

__all__ = ("take_pages",)


def take_pages(kernel: Kernel, seen: Observation, notes: list[str]) -> None:
    """Set which pages are reserved, in use, movable, huge, fake-offline, poisoned and pinned.

    Without kpageflags the sets are assumed so that the zones' counters agree, with a note.
    """
    if not seen.kpageflags:
        notes.append(
            "proc/kpageflags is missing: which pages are free, in use or reserved is assumed "
            "so that the zones' counters agree"
        )
        _assume_pages(kernel, seen)
        return
    found = seen.kpageflags.sets(_class_of)
    free, movable, huge, blank = (
        found.get(name, PfnSet()) for name in ("free", "movable", "huge", "blank")
    )
    never_onlined = found.get("never onlined", PfnSet())
    adopt_pages(
        kernel,
        poisoned=found.get("poisoned"),
        reserved=found.get("reserved"),
        never_onlined=never_onlined,
        fake_offline=found.get("fake-offline", PfnSet()) | never_onlined,
    )
    _take_huge_pages(kernel, seen)
    movable |= huge
    for zone in kernel.zones.values():
        managed = kernel.managed(zone)
        in_use = managed - free
        # All that is allocated from ZONE_MOVABLE can be migrated.
        movable_here = in_use if zone.name == MOVABLE else in_use & movable
        movable_here = movable_here - kernel.poisoned - kernel.hugetlb_pages()
        adopt_pages(kernel, used=in_use, movable=movable_here)
    _take_percpu_lists(kernel, seen, blank)
    held = unmapped_anonymous(seen.kpageflags, seen.kpagecount, seen.kpagecgroup)
    adopt_pages(kernel, pinned=kernel.movable & held)


def _class_of(flags: int) -> str | None:
    """Return what the flags of a page in ``/proc/kpageflags`` say of it, ``None`` for nothing."""
    if flags & PageFlag.OFFLINE and not flags & (PageFlag.BUDDY | PageFlag.HWPOISON):
        return "never onlined" if flags & PageFlag.DIRTY else "fake-offline"
    if flags & PageFlag.RESERVED and flags & PageFlag.OWNER_PRIVATE:
        flags &= ~PageFlag.RESERVED  # a self-hosted memmap
    for bit, name in (
        (PageFlag.BUDDY, "free"),
        (PageFlag.HWPOISON, "poisoned"),
        (PageFlag.RESERVED, "reserved"),
        (PageFlag.HUGE, "huge"),
        (ON_LRU, "movable"),
    ):
        if flags & bit:
            return name
    return None if flags else "blank"


def _take_percpu_lists(kernel: Kernel, seen: Observation, blank: PfnSet) -> None:
    """Set which pages are free on per-CPU lists: like some of the kernel's they have no flag.

    Only the lists' lengths are in a file. If a zone has no more pages without any flag, all of
    them are free; else only a block that has more than the lists contain has some of the kernel's.
    Those in movable pageblocks are free.
    """
    size = kernel.arch.pageblock_nr_pages
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or zone.name == MOVABLE:
            continue
        waiting = info.nr_on_cpu_lists
        mine = blank & kernel.used & zone.present
        if len(mine) <= waiting:
            adopt_pages(kernel, pcp=mine)
            continue
        own = kernel.unmovable(zone.span) & zone.present
        free = in_movable_pageblocks(mine, kernel.movable & zone.present, own - mine, size)
        if len(free) <= waiting:
            adopt_pages(kernel, pcp=free)
        for block in kernel.online_blocks & kernel.blocks(zone.span):
            part = mine & kernel.block_pfns(block)
            if len(part) <= waiting:
                adopt_pages(kernel, maybe_pcp=part - kernel.pcp)


def _take_huge_pages(kernel: Kernel, seen: Observation) -> None:
    """Put huge pages into pools by their size: a head, followed by its tails.

    Those in use have the flag UPTODATE, free ones have not.
    """
    assert seen.kpageflags is not None
    kinds = seen.kpageflags.sets(_part_of_huge)
    tails = kinds.get("tail", PfnSet())
    for name in ("head in use", "free head"):
        for size, pages in _by_size(kinds.get(name, PfnSet()), tails).items():
            adopt_huge_pages(kernel, size, pages, in_use=name == "head in use")


def _by_size(heads: PfnSet, tails: PfnSet) -> dict[int, PfnSet]:
    """Return whole huge pages by their number of page frames: aligned heads followed by tails."""
    at = heads.array()
    edges = tails.edge_array(tails.span())
    starts, ends = edges[::2], edges[1::2]
    place = np.searchsorted(starts, at + 1)
    found = place < len(starts)
    at, place = at[found], place[found]
    whole = starts[place] == at + 1
    at, sizes = at[whole], (ends[place] - at)[whole]
    aligned = at % sizes == 0
    at, sizes = at[aligned], sizes[aligned]
    return {
        int(size): PfnSet.from_runs(at[sizes == size], sizes[sizes == size])
        for size in np.unique(sizes)
    }


def _part_of_huge(flags: int) -> str | None:
    if not flags & PageFlag.HUGE:
        return None
    if flags & PageFlag.COMPOUND_TAIL:
        return "tail"
    if flags & PageFlag.COMPOUND_HEAD:
        return "head in use" if flags & PageFlag.UPTODATE else "free head"
    return None


def _assume_pages(kernel: Kernel, seen: Observation) -> None:
    """Choose pages so that each zone's counters agree: reserved and used ones are the lowest."""
    _assume_ballooned(kernel, seen, _missing(kernel, seen))
    missing = _missing(kernel, seen)
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or not zone.present:
            continue
        early = zone.present & kernel.boot_ram
        kept = early - early.highest(max(0, len(early) - missing[info.key]))
        adopt_pages(kernel, reserved=kept)
        managed = kernel.managed(zone)
        in_use = managed - managed.highest(info.pages["free"])
        adopt_pages(kernel, used=in_use, movable=in_use if zone.name == MOVABLE else None)


def _missing(kernel: Kernel, seen: Observation) -> dict[tuple[int, str], int]:
    """Return how many present pages of each zone are not managed and in no set yet."""
    known = kernel.self_hosted | kernel.fake_offline
    return {
        info.key: max(
            0,
            info.pages["present"]
            - info.pages["managed"]
            - known.count(kernel.zones[info.key].present),
        )
        for info in seen.zoneinfo or ()
        if info.key in kernel.zones
    }


def _assume_ballooned(
    kernel: Kernel, seen: Observation, missing: Mapping[tuple[int, str], int]
) -> None:
    """Choose the ballooned pages of a Xen domain: as many as its driver counts.

    They are present and not managed. Added sections are backed from their end down, so the lowest
    pages of the highest zone are chosen; on releases that count RAM beyond the domain's memory at
    boot as ballooned, the highest ones.
    """
    if seen.balloon is None:
        return
    left = (seen.balloon.low_kb + seen.balloon.high_kb) * 1024 // kernel.arch.page_size_bytes
    for zone in reversed(kernel.zones.values()):
        pages, room = zone.present - kernel.self_hosted, min(left, missing.get(zone.key, 0))
        at_boot = kernel.release.xen_extra_memory == "ballooned"
        chosen = pages.highest(room) if at_boot else pages.lowest(room)
        adopt_pages(kernel, fake_offline=chosen)
        left -= len(chosen)
