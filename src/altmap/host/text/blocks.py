"""The table of memory blocks as text, in the forms that util-linux' lsmem has, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    table = [list(columns), *_texts(rows, columns, exact)]
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
    table += [[_escaped(cell, " \\") for cell in cells] for cells in _texts(rows, columns, exact)]
    return "".join(" ".join(line) + "\n" for line in table)


def rows_pairs(rows: Sequence[BlockRow], columns: Sequence[str], *, exact: bool) -> str:
    """Return rows as ``NAME="value"``."""
    return "".join(
        " ".join(
            f'{name}="{_escaped(cell, _SHELL)}"' for name, cell in zip(columns, cells, strict=True)
        )
        + "\n"
        for cells in _texts(rows, columns, exact)
    )


def rows_json(
    rows: Sequence[BlockRow], columns: Sequence[str], memory: MemoryFolder, *, exact: bool
) -> str:
    """Return rows as lsmem's object ``memory``, with schema and sums beside it."""
    block, online, offline = _sums(memory)
    keys = [name.lower() for name in columns]
    size = _exact_size if exact else _size
    made = {
        "schema": "altmap-ls",
        "version": 1,
        "block_size_bytes": block,
        "online_bytes": online,
        "offline_bytes": offline,
        "memory": [
            dict(zip(keys, cells, strict=True)) for cells in _cells(rows, columns, _value, size)
        ],
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


def _texts(rows: Sequence[BlockRow], columns: Sequence[str], exact: bool) -> Iterator[list[str]]:
    size = (lambda row: str(row.size_bytes)) if exact else _size
    return _cells(rows, columns, _text, size)


def _cells(
    rows: Sequence[BlockRow],
    columns: Sequence[str],
    cell: Callable[[dict[str, Any], str], Any],
    size: Callable[[BlockRow], Any],
) -> Iterator[list[Any]]:
    """Yield the cells of each row; those that do not follow from its range once for all alike."""
    of_range = {"RANGE": _range, "SIZE": size, "BLOCK": _block}
    own = [(at, of_range[name]) for at, name in enumerate(columns) if name in of_range]
    alike: dict[int, list[Any]] = {}  # by the identity of the values
    for row in rows:
        made = alike.get(id(row.values))
        if made is None:
            made = [None if name in of_range else cell(row.values, name) for name in columns]
            alike[id(row.values)] = made
        cells = made.copy()
        for at, make in own:
            cells[at] = make(row)
        yield cells


def _range(row: BlockRow) -> str:
    block = row.block_size_bytes
    return f"{row.first * block:#018x}-{(row.last + 1) * block - 1:#018x}"


def _block(row: BlockRow) -> str:
    return str(row.first) if row.first == row.last else f"{row.first}-{row.last}"


def _size(row: BlockRow) -> str:
    return human_size(row.size_bytes)


def _exact_size(row: BlockRow) -> int:
    return row.size_bytes


def _value(values: dict[str, Any], name: str) -> Any:
    """Return a cell; ``removable`` counts only while the block is online, as in lsmem."""
    if name == "REMOVABLE":
        return bool(values[name]) and values.get("STATE", "online") == "online"
    return values.get(name)


def _text(values: dict[str, Any], name: str) -> str:
    if name == "REMOVABLE":
        online = values.get("STATE", "online") == "online"
        return ("yes" if values[name] else "no") if online else ""
    value = values.get(name)
    text = "" if value is None else str(value)
    return text if text.isprintable() else _escaped_all(text)


def _escaped_all(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


#: What a shell acts on between double quotes.
_SHELL = '"\\`$'


def _escaped(text: str, special: str) -> str:
    return "".join(f"\\x{ord(char):02x}" if char in special else char for char in text)
