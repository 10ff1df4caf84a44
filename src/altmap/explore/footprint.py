"""Work that is done once, and carried over to every state that looks alike to it.

A piece of work on the model is deterministic. Where all cells that it read and changed hold what
they held before, it comes to the same: the same outcome, the same changes. So what one state came
to serves all states that differ elsewhere, whatever the work is. Nothing here knows a rule of a
kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Generic, TypeVar

__all__ = ("Footprints",)

T = TypeVar("T")

_Pick = Callable[[tuple[int, ...]], object]


class Footprints(Generic[T]):
    """What one piece of work came to, by the contents of the cells that it touched."""

    __slots__ = ("_by_cells", "_tables")

    def __init__(self) -> None:
        self._tables: list[tuple[_Pick, dict[object, T]]] = []
        self._by_cells: dict[tuple[int, ...], dict[object, T]] = {}

    def recall(self, state: tuple[int, ...]) -> T | None:
        """Return what the work comes to in a state, ``None`` if nothing alike has been seen.

        Parameters
        ----------
        state : tuple of int
            The number of every cell.
        """
        for pick, found in self._tables:
            known = found.get(pick(state))
            if known is not None:
                return known
        return None

    def learn(self, state: tuple[int, ...], touched: Iterable[int], result: T) -> None:
        """Keep what the work came to in a state, and which cells it touched there."""
        cells = tuple(sorted(touched))
        table = self._by_cells.get(cells)
        if table is None:
            table = self._by_cells[cells] = {}
            self._tables.append((_picker(cells), table))
        table[_picker(cells)(state)] = result


def _picker(cells: tuple[int, ...]) -> _Pick:
    if not cells:
        return lambda _: ()
    return itemgetter(*cells)
