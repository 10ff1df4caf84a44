"""Extractors of page frames, by what ``/proc/kpageflags`` says of each.

Where free, movable and kernel pages lie is chance; where the memmap lies, which frames have none,
and which a driver keeps offline is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from altmap.compare.side import Key, Side
from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.pagewords import PageWords
from altmap.pfn import PfnSet

__all__ = (
    "huge_pages",
    "hwpoison_pages",
    "memmap_pages",
    "nr_offline_pages",
    "offline_pages",
    "pages_without_memmap",
    "predictable_offline_pages",
)

_Pairs = Iterator[tuple[Key, Any]]


class _PageClass(Enum):
    """Page frames whose number or place is compared; each frame is of the first that fits."""

    NO_MEMMAP = auto()
    OFFLINE = auto()
    HWPOISON = auto()
    HUGE = auto()
    MEMMAP = auto()


def _class_of(flags: int) -> _PageClass | None:
    if flags == PageFlag.NOPAGE:
        return _PageClass.NO_MEMMAP
    if flags & PageFlag.OFFLINE:
        return _PageClass.OFFLINE
    if flags & PageFlag.HWPOISON:
        return _PageClass.HWPOISON
    if flags & PageFlag.HUGE:
        return _PageClass.HUGE
    return _PageClass.MEMMAP if is_memmap(flags) else None


def memmap_pages(side: Side) -> _Pairs:
    """Yield the frames that hold the memmap of their own block, by their flags.

    In a Xen domain the flag that marks them also marks page tables (``arch/x86/xen/mmu_pv.c``), and
    they are not compared.
    """
    if side.seen.balloon is None:
        yield (), _by_flags(side, _PageClass.MEMMAP)


def pages_without_memmap(side: Side) -> _Pairs:
    """Yield the frames without an online memmap."""
    yield (), _pages(side, _PageClass.NO_MEMMAP)


def hwpoison_pages(side: Side) -> _Pairs:
    """Yield the frames with a memory error, real or injected."""
    yield (), _pages(side, _PageClass.HWPOISON)


def huge_pages(side: Side) -> _Pairs:
    """Yield how many pages the huge pages of pools consist of; which ones they are is chance."""
    yield (), len(_pages(side, _PageClass.HUGE))


def offline_pages(side: Side) -> _Pairs:
    """Yield the PageOffline frames by their flags, unless a balloon has pages."""
    if not _has_balloon(side):
        yield (), _by_flags(side, _PageClass.OFFLINE)


def nr_offline_pages(side: Side) -> _Pairs:
    """Yield the number of PageOffline frames where a balloon has pages."""
    if _has_balloon(side):
        yield (), len(_pages(side, _PageClass.OFFLINE))


def predictable_offline_pages(side: Side) -> _Pairs:
    """Yield the PageOffline frames where a balloon has pages, but for those that the buddy chose.

    Which frames it gives to the balloon is not predicted. Real ones lie anywhere, so that the
    predicted frames must be among the observed ones; their number is compared as well.
    """
    if _has_balloon(side):
        yield (), _pages(side, _PageClass.OFFLINE) - side.chosen


def _has_balloon(side: Side) -> bool:
    """Tell whether the machine is a Xen domain, or has a Hyper-V balloon with pages."""
    return side.seen.balloon is not None or bool(side.chosen)


def _pages(side: Side, kind: _PageClass) -> PfnSet:
    return _words(side).select(lambda flags: _class_of(flags) is kind)


def _by_flags(side: Side, kind: _PageClass) -> dict[str, PfnSet]:
    found = _words(side).sets(lambda flags: flags if _class_of(flags) is kind else None)
    return {f"{flags:#x}": found[flags] for flags in sorted(found)}


def _words(side: Side) -> PageWords:
    return side.seen.kpageflags or PageWords()
