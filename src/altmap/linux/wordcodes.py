"""Codes of 64-bit words of which few are distinct, such as the flags of page frames.

A multiplicative hash without collisions is several times as fast as sorting. Words that were met
stay known, so that such a hash is looked for when a new word is met, not for every piece of a file.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ("Codes", "WordCodes", "Words")

T = TypeVar("T", np.uint64, np.int64)
Words = NDArray[np.uint64]
Codes = NDArray[np.unsignedinteger]

#: Words that are looked at together: what is made of them stays in the processor's cache.
_CHUNK = 1 << 16
#: The hash has 2 to one of these powers of slots. So many factors are tried for each: multiples of
#: the golden ratio's fraction, with the highest bit set, so that words 0 and 1 differ in slots.
_BITS = (12, 14, 16, 18)
_TRIES = 32
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = [np.uint64(_GOLDEN * nr % (1 << 64) | 1 << 63 | 1) for nr in range(1, _TRIES + 1)]


class WordCodes:
    """Gives equal words equal codes; words that were met stay known until they are too many."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._table: Words = np.zeros(0, np.uint64)
        self._factor, self._shift = _FACTORS[0], np.uint64(63)
        self._by_slot: Words = np.array([1, 0], np.uint64)  # neither word is in its slot
        self._code_of: Codes = np.zeros(2, np.uint8)

    def coded(self, words: Words) -> tuple[Words, Codes]:
        """Return distinct words by code, (nr_distinct,), and the code of each word: (nr_words,).

        The distinct words may be more than those of *words*.
        """
        parts = []
        for at in range(0, len(words), _CHUNK):
            part = self._hashed(words[at : at + _CHUNK])
            if part is None:
                self._forget()
                table, codes = np.unique(words, return_inverse=True)
                return table, codes.astype(np.uint32)
            parts.append(part)
        return self._table, np.concatenate(parts)

    def _hashed(self, words: Words) -> Codes | None:
        """Return the code of each word, ``None`` if the distinct ones are too many for a hash."""
        while True:
            # Slots are far below 2 ** 63, and indexes need not be copied if they are signed.
            slots = ((words * self._factor) >> self._shift).view(np.int64)
            unknown = self._by_slot[slots] != words
            if not unknown.any():
                return self._code_of[slots]
            if not self._learns(_distinct(words[unknown])):
                return None

    def _learns(self, new: Words) -> bool:
        """Take in words if there is a hash under which no two have the same slot."""
        self._table = np.concatenate((self._table, new))
        return any(
            self._takes(factor, bits)
            for bits in _BITS
            if len(self._table) ** 2 < 8 << bits
            for factor in _FACTORS
        )

    def _takes(self, factor: np.uint64, bits: int) -> bool:
        shift = np.uint64(64 - bits)
        slots = ((self._table * factor) >> shift).view(np.int64)
        if len(_distinct(slots)) < len(slots):
            return False
        self._factor, self._shift = factor, shift
        self._by_slot = np.zeros(1 << bits, np.uint64)
        self._by_slot[0] = 1  # a slot without a word has one that belongs elsewhere
        self._by_slot[slots] = self._table
        self._code_of = np.zeros(1 << bits, np.min_scalar_type(len(self._table)))
        self._code_of[slots] = np.arange(len(self._table))
        return True


def _distinct(numbers: NDArray[T]) -> NDArray[T]:
    """Return what ``numpy.unique`` does, which loads masked arrays that nothing else needs."""
    ordered = np.sort(numbers)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
