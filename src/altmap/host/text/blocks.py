"""The table of memory blocks as text, in the forms that util-linux' lsmem has, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from altmap.host.listing import BlockRow
from altmap.linux.memory import MemoryFolder

__all__ = ("human_size", "rows_json", "rows_pairs", "rows_raw", "rows_table", "summary_text")

_LETTERS = "BKMGTPE"
_LEFT = ("RANGE",)
_WIDTH_HINTS = {"SIZE": 5}


@lru_cache(maxsize=256)
def human_size(size_bytes: int) -> str:
    """Return a size as lsmem does: one letter, rounded to one decimal.

    Source: util-linux, ``lib/strutils.c: size_to_human_string``.
    """
    power = max(0, min(len(_LETTERS) - 1, (size_bytes.bit_length() - 1) // 10))
    whole, rest = divmod(size_bytes, 1 << 10 * power)
    tenths = (rest * 1000 // (1 << 10 * power) + 50) // 100
    whole, tenths = whole + tenths // 10, tenths % 10
    return f"{whole}.{tenths}{_LETTERS[power]}" if tenths else f"{whole}{_LETTERS[power]}"


def rows_table(
    rows: Sequence[BlockRow], columns: Sequence[str], *, exact: bool, heads: bool
) -> str:
    """Return rows below their headings, in columns.

    Parameters
    ----------
    rows : sequence of BlockRow
    columns : sequence of str
    exact : bool
        Print sizes in bytes.
    heads : bool
        Print headings.
    """
    table = [list(columns), *([_text(row, name, exact) for name in columns] for row in rows)]
    widths = [
        _width(name, max((len(line[at]) for line in table[1:]), default=0))
        for at, name in enumerate(columns)
    ]
    return "".join(
        " ".join(
            f"{cell:<{width}}" if name in _LEFT else f"{cell:>{width}}"
            for cell, width, name in zip(line, widths, columns, strict=True)
        ).rstrip()
        + "\n"
        for line in table[not heads :]
    )


def _width(name: str, widest: int) -> int:
    """Return a column's width; the hint counts only where cells are as wide as the heading.

    Source: util-linux, ``libsmartcols/src/calculate.c``.
    """
    return len(name) if widest < len(name) else max(widest, _WIDTH_HINTS.get(name, 0))


def rows_raw(rows: Sequence[BlockRow], columns: Sequence[str], *, exact: bool, heads: bool) -> str:
    """Return rows with one blank between cells; blanks inside are escaped."""
    table = [list(columns)] if heads else []
    table += [[_escaped(_text(row, name, exact), " \\") for name in columns] for row in rows]
    return "".join(" ".join(line) + "\n" for line in table)


def rows_pairs(rows: Sequence[BlockRow], columns: Sequence[str], *, exact: bool) -> str:
    """Return rows as ``NAME="value"``."""
    return "".join(
        " ".join(f'{name}="{_escaped(_text(row, name, exact), _SHELL)}"' for name in columns) + "\n"
        for row in rows
    )


def rows_json(
    rows: Sequence[BlockRow], columns: Sequence[str], memory: MemoryFolder, *, exact: bool
) -> str:
    """Return rows as lsmem's object ``memory``, with schema and sums beside it."""
    block, online, offline = _sums(memory)
    keys = {name.lower(): name for name in columns}
    made = {
        "schema": "altmap-ls",
        "version": 1,
        "block_size_bytes": block,
        "online_bytes": online,
        "offline_bytes": offline,
        "memory": [{key: _json(row, name, exact) for key, name in keys.items()} for row in rows],
    }
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


def summary_text(memory: MemoryFolder, *, exact: bool) -> str:
    """Return the three lines below the table."""
    names = ("Memory block size:", "Total online memory:", "Total offline memory:")
    width = 15 if exact else 5
    return "".join(
        f"{name:<23} {size if exact else human_size(size):>{width}}\n"
        for name, size in zip(names, _sums(memory), strict=True)
    )


def _sums(memory: MemoryFolder) -> tuple[int, int, int]:
    block = memory.block_size_bytes
    online = sum(each.state == "online" for each in memory.blocks.values())
    offline = sum(each.state == "offline" for each in memory.blocks.values())
    return block, online * block, offline * block


def _text(row: BlockRow, name: str, exact: bool) -> str:
    """Return a cell; ``removable`` counts only while the block is online, as in lsmem."""
    value = _json(row, name, exact)
    if name == "REMOVABLE":
        online = row.values.get("STATE", "online") == "online"
        return ("yes" if row.values[name] else "no") if online else ""
    if value is None:
        return ""
    text = str(value)
    return text if text.isprintable() else _escaped_all(text)


def _json(row: BlockRow, name: str, exact: bool) -> Any:
    block = row.block_size_bytes
    match name:
        case "RANGE":
            return f"{row.first * block:#018x}-{(row.last + 1) * block - 1:#018x}"
        case "SIZE":
            return row.size_bytes if exact else human_size(row.size_bytes)
        case "BLOCK":
            return str(row.first) if row.first == row.last else f"{row.first}-{row.last}"
        case "REMOVABLE":
            return bool(row.values[name]) and row.values.get("STATE", "online") == "online"
        case _:
            return row.values.get(name)


def _escaped_all(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


#: What a shell acts on between double quotes.
_SHELL = '"\\`$'


def _escaped(text: str, special: str) -> str:
    return "".join(f"\\x{ord(char):02x}" if char in special else char for char in text)
