"""What a notebook shows: the map of a trace, and memory accounting as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.report.account import Level, account
from altmap.report.page import groups
from altmap.report.picture import svg
from altmap.report.text import account_text
from altmap.trace import Trace
from altmap.units import SizeUnit, column_unit

__all__ = ("Account", "observation_html", "trace_html")


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """Memory accounting: levels from requested memory to free memory.

    Iterating yields the levels; ``print`` shows them as text, a notebook as a table.

    Attributes
    ----------
    levels : tuple of Level
        Each with its name, its bytes, and the losses below it.
    """

    levels: tuple[Level, ...]

    def __iter__(self) -> Iterator[Level]:
        return iter(self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    def __repr__(self) -> str:
        unit = self._unit()
        ends = (
            f"{unit.text(each.size_bytes)} {each.name}" for each in self.levels[:: len(self) - 1]
        )
        return f"<Account: {' to '.join(ends)}>"

    def __str__(self) -> str:
        return account_text(list(self.levels), "memory accounting")

    def _unit(self) -> SizeUnit:
        return column_unit((level.size_bytes for level in self.levels), decimals=3)

    def _repr_html_(self) -> str:
        size = self._unit().text
        rows = [
            f"<tr><th>{escape(level.name)}</th><td>{size(level.size_bytes)}</td><td></td></tr>"
            + "".join(
                f"<tr><td></td><td>{size(-loss.size_bytes)}</td><td>{escape(loss.cause)}</td></tr>"
                for loss in level.losses
            )
            + "".join(
                f"<tr><td></td><td>+{size(gain.size_bytes)}</td><td>{escape(gain.cause)}</td></tr>"
                for gain in level.gains
            )
            for level in self.levels
        ]
        return f"<table>{''.join(rows)}</table>"


def observation_html(seen: Observation) -> str:
    """Return the memory accounting of an observation, or one line if its files do not show it."""
    heading = f"<p>{escape(repr(seen)[1:-1])}</p>"
    try:
        return heading + Account(tuple(account(seen)))._repr_html_()
    except InputError:
        return heading


def trace_html(trace: Trace) -> str:
    """Return the map of a trace after its telling step, or one line if no file shows blocks."""
    (group,) = groups([trace])
    if group.tiles is None:
        return f"<p>{escape(repr(trace)[1:-1])}</p>"
    picture = svg(group, trace.description or trace.scenario)
    return f'<div style="overflow-x: auto">{picture}</div>'
