"""The state space: possible steps in a state, and their results.

A state is the numbers of its cells and the route that led to it. A step's result is computed on the
model once and carried over by its footprint; see :mod:`.footprint`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.explore.canonical import Symmetry, symmetries_of
from altmap.explore.cells import Cell, Cells, Contents, WorkingCopy, shares_nothing
from altmap.explore.footprint import Footprints, Varying
from altmap.explore.moves import KINDS, MoveKind
from altmap.explore.rules import Change, Rule
from altmap.explore.spec import Exploration
from altmap.model.kernel.accounting import Policy
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Step

__all__ = ("Broken", "Effect", "MachineState", "Route", "Space", "numbers_of")

#: The route to a state: that to the state before, the step's number, the state's key.
Route = tuple["Route | None", int, int]

#: A rule's name, and the reason why it is broken.
Broken = tuple[str, str]

#: Most states whose contents are kept, besides those of every number of a cell.
_KEPT_STATES = 512


@dataclass(slots=True)
class MachineState:
    """One state.

    Attributes
    ----------
    values : tuple of int
        The number of each cell.
    key : int
        128-bit hash of all of them.
    route : Route or None
        The steps that led to it; ``None`` for the start.
    """

    values: tuple[int, ...]
    key: int
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """The result of a step.

    Attributes
    ----------
    possible : bool
        The host can do it; else nothing changes.
    changes : tuple of (int, int)
        Cells and their new numbers.
    difference : int
        The change of the state's key (exclusive or).
    broken : tuple of Broken
        Rules about steps that it breaks.
    ends : bool
        The kernel crashes, so no step follows.
    """

    possible: bool
    changes: tuple[tuple[int, int], ...] = ()
    difference: int = 0
    broken: tuple[Broken, ...] = ()
    ends: bool = False


_IMPOSSIBLE = Effect(possible=False)


class _Known:
    """The contents that the numbers of cells stand for.

    Cells that may share objects are kept together, by the numbers of all of them.

    Parameters
    ----------
    cells : Cells
    values : sequence of int
        The numbers of the cells at the start.
    """

    def __init__(self, cells: Cells, values: Sequence[int]) -> None:
        self._origin = cells.origin
        self._shared, self._is_shared = cells.shared, cells.is_shared
        self._alone: list[dict[int, Any]] = [
            {} if cell in cells.is_shared and not shares_nothing(content) else {number: content}
            for cell, (number, content) in enumerate(zip(values, self._origin, strict=True))
        ]
        self._together: dict[tuple[int | None, ...], list[Any]] = {
            self._key(values): [self._origin[cell] for cell in self._shared]
        }

    def _key(self, values: Sequence[int]) -> tuple[int | None, ...]:
        alone = self._alone
        numbers = [(cell, values[cell]) for cell in self._shared]
        return tuple([None if number in alone[cell] else number for cell, number in numbers])

    def add(self, values: Sequence[int], copy: WorkingCopy, changed: Iterable[int]) -> None:
        """Add the contents of a machine.

        Parameters
        ----------
        values : sequence of int
            The number of every cell.
        copy : WorkingCopy
        changed : iterable of int
            The cells that may have new numbers.
        """
        is_shared = copy.cells.is_shared
        for cell in changed:
            content = copy.peek(cell)
            if cell not in is_shared or shares_nothing(content):
                self._alone[cell].setdefault(values[cell], content)
        if is_shared.isdisjoint(changed):
            return
        key = self._key(values)
        if key not in self._together:
            self._together[key] = copy.shared_contents()

    def find(self, values: Sequence[int], varying: set[int]) -> Contents | None:
        """Return the contents of every cell in a state, ``None`` if some are not known.

        Parameters
        ----------
        values : sequence of int
            The number of every cell.
        varying : set of int
            Cells that may differ from the start.
        """
        key, alone = self._key(values), self._alone
        together = self._together.get(key)
        if together is None:
            return None
        made = self._origin.copy()
        for cell, number, content in zip(self._shared, key, together, strict=True):
            made[cell] = alone[cell][values[cell]] if number is None else content
        for cell in varying - self._is_shared:
            found = alone[cell].get(values[cell], self)
            if found is self:
                return None
            made[cell] = found
        return made


@dataclass(slots=True, repr=False)
class Space:
    """The states of a machine under an exploration's operations.

    Attributes
    ----------
    policy : Policy or None
        The memmap policy; without it the built-in one that the machine names.
    nr_carried_over, nr_computed : int
        Steps whose effect was carried over, and those that ran on the model.
    carries_over : bool
        If false, every step runs on the model: slow, for tests of what is carried over.
    """

    exploration: Exploration
    rules: Sequence[Rule]
    policy: Policy | None = None
    carries_over: bool = True
    nr_carried_over: int = 0
    nr_computed: int = 0
    start: MachineState = field(init=False)
    _varying: Varying = field(init=False)
    _origin: ModelMachine = field(init=False)
    _cells: Cells = field(init=False)
    _steps: dict[int, Step] = field(default_factory=dict)
    _moves: list[tuple[MoveKind, Footprints[tuple[int, ...]]]] = field(init=False)
    _effects: dict[int, Footprints[Effect]] = field(default_factory=dict)
    _rule_results: dict[str, Footprints[str]] = field(default_factory=dict)
    _read: WorkingCopy = field(init=False)
    _run: WorkingCopy = field(init=False)
    _known: _Known = field(init=False)
    _recent: OrderedDict[int, tuple[int, ...]] = field(default_factory=OrderedDict)
    _boot_used: PfnSet = field(init=False)
    _marks: dict[tuple[int, int], int] = field(default_factory=dict)
    _symmetries: list[tuple[Symmetry, frozenset[int]]] = field(init=False)

    def __post_init__(self) -> None:
        origin = self.boot()
        origin.kernel.log.take()
        self._cells = Cells(origin)
        self._origin = WorkingCopy(self._cells, self._cells.origin).machine
        self._read = self._cells.reading
        self._run = WorkingCopy(self._cells, self._cells.origin)
        self._boot_used = self._origin.kernel.used.copy()
        values = self._cells.values(self._cells.origin)
        key = 0
        for item in enumerate(values):
            key ^= self._mark(item)
        self.start = MachineState(values, key)
        self._varying = Varying(values)
        self._known = _Known(self._cells, values)
        names = self._cells.names
        self._symmetries = [
            (symmetry, frozenset(i for i, name in enumerate(names) if name in symmetry.cells))
            for symmetry in symmetries_of(self.exploration)
        ]
        self._moves = [(kind, Footprints(self._varying)) for kind in KINDS]
        self._rule_results = {
            rule.name: Footprints(self._varying) for rule in self.rules if rule.on_state
        }

    def boot(self) -> ModelMachine:
        """Return the machine in the state in which every sequence starts."""
        return ModelMachine.start(self.exploration.machine, policy=self.policy, pages=False)

    # --- steps and states ------------------------------------------------------------------

    @property
    def cell_names(self) -> Sequence[Cell]:
        """The cells' names, in the order of a state's values."""
        return self._cells.names

    @property
    def steps(self) -> dict[int, Step]:
        """The known steps, by number."""
        return self._steps

    def add_steps(self, steps: Mapping[int, Step]) -> None:
        """Add steps that other processes found."""
        for number, step in steps.items():
            self._steps.setdefault(number, step)

    def moves(self, state: MachineState) -> list[int]:
        """Return the numbers of the possible steps in a state whose kernel runs."""
        found: list[int] = []
        for kind, footprints in self._moves:
            known = footprints.find(state.values) if self.carries_over else None
            if known is None:
                copy = self._reader(state)
                steps = kind.steps(copy.machine, self.exploration)
                known = tuple([self._number(step) for step in steps])
                footprints.store(state.values, copy.used(), known)
            found.extend(known)
        return found

    def effect(self, state: MachineState, number: int) -> Effect:
        """Return the result of a step in a state."""
        footprints = self._effects.get(number)
        if footprints is None:
            footprints = self._effects[number] = Footprints(self._varying)
        known = footprints.find(state.values) if self.carries_over else None
        if known is not None:
            self.nr_carried_over += 1
            return known
        self.nr_computed += 1
        effect, touched = self._compute(state, number)
        footprints.store(state.values, touched, effect)
        return effect

    def after(self, state: MachineState, number: int, effect: Effect) -> MachineState:
        """Return the state that a step leads to."""
        values = list(state.values)
        for cell, value in effect.changes:
            values[cell] = value
        key = state.key ^ effect.difference
        return MachineState(tuple(values), key, (state.route, number, key))

    def add_state(self, state: MachineState) -> None:
        """Include a state that another process found."""
        self._varying.add(state.values)
        self._cells.constant -= self._varying.cells

    def broken(self, state: MachineState) -> list[Broken]:
        """Return the rules about states that a state breaks."""
        found = []
        for rule in self.rules:
            if rule.on_state is None:
                continue
            footprints = self._rule_results[rule.name]
            why = footprints.find(state.values) if self.carries_over else None
            if why is None:
                copy = self._reader(state)
                why = rule.on_state(copy.machine, self._origin) or ""
                footprints.store(state.values, copy.used(), why)
            if why:
                found.append((rule.name, why))
        return found

    # --- on the model ----------------------------------------------------------------------

    def _reader(self, state: MachineState) -> WorkingCopy:
        """Return a copy of the machine in a state, to be read until the next call."""
        self._read.load(self._contents(state.values, state.route))
        return self._read

    def _contents(self, values: tuple[int, ...], route: Route | None) -> Contents:
        """Return the contents of every cell in a state."""
        known = self._known.find(values, self._varying.cells)
        if known is None:
            assert route is not None, "the start is known"
            self._replay(route)
            known = self._known.find(values, self._varying.cells)
            assert known is not None, "a route leads to its state"
        return known

    def _replay(self, route: Route) -> tuple[int, ...]:
        """Perform the last step of a route once more; return the numbers of the cells after it."""
        before, number, key = route
        if before is None:
            was = self.start.values
        else:
            was = self._recent.get(before[2]) or self._replay(before)
        self._run.load(self._contents(was, before))
        self._run.machine.perform(self._steps[number])
        changed = self._changed(was)
        return self._keep(was, changed, key)

    def _changed(self, values: tuple[int, ...]) -> dict[int, int]:
        """Bring the machine that ran into its canonical form; return the cells that changed."""
        changed = self._cells.changes(self._run, values)
        for symmetry, about in self._symmetries:
            if not about.isdisjoint(changed) and symmetry.remove(
                self._run.machine, self._boot_used
            ):
                changed = self._cells.changes(self._run, values)
        return changed

    def _keep(self, was: tuple[int, ...], changed: dict[int, int], key: int) -> tuple[int, ...]:
        """Keep the contents of the machine that ran, and return the numbers of its cells."""
        numbers = list(was)
        for cell, number in changed.items():
            numbers[cell] = number
        values = tuple(numbers)
        self._varying.cells.update(changed)
        self._known.add(values, self._run, changed)
        self._recent[key] = values
        if len(self._recent) > _KEPT_STATES:
            self._recent.popitem(last=False)
        return values

    def _compute(self, state: MachineState, number: int) -> tuple[Effect, frozenset[int]]:
        """Run a step on the model; return its effect and the cells that it touched."""
        step, cells = self._steps[number], self._cells
        before, after = self._reader(state), self._run
        after.load(before.base)
        try:
            record = after.machine.perform(step)
        except InputError:
            return _IMPOSSIBLE, after.used()
        changed = self._changed(state.values)
        names = frozenset(cells.names[cell] for cell in changed)
        change = Change(before.machine, after.machine, step, record, names)
        broken: list[Broken] = []
        for rule in self.rules:
            why = rule.on_step(change) if rule.on_step else None
            if why:
                broken.append((rule.name, why))
        difference = 0
        for item in changed.items():
            difference ^= self._mark((item[0], state.values[item[0]])) ^ self._mark(item)
        touched = after.used().union(before.used(), changed)
        self._keep(state.values, changed, state.key ^ difference)
        changes = tuple(sorted(changed.items()))
        effect = Effect(True, changes, difference, tuple(broken), after.machine.crashed)
        return effect, touched

    # --- numbers ---------------------------------------------------------------------------

    def _mark(self, item: tuple[int, int]) -> int:
        """Return a 128-bit hash of a cell and its number."""
        mark = self._marks.get(item)
        if mark is None:
            raw = hashlib.blake2b(repr(item).encode(), digest_size=16).digest()
            mark = self._marks[item] = int.from_bytes(raw)
        return mark

    def _number(self, step: Step) -> int:
        """Return a step's number: the same in every process."""
        raw = msgspec.json.encode(step, enc_hook=int)
        number = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest())
        self._steps.setdefault(number, step)
        return number


def numbers_of(route: Route | None) -> list[int]:
    """Return the numbers of a route's steps, the first one first."""
    found = []
    while route is not None:
        route, number, _ = route
        found.append(number)
    return found[::-1]
