"""Code that is inserted into a kernel's source, at places found by a function's name and a word.

Nothing is removed, and nothing of the kernel is repeated here: a place is where it is by what the
kernel calls its functions. A release in which a place is missing, or is there twice, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from altmap.errors import LabError

__all__ = ("Insertion", "insert", "read_insertions")


class Insertion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One piece of code and its place.

    Attributes
    ----------
    file : str
        Below the source's folder.
    function : str
    text : str
        Whole lines.
    before, after : str
        A word of the one line of the function that the text is put before, or after. With neither,
        the text is put before the function.
    """

    file: str
    function: str
    text: str
    before: str = ""
    after: str = ""


class _Insertions(msgspec.Struct, forbid_unknown_fields=True):
    insertions: list[Insertion]


def read_insertions(text: str) -> list[Insertion]:
    """Return the insertions of a TOML file."""
    return msgspec.toml.decode(text, type=_Insertions).insertions


def insert(source: str, insertions: Iterable[Insertion]) -> str:
    """Return a source with all insertions, each placed in what the ones before it left.

    Raises
    ------
    LabError
        If a place is missing or not the only one.
    """
    lines = source.splitlines()
    for insertion in insertions:
        at = _place(lines, insertion)
        lines[at:at] = insertion.text.strip("\n").split("\n")
    return "\n".join(lines) + "\n"


def _place(lines: list[str], insertion: Insertion) -> int:
    """Return the number of the line that the text is put before."""
    start, end = _function(lines, insertion)
    word = insertion.before or insertion.after
    if not word:
        return start
    found = [at for at in range(start, end) if re.search(rf"\b{re.escape(word)}\b", lines[at])]
    if len(found) != 1:
        raise LabError(
            f"{insertion.file}: {len(found)} lines of {insertion.function}() have {word}: need "
            "one; this source is not the one that the insertions are for"
        )
    return found[0] + bool(insertion.after)


def _function(lines: list[str], insertion: Insertion) -> tuple[int, int]:
    """Return the lines from a function's head to the one behind its closing brace."""
    head = re.compile(rf"[A-Za-z_][^;={{}}]*\b{re.escape(insertion.function)}\(")
    found = [at for at, line in enumerate(lines) if head.match(line) and _is_head(lines, at)]
    if len(found) != 1:
        raise LabError(
            f"{insertion.file}: {len(found)} functions {insertion.function}(): need one; this "
            "source is not the one that the insertions are for"
        )
    return found[0], lines.index("}", found[0]) + 1


def _is_head(lines: list[str], at: int) -> bool:
    """Tell whether a declaration that begins here has a body: the first to follow is its brace."""
    for line in lines[at:]:
        if line.rstrip().endswith(";"):
            return False
        if line == "{":
            return True
    return False
