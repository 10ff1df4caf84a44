"""Run a chunk's scenarios one after the other; common prefixes run once.

Scenarios with common prefixes (the same machine, then the same steps) form a tree. They are visited
in an order that reaches each branching point once: there the machine is saved as bytes, from which
every branch starts with its own copy.

Effects: clock.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.model.kernel.accounting import Policy
from altmap.model.machine import ModelMachine
from altmap.scenario import Scenario, build_scenario, step_name
from altmap.sweep.grid import Point
from altmap.sweep.row import MachineNumbers, SweepRow, columns_of, row_of_error, row_of_run
from altmap.trace import StepRecord

__all__ = ("rows_of",)

_DIGEST_LETTERS = 32


@dataclass(slots=True)
class _ScenarioRun:
    """A running scenario.

    Attributes
    ----------
    machine : ModelMachine
    start : MachineNumbers
    records : list of StepRecord
        Records of the steps so far.
    end : dict of str to object
        Columns of all scenarios that end here; empty until the last step is done.
    """

    machine: ModelMachine
    start: MachineNumbers
    records: list[StepRecord] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def boot(cls, scenario: Scenario, policies: Mapping[str, Policy]) -> _ScenarioRun:
        policy = policies.get(scenario.machine.policy or "")
        machine = ModelMachine.start(scenario.machine, policy=policy, pages=False)
        machine.kernel.log.disable()  # rows have no events
        return cls(machine, MachineNumbers.of(machine.kernel))

    def perform(self, scenario: Scenario, depth: int) -> None:
        """Perform steps up to the given number."""
        for step in scenario.steps[len(self.records) : depth]:
            try:
                record = self.machine.perform(step)
            except InputError as error:
                at = len(self.records)
                raise InputError(f"steps[{at}] {step_name(step)}: {error}") from error
            self.records.append(record)


@dataclass(frozen=True, slots=True)
class _Task:
    """A scenario that can be run.

    Attributes
    ----------
    point : Point
    scenario : Scenario
    path : tuple of bytes
        The machine, then each step, encoded; scenarios share a prefix of it.
    """

    point: Point
    scenario: Scenario
    path: tuple[bytes, ...]


def rows_of(points: Sequence[Point], policies: Mapping[str, Policy]) -> list[SweepRow]:
    """Return the row of each point, in their order.

    Parameters
    ----------
    points : sequence of Point
    policies : dict of str to Policy
        Policies of the user, by the name that points have for them.
    """
    rows: list[SweepRow] = []
    tasks: list[_Task] = []
    for point in points:
        try:
            tasks.append(_task(point))
        except InputError as error:
            rows.append(row_of_error(point, error, invalid=True))
        except Exception as error:
            rows.append(row_of_error(point, error, invalid=False))
    rows.extend(_visit(sorted(tasks, key=lambda task: task.path), policies))
    return sorted(rows, key=lambda row: row.scenario)


def _task(point: Point) -> _Task:
    if point.error:
        raise InputError(point.error)
    scenario = build_scenario(point.data)
    parts = (scenario.machine, *scenario.steps)
    return _Task(point, scenario, tuple(msgspec.json.encode(part, enc_hook=int) for part in parts))


def _visit(tasks: Sequence[_Task], policies: Mapping[str, Policy]) -> Iterator[SweepRow]:
    """Yield the rows of tasks that are sorted by path."""
    saved: list[tuple[int, bytes]] = []
    before: _Task | None = None
    run: _ScenarioRun | None = None
    for task, following in pairwise((*tasks, None)):
        assert task is not None  # only the last one is
        started = time.process_time()
        shared = _common(before, task)
        while saved and saved[-1][0] > shared:
            saved.pop()
        try:
            if run is None or before is None or task.path != before.path:
                run = None
                fresh = _run(task.scenario, policies, _common(task, following), saved)
                fresh.end = {"digest": _digest(task), **columns_of(fresh.machine, fresh.start)}
                run = fresh
            row = row_of_run(task.point, task.scenario, run.records, run.end)
        except InputError as error:
            row = row_of_error(task.point, error, invalid=True)
        except Exception as error:
            row = row_of_error(task.point, error, invalid=False)
        row.cpu_seconds = time.process_time() - started
        yield row
        before = task


def _common(one: _Task | None, other: _Task | None) -> int:
    """Return how many steps two scenarios share; -1 if their machines differ."""
    if one is None or other is None:
        return -1
    pairs = zip(one.path, other.path, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) - 1


def _run(
    scenario: Scenario,
    policies: Mapping[str, Policy],
    ahead: int,
    saved: list[tuple[int, bytes]],
) -> _ScenarioRun:
    """Run a scenario from the last saved prefix; save it where the next scenario branches off.

    Parameters
    ----------
    scenario : Scenario
    policies : dict of str to Policy
    ahead : int
        Steps that the next scenario shares, -1 if the machines differ.
    saved : list of (int, bytes)
        Number of steps and the pickled run, deepest last.
    """
    done, kept = saved[-1] if saved else (-1, b"")
    run: _ScenarioRun = pickle.loads(kept) if kept else _ScenarioRun.boot(scenario, policies)
    if done < ahead < len(scenario.steps):
        run.perform(scenario, ahead)
        saved.append((ahead, pickle.dumps(run, pickle.HIGHEST_PROTOCOL)))
    run.perform(scenario, len(scenario.steps))
    return run


def _digest(task: _Task) -> str:
    return hashlib.sha256(b"\n".join(task.path)).hexdigest()[:_DIGEST_LETTERS]
