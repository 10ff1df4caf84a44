"""Pageblocks: the pieces in which a range is isolated before it goes offline."""

from __future__ import annotations

import numpy as np

from altmap.pfn import PfnRange, PfnSet

__all__ = ("first_dumped_pfn", "in_movable_pageblocks")


def first_dumped_pfn(
    stuck: PfnSet, pfns: PfnRange, pageblock_nr_pages: int, *, ends_first: bool
) -> int:
    """Return the unmovable page that the kernel's log names ("unmovable page").

    The first one of the first pageblock that has any: pageblocks are isolated in their order, or
    the first and the last before those between.
    Source: ``mm/page_isolation.c: start_isolate_page_range, set_migratetype_isolate``.

    Parameters
    ----------
    stuck : PfnSet
        The unmovable pages, at least one.
    pfns : PfnRange
        The range that goes offline: a memory block without its own memmap.
    pageblock_nr_pages : int
    ends_first : bool
        As :attr:`altmap.model.releases.Release.isolates_ends_first`.
    """
    if ends_first:
        first = PfnRange(pfns.start, pfns.start + pageblock_nr_pages)
        last = PfnRange(pfns.end - pageblock_nr_pages, pfns.end)
        for end in (first, last):
            if stuck.count(end):
                return (stuck & end).min()
    return stuck.min()


def in_movable_pageblocks(
    pages: PfnSet, moving: PfnSet, own: PfnSet, pageblock_nr_pages: int
) -> PfnSet:
    """Return those of some pages that lie in movable pageblocks.

    Such a pageblock has pages of processes or files, and none that the kernel marks as its own: its
    others are in pageblocks of their own (``mm/page_alloc.c: __rmqueue``).

    Parameters
    ----------
    pages : PfnSet
    moving, own : PfnSet
        Pages of processes and files, and of the kernel: none of *pages*.
    pageblock_nr_pages : int
    """
    mine, with_moving, with_own = (
        np.unique((each.edge_array(each.span()).reshape(-1, 2) - (0, 1)) // pageblock_nr_pages)
        for each in (pages, moving, own)
    )
    # No run covers a pageblock that has pages of two sets: each in it begins or ends there.
    found = np.setdiff1d(np.intersect1d(mine, with_moving), with_own)
    return pages & PfnSet.from_runs(
        found * pageblock_nr_pages, np.full(len(found), pageblock_nr_pages)
    )
