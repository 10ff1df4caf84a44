"""Work that is done once, and carried over to every state that looks alike to it.

A piece of work on the model is deterministic. Where all cells that it read and changed hold what
they held before, it comes to the same: the same outcome, the same changes. So what one state came
to serves all states that differ elsewhere, whatever the work is. Nothing here knows a rule of a
kernel.
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
    """The cells that hold different things in different states met so far.

    All others hold what they held at the start, so nobody needs to look at them.

    Attributes
    ----------
    start : tuple of int
        The number of every cell at the start.
    cells : set of int
    """

    start: tuple[int, ...]
    cells: set[int] = field(default_factory=set)

    def meet(self, state: tuple[int, ...]) -> None:
        """Take notice of a state from elsewhere."""
        self.cells.update(
            cell for cell, (now, then) in enumerate(zip(state, self.start, strict=True))
            if now != then
        )  # fmt: skip


class Footprints(Generic[T]):
    """What one piece of work came to, by the contents of the cells that it touched.

    Parameters
    ----------
    varying : Varying
    """

    __slots__ = ("_nr_varying", "_tables", "_touched", "_varying")

    def __init__(self, varying: Varying) -> None:
        self._varying = varying
        self._nr_varying = len(varying.cells)
        #: Cells that are looked at, how, and the results; those that served last come first.
        self._tables: list[tuple[tuple[int, ...], _Pick, dict[Any, T]]] = []
        #: All cells that were touched, of each of these.
        self._touched: dict[tuple[int, ...], list[tuple[frozenset[int], Any, T]]] = {}

    def recall(self, state: tuple[int, ...]) -> T | None:
        """Return what the work comes to in a state, ``None`` if nothing alike has been seen.

        Parameters
        ----------
        state : tuple of int
            The number of every cell.
        """
        if self._nr_varying != len(self._varying.cells):
            self._look_at_more()
        tables = self._tables
        for place, (_, pick, found) in enumerate(tables):
            known = found.get(pick(state))
            if known is not None:
                if place:
                    tables[place - 1], tables[place] = tables[place], tables[place - 1]
                return known
        return None

    def learn(self, state: tuple[int, ...], touched: Iterable[int], result: T) -> None:
        """Keep what the work came to in a state, and which cells it touched there."""
        if self._nr_varying != len(self._varying.cells):
            self._look_at_more()
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

    def _look_at_more(self) -> None:
        """Look at cells that vary by now; before they did, they held what they do at the start."""
        before, self._touched, self._tables = self._touched, {}, []
        self._nr_varying = len(self._varying.cells)
        for cells, kept in before.items():
            for touched, key, result in kept:
                state = list(self._varying.start)
                held = key if len(cells) > 1 else (key,)
                for cell, value in zip(cells, held, strict=False):
                    state[cell] = value
                self._put(touched, tuple(state), result)


def _picker(cells: tuple[int, ...]) -> _Pick:
    """Return what takes the contents of some cells from a state."""
    return itemgetter(*cells) if cells else lambda _: ()
