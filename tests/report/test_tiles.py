"""Rows and tiles, against counting the pages of each tile in the sets themselves."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.model.machine import predict
from altmap.pfn import PfnRange, PfnSet
from altmap.report import tiles
from altmap.report.states import BlockFacts, PageState, PageView, page_views
from altmap.report.tiles import COLUMNS, Tile, TileRow, tile_map
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
BLOCK = 32768


def expand(made, number, step):
    """Yield each row with the full list of its tiles."""
    for row, (pattern, facts) in zip(made.rows, made.cells[number][step], strict=True):
        yield row, [t for nr, t in made.patterns[pattern] for _ in range(nr)], made.facts[facts]


def check(made, traces):
    """Count the pages of every tile: those at its offset in all blocks of the row."""
    assert made.rows
    for number, trace in enumerate(traces):
        for step, view in enumerate(trace):
            for row, shown, _ in expand(made, number, step):
                assert len(shown) == COLUMNS
                starts = [
                    (row.first + alike * row.nr_blocks) * made.block_nr_pages
                    for alike in range(row.nr_alike)
                ]
                for column, index in enumerate(shown):
                    offset, size = column * made.tile_nr_pages, made.tile_nr_pages
                    pfns = [PfnRange(at + offset, at + offset + size) for at in starts]
                    check_tile(made.tiles[index], view, pfns)


def check_tile(tile, view, pfns):
    counts = {
        state: sum(view.pages[state].count(each) for each in pfns)
        for state in PageState
        if state is not PageState.HOLE
    }
    counts = {state: nr for state, nr in counts.items() if nr}
    rest = sum(map(len, pfns)) - sum(counts.values())
    assert dict(tile.pages) == counts | ({PageState.HOLE: rest} if rest else {})
    assert tile.nr_unbacked == sum(view.unbacked.count(each) for each in pfns)


@pytest.fixture
def two_policies():
    path = ROOT / "scenarios/hyperv-64MiB-second-half.toml"
    names = ("rfc-2018", "opt-in")
    return [page_views(predict(load_scenario(path, [f"policy={name}"]))) for name in names]


def test_every_tile_counts_its_pages(two_policies):
    made = tile_map(two_policies, BLOCK)
    assert [row.first for row in made.rows] == [0, 1, 6, 7, 32]
    assert made.rows[1] == TileRow(1, 1, 5)  # five blocks that are free throughout
    check(made, two_policies)


def test_coarse_tiles_count_their_pages_too(two_policies, monkeypatch):
    monkeypatch.setattr(tiles, "MOST_ROWS", 2)
    made = tile_map(two_policies, BLOCK)
    assert {row.nr_blocks for row in made.rows} == {8}
    assert made.tile_nr_pages == 8 * BLOCK // COLUMNS
    check(made, two_policies)
    # The eight pages of the fault are a small part of their tile, and decide what it shows.
    first = next(t for row, t, _ in expand(made, 0, 1) if row.first == 32)[0]
    assert made.tiles[first].shown is PageState.FAULT


def test_only_the_selected_blocks_are_shown(two_policies):
    made = tile_map(two_policies, BLOCK, range(7, 33))
    assert [(row.first, row.nr_alike) for row in made.rows] == [(7, 1), (32, 1)]


def test_rows_are_the_same_in_all_steps_and_traces(two_policies):
    alone = tile_map(two_policies[:1], BLOCK)
    both = tile_map(two_policies, BLOCK)
    assert [row.first for row in alone.rows] == [row.first for row in both.rows]
    assert [len(cells) for cells in both.cells] == [3, 3]


def view_of(pages, unbacked, ids):
    full = dict.fromkeys(PageState, PfnSet()) | pages
    return PageView(full, unbacked, {id_: BlockFacts("online", "Normal", 0, "") for id_ in ids})


RANGES = st.lists(
    st.tuples(st.integers(0, 12 * 256 - 1), st.integers(1, 700)).map(
        lambda pair: PfnRange(pair[0], min(pair[0] + pair[1], 12 * 256))
    ),
    max_size=12,
)


@given(RANGES, RANGES, RANGES, st.integers(1, 12))
def test_tiles_of_any_sets_count_their_pages(free, used, missing, most):
    free, used = PfnSet(free), PfnSet(used)
    pages = {PageState.FREE: free - used, PageState.UNMOVABLE: used}
    view = view_of(pages, PfnSet(missing), range(12))
    before = tiles.MOST_ROWS
    tiles.MOST_ROWS = most
    try:
        made = tile_map([[view]], 256)
    finally:
        tiles.MOST_ROWS = before
    assert len(made.rows) <= most
    check(made, [[view]])


@pytest.mark.slow
def test_equal_blocks_of_16_tib_are_one_row():
    nr = (16 << 40) // (128 << 20)
    stride = PfnSet()
    for start in range(0, nr * BLOCK, BLOCK):
        stride |= PfnRange(start, start + 512)
    all_pages = PfnSet([PfnRange(0, nr * BLOCK)])
    pages = {PageState.MEMMAP: stride, PageState.FREE: all_pages - stride}
    made = tile_map([[view_of(pages, PfnSet(), range(nr))]], BLOCK)
    assert made.rows == [TileRow(0, 1, nr)]
    assert made.tiles[0].pages == ((PageState.MEMMAP, 512 * nr),)


def test_many_different_blocks_share_coarse_rows():
    nr = 20_000
    odd = PfnSet(PfnRange(id_ * BLOCK, id_ * BLOCK + id_ % 97) for id_ in range(nr))
    view = view_of({PageState.MOVABLE: odd}, PfnSet(), range(nr))
    made = tile_map([[view]], BLOCK)
    assert len(made.rows) <= tiles.MOST_ROWS
    total = sum(
        dict(made.tiles[t].pages).get(PageState.MOVABLE, 0)
        for _, shown, _ in expand(made, 0, 0)
        for t in shown
    )
    assert total == len(odd)


def blocks_with(state, *counts):
    """Return a view of adjacent free blocks whose first page frames are in a state."""
    odd = PfnSet(PfnRange(id_ * BLOCK, id_ * BLOCK + nr) for id_, nr in enumerate(counts) if nr)
    every = PfnSet([PfnRange(0, len(counts) * BLOCK)])
    return view_of({PageState.FREE: every - odd, state: odd}, PfnSet(), range(len(counts)))


@pytest.mark.parametrize("state", [PageState.MOVABLE, PageState.UNMOVABLE])
def test_blocks_whose_pages_in_use_differ_by_less_than_an_eighth_of_a_tile_share_a_row(state):
    view = blocks_with(state, 3, 0, 31, 33, 500)  # a tile has 512; a sixteenth of it has 32
    made = tile_map([[view]], BLOCK)
    assert [(row.first, row.nr_alike) for row in made.rows] == [(0, 3), (3, 1), (4, 1)]
    check(made, [[view]])


@pytest.mark.parametrize(
    "state", [PageState.MEMMAP, PageState.FAKE_OFFLINE, PageState.POISONED, PageState.FAULT]
)
def test_a_single_page_that_matters_gives_its_block_a_row(state):
    view = blocks_with(state, 0, 0, 1, 0)
    made = tile_map([[view]], BLOCK)
    assert [(row.first, row.nr_alike) for row in made.rows] == [(0, 2), (2, 1), (3, 1)]


def test_unbacked_pages_in_use_give_their_block_a_row():
    view = blocks_with(PageState.MOVABLE, 0, 0, 0)
    view.unbacked = PfnSet([PfnRange(BLOCK, BLOCK + 1)])
    assert [row.nr_alike for row in tile_map([[view]], BLOCK).rows] == [1, 1, 1]


def test_coarse_rows_that_look_alike_are_one():
    """4096 blocks; every second one of the first 512 is offline."""
    view = view_of({}, PfnSet(), range(4096))
    offline = PfnSet(PfnRange(id_ * BLOCK, (id_ + 1) * BLOCK) for id_ in range(0, 512, 2))
    view.pages[PageState.OFFLINE] = offline
    view.pages[PageState.FREE] = PfnSet([PfnRange(0, 4096 * BLOCK)]) - offline
    made = tile_map([[view]], BLOCK)
    assert made.rows == [TileRow(0, 2, 256), TileRow(512, 2, 1792)]
    check(made, [[view]])


def test_blocks_that_differ_only_in_facts_have_separate_rows():
    view = view_of({}, PfnSet(), range(4))
    view.blocks[2] = dataclasses.replace(view.blocks[2], zones="Movable")
    made = tile_map([[view]], BLOCK)
    assert [(row.first, row.nr_alike) for row in made.rows] == [(0, 2), (2, 1), (3, 1)]
    assert [facts.zones for _, _, facts in expand(made, 0, 0)] == ["Normal", "Movable", "Normal"]


@pytest.mark.parametrize(
    ("pages", "shown"),
    [
        (((PageState.FREE, 500), (PageState.FAULT, 12)), PageState.FAULT),
        (((PageState.FREE, 10), (PageState.MOVABLE, 502)), PageState.MOVABLE),
        (((PageState.FREE, 256), (PageState.MOVABLE, 256)), PageState.MOVABLE),
        (((PageState.FREE, 300), (PageState.MEMMAP, 212)), PageState.FREE),
        (((PageState.FREE, 1), (PageState.UNBACKED, 1)), PageState.UNBACKED),
    ],
)
def test_a_tile_shows_the_most_severe_state_or_that_of_most_pages(pages, shown):
    assert Tile(pages, 0).shown is shown
