"""A kernel's file with a word for each page frame, left on disk until it is asked for.

Effects: files.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator

import numpy as np

from altmap.linux.pagewords import (
    MOST_PAGES,
    PIECE_NR_PAGES,
    PageWords,
    Pfns,
    Piece,
    Words,
    piece_of,
)
from altmap.pfn import PfnRange

__all__ = ("PageFile",)

_WORD_BYTES = 8


class PageFile(PageWords):
    """The words of a file that can be read from any page frame on.

    Nothing is kept: two questions about the same page frames read them twice.

    Parameters
    ----------
    file : int
        A descriptor that this object closes in the end.
    """

    __slots__ = ("__weakref__", "_dtype", "_file", "_nr_pages")

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        weakref.finalize(self, os.close, file)
        self._nr_pages = _end_of(file)
        self._dtype = "<u8"
        if self._nr_pages:
            first = next(self.pieces(PfnRange(0, PIECE_NR_PAGES)))
            if PageWords([first]).is_big_endian():
                self._dtype = ">u8"

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
        while start < end:
            nr_pages = min(end, start - start % PIECE_NR_PAGES + PIECE_NR_PAGES) - start
            raw = self._read(start, nr_pages)
            if not raw:
                return
            words = np.frombuffer(raw, self._dtype).astype("<u8", copy=False)
            yield piece_of(start, words, packed=False)
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
        for start in range(0, self._nr_pages, PIECE_NR_PAGES):
            nr_pages = min(PIECE_NR_PAGES, self._nr_pages - start)
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
