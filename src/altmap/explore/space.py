"""The space of states: what can be done in a state, and what that comes to.

A state is the numbers of its cells and the way that led there. What a step comes to is worked out
on the model once and carried over by its footprint; see :mod:`.footprint`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from altmap.errors import InputError
from altmap.explore.canonical import SYMMETRIES, Symmetry
from altmap.explore.cells import Cell, Cells, WorkingCopy
from altmap.explore.footprint import Footprints, Varying
from altmap.explore.moves import KINDS, MoveKind
from altmap.explore.rules import Change, Rule
from altmap.explore.spec import Exploration
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Step

__all__ = ("Broken", "Effect", "MachineState", "Space", "Way", "numbers_of")

#: The way to a state: the way to the one before, the step's number, the state's key.
Way = tuple["Way | None", int, int]

#: A rule's name, and why it is broken.
Broken = tuple[str, str]

#: Machines that are kept to try steps on.
_KEPT_MACHINES = 512


@dataclass(slots=True)
class MachineState:
    """One state.

    Attributes
    ----------
    values : tuple of int
        The number of each cell.
    key : int
        128 bits that stand for all of them.
    way : Way or None
        How it was reached; ``None`` for the start.
    """

    values: tuple[int, ...]
    key: int
    way: Way | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What a step comes to.

    Attributes
    ----------
    possible : bool
        The host does it; else nothing happens at all.
    changes : tuple of (int, int)
        Cells and their new numbers.
    difference : int
        What the state's key changes by.
    broken : tuple of Broken
        Rules about steps that it breaks.
    ends : bool
        The kernel dies of it, so nothing comes after.
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
    nr_recalled, nr_worked_out : int
        Steps whose effect was carried over, and those that ran on the model.
    remembers : bool
        Off, every step is run on the model: slow, and the measure of what is carried over.
    """

    exploration: Exploration
    rules: Sequence[Rule]
    remembers: bool = True
    nr_recalled: int = 0
    nr_worked_out: int = 0
    start: MachineState = field(init=False)
    _varying: Varying = field(init=False)
    _origin: ModelMachine = field(init=False)
    _cells: Cells = field(init=False)
    _steps: dict[int, Step] = field(default_factory=dict)
    _moves: list[tuple[MoveKind, Footprints[tuple[int, ...]]]] = field(init=False)
    _effects: dict[int, Footprints[Effect]] = field(default_factory=dict)
    _judged: dict[str, Footprints[str]] = field(default_factory=dict)
    _bases: OrderedDict[int, WorkingCopy] = field(default_factory=OrderedDict)
    _boot_used: PfnSet = field(init=False)
    _marks: dict[tuple[int, int], int] = field(default_factory=dict)
    _symmetries: list[tuple[Symmetry, frozenset[int]]] = field(init=False)

    def __post_init__(self) -> None:
        origin = ModelMachine.start(self.exploration.machine, pages=False)
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
            for symmetry in SYMMETRIES
        ]
        self._moves = [(kind, Footprints(self._varying)) for kind in KINDS]
        self._judged = {
            rule.name: Footprints(self._varying) for rule in self.rules if rule.on_state
        }

    # --- what can be asked -----------------------------------------------------------------

    @property
    def cell_names(self) -> Sequence[Cell]:
        """The cells' names, in the order of a state's values."""
        return self._cells.names

    @property
    def steps(self) -> dict[int, Step]:
        """The steps that were met, by number."""
        return self._steps

    def know(self, steps: Mapping[int, Step]) -> None:
        """Learn the numbers of steps that others met."""
        for number, step in steps.items():
            self._steps.setdefault(number, step)

    def moves(self, state: MachineState) -> list[int]:
        """Return the numbers of the steps that may be tried in a state that is alive."""
        found: list[int] = []
        for kind, footprints in self._moves:
            known = footprints.recall(state.values) if self.remembers else None
            if known is None:
                copy = self._copy(state)
                steps = kind.steps(copy.machine, self.exploration)
                known = tuple([self._number(step) for step in steps])
                footprints.learn(state.values, copy.touched, known)
            found.extend(known)
        return found

    def effect(self, state: MachineState, number: int) -> Effect:
        """Return what a step comes to in a state."""
        footprints = self._effects.get(number)
        if footprints is None:
            footprints = self._effects[number] = Footprints(self._varying)
        known = footprints.recall(state.values) if self.remembers else None
        if known is not None:
            self.nr_recalled += 1
            return known
        self.nr_worked_out += 1
        effect, touched = self._work_out(state, number)
        footprints.learn(state.values, touched, effect)
        return effect

    def after(self, state: MachineState, number: int, effect: Effect) -> MachineState:
        """Return the state that a step leads to."""
        values = list(state.values)
        for cell, value in effect.changes:
            values[cell] = value
        key = state.key ^ effect.difference
        return MachineState(tuple(values), key, (state.way, number, key))

    def meet(self, state: MachineState) -> None:
        """Take notice of a state that another process has found."""
        self._varying.meet(state.values)

    def broken(self, state: MachineState) -> list[Broken]:
        """Return the rules about states that a state breaks."""
        found = []
        for rule in self.rules:
            if rule.on_state is None:
                continue
            footprints = self._judged[rule.name]
            why = footprints.recall(state.values) if self.remembers else None
            if why is None:
                copy = self._copy(state)
                why = rule.on_state(copy.machine, self._origin) or ""
                footprints.learn(state.values, copy.touched, why)
            if why:
                found.append((rule.name, why))
        return found

    # --- work on the model -----------------------------------------------------------------

    def _copy(self, state: MachineState) -> WorkingCopy:
        """Return a machine in a state, to work on."""
        return WorkingCopy(self._cells, self._base(state.way, state.key))

    def _base(self, way: Way | None, key: int) -> WorkingCopy:
        if way is None:
            return self._cells.origin
        known = self._bases.get(key)
        if known is not None:
            self._bases.move_to_end(key)
            return known
        before, number, _ = way
        made = WorkingCopy(self._cells, self._base(before, 0 if before is None else before[2]))
        made.machine.perform(self._steps[number])
        for symmetry in SYMMETRIES:
            symmetry.remove(made.machine, self._boot_used)
        self._keep(key, made)
        return made

    def _keep(self, key: int, copy: WorkingCopy) -> None:
        self._bases[key] = copy
        if len(self._bases) > _KEPT_MACHINES:
            self._bases.popitem(last=False)

    def _work_out(self, state: MachineState, number: int) -> tuple[Effect, set[int]]:
        """Run a step on the model; return what it came to and the cells that it touched."""
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
        """Return 128 random-looking bits for a cell that holds a number."""
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


def numbers_of(way: Way | None) -> list[int]:
    """Return the numbers of a way's steps, the first one first."""
    found = []
    while way is not None:
        way, number, _ = way
        found.append(number)
    return found[::-1]
