"""Page views as rows of tiles: a row is a memory block, a tile 1/64 of it, if that fits.

Adjacent blocks that look alike in every step of every trace share one row: their facts are equal,
and so are their tiles, except that pages in ordinary use are compared in eighths of a tile. If more
rows are left than a page can hold, blocks are taken in pairs, fours, eights, ... and a tile is as
much wider; so the size of a map does not grow with the size of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from altmap.pfn import PfnSet
from altmap.report.states import BlockFacts, PageState, PageView

__all__ = ("COLUMNS", "Facts", "Tile", "TileMap", "TileRow", "tile_map")

#: Tiles in a row. On x86_64 a block of 128 MiB has 64 pageblocks.
COLUMNS = 64
#: Most rows of a map.
MOST_ROWS = 96
#: Tiles of all rows and steps; a page with more exceeds five megabytes.
_MOST_TILES = 960_000
#: Most rows whose tiles are counted to find those that look alike, and most of all steps together.
_MOST_COUNTED, _MOST_COUNTED_IN_ALL = 2048, 65_536
#: States of which a small part of a tile matters; of the others, eighths of a tile do.
_EXACT = (
    PageState.PLUGGED,
    PageState.OFFLINE,
    PageState.MEMMAP,
    PageState.FAKE_OFFLINE,
    PageState.UNBACKED,
    PageState.POISONED,
    PageState.FAULT,
)
_SHARES = 8

T = TypeVar("T")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TileRow:
    """Memory blocks that one row shows.

    Attributes
    ----------
    first : int
        Id of the first block.
    nr_blocks : int
        Adjacent blocks that the tiles divide; more than one if the map is coarse.
    nr_alike : int
        How often so many blocks follow each other and look alike.
    """

    first: int
    nr_blocks: int
    nr_alike: int


@dataclass(frozen=True, slots=True)
class Tile:
    """Pages of a tile by state, in the order of :class:`PageState`, and how many are not backed.

    Of blocks that look alike, the pages at the same offset of all of them.
    """

    pages: tuple[tuple[PageState, int], ...]
    nr_unbacked: int

    @property
    def shown(self) -> PageState:
        """The state that the tile shows: the most severe one, else that of most pages."""
        severest = self.pages[-1][0]
        if severest >= PageState.UNBACKED:
            return severest
        return max(self.pages, key=lambda item: (item[1], item[0]))[0]


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of the row's blocks, as text."""

    state: str
    zones: str
    nodes: str
    owners: str

    @property
    def zone_kind(self) -> str:
        """Whether the zones are of the kernel or ZONE_MOVABLE.

        ``kernel``, ``movable``, ``both``, or empty if no block is online.
        """
        names = {name for part in self.zones.split(", ") for name in part.split(" + ") if name}
        kinds = {"movable" if name == "Movable" else "kernel" for name in names}
        return "both" if len(kinds) > 1 else "".join(kinds)


@dataclass(slots=True)
class TileMap:
    """Maps of traces that share their rows.

    Attributes
    ----------
    block_nr_pages, tile_nr_pages : int
    rows : list of TileRow
    tiles : list of Tile
        Every different tile.
    patterns : list of tuple
        Every different row: runs ``(nr_tiles, index into tiles)``.
    facts : list of Facts
    cells : list
        By trace, step and row: index into patterns, index into facts.
    """

    block_nr_pages: int
    tile_nr_pages: int
    rows: list[TileRow]
    tiles: list[Tile] = field(default_factory=list)
    patterns: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)
    cells: list[list[list[tuple[int, int]]]] = field(default_factory=list)


def tile_map(
    traces: Sequence[Sequence[PageView]], block_nr_pages: int, only: range | None = None
) -> TileMap:
    """Return the maps of several traces' page views.

    Parameters
    ----------
    traces : sequence of sequences of PageView
        Traces of one machine.
    block_nr_pages : int
    only : range, optional
        Ids of the memory blocks to show; all by default.
    """
    views = [view for trace in traces for view in trace]
    ids = sorted({id_ for view in views for id_ in view.blocks if only is None or id_ in only})
    if not ids:
        return TileMap(block_nr_pages, max(1, block_nr_pages // COLUMNS), [])
    view_runs = [_ViewRuns.of(view) for view in views]
    shown = list(zip(views, view_runs, strict=True))
    nr_blocks, parts = _rows(ids, shown, block_nr_pages)
    rows = [TileRow(p[0].first, nr_blocks, sum(row.nr_alike for row in p)) for p in parts]
    made = TileMap(block_nr_pages, max(1, block_nr_pages * nr_blocks // COLUMNS), rows)
    maker = _Maker(made, parts)
    cells = [maker.cells(*each) for each in shown]
    for trace in traces:
        made.cells.append(cells[: len(trace)])
        del cells[: len(trace)]
    return made


def _rows(
    ids: list[int], shown: Sequence[tuple[PageView, _ViewRuns]], block_nr_pages: int
) -> tuple[int, list[list[TileRow]]]:
    """Return the blocks whose tiles are one, and of each row its parts, which look alike.

    As few blocks as the limits allow; within a part the blocks are equal.
    """
    most = max(MOST_ROWS, min(_MOST_COUNTED, _MOST_COUNTED_IN_ALL // len(shown)))
    nr_blocks = 1
    parts = _equal_rows(ids, shown, block_nr_pages)
    while True:
        if len(parts) <= most:
            rows = _alike(parts, shown, block_nr_pages)
            fits = len(rows) * len(shown) * COLUMNS <= _MOST_TILES
            if len(parts) == 1 or (fits and len(rows) <= MOST_ROWS):
                return nr_blocks, rows
        nr_blocks *= 2
        parts = [TileRow(first, nr_blocks, 1) for first in sorted({i - i % nr_blocks for i in ids})]


# --- runs as arrays ------------------------------------------------------------------------


@dataclass(slots=True)
class _Runs:
    """A set of page frames as sorted starts and ends, and how many lie before each."""

    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, pfns: PfnSet) -> _Runs:
        pairs = [(run.start, run.end) for run in pfns.ranges()]
        array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return cls(array[:, 0], array[:, 1])

    def counts(self, edges: Ints) -> Ints:
        """Return how many of the page frames lie between adjacent edges of each row."""
        if not self.starts.size:
            return np.zeros((len(edges), COLUMNS), np.int64)
        below = np.concatenate(([0], np.cumsum(self.ends - self.starts)))
        at = np.searchsorted(self.starts, edges, side="right")
        last = np.maximum(at - 1, 0)
        over = np.where(at > 0, np.maximum(self.ends[last] - edges, 0), 0)
        return np.diff(below[at] - over, axis=1)


@dataclass(slots=True)
class _ViewRuns:
    """A page view's sets as runs."""

    states: dict[PageState, _Runs]
    unbacked: _Runs

    @classmethod
    def of(cls, view: PageView) -> _ViewRuns:
        states: dict[PageState, _Runs] = {
            state: _Runs.of(view.pages[state])
            for state in PageState
            if state is not PageState.HOLE and view.pages[state]
        }
        return cls(states, _Runs.of(view.unbacked))


# --- rows ----------------------------------------------------------------------------------


def _equal_rows(
    ids: list[int], shown: Sequence[tuple[PageView, _ViewRuns]], block_nr_pages: int
) -> list[TileRow]:
    """Return a row for each stretch of adjacent blocks that are equal in every view."""
    signatures = np.array([_signatures(ids, *pair, block_nr_pages) for pair in shown])
    array = np.array(ids, np.int64)
    breaks = (np.diff(signatures, axis=1) != 0).any(axis=0) | (np.diff(array) != 1)
    starts = np.concatenate(([0], np.flatnonzero(breaks) + 1, [len(ids)]))
    return [
        TileRow(ids[start], 1, int(end - start)) for start, end in pairwise(starts) if end > start
    ]


def _signatures(
    ids: list[int], view: PageView, view_runs: _ViewRuns, block_nr_pages: int
) -> list[int]:
    """Return a number for each block; equal numbers mean equal facts and equal pages."""
    layouts = _layouts(view_runs, block_nr_pages)
    known: dict[tuple[BlockFacts | None, tuple[int, ...]], int] = {}
    return [
        known.setdefault((view.blocks.get(id_), layouts.get(id_, ())), len(known)) for id_ in ids
    ]


def _layouts(view_runs: _ViewRuns, block_nr_pages: int) -> dict[int, tuple[int, ...]]:
    """Return for each block that is not a hole its runs: state, start and end within the block."""
    made: dict[int, tuple[int, ...]] = {}
    for code, runs in ((-1, view_runs.unbacked), *view_runs.states.items()):
        for id_, first, last in _pieces(runs, block_nr_pages):
            made[id_] = (*made.get(id_, ()), int(code), first, last)
    return made


def _pieces(runs: _Runs, block_nr_pages: int) -> Iterator[tuple[int, int, int]]:
    """Yield runs cut at the blocks' ends: block, start and end within it."""
    if not runs.starts.size:
        return
    first, last = runs.starts // block_nr_pages, (runs.ends - 1) // block_nr_pages
    nr = last - first + 1
    index = np.repeat(np.arange(len(nr)), nr)
    blocks = first[index] + np.arange(nr.sum()) - np.repeat(np.cumsum(nr) - nr, nr)
    base = blocks * block_nr_pages
    starts = np.maximum(runs.starts[index] - base, 0)
    ends = np.minimum(runs.ends[index] - base, block_nr_pages)
    yield from zip(blocks.tolist(), starts.tolist(), ends.tolist(), strict=True)


def _alike(
    parts: list[TileRow], shown: Sequence[tuple[PageView, _ViewRuns]], block_nr_pages: int
) -> list[list[TileRow]]:
    """Return the parts of each row: adjacent ones that look alike in every view."""
    edges = _edges(parts, block_nr_pages)
    tile_nr_pages = max(1, block_nr_pages * parts[0].nr_blocks // COLUMNS)
    firsts = np.array([row.first for row in parts], np.int64)
    ends = firsts + [row.nr_blocks * row.nr_alike for row in parts]
    breaks = firsts[1:] != ends[:-1]
    for view, view_runs in shown:
        looks = _looks(edges, view_runs, tile_nr_pages)
        breaks |= (looks[1:] != looks[:-1]).any(axis=1)
        facts = [_facts(view, row) for row in parts]
        breaks |= np.array([one != other for one, other in pairwise(facts)], bool)
    starts = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(parts)]
    return [parts[start:end] for start, end in pairwise(starts)]


def _looks(edges: Ints, view_runs: _ViewRuns, tile_nr_pages: int) -> npt.NDArray[np.int8]:
    """Return what each row looks like: rows that are equal here look alike."""
    looks = [view_runs.unbacked.counts(edges) > 0]
    for state, runs in view_runs.states.items():
        counts = runs.counts(edges)
        shares = np.rint(counts * _SHARES / tile_nr_pages)
        looks.append(counts > 0 if state in _EXACT else shares)
    return np.concatenate([part.astype(np.int8) for part in looks], axis=1)


def _edges(rows: Sequence[TileRow], block_nr_pages: int) -> Ints:
    """Return the first page frame of each tile of each row, and the end of its last tile."""
    firsts = np.array([row.first for row in rows], np.int64)
    span = rows[0].nr_blocks * block_nr_pages
    steps = np.arange(COLUMNS + 1, dtype=np.int64) * span // COLUMNS
    return firsts[:, None] * block_nr_pages + steps[None, :]


# --- tiles ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Maker:
    """Numbers tiles, rows and facts, so that each is stored once."""

    made: TileMap
    parts: list[list[TileRow]]
    _tiles: dict[Tile, int] = field(default_factory=dict)
    _patterns: dict[tuple[tuple[int, int], ...], int] = field(default_factory=dict)
    _facts: dict[Facts, int] = field(default_factory=dict)

    def cells(self, view: PageView, view_runs: _ViewRuns) -> list[tuple[int, int]]:
        """Return the index of the pattern and of the facts of each row."""
        parts = [part for row in self.parts for part in row]
        edges = _edges(parts, self.made.block_nr_pages)
        weights = np.array([[part.nr_alike] for part in parts], np.int64)
        starts = np.cumsum([0, *(len(row) for row in self.parts[:-1])])

        def totals(runs: _Runs) -> list[list[int]]:
            made: list[list[int]] = np.add.reduceat(
                runs.counts(edges) * weights, starts, axis=0
            ).tolist()
            return made

        counts = {state: totals(runs) for state, runs in view_runs.states.items()}
        unbacked = totals(view_runs.unbacked)
        cells = []
        for index, row in enumerate(self.made.rows):
            of_row = {state: nr[index] for state, nr in counts.items()}
            pattern = self._pattern(row, of_row, unbacked[index])
            cells.append((pattern, self._number(self._facts, self.made.facts, _facts(view, row))))
        return cells

    def _pattern(
        self, row: TileRow, counts: dict[PageState, list[int]], unbacked: list[int]
    ) -> int:
        runs: list[tuple[int, int]] = []
        for column in range(COLUMNS):
            pages = [(state, nr[column]) for state, nr in counts.items() if nr[column]]
            rest = self.made.tile_nr_pages * row.nr_alike - sum(nr for _, nr in pages)
            if rest:
                pages.insert(0, (PageState.HOLE, rest))
            tile = Tile(tuple(pages), unbacked[column])
            number = self._number(self._tiles, self.made.tiles, tile)
            if runs and runs[-1][1] == number:
                runs[-1] = (runs[-1][0] + 1, number)
            else:
                runs.append((1, number))
        return self._number(self._patterns, self.made.patterns, tuple(runs))

    @staticmethod
    def _number(known: dict[T, int], items: list[T], item: T) -> int:
        if item not in known:
            known[item] = len(items)
            items.append(item)
        return known[item]


def _facts(view: PageView, row: TileRow) -> Facts:
    blocks = [
        view.blocks[id_]
        for id_ in range(row.first, row.first + row.nr_blocks)
        if id_ in view.blocks
    ]
    nodes = sorted({block.node for block in blocks if block.node is not None})
    return Facts(
        _joined(block.state for block in blocks),
        _joined(block.zones for block in blocks),
        " ".join(map(str, nodes)),
        _joined(block.owner for block in blocks),
    )


def _joined(texts: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))
