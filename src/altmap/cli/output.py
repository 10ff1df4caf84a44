"""What commands print: JSON, lines for standard error, and how wide the terminal is.

Effects: terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from altmap.cli.fit import width_of
from altmap.cli.streams import show, tell
from altmap.errors import printable

__all__ = ("note", "notes", "notice", "print_json", "terminal_width")


def print_json(made: object) -> None:
    """Print an object that msgspec can encode, indented."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())


def notice(args: argparse.Namespace, text: str) -> None:
    """Print a line for the user where it is not taken for a part of the JSON."""
    if args.json:
        print(text, file=sys.stderr)
    else:
        show(text)


def note(text: str) -> None:
    """Print a line about what happens to standard error."""
    tell(f"altmap: {text}")


def notes(lines: Iterable[str]) -> None:
    """Print what the files of a machine did not tell, or not as expected, to standard error."""
    for line in lines:
        note(f"note: {printable(line)}")


def terminal_width() -> int:
    """Return the columns of the terminal, 100 without one."""
    return width_of(sys.stdout) or 100
