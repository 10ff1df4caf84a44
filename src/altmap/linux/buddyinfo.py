"""``/proc/buddyinfo``: free chunks by order, of every populated zone."""

from __future__ import annotations

import re

from altmap.linux.lines import lines

__all__ = ("parse", "render")

_LINE = re.compile(r"Node (\d+), zone +(\S+)((?: +\d+)+) *", re.ASCII)


def parse(text: str) -> dict[tuple[int, str], tuple[int, ...]]:
    """Return ``(node, zone)`` to the number of free chunks of order 0, 1, ..."""
    zones: dict[tuple[int, str], tuple[int, ...]] = {}
    for line in lines(text):
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need 'Node N, zone NAME' and a number for each order")
        key = line.number(match[1]), match[2]
        if key in zones:
            raise line.error(f"zone {key[1]} of node {key[0]} is given twice")
        zones[key] = tuple(line.number(word) for word in match[3].split())
    return zones


def render(zones: dict[tuple[int, str], tuple[int, ...]]) -> str:
    """Return the file."""
    return "".join(
        f"Node {node}, zone {zone:>8} {''.join(f'{chunks:>6} ' for chunks in free)}\n"
        for (node, zone), free in zones.items()
    )
