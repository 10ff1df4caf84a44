"""Codes of words against a dictionary of Python."""

import numpy as np
import pytest

from altmap.linux.wordcodes import WordCodes

CHANCE = np.random.default_rng(7)


def decoded(coder, words):
    table, codes = coder.coded(words)
    assert len(set(table.tolist())) == len(table)
    assert codes.shape == words.shape
    return table[codes]


@pytest.mark.parametrize("nr_distinct", [1, 2, 40, 300, 1000, 1449, 5000])
def test_a_code_leads_back_to_its_word(nr_distinct):
    distinct = CHANCE.integers(0, 1 << 63, nr_distinct, np.uint64)
    words = CHANCE.choice(distinct, 200_000)
    assert np.array_equal(decoded(WordCodes(), words), words)


@pytest.mark.parametrize("word", [0, 1, 2, 1 << 63, (1 << 64) - 1])
def test_any_single_word_has_a_code_of_its_own(word):
    for others in ([0], [1], [0, 1, 2]):
        words = np.array([word, *others, word], np.uint64)
        assert np.array_equal(decoded(WordCodes(), words), words)


def test_words_that_are_met_later_change_no_earlier_code():
    coder = WordCodes()
    pieces = [CHANCE.integers(at * 50, at * 50 + 90, 70_000, np.uint64) for at in range(12)]
    coded = [coder.coded(words) for words in pieces]
    for words, (table, codes) in zip(pieces, coded, strict=True):
        assert np.array_equal(table[codes], words)


def test_a_piece_with_many_distinct_words_does_not_keep_them():
    coder = WordCodes()
    many = CHANCE.integers(0, 1 << 63, 100_000, np.uint64)
    assert np.array_equal(decoded(coder, many), many)
    few = np.arange(100_000, dtype=np.uint64) % np.uint64(7)
    table, codes = coder.coded(few)
    assert np.array_equal(table[codes], few)
    assert len(table) == 7
