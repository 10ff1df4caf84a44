"""Results that are computed once, and carried over to every state with the same footprint.

An operation on the model is deterministic. If all cells that it read or changed have the same
contents as before, it has the same outcome and the same changes. So a result holds for all states
that differ in other cells, for any operation. This module contains no rule of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Generic, TypeVar

__all__ = ("Footprints", "Varying")

T = TypeVar("T")

_Pick = Callable[[tuple[int, ...]], Any]


@dataclass(slots=True)
class Varying:
    """The cells whose contents differ between the states so far.

    All others have their contents of the start, so no comparison reads them.

    Attributes
    ----------
    start : tuple of int
        The number of every cell at the start.
    cells : set of int
    """

    start: tuple[int, ...]
    cells: set[int] = field(default_factory=set)
    _others: tuple[_Pick, Any] | None = None
    _nr_cells: int = 0

    def add(self, state: tuple[int, ...]) -> None:
        """Include a state that was found elsewhere."""
        if self._others is None or self._nr_cells != len(self.cells):
            self._nr_cells = len(self.cells)
            pick = _picker(tuple([cell for cell in range(len(state)) if cell not in self.cells]))
            self._others = pick, pick(self.start)
        pick, at_start = self._others
        if pick(state) != at_start:
            pairs = zip(state, self.start, strict=True)
            self.cells.update(cell for cell, (now, then) in enumerate(pairs) if now != then)


class Footprints(Generic[T]):
    """The results of one operation, by the contents of the cells that it touched.

    Parameters
    ----------
    varying : Varying
    """

    __slots__ = ("_nr_varying", "_tables", "_touched", "_varying")

    def __init__(self, varying: Varying) -> None:
        self._varying = varying
        self._nr_varying = len(varying.cells)
        #: Cells that are compared, their getter, the results; recently used ones come first.
        self._tables: list[tuple[tuple[int, ...], _Pick, dict[Any, T]]] = []
        #: For each of these, all cells that were touched.
        self._touched: dict[tuple[int, ...], list[tuple[frozenset[int], Any, T]]] = {}

    def find(self, state: tuple[int, ...]) -> T | None:
        """Return the operation's result in a state, ``None`` if it is not known.

        Parameters
        ----------
        state : tuple of int
            The number of every cell.
        """
        if self._nr_varying != len(self._varying.cells):
            self._compare_more()
        tables = self._tables
        for place, (_, pick, found) in enumerate(tables):
            known = found.get(pick(state))
            if known is not None:
                if place:
                    tables[place - 1], tables[place] = tables[place], tables[place - 1]
                return known
        return None

    def store(self, state: tuple[int, ...], touched: Iterable[int], result: T) -> None:
        """Store the operation's result in a state, and which cells it touched."""
        if self._nr_varying != len(self._varying.cells):
            self._compare_more()
        self._put(frozenset(touched), state, result)

    def _put(self, touched: frozenset[int], state: tuple[int, ...], result: T) -> None:
        cells = tuple(sorted(touched & self._varying.cells))
        pick = _picker(cells)
        found = next((table for known, _, table in self._tables if known == cells), None)
        if found is None:
            found = {}
            self._tables.append((cells, pick, found))
            self._touched[cells] = []
        key = pick(state)
        found[key] = result
        self._touched[cells].append((touched, key, result))

    def _compare_more(self) -> None:
        """Compare cells that vary now; until then they had their contents of the start."""
        before, self._touched, self._tables = self._touched, {}, []
        self._nr_varying = len(self._varying.cells)
        for cells, kept in before.items():
            for touched, key, result in kept:
                state = list(self._varying.start)
                contents = key if len(cells) > 1 else (key,)
                for cell, value in zip(cells, contents, strict=False):
                    state[cell] = value
                self._put(touched, tuple(state), result)


def _picker(cells: tuple[int, ...]) -> _Pick:
    """Return the getter of some cells' contents from a state."""
    return itemgetter(*cells) if cells else lambda _: ()
