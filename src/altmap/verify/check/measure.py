"""The record that predicts best what a real kernel showed on the probes.

The search starts from the record of a release. As long as a probe differs from its prediction, one
behaviour is given another value that some record knows: the one that leaves the fewest fields
different and makes no probe worse. Then each behaviour is *told* by the probes whose predictions
differ between its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from altmap.compare import compare
from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.machine import predict
from altmap.model.releases import Release
from altmap.scenario import Scenario
from altmap.trace import Trace
from altmap.verify.check.behaviours import others, value_on

__all__ = ("MeasuredBehaviour", "Measurement", "Probed", "measure")

#: Predicts a scenario from the start of a real kernel with a record.
Predict = Callable[[Scenario, Observation, Release], Trace]


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe as it ran on a real kernel, or why it could not run.

    Attributes
    ----------
    name : str
    scenario : Scenario
    trace : Trace or None
    why : str
        Why there is no trace.
    """

    name: str
    scenario: Scenario
    trace: Trace | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredBehaviour:
    """A behaviour of a real kernel.

    Attributes
    ----------
    behaviour : str
    verdict : str
        ``equal`` to the record, ``different``, ``unclear`` (the probes that tell it differ from
        every prediction) or ``not measured`` (no probe that ran tells it).
    record, value : object
        Of the record, and of the kernel, on its architecture: whether it is among the
        architectures that a record lists.
    probe : str
        The smallest probe that tells it.
    """

    behaviour: str
    verdict: str
    record: Any
    value: Any = None
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probes tell about a kernel.

    Attributes
    ----------
    record : Release
        The record with the values that were measured.
    behaviours : list of MeasuredBehaviour
    different : dict of str to int
        Probes whose prediction by that record still differs, with the number of fields.
    failed : dict of str to str
        Probes that could not run, and why.
    """

    record: Release
    behaviours: list[MeasuredBehaviour]
    different: dict[str, int]
    failed: dict[str, str]


def measure(
    record: Release,
    arch: str,
    runs: Iterable[Probed],
    behaviours: Sequence[str],
    predicted: Predict = lambda scenario, start, record: predict(scenario, start, record=record),
) -> Measurement:
    """Return what the runs tell about some behaviours of a kernel.

    Parameters
    ----------
    record : Release
        Where the search starts.
    arch : str
        Of the kernel, by ``uname -m``.
    runs : iterable of Probed
    behaviours : sequence of str
    predicted : callable
        Predicts a scenario with a record.
    """
    ran = sorted(runs, key=lambda run: len(run.scenario.steps))
    scores = _Scores([run for run in ran if run.trace is not None], predicted)
    found = _best(record, arch, behaviours, scores)
    return Measurement(
        found,
        [_measured(record, found, arch, name, scores) for name in behaviours],
        {run.name: nr for run in scores.runs if (nr := scores.of(run, found))},
        {run.name: run.why for run in ran if run.trace is None},
    )


class _Scores:
    """How many fields differ between a probe and its prediction by a record; kept once counted."""

    def __init__(self, runs: list[Probed], predicted: Predict) -> None:
        self.runs, self._predicted = runs, predicted
        self._known: dict[tuple[str, str], int] = {}

    def of(self, run: Probed, record: Release) -> int:
        key = run.name, repr(record)
        if key not in self._known:
            self._known[key] = self._count(run, record)
        return self._known[key]

    def _count(self, run: Probed, record: Release) -> int:
        assert run.trace is not None
        start = run.trace.steps[0].observation
        assert start is not None
        try:
            files = compare(self._predicted(run.scenario, start, record), run.trace).files
        except InputError:
            return _IMPOSSIBLE  # a kernel of that kind has no such file or device
        return sum(not each.within for file in files for each in file.differences)


_IMPOSSIBLE = 10**6


def _best(record: Release, arch: str, behaviours: Sequence[str], scores: _Scores) -> Release:
    """Change one behaviour at a time, as long as fewer fields differ."""
    while any(scores.of(run, record) for run in scores.runs):
        candidates = [
            (*_gain(record, other, scores), other)
            for name in behaviours
            for other in others(arch, name, record)
        ]
        spares, gain, best = max(candidates, key=lambda each: each[:2])
        if gain <= 0 or not spares:
            break
        record = best
    return record


def _gain(record: Release, other: Release, scores: _Scores) -> tuple[bool, int]:
    """Return whether no probe is predicted worse, and how many fields fewer differ."""
    before = [scores.of(run, record) for run in scores.runs]
    after = [scores.of(run, other) for run in scores.runs]
    pairs = list(zip(before, after, strict=True))
    return all(new <= old for old, new in pairs), sum(old - new for old, new in pairs)


def _measured(
    record: Release, found: Release, arch: str, name: str, scores: _Scores
) -> MeasuredBehaviour:
    """Return a behaviour's value, if a probe tells it from another one that records know."""
    expected, value = (value_on(arch, name, each) for each in (record, found))
    unclear = ""
    for run in scores.runs:
        nr = scores.of(run, found)
        if all(scores.of(run, other) <= nr for other in others(arch, name, found)):
            continue
        if not nr:
            verdict = "equal" if value == expected else "different"
            return MeasuredBehaviour(name, verdict, expected, value, run.name)
        unclear = unclear or run.name
    verdict = "unclear" if unclear else "not measured"
    return MeasuredBehaviour(name, verdict, expected, value if unclear else None, unclear)
