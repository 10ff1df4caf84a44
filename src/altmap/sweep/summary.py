"""The rows of a sweep as tables: groups, and failures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altmap.errors import InputError, one_of
from altmap.sweep.cells import without_difference
from altmap.sweep.grid import Grid
from altmap.sweep.row import COLUMNS
from altmap.units import size_bytes

if TYPE_CHECKING:
    import polars as pl

__all__ = ("Summary", "group_columns", "summarise")

_GIB = 1 << 30
#: A number, with the unit of a size if it has one; or what is between numbers.
_TOKEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]+ )?)(?: ?([KMGTP]iB)\b)?|([^0-9]+)", re.ASCII)
_MOST_FAILURES = 20
#: Most groups of a table by default, and most that are compared to choose them.
_MOST_GROUPS, _MOST_COMPARED = 64, 4096
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
    no_difference : tuple of str
        Dimensions that change no cell of the table.
    within : tuple of str
        Dimensions whose values share a group, since the table would be too long.
    """

    by: tuple[str, ...]
    results: dict[str, int]
    groups: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    no_difference: tuple[str, ...] = ()
    within: tuple[str, ...] = ()


def group_columns(grid: Grid, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns to group by: the requested ones, else the dimensions, the slowest first.

    Raises
    ------
    InputError
        If a column does not exist.
    """
    keys = {each.key: each.key for each in grid.dimensions if each.key not in COLUMNS}
    keys |= _SHOWN_AS
    computed = {made.meta.output_name() for made in _aggregates()} if requested else set()
    for name in (keys.get(name, name) for name in requested):
        if name not in COLUMNS and name not in keys:
            raise InputError(f"--by {name!r}: {one_of(name, [*COLUMNS, *keys])}")
        if name in computed:
            raise InputError(f"--by {name}: is a result of each group; need what scenarios vary in")
    if requested:
        return tuple(dict.fromkeys(keys.get(name, name) for name in requested))
    varied = [each for each in grid.dimensions if len(each.values) > 1]
    names = [keys.get(each.key, each.key) for each in varied]
    return tuple(dict.fromkeys((["driver"] if grid.fleet else []) + names)) or ("driver",)


def summarise(rows: pl.LazyFrame, by: Sequence[str], *, chosen: bool = True) -> Summary:
    """Return the tables of rows; each table streams over the rows once.

    Parameters
    ----------
    rows : polars.LazyFrame
    by : sequence of str
        Columns to group by.
    chosen : bool
        Whether a user chose them. Otherwise those that change no cell are left out, and of the
        rest the fastest ones as long as the table is too long.
    """
    import polars as pl

    results = rows.group_by("result").agg(n=pl.len()).sort("result").collect(engine="streaming")
    groups, idle, within = _groups(rows, by), list[str](), list[str]()
    if not chosen and len(by) > 1:
        compared = list(by)
        while len(groups) > _MOST_COMPARED and len(compared) > 1:
            within.insert(0, compared.pop())
            groups = _groups(rows, compared)
        idle = without_difference(groups, compared)
        by = [name for name in compared if name not in idle] or compared[:1]
        idle = [name for name in idle if name not in by]
        groups = _groups(rows, by)
        while len(groups) > _MOST_GROUPS and len(by) > 1:
            within.insert(0, by[-1])
            by = by[:-1]
            groups = _groups(rows, by)
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
    return Summary(tuple(by), counted, groups, failures, tuple(idle), tuple(within))


def _groups(rows: pl.LazyFrame, by: Sequence[str]) -> list[dict[str, Any]]:
    """Return a record for each group, in the order of their values."""
    made = rows.group_by(*map(_column, by)).agg(*_aggregates()).collect(engine="streaming")
    groups = made.to_dicts()
    groups.sort(key=lambda group: [_order(group[name]) for name in by])
    return groups


def _column(name: str) -> pl.Expr:
    """Return a column of the rows, or the value of another key of ``[machine]``."""
    import polars as pl

    if name in COLUMNS:
        return pl.col(name)
    found = pl.col("settings").str.extract(rf"(?:^| ){re.escape(name)}=(\S+)")
    return found.fill_null("").alias(name)


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
            key.append((0, float(number) * (size_bytes(f"1{unit}") if unit else 1), ""))
    return (2, *key)


def _aggregates() -> list[pl.Expr]:
    import polars as pl

    is_run = ~pl.col("result").is_in(["invalid", "crashed", "lost"])
    runs = pl.col("mem_total_after_bytes").is_not_null()
    asked = pl.col("asked_bytes").filter(is_run).sum()
    missing = pl.col("not_seen_bytes").filter(is_run).sum()
    ranges = {
        "asked_gib": pl.col("asked_bytes").filter(is_run) / _GIB,
        "mem_total_gib": pl.col("mem_total_after_bytes") / _GIB,
        "not_seen_percent": (100 * pl.col("not_seen_bytes") / pl.col("asked_bytes")).filter(
            is_run & (pl.col("asked_bytes") > 0)
        ),
        **{name: pl.col(name) for name in ("overhead_percent", "movable_ratio")},
        **{name: pl.col(name).filter(runs) for name in ("gigantic_after", "gigantic_lost")},
    }
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
        *(values.min().alias(f"{name}_least") for name, values in ranges.items()),
        *(values.max().alias(f"{name}_most") for name, values in ranges.items()),
    ]
