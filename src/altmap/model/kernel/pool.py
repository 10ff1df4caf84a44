"""A pool of huge pages of one size: free ones in a list, and those in use."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.pfn import PfnRange, PfnSet

__all__ = ("HugePool", "HvoPages", "aligned_chunks", "whole_chunks")


@dataclass(slots=True, eq=False)
class HvoPages:
    """What HVO has changed of the memmap of huge pages (:mod:`altmap.model.kernel.hvo`).

    Attributes
    ----------
    replaced : PfnSet
        Page frames of boot memory whose memmap is no longer in the pages that were reserved for it.
    pages : PfnSet
        Memmap pages that were allocated instead.
    boot_nr_pages : int
        What ``nr_memmap_boot_pages`` has gained: never more than 0.
    saved_nr_pages : int
        Memmap pages of added memory that are freed now.
    lost : PfnSet
        Page frames of huge pages that were freed and are in no list, on releases that lose them.
    copied_heads : PfnSet
        Those of them whose struct page is a copy of their huge page's first.
    """

    replaced: PfnSet = field(default_factory=PfnSet)
    pages: PfnSet = field(default_factory=PfnSet)
    boot_nr_pages: int = 0
    saved_nr_pages: int = 0
    lost: PfnSet = field(default_factory=PfnSet)
    copied_heads: PfnSet = field(default_factory=PfnSet)


@dataclass(slots=True, eq=False)
class HugePool:
    """Huge pages of one size (``mm/hugetlb.c: struct hstate``).

    Attributes
    ----------
    nr_pages : int
        Pages of one huge page.
    free : list of PfnSet
        Free huge pages, by their arrival in the list; the last ones are handed out first.
    in_use : PfnSet
        Huge pages that files hold.
    surplus : dict of int to int
        Node to huge pages that are freed to the buddy allocator when their file is removed.
    optimized : PfnSet
        Page frames of huge pages most of whose memmap is freed (HVO).
    not_migratable : PfnSet
        Huge pages in use that cannot be isolated any more (HPG_migratable is clear).
    """

    nr_pages: int
    free: list[PfnSet] = field(default_factory=list)
    in_use: PfnSet = field(default_factory=PfnSet)
    surplus: dict[int, int] = field(default_factory=dict)
    optimized: PfnSet = field(default_factory=PfnSet)
    not_migratable: PfnSet = field(default_factory=PfnSet)

    @property
    def free_pages(self) -> PfnSet:
        """Page frames of the free huge pages."""
        return PfnSet.of(*self.free)

    @property
    def pages(self) -> PfnSet:
        """Page frames of all huge pages of the size."""
        return PfnSet.of(self.in_use, *self.free)

    def put(self, pages: PfnSet) -> None:
        """Put huge pages at the head of the list of free ones."""
        if pages:
            self.free.append(pages.copy())

    def take(self, nr_huge: int, allowed: PfnSet, *, ascending: bool) -> PfnSet:
        """Take up to *nr_huge* free huge pages off the head of the list."""
        taken = PfnSet()
        for batch in reversed(self.free):
            wanted = nr_huge * self.nr_pages - len(taken)
            if wanted <= 0:
                break
            offered = batch & allowed
            taken |= offered.lowest(wanted) if ascending else offered.highest(wanted)
        self.drop(taken)
        return taken

    def head(self, allowed: PfnSet, *, ascending: bool) -> PfnSet:
        """Return the free huge page at the head of the list; none if no page is allowed."""
        offered = next(
            (part for batch in reversed(self.free) if (part := batch & allowed)), PfnSet()
        )
        return offered.lowest(self.nr_pages) if ascending else offered.highest(self.nr_pages)

    def drop(self, pages: PfnSet) -> None:
        """Take huge pages out of the pool."""
        self.in_use -= pages
        self.free = [left for batch in self.free if (left := batch - pages)]


def aligned_chunks(pages: PfnSet, nr_pages: int) -> PfnSet:
    """Return the naturally aligned chunks of that many pages that lie wholly in the set."""
    chunks = PfnSet()
    for run in pages.ranges():
        start, end = -(-run.start // nr_pages) * nr_pages, run.end // nr_pages * nr_pages
        if start < end:
            chunks |= PfnRange(start, end)
    return chunks


def whole_chunks(pages: PfnSet, nr_pages: int) -> PfnSet:
    """Return the naturally aligned chunks of that many pages that the set touches."""
    return PfnSet(
        PfnRange(run.start // nr_pages * nr_pages, -(-run.end // nr_pages) * nr_pages)
        for run in pages.ranges()
    )
