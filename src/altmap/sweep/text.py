"""A summary for a terminal or a file: tables, no escape codes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from altmap.report.tables import plain_table
from altmap.sweep.cells import CELLS, LEGEND, SweepCell, cells
from altmap.sweep.charts import equal_charts, value_text, varying
from altmap.sweep.row import COLUMNS
from altmap.sweep.summary import Summary

__all__ = ("summary_text",)

_MOST_GROUPS = 60
_WIDEST = 1000


def summary_text(summary: Summary, width: int = 140) -> str:
    """Return the tables of a summary."""
    total = sum(summary.results.values())
    counted = ", ".join(f"{count:,} {name}" for name, count in summary.results.items())
    parts = [f"{total:,} scenario{'s' * (total != 1)}: {counted}\n", *_groups(summary, width)]
    parts += (textwrap.fill(line, width) for line in _notes(summary))
    parts[-1] += "\n"
    if len(summary.groups) > _MOST_GROUPS:
        parts.append(f"{len(summary.groups) - _MOST_GROUPS} more groups are in summary.json\n")
    if summary.failures:
        parts.append(plain_table(_failures(summary), width))
    return "\n".join(parts)


def _notes(summary: Summary) -> Iterator[str]:
    """Yield what stands below the tables: what they leave out, and the legend."""
    yield from _equal(summary)
    if summary.no_difference:
        yield f"Without difference: {', '.join(summary.no_difference)}"
    if summary.within:
        yield f"Each group has every value of: {', '.join(summary.within)} (--by shows them)"
    if without := equal_charts(summary):
        shown = ", ".join(f"{name} ({value})" for name, value in without.items())
        yield f"No chart, as all groups are equal: {shown}"
    yield LEGEND


def _needed(table: Table) -> int:
    """Return the width at which no cell of a table is truncated."""
    return Console(width=_WIDEST).measure(table).maximum


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="")


def _groups(summary: Summary, width: int) -> Iterator[str]:
    """Yield the groups as one table, or as several with the same rows that fit the width."""
    chosen: list[SweepCell] = []
    for column in CELLS if len(summary.groups) == 1 else _differing(summary):
        if chosen and _needed(_part(summary, [*chosen, column])) > width:
            yield _shown(summary, chosen, width)
            chosen = []
        chosen.append(column)
    yield _shown(summary, chosen, width)


def _values(summary: Summary, column: SweepCell) -> list[str]:
    """Return the different values of a column, without what is not known."""
    shown = dict.fromkeys(cells(group, [column])[0] for group in summary.groups)
    return [value for value in shown if value != "-"] or ["-"]


def _differing(summary: Summary) -> list[SweepCell]:
    """Return the columns that have several values, and always the first."""
    return [CELLS[0], *(each for each in CELLS[1:] if len(_values(summary, each)) > 1)]


def _equal(summary: Summary) -> Iterator[str]:
    """Yield the cells that all groups of a table have, in a line."""
    differing = _differing(summary)
    left_out = [each for each in CELLS if each not in differing]
    if len(summary.groups) > 1 and left_out:
        named = (_named(each, _values(summary, each)[0]) for each in left_out)
        yield f"Equal in all groups, as far as known: {', '.join(named)}"


def _named(column: SweepCell, value: str) -> str:
    *words, last = column.title.split()
    unit = f" {last}" if last in ("%", "GiB") and value != "-" else ""
    return f"{' '.join(words if unit else (*words, last))} {value}{unit}"


def _shown(summary: Summary, columns: Sequence[SweepCell], width: int) -> str:
    return plain_table(_part(summary, columns), width)


def _part(summary: Summary, columns: Sequence[SweepCell]) -> Table:
    by = varying(summary)
    table = _table(f"By {', '.join(by)}")
    for name in by:
        shown = name.removesuffix("_bytes") if name in COLUMNS else name
        table.add_column(shown, no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for group in summary.groups[:_MOST_GROUPS]:
        table.add_row(*(value_text(name, group[name]) for name in by), *cells(group, columns))
    return table


def _failures(summary: Summary) -> Table:
    table = _table("Failures")
    for name in ("scenarios", "first"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("result", "errno", "function"):
        table.add_column(name, no_wrap=True)
    table.add_column("why (first scenario)")
    for each in summary.failures:
        shown = [each["result"], each["errno"] or "", each["function"] or "", each["why"] or ""]
        table.add_row(f"{each['scenarios']:,}", str(each["first"]), *shown)
    return table
