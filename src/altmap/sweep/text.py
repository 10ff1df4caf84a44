"""A summary for a terminal or a file: tables, no escape codes."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altmap.report.tables import plain_table
from altmap.sweep.charts import word
from altmap.sweep.summary import Summary

__all__ = ("summary_text",)

_MOST_GROUPS = 60
_COLUMNS = (
    ("scenarios", "scenarios", ",d"),
    ("failed %", "failed_percent", ".1f"),
    ("asked GiB", "asked_gib", ",.1f"),
    ("not seen %", "not_seen_percent", ".2f"),
    ("memmap %", "overhead_percent", ".2f"),
    ("gigantic", "gigantic_after_mean", ".1f"),
    ("lost", "gigantic_lost_mean", ".1f"),
    ("movable:kernel", "movable_ratio", ".2f"),
)


def summary_text(summary: Summary, width: int = 140) -> str:
    """Return the tables of a summary."""
    total = sum(summary.results.values())
    counted = ", ".join(f"{count:,} {name}" for name, count in summary.results.items())
    parts = [f"{total:,} scenarios: {counted}\n", plain_table(_groups(summary), width)]
    if len(summary.groups) > _MOST_GROUPS:
        parts.append(f"{len(summary.groups) - _MOST_GROUPS} more groups are in summary.json\n")
    if summary.failures:
        parts.append(plain_table(_failures(summary), width))
    return "\n".join(parts)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="")


def _groups(summary: Summary) -> Table:
    table = _table(f"By {', '.join(summary.by)}")
    for name in summary.by:
        table.add_column(name.removesuffix("_bytes"), overflow="fold")
    for name, _, _ in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for group in summary.groups[:_MOST_GROUPS]:
        cells = [_cell(group[column], spec) for _, column, spec in _COLUMNS]
        table.add_row(*(word(name, group[name]) for name in summary.by), *cells)
    return table


def _cell(value: Any, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _failures(summary: Summary) -> Table:
    table = _table("What failed")
    for name in ("scenarios", "first"):
        table.add_column(name, justify="right")
    for name in ("result", "errno", "function", "why, in the first one"):
        table.add_column(name)
    for each in summary.failures:
        words = [each["result"], each["errno"] or "", each["function"] or "", each["why"] or ""]
        table.add_row(f"{each['scenarios']:,}", str(each["first"]), *words)
    return table
