"""The table of memory blocks as text, in the forms that util-linux' lsmem has, and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
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
    rows: Sequence[BlockRow],
    columns: Sequence[str],
    *,
    exact: bool,
    heads: bool,
    width: int | None = None,
) -> str:
    """Return rows below their headings, in columns; a paragraph for each row if they are wider.

    Parameters
    ----------
    rows : sequence of BlockRow
    columns : sequence of str
    exact : bool
        Print sizes in bytes.
    heads : bool
        Print headings.
    width : int, optional
        Columns of the terminal.
    """
    table = [list(columns), *_texts(rows, columns, exact)]
    widths = [
        _width(name, max((len(line[at]) for line in table[1:]), default=0))
        for at, name in enumerate(columns)
    ]
    if heads and width is not None and sum(widths) + len(widths) - 1 > width:
        return "".join(_paragraph(columns, line, width) for line in table[1:])
    return "".join(
        " ".join(
            f"{cell:<{room}}" if name in _LEFT else f"{cell:>{room}}"
            for cell, room, name in zip(line, widths, columns, strict=True)
        ).rstrip()
        + "\n"
        for line in table[not heads :]
    )


def _paragraph(columns: Sequence[str], line: Sequence[str], width: int) -> str:
    """Return the first cell of a row, and below it the others with their headings."""
    named = zip(columns[1:], line[1:], strict=True)
    rest = "  ".join(f"{name} {cell}" for name, cell in named if cell)
    below = textwrap.fill(
        rest, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
    return f"{columns[0]} {line[0]}\n{below}\n"


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
    made = {
        "schema": "altmap-ls",
        "version": 1,
        "block_size_bytes": block,
        "online_bytes": online,
        "offline_bytes": offline,
        "memory": [],
    }
    head = msgspec.json.format(msgspec.json.encode(made), indent=2).decode()
    if not rows:
        return f"{head}\n"
    objects = ",\n".join(_json_rows(rows, columns, exact))
    return head.removesuffix("[]\n}") + f"[\n{objects}\n  ]\n}}\n"


def _json_rows(rows: Sequence[BlockRow], columns: Sequence[str], exact: bool) -> Iterator[str]:
    """Yield each row as an object, filled into the text of all rows that are alike."""
    makers = _of_range(exact)
    own = [makers[name] for name in columns if name in makers]
    bare = ("SIZE",) if exact else ()
    alike: dict[int, str] = {}  # by the identity of the values
    for row in rows:
        template = alike.get(id(row.values))
        if template is None:
            cells = [
                ("%s" if name in bare else '"%s"') if name in makers else _json(row.values, name)
                for name in columns
            ]
            template = ",\n".join(
                f'      "{name.lower()}": {cell}' for name, cell in zip(columns, cells, strict=True)
            )
            alike[id(row.values)] = template
        yield "    {\n" + template % tuple([make(row) for make in own]) + "\n    }"


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
    states = Counter(map(attrgetter("state"), memory.blocks.values()))
    return block, states["online"] * block, states["offline"] * block


def _texts(rows: Sequence[BlockRow], columns: Sequence[str], exact: bool) -> Iterator[list[str]]:
    """Yield the cells of each row; those that do not follow from its range once for all alike."""
    makers = _of_range(exact)
    own = [(at, makers[name]) for at, name in enumerate(columns) if name in makers]
    alike: dict[int, list[str]] = {}  # by the identity of the values
    for row in rows:
        made = alike.get(id(row.values))
        if made is None:
            made = ["" if name in makers else _text(row.values, name) for name in columns]
            alike[id(row.values)] = made
        cells = made.copy()
        for at, make in own:
            cells[at] = make(row)
        yield cells


def _of_range(exact: bool) -> dict[str, Callable[[BlockRow], str]]:
    """Return what makes the cells that follow from a row's range."""
    return {"RANGE": _range, "SIZE": _exact_size if exact else _size, "BLOCK": _block}


def _range(row: BlockRow) -> str:
    block = row.block_size_bytes
    return f"{row.first * block:#018x}-{(row.last + 1) * block - 1:#018x}"


def _block(row: BlockRow) -> str:
    return str(row.first) if row.first == row.last else f"{row.first}-{row.last}"


def _size(row: BlockRow) -> str:
    return human_size(row.size_bytes)


def _exact_size(row: BlockRow) -> str:
    return str(row.size_bytes)


def _json(values: dict[str, Any], name: str) -> str:
    """Return a cell; ``removable`` counts only while the block is online, as in lsmem."""
    value = values.get(name)
    if name == "REMOVABLE":
        value = bool(value) and values.get("STATE", "online") == "online"
    return msgspec.json.encode(value).decode().replace("%", "%%")


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
