"""Lines of the kernel's text files: their numbers, and errors that say which line is wrong.

Parsers are strict: a line that they do not know raises :class:`LineError`. :func:`understood` reads
a file without such lines, so that one of them does not hide the rest of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from altmap.errors import InputError

__all__ = ("Line", "LineError", "add", "lines", "understood")

T = TypeVar("T")

_DECIMAL = re.compile(r"[0-9]{1,20}")
_MOST_CHARACTERS = 1 << 16
#: Lines of a file that is read again without the lines that are wrong: each time takes a while.
_MOST_READ_AGAIN = 100_000
_SHOWN = 80
#: A file with more lines that are not understood is another file than its name says.
_MOST_SKIPPED = 16


class LineError(InputError):
    """A line breaks a rule.

    Parameters
    ----------
    nr, last_nr : int
        The lines that are of no use without what is wrong, both included.
    text : str
        The line that is wrong.
    rule : str
    """

    def __init__(self, nr: int, last_nr: int, text: str, rule: str) -> None:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        super().__init__(f"line {nr}: {shown!r}: {rule}")
        self.nr, self.last_nr, self.text, self.rule = nr, last_nr, text, rule

    def at(self, nr: int) -> LineError:
        """Return the same error of a line with another number."""
        return LineError(nr, nr + self.last_nr - self.nr, self.text, self.rule)


class Line(NamedTuple):
    """One line of a file, numbered from 1, without its newline."""

    nr: int
    text: str

    def error(self, rule: str, last_nr: int | None = None) -> LineError:
        """Return the error that this line breaks *rule*; the reader puts the file in front.

        *last_nr* is the last line that is of no use without this one.
        """
        return LineError(self.nr, self.nr if last_nr is None else last_nr, self.text, rule)

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
    for nr, part in enumerate(parts, start=1):
        line = Line(nr, part)
        if len(part) > _MOST_CHARACTERS:
            raise line.error(f"need at most {_MOST_CHARACTERS} characters")
        yield line


def add(table: dict[str, int], line: Line, name: str, value: int) -> None:
    """Put a number that *line* gave into *table*, which must not have it yet."""
    if name in table:
        raise line.error(f"{name!r} is given twice")
    table[name] = value


def understood(text: str, parser: Callable[[str], T]) -> tuple[T, list[LineError]]:
    """Return what a parser makes of a file without the lines that it does not understand.

    Also return the errors of these lines, the first cause first.

    Raises
    ------
    InputError
        If the parser fails for another reason than a line, or for more than 16 of them: the first
        of its errors.
    """
    try:
        return parser(text), []
    except LineError as error:
        if text.count("\n") > _MOST_READ_AGAIN:
            raise
        first = error
    try:
        return _without_lines(text, parser)
    except InputError:
        raise first from None


def _without_lines(text: str, parser: Callable[[str], T]) -> tuple[T, list[LineError]]:
    skipped: list[LineError] = []
    kept = list(enumerate(text.split("\n"), start=1))
    while True:
        try:
            return parser(text), skipped
        except LineError as error:
            if len(skipped) == _MOST_SKIPPED or error.nr > len(kept):
                raise
            skipped.append(error.at(kept[error.nr - 1][0]))
            del kept[error.nr - 1 : error.last_nr]
            text = "\n".join(line for _, line in kept)
