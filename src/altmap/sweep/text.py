"""A summary for a terminal or a file: tables, no escape codes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from altmap.report.tables import plain_table
from altmap.sweep.charts import value_text, varying
from altmap.sweep.summary import Summary

__all__ = ("summary_text",)

_MOST_GROUPS = 60
_WIDEST = 1000
_LEGEND = (
    "scenarios: of the group; failed: a step was refused, or the kernel crashed; "
    "requested: in all; MemTotal: mean, after the last step; not in MemTotal: of what was "
    "requested; memmap: of what was added; gigantic: pages of that size that kernel zones could "
    "give, mean; lost: those that added memory has room for and does not give; movable: kernel: "
    "one size divided by the other"
)
_COLUMNS = (
    ("scenarios", "scenarios", ",d"),
    ("failed\n%", "failed_percent", ".1f"),
    ("requested\nGiB", "asked_gib", ",.1f"),
    ("MemTotal\nGiB", "mem_total_gib", ",.2f"),
    ("not in\nMemTotal\n%", "not_seen_percent", ".2f"),
    ("memmap\n%", "overhead_percent", ".2f"),
    ("gigantic", "gigantic_after_mean", ".1f"),
    ("lost", "gigantic_lost_mean", ".1f"),
    ("movable:\nkernel", "movable_ratio", ".2f"),
)


def summary_text(summary: Summary, width: int = 140) -> str:
    """Return the tables of a summary."""
    total = sum(summary.results.values())
    counted = ", ".join(f"{count:,} {name}" for name, count in summary.results.items())
    parts = [f"{total:,} scenarios: {counted}\n", *_groups(summary, width)]
    parts.append("\n".join(textwrap.wrap(_LEGEND, width)) + "\n")
    if len(summary.groups) > _MOST_GROUPS:
        parts.append(f"{len(summary.groups) - _MOST_GROUPS} more groups are in summary.json\n")
    if summary.failures:
        parts.append(plain_table(_failures(summary), width))
    return "\n".join(parts)


def _needed(table: Table) -> int:
    """Return the width at which no cell of a table is truncated."""
    return Console(width=_WIDEST).measure(table).maximum


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="")


def _groups(summary: Summary, width: int) -> Iterator[str]:
    """Yield the groups as one table, or as several with the same rows that fit the width."""
    chosen: list[tuple[str, str, str]] = []
    for column in _COLUMNS:
        if chosen and _needed(_part(summary, [*chosen, column])) > width:
            yield _shown(summary, chosen, width)
            chosen = []
        chosen.append(column)
    yield _shown(summary, chosen, width)


def _shown(summary: Summary, columns: Sequence[tuple[str, str, str]], width: int) -> str:
    table = _part(summary, columns)
    return plain_table(table, max(width, _needed(table)))


def _part(summary: Summary, columns: Sequence[tuple[str, str, str]]) -> Table:
    by = varying(summary)
    table = _table(f"By {', '.join(by)}")
    for name in by:
        table.add_column(name.removesuffix("_bytes"), no_wrap=True)
    for name, _, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for group in summary.groups[:_MOST_GROUPS]:
        cells = [_cell(group[column], spec) for _, column, spec in columns]
        table.add_row(*(value_text(name, group[name]) for name in by), *cells)
    return table


def _cell(value: Any, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _failures(summary: Summary) -> Table:
    table = _table("Failures")
    for name in ("scenarios", "first"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("result", "errno", "function"):
        table.add_column(name, no_wrap=True)
    table.add_column("why (first scenario)")
    for each in summary.failures:
        cells = [each["result"], each["errno"] or "", each["function"] or "", each["why"] or ""]
        table.add_row(f"{each['scenarios']:,}", str(each["first"]), *cells)
    return table
