"""The page sets of an adopted kernel: from kpageflags, or assumed from the zones' counters."""

from __future__ import annotations

from itertools import pairwise

from altmap.linux.kpageflags import PageFlag
from altmap.linux.observation import Observation
from altmap.linux.pageuse import unmapped_anonymous
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.pfn import PfnRange, PfnSet

__all__ = ("take_memmaps", "take_pages")


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
    free, movable, huge, blank = PfnSet(), PfnSet(), PfnSet(), PfnSet()
    for run in seen.kpageflags:
        pfns = PfnRange(run.start_pfn, run.start_pfn + run.nr_pages)
        if run.flags & PageFlag.BUDDY:
            free |= pfns
        elif run.flags & PageFlag.HWPOISON:
            kernel.poisoned |= pfns
        elif run.flags & PageFlag.OFFLINE:
            kernel.fake_offline |= pfns
            if run.flags & PageFlag.DIRTY:
                kernel.never_onlined |= pfns
        elif run.flags & PageFlag.RESERVED and not run.flags & PageFlag.OWNER_PRIVATE:
            kernel.reserved |= pfns
        elif run.flags & PageFlag.HUGE:
            huge |= pfns
        elif run.flags & PageFlag.LRU:
            movable |= pfns
        elif not run.flags:
            blank |= pfns
    _take_huge_pages(kernel, seen)
    movable |= huge - kernel.hugetlb_pages()
    for zone in kernel.zones.values():
        managed = kernel.managed(zone)
        in_use = managed - free
        kernel.used |= in_use
        # All that is allocated from ZONE_MOVABLE can be migrated.
        movable_here = in_use if zone.name == MOVABLE else in_use & movable
        kernel.movable |= movable_here - kernel.poisoned - kernel.hugetlb_pages()
    _take_percpu_lists(kernel, seen, blank)
    files = (seen.kpageflags, seen.kpagecount or (), seen.kpagecgroup or ())
    for start, nr_pages in unmapped_anonymous(*files):
        kernel.pinned |= kernel.movable & PfnRange(start, start + nr_pages)


def _take_percpu_lists(kernel: Kernel, seen: Observation, blank: PfnSet) -> None:
    """Set which pages are free on per-CPU lists: like some of the kernel's they have no flag.

    Only the lists' lengths are in a file. If a zone has no more pages without any flag, all of
    them are free; else only a block that has more than the lists contain has some of the kernel's.
    """
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or zone.name == MOVABLE:
            continue
        waiting = sum(pageset.get("count", 0) for pageset in info.pagesets)
        mine = blank & kernel.used & zone.present
        if len(mine) <= waiting:
            kernel.percpu |= mine
            continue
        for block in kernel.online_blocks & kernel.blocks(zone.span):
            part = mine & kernel.block_pfns(block)
            if len(part) <= waiting:
                kernel.doubtful |= part


def _take_huge_pages(kernel: Kernel, seen: Observation) -> None:
    """Put huge pages into pools by their size: a head, followed by its tails.

    Those in use have the flag UPTODATE, free ones have not.
    """
    runs = [run for run in seen.kpageflags or () if run.flags & PageFlag.HUGE]
    for head, tail in pairwise(runs):
        if not head.flags & PageFlag.COMPOUND_HEAD or not tail.flags & PageFlag.COMPOUND_TAIL:
            continue
        size = head.nr_pages + tail.nr_pages
        if head.nr_pages != 1 or head.start_pfn % size or tail.start_pfn != head.start_pfn + 1:
            continue
        pool = kernel.hugetlb.setdefault(size, HugePool(size))
        pages = PfnSet([PfnRange(head.start_pfn, head.start_pfn + size)])
        if head.flags & PageFlag.UPTODATE:
            pool.in_use |= pages
        elif pool.free:
            pool.free[0] |= pages
        else:
            pool.put(pages)


def _assume_pages(kernel: Kernel, seen: Observation) -> None:
    """Choose pages so that each zone's counters agree: kept and used ones are the highest."""
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or not zone.present:
            continue
        early = zone.present & kernel.boot_ram
        hosted = len(kernel.self_hosted & zone.present)
        missing = info.pages["present"] - info.pages["managed"] - hosted
        kept = early - early.highest(max(0, len(early) - max(0, missing)))
        kernel.reserved |= kept
        managed = kernel.managed(zone)
        in_use = managed - managed.highest(info.pages["free"])
        kernel.used |= in_use
        if zone.name == MOVABLE:
            kernel.movable |= in_use


def take_memmaps(kernel: Kernel, fixed: PfnSet) -> None:
    """Set which pages in use contain the memmaps of added memory: the highest of *fixed*.

    No file shows them. They are freed to the buddy allocator when their block is removed.
    """
    fixed &= kernel.boot_ram
    for addition in kernel.additions:
        if not addition.memmap.self_hosted:
            addition.host_pages = fixed.highest(kernel.arch.memmap_nr_pages(len(addition.pfns)))
            fixed = fixed - addition.host_pages
