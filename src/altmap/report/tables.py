"""The content of the page as tables for a terminal or a pipe: 80 columns, no escape codes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from altmap.errors import printable
from altmap.report import step_report
from altmap.report.page import TraceGroup
from altmap.report.states import STATES, PageState
from altmap.report.text import side_by_side
from altmap.report.tiles import TileMap
from altmap.units import column_unit, format_size

__all__ = ("plain_table", "report_text")

_WIDEST = 1000


def report_text(groups: Sequence[TraceGroup], width: int = 80) -> str:
    """Return each group's steps side by side, its pages by state, and its memory accounting.

    Parameters
    ----------
    groups : sequence of TraceGroup
    width : int
        Columns.
    """
    parts = []
    for group in groups:
        first = group.traces[0]
        parts.append(side_by_side(group.traces, first.description or first.scenario, width))
        step = step_report.default_step(group.traces)
        if group.tiles is not None:
            parts.append(plain_table(_states(group, group.tiles, step), width))
        parts.append(plain_table(_accounting(group, step), width))
    return "\n".join(parts)


def plain_table(table: Table, width: int) -> str:
    """Return a table as lines of that many columns, without escape codes.

    A table that is wider has its columns closer, and its headings on several lines. Lines are
    longer where a cell would be cut otherwise.
    """
    least = _least_width(table)
    if least > width:
        table.padding = (0, 1, 0, 0)
        for column in table.columns:
            column.header = re.sub("_(?=.)", "_\n", str(column.header))
        least = _least_width(table)
    console = Console(
        width=max(width, least),
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _least_width(table: Table) -> int:
    """Return the columns without which a cell would be cut, and see that none is."""
    for column in table.columns:
        if column.no_wrap:
            lines = [
                line for cell in (column.header, *column.cells) for line in str(cell).splitlines()
            ]
            column.min_width = max(map(cell_len, lines), default=0)
    return Console(width=_WIDEST, _environ={}).measure(table).minimum


def _table(group: TraceGroup, title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="")
    table.add_column(first)
    for trace in group.traces:
        name = printable(trace.policy or trace.target)
        table.add_column(f"{name}, {printable(trace.release)}", justify="right")
    return table


def _states(group: TraceGroup, tiles: TileMap, step: int) -> Table:
    name = printable(group.traces[0].steps[step].name)
    table = _table(group, f"Pages in memory blocks after step {step}, {name}", "state")
    counts = [_counts(tiles, number, step) for number in range(len(group.traces))]
    for state in PageState:
        pages = [each.get(state, 0) for each in counts]
        if any(pages):
            size = group.page_size_bytes
            cells = [f"{nr} ({format_size(nr * size)})" if nr else "-" for nr in pages]
            table.add_row(STATES[state].name, *cells)
    return table


def _counts(tiles: TileMap, number: int, step: int) -> dict[PageState, int]:
    made: dict[PageState, int] = {}
    for pattern, _ in tiles.cells[number][step]:
        for nr, tile in tiles.patterns[pattern]:
            for state, pages in tiles.tiles[tile].pages:
                made[state] = made.get(state, 0) + pages * nr
    return made


def _accounting(group: TraceGroup, step: int) -> Table:
    starts, nows = (
        [
            {level.name: level.size_bytes for level in step_report.accounting(trace, index)}
            for trace in group.traces
        ]
        for index in (0, step)
    )
    unit = column_unit((size for now in nows for size in now.values()), decimals=1)
    title = f"Memory accounting, {unit.name} (change since the start)"
    table = _table(group, title, "level")
    columns = [
        {
            name: f"{unit.number(size)} ({unit.number(size - start.get(name, 0), '+')})"
            for name, size in now.items()
        }
        for start, now in zip(starts, nows, strict=True)
    ]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table
