"""``/proc/kpageflags`` at any offset: the words of some page frames as the kernel's bytes."""

from __future__ import annotations

import numpy as np

from altmap.linux.pagewords import PageWords

__all__ = ("WORD_BYTES", "kpageflags_bytes")

WORD_BYTES = 8


def kpageflags_bytes(words: PageWords, size: int, offset: int) -> bytes:
    """Return the bytes at an offset, fewer at the end of the file.

    Parameters
    ----------
    words : PageWords
    size, offset : int
        In bytes, both multiples of a word; the kernel refuses others.
    """
    first = offset // WORD_BYTES
    last = min(words.nr_pages, first + size // WORD_BYTES)
    if first >= last:
        return b""
    return words.words_at(np.arange(first, last)).astype("<u8").tobytes()
