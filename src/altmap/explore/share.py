"""One process's share of a search: the states that it owns, expanded level by level.

Which process owns a state depends on which memory is added and online, not on parameters and
vetoes: so a step's result is computed by one process, and most successors of a state stay there.

Effects: clock, files.
"""

from __future__ import annotations

import gc
import pickle
import resource
import time
from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from altmap.explore.space import MachineState, Route, Space, numbers_of
from altmap.scenario import Step

__all__ = ("Carried", "Limits", "Parcel", "Report", "SavedShare", "Share", "rare_collections")

#: A state for another process or a file: its cells' numbers of 64 bits each, its key, its route.
Carried = tuple[bytes, int, list[tuple[int, int]]]

#: Cells of added, online and backed memory.
_OWNING = ("kernel.added_blocks", "kernel.online_blocks", "backing.backed")
_CHECK_EVERY = 256
#: Thresholds of :mod:`gc`: what a step makes has few cycles.
_RARELY = (100_000, 50, 50)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that end a level early.

    Attributes
    ----------
    deadline : float or None
        Of :func:`time.monotonic`, which all processes of a machine share.
    most_states : int
        States that this process may own.
    most_bytes : int
        Memory that this process may use.
    """

    deadline: float | None = None
    most_states: int = 1 << 62
    most_bytes: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Parcel:
    """States for another process, which no process between reads.

    Attributes
    ----------
    nr_states : int
    packed : bytes
    """

    nr_states: int
    packed: bytes

    @classmethod
    def of(cls, states: Collection[MachineState]) -> Parcel:
        """Return a parcel of states."""
        return cls(len(states), pickle.dumps(list(map(_carried, states))))

    def states(self) -> list[Carried]:
        """Return the states."""
        found: list[Carried] = pickle.loads(self.packed)  # a process of this search packed it
        return found


@dataclass(slots=True)
class Report:
    """The report on a level in one process.

    Attributes
    ----------
    found : dict
        Rule to the reason and the numbers of the steps.
    steps : dict
        Steps by number that were not reported before.
    outgoing : list of Parcel
        New states for each process.
    nr_transitions, nr_states, nr_waiting : int
        Steps tried in this level; all owned states; those not expanded yet.
    nr_computed : int
        All steps that ran on the model.
    ended_by : str
        The limit that ended the level early, empty if none.
    """

    found: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    outgoing: list[Parcel] = field(default_factory=list)
    nr_transitions: int = 0
    nr_states: int = 0
    nr_waiting: int = 0
    nr_computed: int = 0
    ended_by: str = ""


@dataclass(slots=True)
class SavedShare:
    """The state of one share of a search that ended early.

    Attributes
    ----------
    seen : dict
        Key of every known state to the number that selects its owner.
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
        """Return a number whose remainder selects the process that owns a state."""
        return hash(tuple([values[cell] for cell in self._owning])) >> 8 & 0xFFFFFFFF

    def receive(self, parcels: Iterable[Parcel], steps: dict[int, Step], report: Report) -> None:
        """Receive states from other processes."""
        self.space.add_steps(steps)
        for numbers, key, pairs in chain.from_iterable(parcel.states() for parcel in parcels):
            if key not in self._seen:
                state = self._state(numbers, key, pairs)
                self._seen[key] = self.owner(state.values)
                self._add(state, report)

    def _state(self, numbers: bytes, key: int, pairs: Iterable[tuple[int, int]]) -> MachineState:
        """Return a state that was found elsewhere."""
        state = MachineState(tuple(array("Q", numbers)), key, _route(pairs))
        self.space.add_state(state)
        return state

    def _is_mine(self, owner: int) -> bool:
        return owner % self._nr_processes == self._index

    def _add(self, state: MachineState, report: Report) -> None:
        self._waiting.append(state)
        self._nr_owned += 1
        for rule, why in self.space.broken(state):
            self._report_broken(report, rule, why, state.route)

    def _report_broken(self, report: Report, rule: str, why: str, route: Route | None) -> None:
        if rule not in report.found:
            report.found[rule] = (why, numbers_of(route))

    def expand(self, limits: Limits, report: Report) -> None:
        """Try every step in every waiting state; new states wait for the next level."""
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
                    self._report_broken(report, rule, why, (state.route, number, 0))
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
        report.outgoing = [Parcel.of(states.values()) for states in outgoing]
        known = list(space.steps.items())
        report.steps = dict(known[self._nr_reported :])
        self._nr_reported = len(known)
        report.nr_states = self._nr_owned
        report.nr_waiting = len(self._waiting)
        report.nr_computed = space.nr_computed

    def _ended(self, limits: Limits) -> str:
        if limits.deadline is not None and time.monotonic() > limits.deadline:
            return "time"
        if self._nr_owned > limits.most_states:
            return "states"
        return "memory" if _resident_bytes() > limits.most_bytes else ""

    # --- saved searches --------------------------------------------------------------------

    def save(self) -> SavedShare:
        """Return the share's state for a later run."""
        seen = {key: owner for key, owner in self._seen.items() if self._is_mine(owner)}
        return SavedShare(seen, [_carried(state) for state in self._waiting], self.space.steps)

    def resume(self, saved: SavedShare) -> None:
        """Continue with the share's part of an earlier run."""
        self.space.add_steps(saved.steps)
        self._seen.update(saved.seen)
        self._nr_owned = sum(map(self._is_mine, saved.seen.values()))
        for numbers, key, pairs in saved.waiting:
            if self._is_mine(self.owner(tuple(array("Q", numbers)))):
                self._waiting.append(self._state(numbers, key, pairs))


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely inside: states stay, and a collection would look at all of them."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _carried(state: MachineState) -> Carried:
    """Return a state for another process or a file."""
    pairs = []
    route = state.route
    while route is not None:
        route, number, key = route
        pairs.append((number, key))
    return array("Q", state.values).tobytes(), state.key, pairs[::-1]


def _route(pairs: Iterable[tuple[int, int]]) -> Route | None:
    route: Route | None = None
    for number, key in pairs:
        route = (route, number, key)
    return route


def _resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (called often)
        return int(file.read().split()[1]) * resource.getpagesize()
