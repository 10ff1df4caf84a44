"""Running a scenario on a target: the model, or a real kernel. The result is a trace either way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.pfn import PfnSet
from altmap.scenario import Scenario, Step, step_name
from altmap.trace.outcome import OK
from altmap.trace.steps import StepRecord, Trace

__all__ = ("Target", "run_scenario", "scenario_sha256")


class Target(Protocol):
    """What performs steps and can be observed."""

    @property
    def identity(self) -> dict[str, Any]:
        """``target``, ``release``, ``policy``, ``machine``: the trace's heading."""
        ...

    @property
    def notes(self) -> list[str]:
        """Assumptions that the reader of the trace must know."""
        ...

    @property
    def crashed(self) -> bool:
        """Whether the kernel has crashed, so that no further observation is possible."""
        ...

    @property
    def backed(self) -> PfnSet | None:
        """The page frames that the platform backs, ``None`` where that is not known."""
        ...

    def observe(self) -> Observation:
        """Return what the machine's files show."""
        ...

    def perform(self, step: Step) -> StepRecord:
        """Perform one step."""
        ...


def run_scenario(
    scenario: Scenario, target: Target, progress: Callable[[str], None] = lambda _: None
) -> Trace:
    """Return the trace of a scenario on a target.

    Parameters
    ----------
    scenario : Scenario
    target : Target
    progress : callable
        Called with the name of each step before it is performed.

    Raises
    ------
    InputError
        If a step is invalid on every kernel; nothing of the trace is returned.
    """
    identity = target.identity  # steps may change parameters; the heading tells the start
    steps = [StepRecord("start", {}, OK, observation=target.observe(), backed=target.backed)]
    for index, step in enumerate(scenario.steps):
        progress(step_name(step))
        try:
            record = target.perform(step)
        except InputError as error:
            raise InputError(f"steps[{index}] {step_name(step)}: {error}") from error
        if not target.crashed:
            record.observation = target.observe()
        record.backed = target.backed
        steps.append(record)
    return Trace(
        scenario=scenario.name,
        steps=steps,
        notes=target.notes,
        scenario_sha256=scenario_sha256(scenario),
        description=scenario.description,
        **identity,
    )


def scenario_sha256(scenario: Scenario) -> str:
    """Return the hash of a scenario's content, without its comments and layout."""
    return hashlib.sha256(msgspec.json.encode(scenario, enc_hook=int)).hexdigest()
