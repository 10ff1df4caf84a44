"""The state space: possible steps in a state, and their results.

A state is the numbers of its cells and the route that led to it. A step's result is computed on the
model once and carried over by its footprint; see :mod:`.footprint`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from altmap.errors import InputError
from altmap.explore.canonical import Symmetry, symmetries_of
from altmap.explore.cells import Cell, Cells, WorkingCopy
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

#: Most cached machines.
_KEPT_MACHINES = 512


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
    _bases: OrderedDict[int, WorkingCopy] = field(default_factory=OrderedDict)
    _boot_used: PfnSet = field(init=False)
    _marks: dict[tuple[int, int], int] = field(default_factory=dict)
    _symmetries: list[tuple[Symmetry, frozenset[int]]] = field(init=False)

    def __post_init__(self) -> None:
        origin = self.boot()
        origin.kernel.log.take()
        self._cells = Cells(origin)
        self._origin = self._cells.origin.machine
        self._boot_used = self._origin.kernel.used.copy()
        values = self._cells.values(self._cells.origin)
        key = 0
        for item in enumerate(values):
            key ^= self._mark(item)
        self.start = MachineState(values, key)
        self._varying = Varying(values)
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
                copy = self._copy(state)
                steps = kind.steps(copy.machine, self.exploration)
                known = tuple([self._number(step) for step in steps])
                footprints.store(state.values, copy.touched, known)
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

    def broken(self, state: MachineState) -> list[Broken]:
        """Return the rules about states that a state breaks."""
        found = []
        for rule in self.rules:
            if rule.on_state is None:
                continue
            footprints = self._rule_results[rule.name]
            why = footprints.find(state.values) if self.carries_over else None
            if why is None:
                copy = self._copy(state)
                why = rule.on_state(copy.machine, self._origin) or ""
                footprints.store(state.values, copy.touched, why)
            if why:
                found.append((rule.name, why))
        return found

    # --- on the model ----------------------------------------------------------------------

    def _copy(self, state: MachineState) -> WorkingCopy:
        """Return a working copy of the machine in a state."""
        return WorkingCopy(self._cells, self._base(state.route, state.key))

    def _base(self, route: Route | None, key: int) -> WorkingCopy:
        if route is None:
            return self._cells.origin
        known = self._bases.get(key)
        if known is not None:
            self._bases.move_to_end(key)
            return known
        before, number, _ = route
        made = WorkingCopy(self._cells, self._base(before, 0 if before is None else before[2]))
        made.machine.perform(self._steps[number])
        for symmetry, _ in self._symmetries:
            symmetry.remove(made.machine, self._boot_used)
        self._keep(key, made)
        return made

    def _keep(self, key: int, copy: WorkingCopy) -> None:
        self._bases[key] = copy
        if len(self._bases) > _KEPT_MACHINES:
            self._bases.popitem(last=False)

    def _compute(self, state: MachineState, number: int) -> tuple[Effect, set[int]]:
        """Run a step on the model; return its effect and the cells that it touched."""
        step, cells = self._steps[number], self._cells
        before, after = self._copy(state), self._copy(state)
        try:
            record = after.machine.perform(step)
        except InputError:
            return _IMPOSSIBLE, after.touched
        changed = cells.changes(after, state.values)
        for symmetry, about in self._symmetries:
            if not about.isdisjoint(changed) and symmetry.remove(after.machine, self._boot_used):
                changed = cells.changes(after, state.values)
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
        self._keep(state.key ^ difference, after)
        touched = after.touched.union(before.touched, changed)
        self._varying.cells.update(changed)
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
