"""One step of some traces as a picture: the verdict in large type, and a map of the memory.

Rows that the steps changed are drawn large and labelled; all other rows are small.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from altmap.report import step_report
from altmap.report.draw import INKS, PATTERNS, box, text
from altmap.report.page import TraceGroup
from altmap.report.states import STATES, PageState
from altmap.report.tiles import COLUMNS, Tile, TileMap, TileRow
from altmap.trace import Trace
from altmap.units import format_size

__all__ = ("png", "svg")

_WIDTH, _LEFT, _RIGHT = 1000, 128, 138
_UNIT = (_WIDTH - _LEFT - _RIGHT) / COLUMNS
_TALL, _SMALL, _GAP = 62, 20, 16
_CHARACTER = 7.2  # pixels of a letter at 13 pixels, on the wide side
_LINE = 115  # letters of a line at 13.5 pixels
_BORDER = ' stroke="#777" stroke-width="1"'
_VERDICTS = {"fault": ("#d55e00", "✖"), "refused": ("#b87a00", "⊘"), "ok": ("#00704f", "✔")}
#: Labels of stretches of tiles, shorter than the legend's texts.
_LABELS = {
    PageState.HOLE: "",
    PageState.PLUGGED: "backed by the host",
    PageState.OFFLINE: "offline",
    PageState.ONLINE: "online",
    PageState.FREE: "free",
    PageState.MOVABLE: "in use, movable",
    PageState.UNMOVABLE: "in use, unmovable",
    PageState.MEMMAP: "memmap",
    PageState.FAKE_OFFLINE: "fake-offline",
    PageState.UNBACKED: "not backed",
    PageState.POISONED: "poisoned",
    PageState.FAULT: "fault",
}


def svg(group: TraceGroup, title: str, step: int | None = None) -> str:
    """Return a picture of one step of a group's traces, a panel for each.

    Parameters
    ----------
    group : TraceGroup
    title : str
    step : int, optional
        By default the first step with a fault, else the last.
    """
    step = step_report.default_step(group.traces) if step is None else step
    parts: list[str] = []
    name = group.traces[0].steps[step].name
    parts.append(text(20, 36, title, 21, ' font-weight="700"'))
    parts.append(text(20, 58, f"after step {step}, {name}", 14, ' fill="#555"'))
    y = 74.0
    for number, trace in enumerate(group.traces):
        panel = _Panel(group, number, step, y)
        parts.extend(panel.draw(trace))
        y = panel.y + 14
    parts.extend(_legend(group, step, y))
    height = y + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {_WIDTH} {height:g}" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'role="img"><title>{escape(title)}</title><defs>{PATTERNS}</defs>'
        f'<rect width="{_WIDTH}" height="{height:g}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def png(picture: str) -> bytes:
    """Return an SVG picture as PNG, two dots to a pixel; needs the extra ``report``."""
    import vl_convert

    made: bytes = vl_convert.svg_to_png(picture, scale=2)
    return made


@dataclass(slots=True)
class _Stretch:
    """Adjacent tiles that show the same state."""

    state: PageState
    column: int
    nr: int
    nr_pages: int
    nr_unbacked: int


@dataclass(slots=True)
class _Panel:
    """One trace's part of the picture, drawn downwards from *y*."""

    group: TraceGroup
    number: int
    step: int
    y: float

    @property
    def tiles(self) -> TileMap:
        assert self.group.tiles is not None
        return self.group.tiles

    def draw(self, trace: Trace) -> Iterator[str]:
        yield from self._heading(trace)
        if self.group.tiles is None:
            return
        end = None
        for index, row in enumerate(self.tiles.rows):
            if end is not None and row.first > end:
                self.y += _GAP
                gap = (row.first - end) * self.tiles.block_nr_pages * self.group.page_size_bytes
                yield text(_LEFT, self.y - 4, f"⋮ {_size(gap)} without memory blocks", 11,
                           ' fill="#666"')  # fmt: skip
            end = row.first + row.nr_blocks * row.nr_alike
            yield from self._row(index, row)
        yield from self._axis()

    def _heading(self, trace: Trace) -> Iterator[str]:
        verdict = step_report.verdict(trace, self.step)
        colour, sign = _VERDICTS[verdict.kind]
        lines = textwrap.wrap(verdict.detail, _LINE) or [""]
        tall = 36 + 18 * len(lines)
        yield f'<rect x="0" y="{self.y:g}" width="{_WIDTH}" height="{tall}" fill="{colour}"/>'
        heading = f"{sign} {trace.policy or trace.target}: {verdict.headline}"
        yield text(20, self.y + 24, heading, 19, ' fill="#fff" font-weight="700"')
        for number, line in enumerate(lines):
            yield text(20, self.y + 44 + 18 * number, line, 13.5, ' fill="#fff"')
        self.y += tall + 12

    def _row(self, index: int, row: TileRow) -> Iterator[str]:
        large = self._changed(index)
        height = _TALL if large else _SMALL
        yield from self._labels(index, row, height)
        stretches = self._stretches(index)
        unlabelled = []
        for stretch in stretches:
            x, width = _LEFT + stretch.column * _UNIT, stretch.nr * _UNIT
            yield box(x, self.y, width, height, stretch.state)
            if stretch.nr_unbacked and stretch.state < PageState.UNBACKED:
                yield (
                    f'<line x1="{x:g}" x2="{x + width:g}" y1="{self.y + height - 2:g}" '
                    f'y2="{self.y + height - 2:g}" stroke="#d55e00" stroke-width="4" '
                    'stroke-dasharray="7 3"/>'
                )
            if not large or not self._label_fits(stretch):
                if stretch.state in (PageState.FAULT, PageState.MEMMAP, PageState.POISONED):
                    unlabelled.append(stretch)
                continue
            yield from self._draw_label(stretch, x, width, height)
        yield (
            f'<rect x="{_LEFT}" y="{self.y:g}" width="{COLUMNS * _UNIT:g}" height="{height}" '
            f'fill="none"{_BORDER}/>'
        )
        self.y += height
        for stretch in unlabelled[:2]:
            yield from self._callout(stretch, index)
        self.y += 4

    def _labels(self, index: int, row: TileRow, height: int) -> Iterator[str]:
        last = row.first + row.nr_blocks * row.nr_alike - 1
        name = f"memory{row.first}" + (f"–{last}" if last != row.first else "")
        middle = self.y + height / 2 + 4
        start = row.first * self.tiles.block_nr_pages * self.group.page_size_bytes
        yield text(20, middle, name, 12)
        if height == _TALL:
            yield text(20, middle + 15, f"at {_size(start)}", 11, ' fill="#666"')
        facts = self.tiles.facts[self._cell(index)[1]]
        edge = _WIDTH - _RIGHT + 20
        yield text(edge, middle, facts.zones or facts.state or "no block", 12)
        if height == _TALL:
            place = [f"node {facts.nodes}" if facts.nodes else "", facts.owners]
            yield text(edge, middle + 15, " · ".join(filter(None, place)), 11, ' fill="#666"')

    def _label_fits(self, stretch: _Stretch) -> bool:
        return len(self._label(stretch)) * _CHARACTER + 10 <= stretch.nr * _UNIT

    def _label(self, stretch: _Stretch) -> str:
        name = _LABELS[stretch.state]
        return f"{name}: {self._bytes(stretch.nr_pages)}" if name else ""

    def _bytes(self, nr_pages: int) -> str:
        return _size(nr_pages * self.group.page_size_bytes)

    def _draw_label(self, s: _Stretch, x: float, width: float, height: int) -> Iterator[str]:
        label = self._label(s)
        if not label:
            return
        ink = INKS.get(s.state, "#111")
        if STATES[s.state].pattern != "plain":
            wide = len(label) * _CHARACTER + 12
            yield (
                f'<rect x="{x + (width - wide) / 2:g}" y="{self.y + height / 2 - 12:g}" '
                f'width="{wide:g}" height="22" rx="4" fill="{STATES[s.state].colour}"/>'
            )
        yield text(x + width / 2, self.y + height / 2 + 4, label, 13,
                   f' text-anchor="middle" fill="{ink}"')  # fmt: skip

    def _callout(self, s: _Stretch, index: int) -> Iterator[str]:
        x = _LEFT + (s.column + s.nr / 2) * _UNIT
        total = self._bytes(self._nr_pages(index, s.state))
        label, colour = f"{STATES[s.state].name} of added memory: {total}, here", "#8a5a00"
        if s.state is PageState.POISONED:
            label = f"poisoned: {total}, here"
        if s.state is PageState.FAULT:
            step = self.group.traces[self.number].steps[: self.step + 1]
            fault = next(fault for record in step for fault in record.faults)
            label = f"✖ {fault.function} {fault.access}s here: {fault.kind}"
            colour = "#b54a00"
        right = x > _WIDTH * 0.6
        where = x - 8 if right else x + 8
        yield f'<path d="M{x:g},{self.y + 1:g}v14" stroke="{colour}" stroke-width="2"/>'
        anchor = ' text-anchor="end"' if right else ""
        yield text(where, self.y + 15, label, 13, f'{anchor} font-weight="700" fill="{colour}"')
        self.y += 20

    def _axis(self) -> Iterator[str]:
        span = self.tiles.tile_nr_pages * COLUMNS * self.group.page_size_bytes
        unit, name = (1 << 30, "GiB") if span >= 64 << 30 else (1 << 20, "MiB")
        for quarter in range(5):
            x = _LEFT + quarter * COLUMNS * _UNIT / 4
            yield f'<path d="M{x:g},{self.y - 3:g}v6" stroke="#666"/>'
            yield text(x, self.y + 15, f"{quarter * span / 4 / unit:g}", 11,
                       ' text-anchor="middle" fill="#666"')  # fmt: skip
        yield text(20, self.y + 15, "memory block", 11, ' fill="#666"')
        yield text(_LEFT + COLUMNS * _UNIT * 0.375, self.y + 15, f"offset, {name}", 11,
                   ' text-anchor="middle" fill="#666"')  # fmt: skip
        yield text(_WIDTH - _RIGHT + 20, self.y + 15, "zone, node, owner", 11, ' fill="#666"')
        self.y += 22

    # --- cells -----------------------------------------------------------------------------

    def _cell(self, index: int) -> tuple[int, int]:
        return self.tiles.cells[self.number][self.step][index]

    def _changed(self, index: int) -> bool:
        """Return whether the steps changed a row: its facts differ from those at the start."""
        return any(trace[self.step][index][1] != trace[0][index][1] for trace in self.tiles.cells)

    def _nr_pages(self, index: int, state: PageState) -> int:
        """Return how many pages of a state a row has, in tiles that show another state too."""
        runs = self.tiles.patterns[self._cell(index)[0]]
        return sum(nr * dict(self.tiles.tiles[n].pages).get(state, 0) for nr, n in runs)

    def _stretches(self, index: int) -> list[_Stretch]:
        made: list[_Stretch] = []
        column = 0
        for nr, number in self.tiles.patterns[self._cell(index)[0]]:
            tile = self.tiles.tiles[number]
            state, nr_pages = tile.shown, dict(tile.pages)[tile.shown] * nr
            last = made[-1] if made else None
            if last and last.state is state and bool(last.nr_unbacked) == bool(tile.nr_unbacked):
                last.nr += nr
                last.nr_pages += nr_pages
                last.nr_unbacked += tile.nr_unbacked
            else:
                made.append(_Stretch(state, column, nr, nr_pages, tile.nr_unbacked))
            column += nr
        return made


def _legend(group: TraceGroup, step: int, y: float) -> Iterator[str]:
    if group.tiles is None:
        return
    tiles = group.tiles
    patterns = {tiles.patterns[cell[0]] for trace in tiles.cells for cell in trace[step]}
    shown = {_tile(tiles, number).shown for runs in patterns for _, number in runs}
    names = [(state, STATES[state].name) for state in sorted(shown)]
    x, top = 20.0, y + 10
    for state, name in names:
        yield box(x, top, 22, 15, state, _BORDER)
        yield text(x + 28, top + 12, name, 12)
        x += 46 + len(name) * _CHARACTER
    hidden = [tile for runs in patterns for _, n in runs if (tile := _tile(tiles, n)).nr_unbacked]
    if any(tile.shown < PageState.UNBACKED for tile in hidden):
        yield (
            f'<path d="M{x:g},{top + 9:g}h22" stroke="#d55e00" stroke-width="4" '
            'stroke-dasharray="7 3"/>'
        )
        yield text(x + 28, top + 12, "not backed", 12)
    tile_bytes = tiles.tile_nr_pages * group.page_size_bytes
    scale = f"a row is a memory block, its tiles are {_size(tile_bytes)} each"
    yield text(20, top + 36, scale, 11, ' fill="#666"')


def _tile(tiles: TileMap, number: int) -> Tile:
    return tiles.tiles[number]


def _size(size_bytes: int) -> str:
    exact = format_size(size_bytes)
    if len(exact) <= 8:
        return exact
    return f"{size_bytes / (1 << 20):,.1f} MiB"
