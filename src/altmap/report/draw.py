"""Pieces of SVG that the page and the pictures share: patterns, swatches, inks, colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from altmap.report.states import STATES, PageState

__all__ = (
    "INKS",
    "KERNEL",
    "NODES",
    "PATTERNS",
    "ZONE_FILLS",
    "box",
    "node_colour",
    "stripe",
    "swatch",
    "text",
)

#: Colour of a letter on a state's colour where black has too little contrast.
INKS = {PageState.UNMOVABLE: "#fff"}
#: Stripes beside a row: kernel zones and ZONE_MOVABLE, which is hatched too; nodes in turn.
KERNEL, MOVABLE = "#6a6a6a", "#a14fd0"
NODES = ("#6b8e23", "#c0504d", "#4f81bd", "#b07d0a", "#7a5ca8", "#2a8f86", "#a0522d", "#808080")
#: How a stripe of each kind of zone is filled, from top to bottom.
ZONE_FILLS = {
    "kernel": (KERNEL,),
    "movable": ("url(#slant)",),
    "both": (KERNEL, "url(#slant)"),
}

PATTERNS = (
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><line x1="1" y1="0" x2="1" y2="6" stroke="#333" '
    'stroke-width="1.4"/></pattern>'
    '<pattern id="slant" width="6" height="6" patternUnits="userSpaceOnUse" '
    f'patternTransform="rotate(45)"><rect width="6" height="6" fill="{MOVABLE}"/>'
    '<line x1="1" y1="0" x2="1" y2="6" stroke="#fff" stroke-width="1.6"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<circle cx="3" cy="3" r="1.3" fill="#5a3c00"/></pattern>'
    '<pattern id="cross" width="7" height="7" patternUnits="userSpaceOnUse">'
    '<path d="M0,0L7,7M7,0L0,7" stroke="#3a1500" stroke-width="1"/></pattern>'
)


def box(x: float, y: float, width: float, height: float, state: PageState, border: str = "") -> str:
    """Return a rectangle in a state's colour and pattern."""
    info = STATES[state]
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    of_page = ' class="hole"' if state is PageState.HOLE else ""
    made = f'<rect {place} fill="{info.colour}"{of_page}{border}/>'
    if info.pattern != "plain":
        made += f'<rect {place} fill="url(#{info.pattern})"/>'
    return made


def text(x: float, y: float, line: str, size: float = 12, more: str = "") -> str:
    """Return one line of text, its baseline at *y*."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}"{more}>{escape(line)}</text>'


def swatch(state: PageState) -> str:
    """Return a small drawing of a state for a legend."""
    info = STATES[state]
    border = ' stroke="#777"' if info.colour in ("#fff", "#e4e4e4") else ""
    letter = ""
    if info.letter:
        ink = INKS.get(state, "#111")
        more = (
            f' text-anchor="middle" font-weight="700" fill="{ink}" stroke="{info.colour}" '
            'stroke-width="3" paint-order="stroke"'
        )
        letter = text(11, 12.5, info.letter, 11, more)
    return (
        f'<svg width="22" height="16" aria-hidden="true">{box(0.5, 0.5, 21, 15, state, border)}'
        f"{letter}</svg>"
    )


def node_colour(node: int) -> str:
    """Return the colour of a node's stripe."""
    return NODES[node % len(NODES)]


def stripe(fills: Sequence[str], x: float, y: float, width: float, height: float) -> str:
    """Return a stripe, its fills one below the other."""
    part = height / len(fills)
    return "".join(
        f'<rect x="{x:g}" y="{y + number * part:g}" width="{width:g}" height="{part:g}" '
        f'fill="{fill}"/>'
        for number, fill in enumerate(fills)
    )
