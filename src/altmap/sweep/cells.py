"""The cells of a table of groups, and which dimensions of a grid change none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ("CELLS", "LEGEND", "RANGES", "SweepCell", "cells", "without_difference")


class SweepCell(NamedTuple):
    """A column of the table.

    Attributes
    ----------
    title : str
    name : str
        The column of a group; of a range, without ``_least`` and ``_most``.
    spec : str
        How a number is written.
    """

    title: str
    name: str
    spec: str


#: Columns whose least and most value are shown: of scenarios whose kernel runs.
RANGES = (
    SweepCell("requested\nGiB", "asked_gib", ",.2f"),
    SweepCell("MemTotal\nGiB", "mem_total_gib", ",.2f"),
    SweepCell("not in\nMemTotal\n%", "not_seen_percent", ".2f"),
    SweepCell("memmap\n%", "overhead_percent", ".2f"),
    SweepCell("gigantic", "gigantic_after", ",d"),
    SweepCell("lost", "gigantic_lost", ",d"),
    SweepCell("movable:\nkernel", "movable_ratio", ".2f"),
)
CELLS = (
    SweepCell("scenarios", "scenarios", ",d"),
    SweepCell("failed\n%", "failed_percent", ".1f"),
    *RANGES,
)
LEGEND = (
    "a–b: least and most of the group; scenarios: how many; failed: a step was refused, or the "
    "kernel crashed; MemTotal: after the last step; not in MemTotal: of what was requested; "
    "memmap: of what was added; gigantic: pages of that size that kernel zones could give; lost: "
    "those that added memory has room for and does not give; movable:kernel: one size divided by "
    "the other"
)


def cells(group: Mapping[str, Any], columns: Sequence[SweepCell] = CELLS) -> list[str]:
    """Return the cells of a group; what is not known is ``-``."""
    return [_cell(group, column) for column in columns]


def _cell(group: Mapping[str, Any], column: SweepCell) -> str:
    if column not in RANGES:
        return _number(group[column.name], column.spec)
    ends = (group[f"{column.name}_{end}"] for end in ("least", "most"))
    return "–".join(dict.fromkeys(_number(end, column.spec) for end in ends))


def _number(value: Any, spec: str) -> str:
    if value is None:
        return "-"
    text = format(value, spec)
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def without_difference(groups: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[str]:
    """Return the columns among *by* that change no cell: the others decide each of them."""
    left, found = list(by), list[str]()
    for name in reversed(by):
        others = [each for each in left if each != name]
        seen: dict[tuple[Any, ...], list[str]] = {}
        same = all(
            seen.setdefault(tuple(group[each] for each in others), made) == made
            for group in groups
            if (made := cells(group)[1:])
        )
        if same and len({group[name] for group in groups}) > 1:
            left, found = others, [name, *found]
    return found
