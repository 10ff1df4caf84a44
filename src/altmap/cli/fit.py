"""Lines within the width of the terminal that shows them.

A longer line goes on below, under the start of its last column. Left as they are: commands, which
people copy, and lines of hexadecimal bytes. In a pipe, lines keep their length.

Effects: environment, files.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import TextIO

__all__ = ("columns", "fitted", "width_of")

#: Programs whose command lines are printed for the reader to run.
_PROGRAMS = ("altmap", "virsh", "qm", "kubectl", "ch-remote", "curl", "govc", "xl", "Set-VMMemory")
_KEPT = re.compile(
    rf"\s\s(?:(?:{'|'.join(_PROGRAMS)}) |\{{\"execute\"|[0-9a-f]{{4}}  [0-9a-f]{{2}} )"
)
_START = re.compile(r" *(# |- )?")
_GAP = re.compile(r"(?<=\S)  +")


def columns(default: int) -> int:
    """Return the columns of the terminal, or a number without one."""
    return shutil.get_terminal_size((default, 24)).columns


def width_of(stream: TextIO) -> int | None:
    """Return the columns of a terminal, or what COLUMNS says; ``None`` for a pipe without it."""
    if "COLUMNS" in os.environ or stream.isatty():
        return columns(100)
    return None


def fitted(text: str, width: int) -> str:
    """Return a text whose lines have that many columns, where words allow it."""
    if max(map(len, text.split("\n"))) <= width:
        return text
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width))


def _parts(line: str, width: int) -> Iterator[str]:
    if len(line) <= width or _KEPT.search(line):
        yield line
        return
    start = _START.match(line)
    assert start is not None
    hang = max((m.end() for m in _GAP.finditer(line) if m.end() <= width // 2), default=0)
    if hang and max(map(len, line[hang:].split())) <= width - hang:
        first, rest = line[:hang], " " * hang
    elif start[1] == "# ":
        first = rest = start[0]
    else:
        first, rest = start[0], " " * (start.end() + 2)
    parts = textwrap.wrap(
        line[len(first) :],
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for part in parts:  # a word that is too long for its indentation has less
        yield part.strip().rjust(width) if len(part) > width and " " not in part.strip() else part
