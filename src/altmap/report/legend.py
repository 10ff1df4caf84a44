"""The legend of a group's maps: what occurs in them, each entry at the steps where it does."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from altmap.report.draw import ZONE_FILLS, node_colour, stripe, swatch
from altmap.report.states import STATES, PageState
from altmap.report.tiles import TileMap

__all__ = ("Entry", "entries", "legend", "several_nodes", "stripe_entries", "stripe_of")

#: What is shown (``state``, ``unbacked``, ``zone``, ``node``), and which one; sorted as shown.
Entry = tuple[int, str, int]
_STATE, _UNBACKED, _ZONE, _NODE = range(4)
_ZONE_NAMES = {"kernel": "kernel zones", "movable": "ZONE_MOVABLE"}
_KINDS = tuple(_ZONE_NAMES)


def entries(tiles: TileMap, trace: int, step: int) -> set[Entry]:
    """Return what the map of a trace shows after a step; nodes only if the maps have several."""
    cells = tiles.cells[trace][step]
    numbers = {number for pattern, _ in cells for _, number in tiles.patterns[pattern]}
    shown = [tiles.tiles[number] for number in numbers]
    found = {(_STATE, "", int(state)) for tile in shown for state, _ in tile.pages}
    if any(tile.nr_unbacked for tile in shown):
        found.add((_UNBACKED, "", 0))
    return found | stripe_entries(tiles, trace, step)


def stripe_entries(tiles: TileMap, trace: int, step: int) -> set[Entry]:
    """Return the zones and nodes of the map of a trace after a step, which stripes show."""
    facts = [tiles.facts[number] for number in {number for _, number in tiles.cells[trace][step]}]
    kinds = {each.zone_kind for each in facts}
    found = {(_ZONE, kind, n) for n, kind in enumerate(_KINDS) if kinds & {kind, "both"}}
    if several_nodes(tiles):
        found |= {(_NODE, "", int(node)) for each in facts for node in each.nodes.split()}
    return found


def stripe_of(entry: Entry) -> tuple[tuple[str, ...], str]:
    """Return how the stripe of a zone or node is filled, and its name."""
    what, kind, number = entry
    if what == _ZONE:
        return ZONE_FILLS[kind], _ZONE_NAMES[kind]
    return (node_colour(number),), f"node {number}"


def several_nodes(tiles: TileMap) -> bool:
    """Tell whether blocks of more than one node occur."""
    return len({node for each in tiles.facts for node in each.nodes.split()}) > 1


def legend(tiles: TileMap) -> str:
    """Return the legend as HTML; the page shows the entries of one step."""
    steps: dict[Entry, set[int]] = {}
    for trace, cells in enumerate(tiles.cells):
        for step in range(len(cells)):
            for entry in entries(tiles, trace, step):
                steps.setdefault(entry, set()).add(step)
    items = "".join(
        f'<li data-steps="{" ".join(map(str, sorted(steps[entry])))}" hidden>'
        f"{''.join(_parts(entry))}</li>"
        for entry in sorted(steps)
    )
    return f'<ul class="legend" aria-label="legend">{items}</ul>'


def _parts(entry: Entry) -> Iterator[str]:
    what, _, number = entry
    if what == _STATE:
        info = STATES[PageState(number)]
        yield f"{swatch(PageState(number))}{escape(info.name)}"
        yield f'<span class="soft"> – {escape(info.meaning)}</span>'
    elif what == _UNBACKED:
        yield _drawing(
            '<line x1="0" x2="22" y1="11" y2="11" stroke="#d55e00" stroke-width="3" '
            'stroke-dasharray="4 2"/>'
        )
        yield 'not backed<span class="soft"> – in a memory block, but not backed by the host</span>'
    else:
        fills, name = stripe_of(entry)
        yield _drawing(stripe(fills, 7, 0, 8, 16)) + name
        yield f'<span class="soft"> – {"left" if what == _ZONE else "right"} of the row</span>'


def _drawing(content: str) -> str:
    return f'<svg width="22" height="16" aria-hidden="true">{content}</svg>'
