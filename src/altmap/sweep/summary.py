"""The rows of a sweep as tables: groups, and failures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altmap.errors import InputError, one_of
from altmap.sweep.grid import Grid
from altmap.sweep.row import COLUMNS
from altmap.units import size_bytes

if TYPE_CHECKING:
    import polars as pl

__all__ = ("Summary", "group_columns", "summarise")

_GIB = 1 << 30
#: A number, with the unit of a size if it has one; or what is between numbers.
_TOKEN = re.compile(r"([0-9]{1,15})(?: ?([KMGTP]iB)\b)?|([^0-9]+)", re.ASCII)
_MOST_FAILURES = 20
#: Most groups of a table by default: faster dimensions are left out.
_MOST_GROUPS = 64
#: Columns of keys of a grid that have another name.
_SHOWN_AS = {"memory": "boot_bytes", "block_size": "block_size_bytes",
             "page_size": "page_size_bytes", "added": "requests"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """Tables of a sweep, each a list of rows.

    Attributes
    ----------
    by : tuple of str
        Columns to group by.
    results : dict of str to int
        Number of scenarios by result.
    groups : list of dict
    failures : list of dict
        Errors with the function that raised them, the most frequent first.
    """

    by: tuple[str, ...]
    results: dict[str, int]
    groups: list[dict[str, Any]]
    failures: list[dict[str, Any]]


def group_columns(grid: Grid, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns to group by: the requested ones, else the dimensions, the slowest first.

    Raises
    ------
    InputError
        If a column does not exist.
    """
    wanted = [_SHOWN_AS.get(name, name) for name in requested]
    computed = {made.meta.output_name() for made in _aggregates()} if requested else set()
    for name in wanted:
        if name not in COLUMNS:
            raise InputError(f"--by {name!r}: {one_of(name, [*COLUMNS, *_SHOWN_AS])}")
        if name in computed:
            raise InputError(f"--by {name}: is a result of each group; need what scenarios vary in")
    if requested:
        return tuple(dict.fromkeys(wanted))
    names, nr_groups = ["driver"] if grid.fleet else [], 1
    for each in grid.dimensions:
        nr_groups *= len(each.values)
        if len(each.values) > 1 and each.key != "added" and nr_groups <= _MOST_GROUPS:
            shown = _SHOWN_AS.get(each.key, each.key)
            names.append(shown if shown in COLUMNS else "settings")
    return tuple(dict.fromkeys(names)) or ("driver",)


def summarise(rows: pl.LazyFrame, by: Sequence[str]) -> Summary:
    """Return the tables of rows; each table streams over the rows once."""
    import polars as pl

    results = rows.group_by("result").agg(n=pl.len()).sort("result").collect(engine="streaming")
    groups = rows.group_by(*by).agg(*_aggregates()).collect(engine="streaming").to_dicts()
    groups.sort(key=lambda group: [_order(group[name]) for name in by])
    failures = (
        rows.filter(pl.col("result") != "ok")
        .group_by("result", "errno", "function")
        .agg(
            scenarios=pl.len(),
            first=pl.col("scenario").min(),
            why=pl.col("why").sort_by("scenario").first(),
        )
        .sort("scenarios", "first", descending=[True, False])
        .head(_MOST_FAILURES)
        .collect(engine="streaming")
        .to_dicts()
    )
    counted = {row["result"]: row["n"] for row in results.to_dicts()}
    return Summary(tuple(by), counted, groups, failures)


def _order(value: Any) -> tuple[Any, ...]:
    """Return the sort key of a value: sizes by their bytes, releases by their numbers."""
    if value is None:
        return (0,)
    if isinstance(value, int | float):
        return (1, value)
    key: list[tuple[Any, ...]] = []
    for match in _TOKEN.finditer(value):
        number, unit, text = match.groups()
        if number is None:
            key.append((1, 0, text))
        else:
            key.append((0, int(number) * (size_bytes(f"1{unit}") if unit else 1), ""))
    return (2, *key)


def _aggregates() -> list[pl.Expr]:
    import polars as pl

    is_run = ~pl.col("result").is_in(["invalid", "crashed", "lost"])
    runs = pl.col("mem_total_after_bytes").is_not_null()
    asked = pl.col("asked_bytes").filter(is_run).sum()
    missing = pl.col("not_seen_bytes").filter(is_run).sum()
    memmap = pl.sum_horizontal(
        "memmap_self_hosted_bytes", "memmap_existing_bytes", "memmap_elsewhere_bytes"
    )
    return [
        pl.len().alias("scenarios"),
        is_run.sum().alias("run"),
        *(
            (pl.col("result") == name).sum().alias(name)
            for name in ("ok", "refused", "fault", "invalid", "crashed", "lost")
        ),
        (100 * pl.col("result").is_in(["refused", "fault"]).sum() / is_run.sum())
        .fill_nan(None)
        .alias("failed_percent"),
        (asked / _GIB).alias("asked_gib"),
        (pl.col("mem_total_after_bytes").filter(runs).mean() / _GIB).alias("mem_total_gib"),
        (missing / _GIB).alias("not_seen_gib"),
        pl.when(asked > 0).then(100 * missing / asked).alias("not_seen_percent"),
        (100 * memmap.sum() / pl.col("added_bytes").sum()).fill_nan(None).alias("overhead_percent"),
        pl.col("gigantic_after").filter(runs).mean().alias("gigantic_after_mean"),
        pl.col("gigantic_lost").filter(runs).mean().alias("gigantic_lost_mean"),
        (pl.col("movable_bytes").sum() / pl.col("kernel_bytes").sum())
        .fill_nan(None)
        .alias("movable_ratio"),
    ]
