"""``/proc/vmstat`` and a node's ``vmstat``: counter to number, in file order.

The order is the release's: look counters up by name.
"""

from __future__ import annotations

import re

from altmap.linux.lines import add, lines

__all__ = ("parse", "render")

_LINE = re.compile(r"(\S+) (\d+)", re.ASCII)


def parse(text: str) -> dict[str, int]:
    """Return the counters by name, in file order."""
    table: dict[str, int] = {}
    for line in lines(text):
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need 'name number'")
        add(table, line, match[1], line.number(match[2]))
    return table


def render(table: dict[str, int]) -> str:
    """Return the file."""
    return "".join(f"{name} {value}\n" for name, value in table.items())
