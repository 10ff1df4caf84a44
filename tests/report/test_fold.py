"""Rows are merged only if they say the same of different blocks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.linux.node import block_names
from altmap.report.fold import folded


def online(block, zone="Movable", nr_pages=32768):
    return f"memory{block} online in zone {zone} of node 0: {nr_pages} pages present"


def test_few_rows_are_shown_as_they_are():
    rows = [online(block) for block in range(4)]
    assert folded(rows, 4) == rows


def test_blocks_of_two_zones_are_two_rows():
    rows = [online(block, "Normal" if block % 4 == 3 else "Movable") for block in range(32, 48)]
    assert folded(rows, 4) == [
        "memory32-34,36-38,40-42,44-46 online in zone Movable of node 0: "
        "32768 pages present (each of 12)",
        "memory35,39,43,47 online in zone Normal of node 0: 32768 pages present (each of 4)",
    ]


def test_blocks_with_other_counts_are_another_row():
    rows = [online(block, nr_pages=32256 if block == 5 else 32768) for block in range(8)]
    assert [re.search(r"\d+ pages", row)[0] for row in folded(rows, 4)] == [
        "32768 pages",
        "32256 pages",
    ]


def test_page_frames_are_merged_as_runs():
    rows = [f"memory{n} offline: [{n:#x}000, {n + 1:#x}000)" for n in range(1, 9)]
    assert folded(rows, 4) == ["memory1-8 offline: [0x1000, 0x9000)"]
    apart = [f"writes [{n:#x}000, {n:#x}008)" for n in range(1, 9)]
    assert folded(apart, 4) == ["writes [0x1000, 0x1008) [0x2000, 0x2008) … (8 runs)"]


def test_equal_rows_without_a_place_are_counted():
    assert folded(["retry"] * 5, 4) == ["5 times: retry"]


def test_rows_that_differ_are_counted_as_such():
    rows = [online(block, nr_pages=block + 1) for block in range(10)]
    assert folded(rows, 4) == [*rows[:2], "… 7 more, not equal to these …", rows[-1]]


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from("ABC")), min_size=1, unique=True))
def test_each_block_is_in_a_row_of_its_zone(pairs):
    rows = folded([f"memory{block} in {zone}" for block, zone in pairs], 3)
    shown = {row[-1]: row for row in rows}
    for zone in {zone for _, zone in pairs} if len(rows) < len(pairs) else ():
        ids = {block for block, of in pairs if of == zone}
        assert shown[zone] == f"{block_names(ids)} in {zone}"


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([7], "memory7"),
        ([9, 8, 7], "memory7-9"),
        ([1, 3, 4, 9], "memory1,3-4,9"),
        ([1, 3, 5, 7, 9, 10], "memory1,3,5,…,9-10 (6 blocks)"),
    ],
)
def test_names_of_blocks_are_ranges(ids, text):
    assert block_names(ids) == text
