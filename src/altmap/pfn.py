"""Page frame numbers: ranges, strides and sets.

A *pfn* counts pages, an *address* and a *size* count bytes; the name of every value says which.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pyroaring import BitMap64

from altmap.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = (
    "Pages",
    "PfnRange",
    "PfnSet",
    "PfnStride",
)


@dataclass(frozen=True, slots=True, order=True)
class PfnRange:
    """The half-open range of page frames ``[start, end)``.

    Raises
    ------
    InputError
        Unless ``0 <= start <= end``.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise InputError(f"PFN range [{self.start:#x}, {self.end:#x}): need 0 <= start <= end")

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, pfn: object) -> bool:
        return isinstance(pfn, int) and self.start <= pfn < self.end

    def __repr__(self) -> str:
        return f"PfnRange({self.start:#x}, {self.end:#x})"

    def __str__(self) -> str:
        return f"[{self.start:#x}, {self.end:#x})"

    def overlaps(self, other: PfnRange) -> bool:
        """Tell whether the two ranges share a page frame."""
        return max(self.start, other.start) < min(self.end, other.end)

    def intersection(self, other: PfnRange) -> PfnRange:
        """Return the page frames in both, empty at the later start if there are none."""
        start = max(self.start, other.start)
        return PfnRange(start, max(start, min(self.end, other.end)))


@dataclass(frozen=True, slots=True)
class PfnStride:
    """The first *nr_pages* page frames of every *step* in ``[start, end)``.

    It describes pages at the same place of every memory block without a set.
    """

    start: int
    end: int
    step: int
    nr_pages: int

    def __len__(self) -> int:
        return len(range(self.start, self.end, self.step)) * self.nr_pages

    def hull(self) -> PfnRange:
        """Return the smallest range that covers all of them."""
        starts = range(self.start, self.end, self.step)
        return PfnRange(self.start, starts[-1] + self.nr_pages if starts else self.start)


#: Pages from which on a range costs more than a copy of most sets: 64 GiB.
_LONG_RANGE = 1 << 24
#: Parts that are looked at to find a few runs.
_MOST_PARTS = 1 << 9
#: Runs of so many pages are added one by one; shorter ones together, if they are many.
_LONG_RUN = 4
_FEW_RUNS = 64
#: Of the portable format of Roaring bitmaps: values of a container, the most that one keeps as
#: an array, and the cookie of groups without run containers.
_CONTAINER = 1 << 16
_MOST_OF_ARRAY = 4096
_NO_RUNS_COOKIE = 12346


#: Pages from which on numbers of pages are kept until a set changes: 64 GiB.
_MANY_PAGES = 1 << 24
#: Sets whose pages in common with one set are kept.
_MOST_COUNTS = 64


class _Counts:
    """The number of pages of a set, and of those in common with other sets, while none changes.

    It stands for the contents of the sets that share it: *bits*, or ``None`` once these changed.
    """

    __slots__ = ("bits", "in_common", "nr_pages")

    def __init__(self, bits: BitMap64, nr_pages: int) -> None:
        self.bits: BitMap64 | None = bits
        self.nr_pages = nr_pages
        self.in_common: dict[_Counts, int] = {}

    def with_range(self, bits: BitMap64, pfns: PfnRange, *, is_added: bool) -> _Counts:
        """Return the counts after a range was added or removed, if it was not or all in the set.

        Parameters
        ----------
        bits : BitMap64
            The contents after that.
        pfns : PfnRange
        is_added : bool
        """
        nr_pages = len(pfns)
        sign = 1 if is_added else -1
        made = _Counts(bits, self.nr_pages + sign * nr_pages)
        for other, nr_common in self.in_common.items():
            if other.bits is not None:
                common = int(other.bits.range_cardinality(pfns.start, pfns.end))
                made.in_common[other] = nr_common + sign * common
        return made


class PfnSet:
    """A set of page frame numbers, held as a 64-bit Roaring bitmap.

    Operators ``| & - ^`` return a new set; ``|= &= -=`` change this one. Each takes a set, a
    :class:`PfnRange` or a :class:`PfnStride`. Cost follows the number of runs, not of pages.
    """

    __slots__ = ("_bits", "_counts", "_is_shared")

    def __init__(self, ranges: Iterable[PfnRange] = ()) -> None:
        self._bits = BitMap64()
        self._counts: _Counts | None = None
        self._is_shared = False
        for pfns in ranges:
            self._bits.add_range(pfns.start, pfns.end)

    @classmethod
    def of(cls, *pages: Pages) -> PfnSet:
        """Return the union of ranges, strides and sets."""
        made = cls()
        for some in pages:
            made |= some
        return made

    @classmethod
    def of_runs(cls, runs: Iterable[tuple[int, int]]) -> PfnSet:
        """Return the union of many runs, each its first pfn and its number of pages."""
        made = cls()
        add_range = made._bits.add_range
        for start, nr_pages in runs:
            add_range(start, start + nr_pages)
        return made

    @classmethod
    def _wrap(cls, bits: BitMap64) -> PfnSet:
        made = cls.__new__(cls)
        made._bits = bits
        made._counts = None
        made._is_shared = False
        return made

    def copy(self) -> PfnSet:
        """Return an independent copy; the bitmap is shared until one of the two changes."""
        self._is_shared = True
        made = self._wrap(self._bits)
        made._counts = self._counts
        made._is_shared = True
        return made

    def __deepcopy__(self, memo: object) -> PfnSet:
        return self.copy()

    def _own(self) -> BitMap64:
        """Return the bitmap, to be changed."""
        if self._is_shared:
            self._bits = self._bits.copy()
            self._is_shared = False
        elif self._counts is not None:
            self._counts.bits = None
        self._counts = None
        return self._bits

    def _change(self, pfns: PfnRange, *, is_added: bool) -> None:
        """Add or remove a range; what is known of the number of pages is kept if it can be."""
        known = self._counts
        if known is not None:
            before = self.count(pfns)
            if before != (0 if is_added else len(pfns)):
                known = None
        bits = self._own()
        (bits.add_range if is_added else bits.remove_range)(pfns.start, pfns.end)
        if known is not None:
            self._counts = known.with_range(bits, pfns, is_added=is_added)

    def is_copy_of(self, other: PfnSet) -> bool:
        """Tell whether neither has changed since one was copied from the other; quick."""
        return self._bits is other._bits

    @classmethod
    def from_mask(cls, first_pfn: int, mask: NDArray[np.bool_]) -> PfnSet:
        """Return the page frames where *mask* is true; its first item is *first_pfn*.

        The containers of the bitmap are made by NumPy: no Python object for a page.
        """
        lead = first_pfn % _CONTAINER
        padded = np.zeros(-(-(lead + len(mask)) // _CONTAINER) * _CONTAINER, bool)
        padded[lead : lead + len(mask)] = mask
        return cls._wrap(BitMap64.deserialize(_serialized(first_pfn // _CONTAINER, padded)))

    @classmethod
    def from_runs(cls, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> PfnSet:
        """Return the page frames of runs: start pfns and numbers of pages, of equal shape."""
        made = BitMap64()
        long = lengths >= _LONG_RUN if len(starts) > _FEW_RUNS else np.ones(len(starts), bool)
        for start, length in zip(starts[long].tolist(), lengths[long].tolist(), strict=True):
            made.add_range(start, start + length)
        starts, lengths = starts[~long], lengths[~long]
        if len(starts):
            before = np.cumsum(lengths) - lengths
            pfns = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
            made |= BitMap64(array("Q", pfns.astype(np.uint64).tobytes()))
        return cls._wrap(made)

    def edges(self) -> tuple[int, ...]:
        """Return start and end of every run in ascending order: equal for equal sets only."""
        few = _few_edges(self._bits)
        return tuple(self._bits ^ self._bits.shift(1) if few is None else few)

    def array(self) -> NDArray[np.int64]:
        """Return the page frame numbers in ascending order: (nr_pages,)."""
        return np.array(self._bits.to_array(), np.uint64).astype(np.int64)

    def edge_array(self, within: PfnRange) -> NDArray[np.int64]:
        """Return start and end of every run inside a range, ascending: (2 * nr_runs,) pfns."""
        bits = (self & within)._bits
        few = _few_edges(bits)
        if few is not None:
            return np.array(few, np.int64)
        return np.array((bits ^ bits.shift(1)).to_array(), np.uint64).astype(np.int64)

    def __len__(self) -> int:
        if self._counts is not None:
            return self._counts.nr_pages
        nr_pages = len(self._bits)
        if nr_pages >= _MANY_PAGES:
            self._counts = _Counts(self._bits, nr_pages)
        return nr_pages

    def __bool__(self) -> bool:
        return bool(self._bits)

    def __contains__(self, pfn: object) -> bool:
        return isinstance(pfn, int) and pfn in self._bits

    def __iter__(self) -> Iterator[int]:
        return iter(self._bits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PfnSet) and self._bits == other._bits

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        shown = [str(pfns) for pfns, _ in zip(self.ranges(), range(4), strict=False)]
        return f"PfnSet({len(self)} pages: {' '.join(shown)}{' …' if len(shown) == 4 else ''})"

    def __or__(self, other: Pages) -> PfnSet:
        if isinstance(other, PfnSet) and not (self._bits and other._bits):
            return other.copy() if other._bits else self.copy()
        return self._wrap(self._bits | _bits(other))

    def __and__(self, other: Pages) -> PfnSet:
        if isinstance(other, PfnRange):
            if not self.count(other):
                return PfnSet()
            if other.start <= self.min() and self.max() < other.end:
                return self.copy()
            if len(other) > _LONG_RANGE:
                # A set of the range would cost its length, a copy of this set this set's runs.
                kept = self._bits.copy()
                kept.remove_range(0, other.start)
                kept.remove_range(other.end, max(other.end, self.max() + 1))
                return self._wrap(kept)
        elif isinstance(other, PfnSet) and not (self._bits and other._bits):
            return PfnSet()
        return self._wrap(self._bits & _bits(other))

    def __sub__(self, other: Pages) -> PfnSet:
        if isinstance(other, PfnSet) and not other._bits:
            return self.copy()
        bits = _bits(other)
        if isinstance(other, PfnSet) and len(other) >= _MANY_PAGES:
            bits = self._bits & bits  # of a long set, only what is in both is looked at
        return self._wrap(self._bits - bits)

    def __xor__(self, other: Pages) -> PfnSet:
        return self._wrap(self._bits ^ _bits(other))

    def __ior__(self, other: Pages) -> PfnSet:
        if isinstance(other, PfnSet):
            if not other._bits:
                return self
            if not self._bits:
                self._bits, self._counts = other.copy()._bits, other._counts
                self._is_shared = True
                return self
        if isinstance(other, PfnRange):
            self._change(other, is_added=True)
            return self
        bits = self._own()
        if isinstance(other, PfnStride):
            add_range, nr_pages = bits.add_range, other.nr_pages
            for start in range(other.start, other.end, other.step):
                add_range(start, start + nr_pages)
        else:
            bits |= other._bits
        return self

    def __iand__(self, other: Pages) -> PfnSet:
        bits = self._own()
        bits &= _bits(other)
        return self

    def __isub__(self, other: Pages) -> PfnSet:
        if isinstance(other, PfnSet) and not other._bits:
            return self
        if isinstance(other, PfnRange):
            self._change(other, is_added=False)
            return self
        bits = self._own()
        bits -= _bits(other)
        return self

    def isdisjoint(self, other: PfnSet) -> bool:
        """Tell whether the sets share no page frame."""
        return bool(self._bits.isdisjoint(other._bits))

    def issubset(self, other: PfnSet) -> bool:
        """Tell whether every page frame of this set is in the other."""
        return bool(self._bits.issubset(other._bits))

    def covers(self, pfns: PfnRange) -> bool:
        """Tell whether every page frame of the range is in the set."""
        return not pfns or bool(self._bits.contains_range(pfns.start, pfns.end))

    def count(self, pages: PfnSet | PfnRange) -> int:
        """Return how many page frames of a range or another set are in the set."""
        if isinstance(pages, PfnSet):
            if len(pages) >= _MANY_PAGES:
                return self._count_many(pages)
            return int(self._bits.intersection_cardinality(pages._bits))
        return int(self._bits.range_cardinality(pages.start, pages.end)) if pages else 0

    def _count_many(self, pages: PfnSet) -> int:
        """Return how many page frames are in both sets, once for as long as neither changes."""
        theirs = pages._counts
        assert theirs is not None, "many pages were counted"
        if self._counts is None:
            self._counts = _Counts(self._bits, len(self._bits))
        if self._counts not in theirs.in_common:
            if len(theirs.in_common) >= _MOST_COUNTS:
                theirs.in_common.clear()
            nr_pages = int(self._bits.intersection_cardinality(pages._bits))
            theirs.in_common[self._counts] = nr_pages
        return theirs.in_common[self._counts]

    def min(self) -> int:
        """Return the lowest pfn; the set must not be empty."""
        return int(next(iter(self._bits)))

    def max(self) -> int:
        """Return the highest pfn; the set must not be empty."""
        return int(self._bits.max())

    def span(self) -> PfnRange:
        """Return the smallest range that covers the set, ``[0, 0)`` if it is empty."""
        return PfnRange(self.min(), self.max() + 1) if self else PfnRange(0, 0)

    def ranges(self) -> Iterator[PfnRange]:
        """Yield the maximal runs in ascending order."""
        few = _few_edges(self._bits)
        edges = iter(self._bits ^ self._bits.shift(1) if few is None else few)
        for start, end in zip(edges, edges, strict=True):
            yield PfnRange(start, end)

    def nr_ranges(self) -> int:
        """Return the number of maximal runs."""
        return len(self._bits - self._bits.shift(1))

    def lowest(self, nr_pages: int) -> PfnSet:
        """Return the set's *nr_pages* lowest page frames, all of them if it has fewer."""
        if nr_pages >= len(self):
            return self.copy()
        if nr_pages <= 0:
            return PfnSet()
        return self & PfnRange(self.min(), int(self._bits[nr_pages]))

    def highest(self, nr_pages: int) -> PfnSet:
        """Return the set's *nr_pages* highest page frames, all of them if it has fewer."""
        if nr_pages >= len(self):
            return self.copy()
        if nr_pages <= 0:
            return PfnSet()
        return self & PfnRange(int(self._bits[len(self) - nr_pages]), self.max() + 1)


#: Anything that names page frames.
Pages = PfnSet | PfnRange | PfnStride


def _few_edges(bits: BitMap64) -> list[int] | None:
    """Return start and end of every run of a set with many pages and few runs, else ``None``.

    Parts of its span are counted and cut in halves until each is full or empty, which takes far
    less than a second set of all pages.
    """
    if len(bits) < _LONG_RANGE:
        return None
    edges: list[int] = []
    parts = [(int(bits.min()), int(bits.max()) + 1)]
    for _ in range(_MOST_PARTS):
        if not parts:
            return edges
        start, end = parts.pop()
        nr_pages = bits.range_cardinality(start, end)
        if nr_pages == end - start:
            if edges and edges[-1] == start:
                edges[-1] = end
            else:
                edges += (start, end)
        elif nr_pages:
            middle = (start + end) // 2
            parts += ((middle, end), (start, middle))
    return None


def _bits(other: Pages) -> BitMap64:
    if isinstance(other, PfnSet):
        return other._bits
    if isinstance(other, PfnRange):
        bits = BitMap64()
        bits.add_range(other.start, other.end)
        return bits
    return PfnSet.of(other)._bits


def _serialized(first: int, mask: NDArray[np.bool_]) -> bytes:
    """Return whole containers in the portable format of Roaring bitmaps.

    Source: RoaringFormatSpec, "extension for 64-bit implementations": groups by the high 32 bits;
    in each a cookie, the containers' keys and cardinalities, their offsets, their contents.
    """
    rows = mask.reshape(-1, _CONTAINER)
    sizes = np.array([np.count_nonzero(row) for row in rows])
    bits = np.packbits(rows, axis=1, bitorder="little")
    keys = np.arange(first, first + len(rows))
    groups = []
    for high in sorted(set((keys[sizes > 0] >> 16).tolist())):  # np.unique imports numpy.ma
        chosen = np.flatnonzero((keys >> 16 == high) & (sizes > 0))
        head = np.stack((keys[chosen] & 0xFFFF, sizes[chosen] - 1), axis=1).astype("<u2")
        contents = [
            bits[row].tobytes()
            if sizes[row] > _MOST_OF_ARRAY
            else np.flatnonzero(rows[row]).astype("<u2").tobytes()
            for row in chosen.tolist()
        ]
        begins = 8 + 8 * len(chosen) + np.cumsum([0, *map(len, contents[:-1])])
        groups.append(
            struct.pack("<III", high, _NO_RUNS_COOKIE, len(chosen))
            + head.tobytes()
            + begins.astype("<u4").tobytes()
            + b"".join(contents)
        )
    return struct.pack("<Q", len(groups)) + b"".join(groups)
