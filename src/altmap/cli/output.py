"""What commands print: JSON, lines for standard error, and how wide the terminal is.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable

from altmap.cli.streams import tell
from altmap.errors import printable

__all__ = ("note", "notes", "notice", "print_json", "terminal_width")


def print_json(made: object) -> None:
    """Print an object that msgspec can encode, indented."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())


def notice(args: argparse.Namespace, text: str) -> None:
    """Print a line for the user where it is not taken for a part of the JSON."""
    print(text, file=sys.stderr if args.json else sys.stdout)


def note(text: str) -> None:
    """Print a line about what happens to standard error."""
    tell(f"altmap: {text}")


def notes(lines: Iterable[str]) -> None:
    """Print what the files of a machine did not tell, or not as expected, to standard error."""
    for line in lines:
        note(f"note: {printable(line)}")


def terminal_width() -> int:
    """Return the columns of the terminal, 100 without one."""
    return shutil.get_terminal_size((100, 24)).columns
