"""One process's share of a search: the states that it owns, expanded level by level.

Which process owns a state hangs on which memory is there and online, not on parameters and vetoes:
so what a step comes to is worked out by one process, and most neighbours of a state stay with it.

Effects: clock, files.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from altmap.explore.space import MachineState, Space, Way, numbers_of
from altmap.scenario import Step

__all__ = ("Carried", "Kept", "Limits", "Report", "Share", "carried")

#: A state on its way to another process or a file: its cells' numbers, its key, its way.
Carried = tuple[tuple[int, ...], int, list[tuple[int, int]]]

#: Cells that say which memory is there and online.
_OWNING = ("kernel.added_blocks", "kernel.online_blocks", "backing.backed")
_CHECK_EVERY = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """When a level ends early.

    Attributes
    ----------
    deadline : float or None
        Of :func:`time.monotonic`, which all processes of a machine share.
    most_states : int
        That this process may own.
    most_bytes : int
        Memory that this process may have.
    """

    deadline: float | None = None
    most_states: int = 1 << 62
    most_bytes: int = 1 << 62


@dataclass(slots=True)
class Report:
    """What became of a level in one process.

    Attributes
    ----------
    found : dict
        Rule to why it is broken and the numbers of the steps.
    steps : dict
        Steps by number, those that were not reported before.
    outgoing : list of list of Carried
        New states for each process.
    nr_transitions, nr_states, nr_waiting : int
        Steps tried in this level; states owned in all, and not expanded yet.
    nr_worked_out : int
        Steps that ran on the model, in all.
    ended_by : str
        Which limit ended the level early, empty if none.
    """

    found: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    outgoing: list[list[Carried]] = field(default_factory=list)
    nr_transitions: int = 0
    nr_states: int = 0
    nr_waiting: int = 0
    nr_worked_out: int = 0
    ended_by: str = ""


@dataclass(slots=True)
class Kept:
    """What is left of a search that ended early.

    Attributes
    ----------
    seen : dict
        Key of every known state to the number that says who owns it.
    waiting : list of Carried
        States that were not expanded.
    steps : dict
        Steps by number.
    """

    seen: dict[int, int]
    waiting: list[Carried]
    steps: dict[int, Step]


class Share:
    """The states that one of several processes owns.

    Parameters
    ----------
    space : Space
    index, nr_processes : int
    """

    def __init__(self, space: Space, index: int = 0, nr_processes: int = 1) -> None:
        self.space = space
        self._index = index
        self._nr_processes = nr_processes
        names = space.cell_names
        self._owning = [i for i, name in enumerate(names) if name in _OWNING]
        self._seen: dict[int, int] = {}
        self._waiting: list[MachineState] = []
        self._nr_owned = 0
        self._nr_reported = 0

    def owner(self, values: tuple[int, ...]) -> int:
        """Return a number that says, by its remainder, which process owns a state."""
        return hash(tuple([values[cell] for cell in self._owning])) >> 8 & 0xFFFFFFFF

    def take(self, states: Iterable[Carried], steps: dict[int, Step], report: Report) -> None:
        """Take states over from other processes."""
        self.space.know(steps)
        for values, key, pairs in states:
            if key not in self._seen:
                self._seen[key] = self.owner(values)
                self._add(self._met(values, key, pairs), report)

    def _met(
        self, values: tuple[int, ...], key: int, pairs: Iterable[tuple[int, int]]
    ) -> MachineState:
        """Return a state that comes from elsewhere."""
        state = MachineState(values, key, _way(pairs))
        self.space.meet(state)
        return state

    def _is_mine(self, owner: int) -> bool:
        return owner % self._nr_processes == self._index

    def _add(self, state: MachineState, report: Report) -> None:
        self._waiting.append(state)
        self._nr_owned += 1
        for rule, why in self.space.broken(state):
            self._tell(report, rule, why, state.way)

    def _tell(self, report: Report, rule: str, why: str, way: Way | None) -> None:
        if rule not in report.found:
            report.found[rule] = (why, numbers_of(way))

    def expand(self, limits: Limits, report: Report) -> None:
        """Try every step in every waiting state; what is new waits for the next level."""
        space, seen = self.space, self._seen
        nr_processes = self._nr_processes
        level, self._waiting = self._waiting, []
        outgoing: list[dict[int, MachineState]] = [{} for _ in range(nr_processes)]
        for position, state in enumerate(level):
            if not position % _CHECK_EVERY:
                report.ended_by = self._ended(limits)
                if report.ended_by:
                    self._waiting = level[position:] + self._waiting
                    break
            for number in space.moves(state):
                effect = space.effect(state, number)
                if not effect.possible:
                    continue
                report.nr_transitions += 1
                for rule, why in effect.broken:
                    self._tell(report, rule, why, (state.way, number, 0))
                key = state.key ^ effect.difference
                if key in seen or effect.ends:
                    continue
                new = space.after(state, number, effect)
                owner = self.owner(new.values)
                seen[key] = owner
                if self._is_mine(owner):
                    self._add(new, report)
                else:
                    outgoing[owner % nr_processes][key] = new
        report.outgoing = [[carried(state) for state in states.values()] for states in outgoing]
        known = list(space.steps.items())
        report.steps = dict(known[self._nr_reported :])
        self._nr_reported = len(known)
        report.nr_states = self._nr_owned
        report.nr_waiting = len(self._waiting)
        report.nr_worked_out = space.nr_worked_out

    def _ended(self, limits: Limits) -> str:
        if limits.deadline is not None and time.monotonic() > limits.deadline:
            return "time"
        if self._nr_owned > limits.most_states:
            return "states"
        return "memory" if _resident_bytes() > limits.most_bytes else ""

    # --- what is kept of a search ----------------------------------------------------------

    def keep(self) -> Kept:
        """Return what another run needs to go on from here."""
        seen = {key: owner for key, owner in self._seen.items() if self._is_mine(owner)}
        return Kept(seen, [carried(state) for state in self._waiting], self.space.steps)

    def go_on(self, kept: Kept) -> None:
        """Take one's share of what an earlier run has left."""
        self.space.know(kept.steps)
        self._seen.update(kept.seen)
        self._nr_owned = sum(map(self._is_mine, kept.seen.values()))
        for values, key, pairs in kept.waiting:
            if self._is_mine(self.owner(values)):
                self._waiting.append(self._met(values, key, pairs))


def carried(state: MachineState) -> Carried:
    """Return a state as it goes to another process or into a file."""
    pairs = []
    way = state.way
    while way is not None:
        way, number, key = way
        pairs.append((number, key))
    return state.values, state.key, pairs[::-1]


def _way(pairs: Iterable[tuple[int, int]]) -> Way | None:
    way: Way | None = None
    for number, key in pairs:
        way = (way, number, key)
    return way


def _resident_bytes() -> int:
    """Return the memory that this process has."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (asked often)
        return int(file.read().split()[1]) * resource.getpagesize()
