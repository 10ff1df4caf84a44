"""A kernel's file with a word for each page frame, left on disk until it is asked for.

Effects: files.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator

import numpy as np

from altmap.linux.pagewords import (
    MOST_PAGES,
    PIECE_NR_PAGES,
    PageWords,
    Pfns,
    Piece,
    Words,
    is_big_endian,
    piece_of,
)
from altmap.linux.wordcodes import WordCodes
from altmap.pfn import PfnRange

__all__ = ("PageFile",)

_WORD_BYTES = 8
#: Page frames that are copied at a time: what was read is still in the processor's cache when it is
#: written, and larger buffers are given back to the kernel, which clears each of their pages again.
_COPIED_NR_PAGES = 1 << 14
#: Page frames that are read at a time to tell the order of bytes, and of how many at most.
_TOLD_NR_PAGES, _MOST_TOLD_NR_PAGES = 1 << 12, 1 << 18


class PageFile(PageWords):
    """The words of a file that can be read from any page frame on.

    Nothing is opened before something is asked, and nothing is kept: two questions about the same
    page frames read them twice.

    Parameters
    ----------
    opened : callable
        Returns a descriptor, which this object closes in the end. Called once at most.
    """

    __slots__ = ("__weakref__", "_end", "_kind", "_opened", "_opener")

    def __init__(self, opened: Callable[[], int]) -> None:
        super().__init__()
        self._opener = opened
        self._opened: int | None = None
        self._end: int | None = None
        self._kind: str | None = None

    @property
    def _file(self) -> int:
        if self._opened is None:
            self._opened = self._opener()
            weakref.finalize(self, os.close, self._opened)
        return self._opened

    @property
    def _nr_pages(self) -> int:
        if self._end is None:
            self._end = _end_of(self._file)
        return self._end

    @property
    def _dtype(self) -> str:
        """The kind of its words: the first that differ from zero in any order tell the order."""
        if self._kind is None:
            self._kind = "<u8"
            for start in range(0, min(self._nr_pages, _MOST_TOLD_NR_PAGES), _TOLD_NR_PAGES):
                words = np.frombuffer(self._read(start, _TOLD_NR_PAGES), "<u8")
                if told := is_big_endian(words):
                    self._kind = ">u8"
                if told is not None:
                    break
        return self._kind

    @property
    def nr_pages(self) -> int:
        """How many page frames the file has; the first is pfn 0."""
        return self._nr_pages

    @property
    def is_compact(self) -> bool:
        """Whether the runs are known to be few: they are not known."""
        return False

    def pieces(self, pfns: PfnRange | None = None) -> Iterator[Piece]:
        """Yield pieces of the range's page frames only, read now."""
        start, end = (pfns.start, pfns.end) if pfns is not None else (0, self._nr_pages)
        end = min(end, self._nr_pages)
        coder = WordCodes()
        while start < end:
            nr_pages = min(end, start - start % PIECE_NR_PAGES + PIECE_NR_PAGES) - start
            raw = self._read(start, nr_pages)
            if not raw:
                return
            words = np.frombuffer(raw, self._dtype).astype("<u8", copy=False)
            yield piece_of(start, words, coder, packed=False)
            start += len(words)

    def word_at(self, pfn: int) -> int | None:
        """Return the word of one page frame, ``None`` behind the end of the file."""
        raw = self._read(pfn, 1)
        order = "little" if self._dtype == "<u8" else "big"
        return int.from_bytes(raw, order) if raw else None  # type: ignore[arg-type]

    def words_at(self, pfns: Pfns) -> Words:
        """Return the words of single page frames: (n,) ascending pfns, within the file."""
        raw = b"".join(
            os.pread(self._file, _WORD_BYTES, pfn * _WORD_BYTES) for pfn in pfns.tolist()
        )
        return np.frombuffer(raw, self._dtype).astype("<u8", copy=False)

    def raw(self, byteorder: str = "little") -> Iterator[bytes]:
        """Yield the file, piece by piece; *byteorder* is ``little`` or ``big``."""
        kind = "<u8" if byteorder == "little" else ">u8"
        for start in range(0, self._nr_pages, _COPIED_NR_PAGES):
            nr_pages = min(_COPIED_NR_PAGES, self._nr_pages - start)
            raw = self._read(start, nr_pages).ljust(nr_pages * _WORD_BYTES, b"\0")
            if kind != self._dtype:
                raw = np.frombuffer(raw, self._dtype).astype(kind).tobytes()
            yield raw

    def _read(self, pfn: int, nr_pages: int) -> bytes:
        """Return whole words; fewer where the file ends, or where it cannot be read."""
        parts: list[bytes] = []
        at, end = pfn * _WORD_BYTES, (pfn + nr_pages) * _WORD_BYTES
        while at < end and (part := os.pread(self._file, end - at, at)):
            parts.append(part)
            at += len(part)
        raw = b"".join(parts)
        return raw[: len(raw) - len(raw) % _WORD_BYTES]


def _end_of(file: int) -> int:
    """Return how many words the file has: proc's files have no size, but an end."""
    low, high = 0, MOST_PAGES
    while low < high:
        middle = (low + high) // 2
        if len(os.pread(file, _WORD_BYTES, middle * _WORD_BYTES)) == _WORD_BYTES:
            low = middle + 1
        else:
            high = middle
    return low
