"""``/proc/kpageflags`` as the modelled kernel shows it: the base's runs, changed pages anew."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.linux.kpageflags import PageFlag
from altmap.linux.observation import PageRun
from altmap.model.kernel.state import Kernel
from altmap.model.releases import Release
from altmap.pfn import PfnRange, PfnSet, PfnStride

__all__ = ("kpageflags_shown",)


def kpageflags_shown(
    base: tuple[PageRun, ...] | None, kernel: Kernel
) -> tuple[PageRun, ...] | None:
    """Return the flags of every page frame up to the end of the last section, as runs."""
    if base is None:
        return None
    section = kernel.arch.section_nr_pages
    end = max(-(-kernel.max_pfn // section) * section, sum(run.nr_pages for run in base))
    changed = kernel.pages_of(kernel.changed_blocks) | kernel.shown_pages
    return tuple(_overlay(base, changed, _layers(kernel, changed), end, kernel.release))


def _layers(kernel: Kernel, changed: PfnSet) -> list[tuple[PfnSet, int]]:
    """Return the changed pages that are present and online, by their flags, without overlap."""
    shown = changed & kernel.pages_of(kernel.online_blocks)
    left = PfnSet()
    for zone in kernel.zones.values():
        left |= zone.present & shown
    layers = []
    for pages, flags in (
        (kernel.self_hosted, kernel.release.memmap_page_flags),
        (kernel.never_onlined, PageFlag.OFFLINE | PageFlag.DIRTY),
        (kernel.fake_offline, PageFlag.OFFLINE),
        (kernel.reserved, PageFlag.RESERVED),
        (kernel.poisoned, PageFlag.HWPOISON),
        (_heads(kernel), PageFlag.COMPOUND_HEAD | PageFlag.HUGE),
        (kernel.hugetlb_pages(), PageFlag.COMPOUND_TAIL | PageFlag.HUGE),
        (kernel.movable, PageFlag.LRU),
        (kernel.used, 0),
        (left, PageFlag.BUDDY),
    ):
        layers.append((pages & left, int(flags)))
        left = left - pages
    return layers


def _heads(kernel: Kernel) -> PfnSet:
    """Return the first page of each huge page."""
    heads = PfnSet()
    for pool in kernel.hugetlb.values():
        for run in pool.pages.ranges():
            heads |= PfnStride(run.start, run.end, pool.nr_pages, 1)
    return heads


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
