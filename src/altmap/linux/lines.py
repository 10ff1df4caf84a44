"""Lines of the kernel's text files: their numbers, and errors that say which line is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from altmap.errors import InputError

__all__ = ("Line", "add", "lines")

_DECIMAL = re.compile(r"[0-9]{1,20}")
_SHOWN = 80


class Line(NamedTuple):
    """One line of a file, numbered from 1, without its newline."""

    nr: int
    text: str

    def error(self, rule: str) -> InputError:
        """Return the error that this line breaks *rule*; the reader puts the file in front."""
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "…"
        return InputError(f"line {self.nr}: {shown!r}: {rule}")

    def number(self, word: str) -> int:
        """Return the unsigned 64-bit decimal number that *word*, a part of this line, spells."""
        if not _DECIMAL.fullmatch(word) or (value := int(word)) >= 1 << 64:
            raise self.error(f"need a number below 2**64 in place of {word[:_SHOWN]!r}")
        return value


def lines(text: str) -> Iterator[Line]:
    r"""Yield the lines of a file; only ``\n`` ends one, and the last may lack it."""
    parts = text.split("\n")
    if not parts[-1]:
        parts.pop()
    return (Line(nr, part) for nr, part in enumerate(parts, start=1))


def add(table: dict[str, int], line: Line, name: str, value: int) -> None:
    """Put a number that *line* gave into *table*, which must not have it yet."""
    if name in table:
        raise line.error(f"{name!r} is given twice")
    table[name] = value
