"""Who uses the pages of a block: processes that map them, cgroups that are charged for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.linux.observation import Observation
from altmap.linux.pageuse import unmapped_anonymous
from altmap.linux.pagewords import PageWords, Piece
from altmap.pfn import PfnRange, PfnSet

__all__ = ("Owner", "Uses")


@dataclass(frozen=True, slots=True)
class Owner:
    """A cgroup that is charged for pages.

    Attributes
    ----------
    cgroup : str
        Its path below the mount, or ``inode N`` if no file names it.
    nr_pages : int
    """

    cgroup: str
    nr_pages: int


class _LastRead(PageWords):
    """Words of page frames, of which those of the range that was asked about last are kept."""

    def __init__(self, words: PageWords) -> None:
        super().__init__()
        self._words = words
        self._last: tuple[PfnRange, PageWords] | None = None

    def pieces(self, pfns: PfnRange | None = None) -> Iterator[Piece]:
        """Yield the pieces of a range; as read before, if the question before was about it."""
        if pfns is None:
            return self._words.pieces()
        if self._last is None or self._last[0] != pfns:
            self._last = pfns, PageWords(self._words.pieces(pfns))
        return self._last[1].pieces(pfns)


def _kept(words: PageWords | None) -> PageWords | None:
    return None if words is None else _LastRead(words)


class Uses:
    """What ``/proc/kpagecount``, ``/proc/kpagecgroup`` and ``/proc/vmstat`` say about use.

    Parameters
    ----------
    seen : Observation

    Attributes
    ----------
    nr_pinned : int or None
        Pins that were taken with FOLL_PIN and not given back, on the whole machine.
    """

    def __init__(self, seen: Observation) -> None:
        self._counts, self._charges = map(_kept, (seen.kpagecount, seen.kpagecgroup))
        self._names = seen.cgroups
        self._flags = seen.kpageflags
        vmstat = seen.vmstat or {}
        taken, given = (vmstat.get(f"nr_foll_pin_{word}") for word in ("acquired", "released"))
        self.nr_pinned = None if taken is None or given is None else max(0, taken - given)

    def held(self, pfns: PfnRange) -> PfnSet:
        """Return the anonymous pages of a range that no process maps and that are still in use.

        Empty where the machine did not show who uses pages.
        """
        return unmapped_anonymous(self._flags, self._counts, self._charges, pfns)

    def nr_mapped(self, pages: PfnSet, pfns: PfnRange) -> int | None:
        """Return how many of the pages of a range processes map, ``None`` if no file tells."""
        if self._counts is None:
            return None
        return sum(nr for count, nr in self._counts.counts(pages, pfns).items() if count)

    def owners(self, pages: PfnSet, pfns: PfnRange) -> tuple[Owner, ...]:
        """Return the cgroups that are charged for pages of a range, the largest share first."""
        if self._charges is None:
            return ()
        return tuple(
            Owner(self._names.get(inode, f"inode {inode}"), nr_pages)
            for inode, nr_pages in self._charges.counts(pages, pfns).most_common()
            if inode
        )
