"""The record that predicts best what a real kernel showed on the probes.

The search starts from the record of a release. As long as a probe differs from its prediction, one
behaviour is given another value that some record knows: the one that leaves the fewest fields
different and makes no probe worse. Then each behaviour is *told* by the probes whose predictions
differ between its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from altmap.compare import FileVerdict, compare, compare_layout
from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine, predict
from altmap.model.releases import Release
from altmap.scenario import Scenario
from altmap.trace import Trace
from altmap.verify.check.behaviours import BEHAVIOURS, others, value_on

__all__ = ("MeasuredBehaviour", "Measurement", "Probed", "measure", "shown_release")

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
    measures : tuple of str
        Behaviours that it can tell.
    rule : str
        What it confirms, if it measures none.
    boot : bool
        What the kernel shows after its boot counts too, compared with a synthetic boot state.
    kept : bool
        It ran in an earlier check.
    """

    name: str
    scenario: Scenario
    trace: Trace | None = None
    why: str = ""
    measures: tuple[str, ...] = ()
    rule: str = ""
    boot: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredBehaviour:
    """A behaviour of a real kernel.

    Attributes
    ----------
    behaviour : str
    verdict : str
        ``equal`` to the record, ``different``, ``unclear`` (the probes that tell it differ from
        every prediction) or ``not measured``.
    record, value : object
        Of the record, and of the kernel, on its architecture: whether it is among the
        architectures that a record lists.
    probe : str
        The smallest probe that tells it.
    alike : list of object
        Other values of records that would show the same on each probe.
    why : str
        Why it was not measured.
    """

    behaviour: str
    verdict: str
    record: Any
    value: Any = None
    probe: str = ""
    alike: list[Any] = field(default_factory=list)
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probes tell about a kernel.

    Attributes
    ----------
    kernel, arch : str
    base : Release
        Where the search started: the measure.
    record : Release
        The record with the values that were measured.
    behaviours : list of MeasuredBehaviour
    confirmed : dict of str to str
        Probes that confirm rules, and what each confirms.
    different : dict of str to int
        Probes whose prediction by that record still differs, with the number of fields.
    failed : dict of str to str
        Probes that could not run, and why.
    machine : dict
        The real kernel's packages, and its emulator.
    """

    kernel: str
    arch: str
    base: Release
    record: Release
    behaviours: list[MeasuredBehaviour]
    confirmed: dict[str, str]
    different: dict[str, int]
    failed: dict[str, str]
    machine: dict[str, Any]


def shown_release(runs: Sequence[Probed]) -> str | None:
    """Return the name that a kernel shows as its own, with its point release; ``None`` without."""
    starts = (run.trace.steps[0].observation for run in runs if run.trace is not None)
    return next((start.release for start in starts if start is not None), None)


def measure(
    record: Release,
    arch: str,
    runs: Iterable[Probed],
    behaviours: Sequence[str],
    cannot: Mapping[str, str] | None = None,
    kernel: str = "",
    predicted: Predict = lambda scenario, start, record: predict(scenario, start, record=record),
) -> Measurement:
    """Return what the runs tell about some behaviours of a kernel.

    Parameters
    ----------
    record : Release
        Where the search starts.
    arch : str
        Of the kernel, as a scenario has it.
    runs : iterable of Probed
    behaviours : sequence of str
        Those to tell. The search changes the others too, since each probe depends on several.
    cannot : mapping of str to str, optional
        Why a behaviour that no run tells could not be measured.
    kernel : str
        Its name, for the reader.
    predicted : callable
        Predicts a scenario with a record.
    """
    every = sorted(runs, key=lambda run: len(run.scenario.steps))
    scores = _Scores([run for run in every if run.trace is not None], predicted)
    found = _best(record, arch, scores)
    different = {run.name: nr for run in scores.runs if (nr := scores.of(run, found))}
    failed = [run for run in every if run.trace is None]
    return Measurement(
        kernel,
        arch,
        record,
        found,
        [
            _measured(record, found, arch, name, scores)
            or MeasuredBehaviour(
                name,
                "not measured",
                value_on(arch, name, record),
                why=_why(name, arch, record, every, cannot or {}),
            )
            for name in behaviours
        ],
        {run.name: run.rule for run in scores.runs if run.rule and run.name not in different},
        different,
        {run.name: run.why for run in failed},
        next((run.trace.machine for run in scores.runs if run.trace is not None), {}),
    )


class _Scores:
    """How many fields differ between a probe and its prediction by a record; kept once counted."""

    def __init__(self, runs: list[Probed], predicted: Predict) -> None:
        self.runs, self._predicted = runs, predicted
        self._known: dict[tuple[str, str], int] = {}

    def of(self, run: Probed, record: Release) -> int:
        key = run.name, repr([getattr(record, name) for name in BEHAVIOURS])
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
        of_boot = _of_boot(run.scenario, start, record) if run.boot else 0
        return _nr_different(files) + of_boot


_IMPOSSIBLE = 10**6


def _of_boot(scenario: Scenario, start: Observation, record: Release) -> int:
    booted = ModelMachine.start(scenario.machine, record=record).observe()
    nr_different = _nr_different(compare_layout(booted, start, "boot"))
    beside = (
        booted.arch_file != start.arch_file,
        booted.balloon != start.balloon,
        booted.parameters.keys() != start.parameters.keys(),
    )
    return nr_different + sum(beside)


def _nr_different(files: Iterable[FileVerdict]) -> int:
    return sum(not each.within for file in files for each in file.differences)


def _best(record: Release, arch: str, scores: _Scores) -> Release:
    """Change one behaviour at a time, as long as fewer fields differ."""
    while (better := _better(record, arch, scores)) is not None:
        record = better
    return record


def _better(record: Release, arch: str, scores: _Scores) -> Release | None:
    """Return the record with one other value that most fields less differ from, if no probe more.

    Probes that do not differ are asked of the best candidates only.
    """
    differing = [run for run in scores.runs if scores.of(run, record)]
    if not differing:
        return None
    gains = [
        (sum(scores.of(run, record) - scores.of(run, other) for run in differing), other)
        for name in BEHAVIOURS
        for other in others(arch, name, record)
    ]
    for gain, other in sorted(gains, key=lambda each: each[0], reverse=True):
        if gain > 0 and all(scores.of(run, other) <= scores.of(run, record) for run in scores.runs):
            return other
    return None


def _measured(
    record: Release, found: Release, arch: str, name: str, scores: _Scores
) -> MeasuredBehaviour | None:
    """Return a behaviour's value, if a probe tells it from another one that records know."""
    expected, value = (value_on(arch, name, each) for each in (record, found))
    told_by, unclear = list[str](), list[str]()
    alike = []
    for other in others(arch, name, found):
        tellers = list(_tellers(name, found, other, scores))
        exact = [run.name for run in tellers if not scores.of(run, found)]
        told_by += exact[:1]
        unclear += [run.name for run in tellers[:1] if not exact]
        if not tellers:
            alike.append(value_on(arch, name, other))
    if told_by:
        verdict = "equal" if value == expected else "different"
        return MeasuredBehaviour(name, verdict, expected, value, told_by[0], alike)
    if unclear:
        return MeasuredBehaviour(name, "unclear", expected, value, unclear[0])
    return None


def _tellers(name: str, found: Release, other: Release, scores: _Scores) -> Iterator[Probed]:
    """Yield the probes of a behaviour that another value predicts worse."""
    for run in scores.runs:
        if name in run.measures and scores.of(run, other) > scores.of(run, found):
            yield run


def _why(
    name: str, arch: str, record: Release, runs: Sequence[Probed], cannot: Mapping[str, str]
) -> str:
    """Return why a behaviour was not measured."""
    if not others(arch, name, record):
        return f"each record says the same of {arch}"
    mine = [run for run in runs if name in run.measures]
    failed = next((run for run in mine if run.trace is None), None)
    if failed is not None:
        return f"{failed.name}: {failed.why}"
    return cannot.get(name) or "other values would show the same on this kernel"
