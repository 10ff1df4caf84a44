"""Pageblocks: the pieces in which a range is isolated before it goes offline."""

from __future__ import annotations

from altmap.pfn import PfnRange, PfnSet

__all__ = ("first_dumped_pfn",)


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
