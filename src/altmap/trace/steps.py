"""A trace: the steps of a scenario, each with its outcome, events, faults and observation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from altmap.linux.observation import Observation
from altmap.pfn import PfnSet
from altmap.trace.event import Event, Fault
from altmap.trace.json_types import event_builtins, fault_builtins, outcome_builtins, pages_builtins
from altmap.trace.outcome import Outcome

__all__ = ("StepRecord", "Trace")


@dataclass(slots=True)
class StepRecord:
    """One step of a trace.

    Attributes
    ----------
    name : str
        The step's name; ``start`` for the state before the first step.
    action : dict
        The step as the scenario gave it.
    outcome : Outcome
    events : list of Event
    faults : list of Fault
    observation : Observation or None
        The machine after the step; ``None`` where it was not observed, as after a crash.
    backed : PfnSet or None
        The page frames that the platform backs after the step; ``None`` where that is not
        known, as on a real machine.
    """

    name: str
    action: dict[str, Any]
    outcome: Outcome
    events: list[Event] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    observation: Observation | None = None
    backed: PfnSet | None = None


@dataclass(slots=True)
class Trace:
    """A scenario as it ran on one target.

    Attributes
    ----------
    scenario, target, release, policy : str
        Which scenario; ``model`` or ``lab``; the kernel's release; the memmap policy.
    machine : dict
        The machine's parameters, as they were in force.
    steps : list of StepRecord
        The start first.
    notes : list of str
        Files that a sysroot lacks, and the assumptions made instead.
    scenario_sha256 : str
        Hash of the scenario as it was read, defaults filled in; empty if there was none.
    description : str
        The scenario's description.
    """

    scenario: str
    target: str
    release: str
    policy: str
    machine: dict[str, Any]
    steps: list[StepRecord]
    notes: list[str] = field(default_factory=list)
    scenario_sha256: str = ""
    description: str = ""

    def __repr__(self) -> str:
        counts = Counter(step.outcome.status for step in self.steps[1:])
        ended = "".join(f", {number} {status}" for status, number in counts.items())
        policy = f", policy {self.policy}" if self.policy else ""
        return f"<Trace of {self.scenario!r} on {self.target} {self.release}{policy}{ended}>"

    def _repr_html_(self) -> str:
        from altmap import _html

        return _html(self)

    def folder_names(self) -> list[str]:
        """Return ``00-start``, ``01-<step>``, ...: one folder name for each step."""
        width = max(2, len(str(len(self.steps) - 1)))
        return [f"{index:0{width}d}-{step.name}" for index, step in enumerate(self.steps)]

    def to_builtins(self) -> dict[str, Any]:
        """Return the trace as JSON's types, without observations (those are files of their own)."""
        steps = zip(self.folder_names(), self.steps, strict=True)
        return {
            "schema": "altmap-trace",
            "version": 1,
            "scenario": self.scenario,
            "scenario_sha256": self.scenario_sha256,
            "description": self.description,
            "target": self.target,
            "release": self.release,
            "policy": self.policy,
            "machine": self.machine,
            "notes": self.notes,
            "steps": [
                {
                    "folder": folder,
                    "name": step.name,
                    "action": step.action,
                    "result": outcome_builtins(step.outcome),
                    "events": [event_builtins(event) for event in step.events],
                    "faults": [fault_builtins(fault) for fault in step.faults],
                    "backed": None if step.backed is None else pages_builtins(step.backed, None),
                }
                for folder, step in steps
            ],
        }
