"""One step of some traces as a picture: the verdict in large type, and a map of the memory.

Rows that look alike after that step are one. Those that the steps changed are drawn large and
labelled, if they are few; all other rows are small.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from altmap.report import step_report
from altmap.report.draw import INKS, PATTERNS, ZONE_FILLS, box, node_colour, stripe, text
from altmap.report.legend import several_nodes, stripe_entries, stripe_of
from altmap.report.page import TraceGroup
from altmap.report.states import STATES, PageState
from altmap.report.text import zones_text
from altmap.report.tiles import COLUMNS, Facts, Tile, TileMap
from altmap.trace import Trace
from altmap.units import format_size

__all__ = ("png", "svg")

_WIDTH, _MARGIN, _STRIPE, _GAP = 1000, 20, 10, 16
#: Heights of a row with labels, and of others; rows of the larger height that a panel has at most.
_TALL, _SMALL, _MOST_TALL = 62, 20, 8
#: Small rows of a panel at most; those of more are lower.
_MOST_SMALL, _LOWEST = 32, 11
_DIGIT = 8  # pixels of a digit or letter at 12 pixels
_CHARACTER = 7.2  # pixels of a letter at 13 pixels, on the wide side
#: Pixels of the letters at 12 pixels that are not about 7.4 wide.
_LETTERS = {**dict.fromkeys("mwMW", 11), **dict.fromkeys("fijlrtI ", 4.2)}
_LINE, _HEADING, _TITLE = 115, 82, 74  # letters of a line at 13.5, 19 and 21 pixels
_TARGETS = {"lab": "real kernel"}
_BORDER = ' stroke="#777" stroke-width="1"'
_VERDICTS = {"fault": ("#b54a00", "✖"), "refused": ("#8a5a00", "⊘"), "ok": ("#00704f", "✔")}
_SOFT, _BACK = ' class="soft" fill="#5a5a5a"', ' class="back" fill="#fff"'
#: Colours on a dark page. What is drawn in a state's colour keeps it.
_DARK = (
    "@media (prefers-color-scheme:dark){.altmap-picture{fill:#e8e8e8}"
    ".altmap-picture .back{fill:#16181a}.altmap-picture .soft{fill:#a8a8a8}"
    ".altmap-picture .hole{fill:#2c3034}.altmap-picture .amber{fill:#f0c040}"
    ".altmap-picture .red{fill:#ff8a4c}}"
)
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
        By default the first step with a fault, else the one that changes most memory blocks.
    """
    step = step_report.default_step(group.traces) if step is None else step
    parts: list[str] = []
    name = group.traces[0].steps[step].name
    y = 10.0
    for line in textwrap.wrap(title, _TITLE) or [""]:
        y += 26
        parts.append(text(_MARGIN, y, line, 21, ' font-weight="700"'))
    if len(group.traces[0].steps) > 1:
        y += 22
        parts.append(text(_MARGIN, y, f"after step {step}, {name}", 14, _SOFT))
    y += 16
    for number, trace in enumerate(group.traces):
        panel = _Panel(group, number, step, y)
        parts.extend(panel.draw(trace))
        y = panel.y + 14
    legend, y = _legend(group, step, y)
    parts.extend(legend)
    height = y + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {_WIDTH} {height:g}" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'class="altmap-picture" fill="#111" role="img"><title>{escape(title)}</title>'
        f"<style>{_DARK}</style><defs>{PATTERNS}</defs>"
        f'<rect width="{_WIDTH}" height="{height:g}"{_BACK}/>{"".join(parts)}</svg>\n'
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


@dataclass(frozen=True, slots=True)
class _Line:
    """Rows of the map that follow each other, and look alike after the step."""

    first: int
    end: int  # ids of memory blocks
    rows: list[int]
    stretches: list[_Stretch]
    is_changed: bool

    @property
    def name(self) -> str:
        last = self.end - 1
        return f"memory{self.first}" + (f"–{last}" if last != self.first else "")


@dataclass(slots=True)
class _Panel:
    """One trace's part of the picture, drawn downwards from *y*."""

    group: TraceGroup
    number: int
    step: int
    y: float
    left: float = 0
    right: float = 0
    unit: float = 0
    tall: int = _TALL
    small: int = _SMALL

    @property
    def tiles(self) -> TileMap:
        assert self.group.tiles is not None
        return self.group.tiles

    def draw(self, trace: Trace) -> Iterator[str]:
        yield from self._heading(trace)
        if self.group.tiles is None:
            return
        lines = self._lines()
        self._fit(lines)
        end = None
        for line in lines:
            if end is not None and line.first > end:
                self.y += _GAP
                gap = (line.first - end) * self.tiles.block_nr_pages * self.group.page_size_bytes
                label = f"⋮ {_size(gap)} without memory blocks"
                yield text(self.left, self.y - 4, label, 11, _SOFT)
            end = line.end
            yield from self._row(line)
        yield from self._axis()

    def _fit(self, lines: list[_Line]) -> None:
        """Choose the heights of rows and the widths of labels."""
        nr_tall = sum(line.is_changed for line in lines)
        self.tall = _TALL if nr_tall <= _MOST_TALL else _SMALL
        nr_small = len(lines) - (nr_tall if nr_tall <= _MOST_TALL else 0)
        self.small = max(_LOWEST, min(_SMALL, _SMALL * _MOST_SMALL // max(nr_small, 1)))
        if self.tall == _SMALL:
            self.tall = self.small
        names = [len(line.name) * _DIGIT for line in lines]
        zones = [len(word) * _CHARACTER for line in lines for word in self._place(line)]
        self.left = _MARGIN + max(90, *names) + 8 + _STRIPE
        self.right = _MARGIN + max(118, *zones) + _STRIPE
        self.unit = (_WIDTH - self.left - self.right) / COLUMNS

    def _heading(self, trace: Trace) -> Iterator[str]:
        verdict = step_report.verdict(trace, self.step)
        colour, sign = _VERDICTS[verdict.kind]
        heading = f"{sign} {self._name(trace)}: {verdict.headline}"
        headings = textwrap.wrap(heading, _HEADING)
        lines = textwrap.wrap(verdict.detail, _LINE) or [""]
        zones = zones_text(trace.steps[self.step].observation)
        lines += [zones] if zones else []
        tall = 12 + 24 * len(headings) + 18 * len(lines)
        yield f'<rect x="0" y="{self.y:g}" width="{_WIDTH}" height="{tall}" fill="{colour}"/>'
        for number, line in enumerate(headings, start=1):
            more = ' fill="#fff" font-weight="700"'
            yield text(_MARGIN, self.y + 24 * number, line, 19, more)
        for number, line in enumerate(lines):
            down = 20 + 24 * len(headings) + 18 * number
            yield text(_MARGIN, self.y + down, line, 13.5, ' fill="#fff"')
        self.y += tall + 12

    def _name(self, trace: Trace) -> str:
        """Return the policy; of traces with the same policy also what they were run on."""
        policies = [each.policy for each in self.group.traces]
        if policies.count(trace.policy) == 1 and trace.policy:
            return trace.policy
        return ", ".join(
            word
            for word in (_TARGETS.get(trace.target, trace.target), trace.release, trace.policy)
            if word
        )

    def _row(self, line: _Line) -> Iterator[str]:
        large = line.is_changed and self.tall == _TALL
        height = self.tall if line.is_changed else self.small
        yield from self._labels(line, height)
        unlabelled = []
        for stretch in line.stretches:
            x, width = self.left + stretch.column * self.unit, stretch.nr * self.unit
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
            f'<rect x="{self.left:g}" y="{self.y:g}" width="{COLUMNS * self.unit:g}" '
            f'height="{height}" fill="none"{_BORDER}/>'
        )
        yield from self._stripes(self._facts(line), height)
        self.y += height
        for stretch in unlabelled[:2] if height >= _SMALL else ():
            yield from self._callout(stretch, line)
        self.y += 4

    def _labels(self, line: _Line, height: int) -> Iterator[str]:
        middle = self.y + height / 2 + 4
        start = line.first * self.tiles.block_nr_pages * self.group.page_size_bytes
        size = min(12, height)
        yield text(_MARGIN, middle, line.name, size)
        zone, place = self._place(line)
        edge = _WIDTH - self.right + _STRIPE + 10
        yield text(edge, middle, zone, size)
        if height == _TALL:
            yield text(_MARGIN, middle + 15, f"at {_size(start)}", 11, _SOFT)
            yield text(edge, middle + 15, place, 11, _SOFT)

    def _place(self, line: _Line) -> tuple[str, str]:
        """Return the zones of a line, and its node and owner."""
        facts = self._facts(line)
        place = [f"node {facts.nodes}" if facts.nodes else "", _short(facts.owners)]
        return _short(facts.zones or facts.state or "no block"), " · ".join(filter(None, place))

    def _stripes(self, facts: Facts, height: int) -> Iterator[str]:
        """Yield the stripe of the zones, and that of the nodes if there are several."""
        if facts.zone_kind:
            x = self.left - _STRIPE - 2
            yield stripe(ZONE_FILLS[facts.zone_kind], x, self.y, _STRIPE, height)
        nodes = facts.nodes.split()
        if nodes and several_nodes(self.tiles):
            fills = [node_colour(int(node)) for node in nodes]
            yield stripe(fills, _WIDTH - self.right + 2, self.y, _STRIPE, height)

    def _label_fits(self, stretch: _Stretch) -> bool:
        return len(self._label(stretch)) * _CHARACTER + 10 <= stretch.nr * self.unit

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

    def _callout(self, s: _Stretch, line: _Line) -> Iterator[str]:
        x = self.left + (s.column + s.nr / 2) * self.unit
        total = self._bytes(sum(self._nr_pages(index, s.state) for index in line.rows))
        label = f"{STATES[s.state].name} of added memory: {total}, here"
        colour = 'class="amber" fill="#8a5a00"'
        if s.state is PageState.POISONED:
            label = f"poisoned: {total}, here"
        if s.state is PageState.FAULT:
            step = self.group.traces[self.number].steps[: self.step + 1]
            fault = next(fault for record in step for fault in record.faults)
            label = f"✖ {fault.function} {fault.access}s here: {fault.kind}"
            colour = 'class="red" fill="#b54a00"'
        right = x > _WIDTH * 0.6
        where = x - 8 if right else x + 8
        yield f'<rect x="{x - 1:g}" y="{self.y + 1:g}" width="2" height="14" {colour}/>'
        anchor = ' text-anchor="end"' if right else ""
        yield text(where, self.y + 15, label, 13, f'{anchor} font-weight="700" {colour}')
        self.y += 20

    def _axis(self) -> Iterator[str]:
        span = self.tiles.tile_nr_pages * COLUMNS * self.group.page_size_bytes
        unit, name = (1 << 30, "GiB") if span >= 64 << 30 else (1 << 20, "MiB")
        across = COLUMNS * self.unit
        for quarter in range(5):
            x = self.left + quarter * across / 4
            yield f'<rect x="{x - 0.5:g}" y="{self.y - 3:g}" width="1" height="6"{_SOFT}/>'
            label = f"{quarter * span / 4 / unit:g}"
            yield text(x, self.y + 15, label, 11, f' text-anchor="middle"{_SOFT}')
        middle = self.left + across * 0.375
        yield text(_MARGIN, self.y + 15, "memory block", 11, _SOFT)
        yield text(middle, self.y + 15, f"offset, {name}", 11, f' text-anchor="middle"{_SOFT}')
        edge = _WIDTH - self.right + _STRIPE + 10
        yield text(edge, self.y + 15, "zone, node, owner", 11, _SOFT)
        self.y += 22

    # --- cells -----------------------------------------------------------------------------

    def _cell(self, index: int) -> tuple[int, int]:
        return self.tiles.cells[self.number][self.step][index]

    def _facts(self, line: _Line) -> Facts:
        return self.tiles.facts[self._cell(line.rows[0])[1]]

    def _lines(self) -> list[_Line]:
        """Return the rows, those as one that look alike after the step."""
        made: list[_Line] = []
        for index, row in enumerate(self.tiles.rows):
            end = row.first + row.nr_blocks * row.nr_alike
            stretches, changed = self._stretches(index), self._changed(index)
            last = made[-1] if made else None
            if (
                last
                and last.end == row.first
                and last.is_changed == changed
                and self._facts(last) == self.tiles.facts[self._cell(index)[1]]
                and _looks(last.stretches) == _looks(stretches)
            ):
                for one, other in zip(last.stretches, stretches, strict=True):
                    one.nr_pages += other.nr_pages
                    one.nr_unbacked += other.nr_unbacked
                made[-1] = _Line(last.first, end, [*last.rows, index], last.stretches, changed)
            else:
                made.append(_Line(row.first, end, [index], stretches, changed))
        return made

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


def _legend(group: TraceGroup, step: int, y: float) -> tuple[list[str], float]:
    """Return the legend of what the maps show after the step, and its end."""
    if group.tiles is None:
        return [], y
    tiles = group.tiles
    patterns = {tiles.patterns[cell[0]] for trace in tiles.cells for cell in trace[step]}
    shown = {_tile(tiles, number).shown for runs in patterns for _, number in runs}
    swatches = [(box(0, 0, 22, 15, state, _BORDER), STATES[state].name) for state in sorted(shown)]
    hidden = [tile for runs in patterns for _, n in runs if (tile := _tile(tiles, n)).nr_unbacked]
    if any(tile.shown < PageState.UNBACKED for tile in hidden):
        line = '<path d="M0,9h22" stroke="#d55e00" stroke-width="4" stroke-dasharray="7 3"/>'
        swatches.append((line, "not backed"))
    found = set().union(*(stripe_entries(tiles, n, step) for n in range(len(tiles.cells))))
    for fills, name in map(stripe_of, sorted(found)):
        swatches.append((stripe(fills, 6, 0, _STRIPE, 15), name))
    parts = []
    x, top = float(_MARGIN), y + 10
    for drawing, name in swatches:
        wide = 46 + sum(_LETTERS.get(letter, 7.4) for letter in name)
        if x + wide > _WIDTH:
            x, top = float(_MARGIN), top + 22
        label = text(28, 12, name, 12)
        parts.append(f'<g transform="translate({x:g},{top:g})">{drawing}{label}</g>')
        x += wide
    tile_bytes = tiles.tile_nr_pages * group.page_size_bytes
    nr_blocks = tiles.rows[0].nr_blocks
    of = "a memory block" if nr_blocks == 1 else f"{nr_blocks} memory blocks"
    scale = f"a row is {of}, or several that look alike; its tiles are {_size(tile_bytes)} each"
    parts.append(text(_MARGIN, top + 36, scale, 11, _SOFT))
    return parts, top + 36


def _looks(stretches: list[_Stretch]) -> list[tuple[PageState, int, bool]]:
    return [(each.state, each.nr, bool(each.nr_unbacked)) for each in stretches]


def _short(words: str, most: int = 24) -> str:
    """Return words, of too many the first and the last one."""
    parts = re.split(r", | \+ ", words)
    if len(words) > most and len(parts) > 2:
        words = f"{parts[0]} … {parts[-1]}"
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _tile(tiles: TileMap, number: int) -> Tile:
    return tiles.tiles[number]


def _size(size_bytes: int) -> str:
    exact = format_size(size_bytes)
    if len(exact) <= 8:
        return exact
    return step_report.size_text(size_bytes, size_bytes)
