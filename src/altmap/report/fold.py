"""Many rows of text as few: rows that differ only in their memory blocks or page frames are one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from altmap.linux.node import block_names
from altmap.pfn import PfnRange, PfnSet

__all__ = ("folded", "frames_text")

_BLOCKS = re.compile(r"\bmemory(\d+)(?:-(\d+))?\b")
_FRAMES = re.compile(r"\[(0x[0-9a-f]+), (0x[0-9a-f]+)\)")
_COUNTS = re.compile(r"\b\d+ page")
#: Runs of page frames that a row names.
_SHOWN_RUNS = 2


def folded(rows: Sequence[str], most: int) -> list[str]:
    """Return the rows; if there are more than *most*, equal ones as one.

    Rows are equal if they differ in names of memory blocks (``memory32-39``) and ranges of page
    frames (``[0x100000, 0x108000)``) alone, and each names as many. Numbers are never merged: a
    block with other counts, or another zone, is a row of its own. Counts of pages stay those of one
    row, and are called so. If too many different rows are
    left, the middle ones are counted.
    """
    if len(rows) <= most:
        return list(rows)
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(_FRAMES.sub("[]", _BLOCKS.sub("memory", row)), []).append(row)
    made = [_merged(equal) for equal in kinds.values()]
    if len(made) <= most:
        return made
    left = [row for equal in list(kinds.values())[most - 2 : -1] for row in equal]
    return [*made[: most - 2], f"… {len(left)} more, not equal to these …", made[-1]]


def _merged(rows: Sequence[str]) -> str:
    if len(rows) == 1:
        return rows[0]
    nr_names = len(_BLOCKS.findall(rows[0]))
    nr_ranges = len(_FRAMES.findall(rows[0]))
    if nr_names + nr_ranges == 0:
        return f"{len(rows)} times: {rows[0]}"
    names = [_names(rows, index) for index in range(nr_names)]
    ranges = [_ranges(rows, index) for index in range(nr_ranges)]
    text = _BLOCKS.sub(lambda _: names.pop(0), rows[0])
    text = _FRAMES.sub(lambda _: ranges.pop(0), text)
    return f"{text} (each of {len(rows)})" if _COUNTS.search(text) else text


def _names(rows: Iterable[str], index: int) -> str:
    found = [_BLOCKS.findall(row)[index] for row in rows]
    return block_names(
        block for first, last in found for block in range(int(first), int(last or first) + 1)
    )


def _ranges(rows: Iterable[str], index: int) -> str:
    found = [_FRAMES.findall(row)[index] for row in rows]
    runs = PfnSet.of(*(PfnRange(int(start, 16), int(end, 16)) for start, end in found))
    shown = [run for run, _ in zip(runs.ranges(), range(_SHOWN_RUNS), strict=False)]
    return frames_text(shown, runs.nr_ranges())


def frames_text(shown: Sequence[PfnRange], nr_ranges: int) -> str:
    """Return the first runs of page frames, and how many there are."""
    text = " ".join(map(str, shown))
    return text if nr_ranges <= len(shown) else f"{text} … ({nr_ranges} runs)"
