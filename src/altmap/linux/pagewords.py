"""Files with one 64-bit word for each page frame: page flags, map counts, cgroup inodes.

The kernel's files (``/proc/kpageflags``, ``kpagecount``, ``kpagecgroup``) have 8 bytes per page
frame, in the machine's byte order. The form with the ending ``.runs`` has a line for each run of
equal words: ``0x<start_pfn> <nr_pages> 0x<word>``.

A :class:`PageWords` holds such a file in pieces of at most :data:`PIECE_NR_PAGES` page frames. A
piece with few runs is kept as runs, any other as compressed codes of its distinct words, so that
no Python object exists for a page or a run and a busy machine costs about a byte a page at most.
"""

from __future__ import annotations

import operator
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from altmap.errors import InputError
from altmap.linux.lines import lines
from altmap.linux.wordcodes import Codes, WordCodes, Words
from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "MOST_PAGES",
    "PIECE_NR_PAGES",
    "PageRun",
    "PageWords",
    "Pfns",
    "Piece",
    "Words",
    "is_big_endian",
    "piece_of",
)

K = TypeVar("K")
Pfns = NDArray[np.int64]

#: Page frames of one piece: a multiple of 65536, so that pieces share no container of a set.
PIECE_NR_PAGES = 1 << 20
#: A piece with more runs than one for so many page frames is kept as codes.
_PAGES_PER_RUN = 16
#: Runs that a file of runs may have: three such files stay within the lines of a sysroot.
_MOST_RUNS = 1 << 19
#: 4 PiB in the smallest pages.
MOST_PAGES = 1 << 40
_WORD_BYTES = 8
_HEADER = "# start_pfn nr_pages flags\n"
_LINE = re.compile(r"0x([0-9a-f]{1,16}) (\d{1,19}) 0x([0-9a-f]{1,16})", re.ASCII)


class PageRun(NamedTuple):
    """Consecutive page frames with equal words (in ``/proc/kpageflags``: equal flags)."""

    start_pfn: int
    nr_pages: int
    flags: int


@dataclass(frozen=True)
class _RunPiece:
    """Runs, ascending and without gaps: *starts* (nr_runs,) pfns, *words* (nr_runs,)."""

    start: int
    end: int
    starts: Pfns
    words: Words

    @cached_property
    def _coded(self) -> tuple[Words, Codes]:
        """Distinct words and the code of each run's: a file is asked many times, by other keys."""
        return WordCodes().coded(self.words)

    def runs(self) -> tuple[Pfns, Pfns, Words]:
        lengths = np.diff(self.starts, append=np.int64(self.end))
        return self.starts, lengths, self.words

    def sets(self, key_of: Callable[[int], K | None]) -> dict[K, PfnSet]:
        starts, lengths, _ = self.runs()
        distinct, codes = self._coded
        keys, number_of = _numbered(distinct, key_of)
        numbers = number_of[codes]
        made = {}
        for number, key in enumerate(keys, 1):
            chosen = numbers == number
            made[key] = PfnSet.from_runs(starts[chosen], lengths[chosen])
        return made

    def counts(self, pages: PfnSet) -> Iterator[tuple[int, int]]:
        for word, found in self.sets(lambda word: word).items():
            yield word, pages.count(found)

    def byteswapped(self) -> _RunPiece:
        return _RunPiece(self.start, self.end, self.starts, self.words.byteswap())

    def distinct(self) -> Words:
        return self._coded[0]


@dataclass(frozen=True, slots=True)
class _CodePiece:
    """Codes of the words of every page: *table* (nr_distinct,) words by code.

    The codes are an array (nr_pages,), or compressed bytes of one of *dtype*.
    """

    start: int
    end: int
    table: Words
    codes: bytes | Codes
    dtype: str

    def _decoded(self) -> Codes:
        if isinstance(self.codes, bytes):
            return np.frombuffer(zlib.decompress(self.codes), self.dtype)
        return self.codes

    def runs(self) -> tuple[Pfns, Pfns, Words]:
        codes = self._decoded()
        at = np.concatenate(([0], np.flatnonzero(codes[1:] != codes[:-1]) + 1))
        lengths = np.diff(at, append=len(codes))
        return at + self.start, lengths, self.table[codes[at]]

    def sets(self, key_of: Callable[[int], K | None]) -> dict[K, PfnSet]:
        keys, number_of = _numbered(self.table, key_of)
        numbers = number_of[self._decoded()]
        return {
            key: PfnSet.from_mask(self.start, numbers == number)
            for number, key in enumerate(keys, 1)
        }

    def counts(self, pages: PfnSet) -> Iterator[tuple[int, int]]:
        pfns = (pages & PfnRange(self.start, self.end)).array()
        found = np.bincount(self._decoded()[pfns - self.start], minlength=len(self.table))
        return zip(self.table.tolist(), found.tolist(), strict=True)

    def byteswapped(self) -> _CodePiece:
        return _CodePiece(self.start, self.end, self.table.byteswap(), self.codes, self.dtype)

    def distinct(self) -> Words:
        return self.table


Piece = _RunPiece | _CodePiece


def _numbered(words: Words, key_of: Callable[[int], K | None]) -> tuple[list[K], Codes]:
    """Return the keys that *key_of* gives to words, and each word's: its place from 1, or 0."""
    number_of: dict[K | None, int] = {None: 0}
    numbers = [number_of.setdefault(key_of(word), len(number_of)) for word in words.tolist()]
    keys = [key for key in number_of if key is not None]
    return keys, np.array(numbers, np.min_scalar_type(len(keys)))


class PageWords:
    """The words of all page frames from 0 to the end of the file.

    Iterating yields :class:`PageRun`, maximal and in ascending order: for files with few runs.
    """

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._pieces = tuple(pieces)

    def pieces(self, pfns: PfnRange | None = None) -> Iterator[Piece]:
        """Yield the pieces in ascending order, all of them or those that overlap a range."""
        for piece in self._pieces:
            if pfns is None or (piece.start < pfns.end and pfns.start < piece.end):
                yield piece

    # --- made from ------------------------------------------------------------------------------

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int, int]]) -> PageWords:
        """Return the words of ``(start_pfn, nr_pages, word)``: ascending from 0, without gaps."""
        made = list(runs)
        if not made:
            return cls()
        starts = np.array([run[0] for run in made], np.int64)
        words = np.array([run[2] for run in made], np.uint64)
        return cls([_RunPiece(0, made[-1][0] + made[-1][1], starts, words)])

    @classmethod
    def parse(cls, text: str) -> PageWords:
        """Return the words of a file with the ending ``.runs``.

        Raises
        ------
        InputError
            If a line is not a run, or the runs do not ascend from 0 without gaps.
        """
        runs: list[tuple[int, int, int]] = []
        end = 0
        for line in lines(text):
            if line.text.startswith("#"):
                continue
            match = _LINE.fullmatch(line.text)
            if match is None:
                raise line.error("need '0x<start_pfn> <nr_pages> 0x<flags>'")
            start, nr_pages = int(match[1], 16), int(match[2])
            if start != end or not nr_pages:
                raise line.error(f"need a run of at least one page that starts at {end:#x}")
            end += nr_pages
            if end > MOST_PAGES:
                raise line.error("no machine addresses more than 4 PiB")
            runs.append((start, nr_pages, int(match[3], 16)))
        return cls.of(runs)

    @classmethod
    def from_raw(cls, chunks: Iterable[bytes]) -> PageWords:
        """Return the words of the kernel's own file, handed over in pieces of any length.

        The byte order shows: :func:`is_big_endian`.

        Raises
        ------
        InputError
            If the length is not a multiple of 8 bytes.
        """
        coder = WordCodes()
        pieces = [piece_of(start, words, coder) for start, words in _whole_pieces(chunks)]
        distinct = [piece.distinct() for piece in pieces]
        if pieces and is_big_endian(np.concatenate(distinct)):
            return cls(piece.byteswapped() for piece in pieces)
        return cls(pieces)

    def changed(
        self, hidden: PfnSet, layers: Sequence[tuple[PfnSet, int]], end: int, fill: int
    ) -> PageWords:
        """Return the words with some page frames shown anew; pieces without one are shared.

        Parameters
        ----------
        hidden : PfnSet
            Page frames that no longer have their word; *fill* is what no layer gives a word.
        layers : sequence of (PfnSet, int)
            Page frames of *hidden*, and their word; disjoint.
        end : int
            Where the file ends, or later if it did.
        fill : int
            Also the word of what was behind the end.
        """
        pieces = list(self.pieces())
        if end > self.nr_pages:
            start = self.nr_pages
            tail = _RunPiece(start, end, np.array([start]), np.array([fill], np.uint64))
            pieces.append(tail)
        return PageWords(
            _overlaid(piece, hidden, layers, fill)
            if hidden.count(PfnRange(piece.start, piece.end))
            else piece
            for piece in pieces
        )

    # --- asked ----------------------------------------------------------------------------------

    @property
    def nr_pages(self) -> int:
        """How many page frames the file has; the first is pfn 0."""
        return self._pieces[-1].end if self._pieces else 0

    @property
    def nr_bytes(self) -> int:
        """The size of the kernel's own file."""
        return self.nr_pages * _WORD_BYTES

    @property
    def is_compact(self) -> bool:
        """Whether the runs are few, so that ``.runs`` is the smaller form and can be read again."""
        nr_runs = 0
        for piece in self._pieces:
            if not isinstance(piece, _RunPiece):
                return False
            nr_runs += len(piece.starts)
        return nr_runs <= _MOST_RUNS

    def sets(
        self, key_of: Callable[[int], K | None], pfns: PfnRange | None = None
    ) -> dict[K, PfnSet]:
        """Return the page frames by the key that *key_of* gives to their word; no set is empty.

        Parameters
        ----------
        key_of : callable
            Word to key; ``None`` leaves the page frames out. Called once for each distinct word
            of a piece.
        pfns : PfnRange, optional
            Only page frames of this range.
        """
        made: dict[K, PfnSet] = {}
        for piece in self.pieces(pfns):
            for key, found in piece.sets(key_of).items():
                if pfns is not None:
                    found &= pfns
                if key in made:
                    made[key] |= found
                elif found:
                    made[key] = found
        return made

    def select(self, test: Callable[[int], bool], pfns: PfnRange | None = None) -> PfnSet:
        """Return the page frames whose word passes *test*, of a range or of all."""
        found = self.sets(lambda word: True if test(word) else None, pfns)
        return found.get(True, PfnSet())

    def counts(self, pages: PfnSet, pfns: PfnRange | None = None) -> Counter[int]:
        """Return how many of the page frames, which are all in the range, have each word."""
        made: Counter[int] = Counter()
        for piece in self.pieces(pages.span() if pfns is None else pfns):
            made.update(dict(piece.counts(pages)))
        return +made

    def word_at(self, pfn: int) -> int | None:
        """Return the word of one page frame, ``None`` behind the end of the file."""
        for piece in self.pieces(PfnRange(pfn, pfn + 1)):
            starts, _, words = piece.runs()
            return int(words[np.searchsorted(starts, pfn, "right") - 1])
        return None

    def words_at(self, pfns: Pfns) -> Words:
        """Return the words of single page frames: (n,) ascending pfns, within the file."""
        made = np.zeros(len(pfns), np.uint64)
        for piece in self._pieces:
            low, high = np.searchsorted(pfns, (piece.start, piece.end))
            if low < high:
                starts, _, words = piece.runs()
                made[low:high] = words[np.searchsorted(starts, pfns[low:high], "right") - 1]
        return made

    def arrays(self) -> Iterator[tuple[Pfns, Pfns, Words]]:
        """Yield start pfns, lengths in pages and words of runs, piece by piece.

        A run that crosses the border of two pieces is in both.
        """
        for piece in self.pieces():
            yield piece.runs()

    def __iter__(self) -> Iterator[PageRun]:
        held: PageRun | None = None
        for starts, lengths, words in self.arrays():
            columns = (starts.tolist(), lengths.tolist(), words.tolist())
            for run in map(PageRun, *columns):
                if held is not None and held.flags == run.flags:
                    held = PageRun(held.start_pfn, held.nr_pages + run.nr_pages, held.flags)
                    continue
                if held is not None:
                    yield held
                held = run
        if held is not None:
            yield held

    def __bool__(self) -> bool:
        return self.nr_pages > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PageWords) or self.nr_pages != other.nr_pages:
            return False
        if self is other or self._has_runs_of(other):
            return True
        return all(mine == its for mine, its in zip(self, other, strict=True))

    def _has_runs_of(self, other: PageWords) -> bool:
        """Tell whether pieces and runs are the same; equal words may be cut in other places."""
        borders = ([(piece.start, piece.end) for piece in each.pieces()] for each in (self, other))
        return operator.eq(*borders) and all(
            np.array_equal(mine[0], its[0]) and np.array_equal(mine[2], its[2])
            for mine, its in zip(self.arrays(), other.arrays(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # equal by contents of any size

    def __repr__(self) -> str:
        return f"PageWords({self.nr_pages} pages)"

    # --- written --------------------------------------------------------------------------------

    def render(self) -> str:
        """Return the text of a file with the ending ``.runs``."""
        return _HEADER + "".join(f"{start:#x} {nr} {word:#x}\n" for start, nr, word in self)

    def raw(self, byteorder: str = "little") -> Iterator[bytes]:
        """Yield the kernel's own file, piece by piece; *byteorder* is ``little`` or ``big``."""
        kind = "<u8" if byteorder == "little" else ">u8"
        for _, lengths, words in self.arrays():
            whole = words.astype(kind)
            for part, length in zip(*_bounded(whole, lengths), strict=True):
                yield np.repeat(part, length).tobytes()


def is_big_endian(words: Words) -> bool | None:
    """Tell whether words were read in the wrong order of bytes, ``None`` if they do not show it.

    No flag is above bit 42, and every real file has some below bit 16, which end up at the top when
    read in the wrong order; so do the small numbers of the other files.
    """
    seen = int(np.bitwise_or.reduce(words, initial=np.uint64(0)))
    high, low = seen >> 48 != 0, seen & 0xFFFF != 0
    return None if not high and not low else high and not low


def _overlaid(
    piece: Piece,
    hidden: PfnSet,
    layers: Sequence[tuple[PfnSet, int]],
    fill: int,
) -> _RunPiece:
    """Return a piece as runs, each cut where a layer begins or ends."""
    span = PfnRange(piece.start, piece.end)
    starts, _, words = piece.runs()
    tops = [(hidden.edge_array(span), fill)]
    tops += [(pages.edge_array(span), word) for pages, word in layers if pages.count(span)]
    cuts = np.sort(np.concatenate((starts, *(edges for edges, _ in tops))))
    cuts = cuts[np.concatenate(([True], cuts[1:] != cuts[:-1])) & (cuts < piece.end)]
    made = words[np.searchsorted(starts, cuts, "right") - 1]
    for edges, word in tops:
        made[np.searchsorted(edges, cuts, "right") % 2 == 1] = word
    first = np.concatenate(([True], made[1:] != made[:-1]))
    return _RunPiece(piece.start, piece.end, cuts[first], made[first])


def _bounded(words: Words, lengths: Pfns) -> tuple[list[Words], list[Pfns]]:
    """Cut runs into groups of a piece's pages or less."""
    if int(lengths.sum()) <= PIECE_NR_PAGES:
        return [words], [lengths]
    parts: list[Words] = []
    counts: list[Pfns] = []
    for word, length in zip(words, lengths.tolist(), strict=True):
        while length > 0:
            take = min(length, PIECE_NR_PAGES)
            parts.append(np.array([word], words.dtype))
            counts.append(np.array([take]))
            length -= take
    return parts, counts


def _whole_pieces(chunks: Iterable[bytes]) -> Iterator[tuple[int, Words]]:
    """Yield first pfn and words of consecutive pieces; all but the last have the full length."""
    held = bytearray()
    start = 0
    whole = PIECE_NR_PAGES * _WORD_BYTES
    for chunk in chunks:
        held += chunk
        while len(held) >= whole:
            yield start, np.frombuffer(bytes(held[:whole]), "<u8")
            del held[:whole]
            start += PIECE_NR_PAGES
    if len(held) % _WORD_BYTES:
        nr_bytes = start * _WORD_BYTES + len(held)
        raise InputError(f"{nr_bytes} bytes: need a multiple of {_WORD_BYTES}")
    if held:
        yield start, np.frombuffer(bytes(held), "<u8")


def piece_of(start: int, words: Words, coder: WordCodes, *, packed: bool = True) -> Piece:
    """Return a piece in the smaller form; *packed* to be kept, else to be asked and dropped."""
    end = start + len(words)
    differs = words[1:] != words[:-1]
    if np.count_nonzero(differs) < max(64, len(words) // _PAGES_PER_RUN):
        at = np.concatenate(([0], np.flatnonzero(differs) + 1))
        return _RunPiece(start, end, at + start, words[at])
    table, codes = coder.coded(words)
    kept = zlib.compress(codes.tobytes(), 1) if packed else codes
    return _CodePiece(start, end, table, kept, codes.dtype.str)
