"""The machine behind the files: the model, what was done to it, and a log of it.

Everything that changes the machine is a step of a scenario, whether a program writes to a file or
the platform plugs memory. So what was done can be saved, and run again elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Plug, Scenario, Step, step_name
from altmap.trace import Event, Outcome, StepRecord

__all__ = ("LiveMachine", "event_text", "outcome_text")

_MOST_LINES = 100_000


@dataclass(slots=True)
class LiveMachine:
    """A modelled machine that is acted on step by step.

    Attributes
    ----------
    scenario : Scenario
        The machine and the steps that lead to the start.
    model : ModelMachine
    base : Sysroot or None
        The captured files that the machine continues from.
    generation : int
        Grows with each step, so that files rendered before are known to be old.
    steps : list of Step
        All steps so far, those of the scenario included.
    log : list of str
        What was done, each with its answer; the oldest lines are dropped.
    uevents : list of str
        What the kernel announces of memory blocks, oldest first.
    dax_flags : dict
        What was written to ``memmap_on_memory`` of dax devices, by their ids; steps take it when a
        device is bound.
    dax_drivers : dict
        Drivers other than kmem that dax devices are bound to, by the devices' ids.
    dax_names : set of str
        Dax devices that device_dax was told to take, by their names.
    """

    scenario: Scenario
    model: ModelMachine
    base: Sysroot | None = None
    generation: int = 0
    steps: list[Step] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    uevents: list[str] = field(default_factory=list)
    dax_flags: dict[str, bool] = field(default_factory=dict)
    dax_drivers: dict[str, str] = field(default_factory=dict)
    dax_names: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, scenario: Scenario, sysroot: Sysroot | None = None) -> LiveMachine:
        """Return the machine after the steps of a scenario.

        Parameters
        ----------
        scenario : Scenario
        sysroot : Sysroot, optional
            The files of a real machine to continue from.

        Raises
        ------
        InputError
            If the machine cannot exist, or a step is invalid on every kernel.
        """
        seen = None if sysroot is None else Observation.read(sysroot)
        model = ModelMachine.start(scenario.machine, seen)
        made = cls(scenario, model, sysroot)
        made.log.extend(f"note: {note}" for note in model.notes)
        for index, step in enumerate(scenario.steps):
            try:
                made.perform(step)
            except InputError as error:
                raise InputError(f"steps[{index}] {step_name(step)}: {error}") from error
        return made

    @property
    def has_probe(self) -> bool:
        """Whether the kernel has the file ``probe``: where a step of the scenario writes to it."""
        return any(isinstance(s, Plug) and s.driver == "probe" for s in self.scenario.steps)

    def new_id(self, prefix: str) -> str:
        """Return an id that no device has had."""
        known = {step.id for step in self.steps if isinstance(step, Plug)}
        known |= set(self.model.devices.by_id)
        return next(i for n in count(1) if (i := f"{prefix}{n}") not in known)

    @property
    def crashed(self) -> bool:
        """Whether the kernel crashed: then every access fails."""
        return self.model.crashed

    def perform(self, step: Step) -> Outcome:
        """Perform a step and log it.

        Raises
        ------
        InputError
            If no kernel and no platform can do it; then nothing has changed.
        """
        before = _block_states(self.model)
        record = self.model.perform(step)
        self.generation += 1
        self.steps.append(step)
        self.uevents.extend(_uevents(before, _block_states(self.model)))
        del self.uevents[:-_MOST_LINES]
        self._note_step(record)
        return record.outcome

    def bind_dax(self, id_: str, driver: str | None) -> None:
        """Bind a dax device to a driver that is not kmem, or unbind it: no step of a scenario."""
        self.dax_drivers.pop(id_, None)
        if driver is not None:
            self.dax_drivers[id_] = driver
        self.generation += 1

    def flag_dax(self, id_: str, flag: bool) -> None:
        """Set what a dax device's file ``memmap_on_memory`` shows."""
        self.dax_flags[id_] = flag
        self.generation += 1

    def carry_out(self, meaning: Step | Outcome) -> Outcome:
        """Perform the step that a write is, or return the outcome that it has without one."""
        return meaning if isinstance(meaning, Outcome) else self.perform(meaning)

    def note(self, text: str) -> None:
        """Append one line to the log."""
        self.log.append(text)
        del self.log[:-_MOST_LINES]

    def _note_step(self, record: StepRecord) -> None:
        self.note(f"step {_words(record.action)}: {outcome_text(record.outcome)}")
        for event in record.events:
            self.note(f"  {event_text(event)}")

    def saved(self, name: str) -> Scenario:
        """Return what was done so far as a scenario; its machine is the one at the start."""
        return self.scenario.replace(name=name, steps=tuple(self.steps))


def _words(table: dict[str, Any]) -> str:
    """Return a step's keys in one line, its verb first."""
    keys = (f"{key}={value}" for key, value in table.items() if key not in ("do", "name"))
    return " ".join([str(table["do"]), *keys])


def outcome_text(outcome: Outcome) -> str:
    """Return an outcome in one line: ``ok``, or the errno with its function and reason."""
    if outcome:
        return "ok"
    where = f" by {outcome.function}" if outcome.function else ""
    doubt = f" ({outcome.certainty}: {outcome.doubt})" if outcome.doubt else ""
    return f"{outcome.errno or outcome.status}{where}: {outcome.why}{doubt}"


def event_text(event: Event) -> str:
    """Return an event in one line."""
    return f"{event.kind}: {event.text}" + (f" [{event.function}]" if event.function else "")


_States = tuple[PfnSet, PfnSet]


def _block_states(model: ModelMachine) -> _States:
    kernel = model.kernel
    return kernel.added_blocks.copy(), kernel.online_blocks.copy()


def _uevents(before: _States, after: _States) -> Sequence[str]:
    """Return what is announced: added and removed blocks, and those that changed their state.

    A block that is added and onlined by one step is announced twice, as by the kernel; of one that
    is removed, ``offline`` comes before ``remove``.
    Source: ``drivers/base/core.c: device_add, device_del, device_online, device_offline``.
    """
    added, online = before
    added_now, online_now = after
    lines = []
    for action, blocks in (
        ("offline", online - online_now),
        ("remove", added - added_now),
        ("add", added_now - added),
        ("online", online_now - online),
    ):
        lines += [f"{action}@/devices/system/memory/memory{block}" for block in blocks]
    return lines
