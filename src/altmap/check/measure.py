"""The value of each behaviour, from what a real kernel showed on the probes.

For each value that a record knows, the model predicts the probe; the value whose prediction equals
what was observed is the kernel's. A probe on which all values predict the same tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from altmap.check.behaviours import alternatives
from altmap.compare import compare
from altmap.errors import InputError
from altmap.model.machine import predict
from altmap.model.releases import Release
from altmap.scenario import Scenario
from altmap.trace import Trace

__all__ = ("Measured", "Probed", "measure", "measured_record")


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe as it ran on a real kernel, or why it could not run.

    Attributes
    ----------
    name : str
    measures : tuple of str
    scenario : Scenario
    trace : Trace or None
    why : str
        Why there is no trace.
    """

    name: str
    measures: tuple[str, ...]
    scenario: Scenario
    trace: Trace | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A behaviour of a real kernel.

    Attributes
    ----------
    behaviour : str
    verdict : str
        ``equal`` to the record, ``different`` (another value), ``unclear`` (no value predicts what
        was seen, or probes disagree) or ``not measured``.
    record, value : object
        Of the record, and of the kernel; ``None`` where it is not known.
    probe : str
        Which probe tells it: the one with the fewest steps.
    why : str
        Why it is unclear or not measured.
    """

    behaviour: str
    verdict: str
    record: Any
    value: Any = None
    probe: str = ""
    why: str = ""


def measure(
    record: Release, runs: Iterable[Probed], behaviours: Iterable[str]
) -> list[Measured]:
    """Return each behaviour as the runs tell it, in the order of *behaviours*."""
    ordered = sorted(runs, key=lambda run: len(run.scenario.steps))
    return [_measured(record, name, ordered) for name in behaviours]


def _measured(record: Release, name: str, runs: list[Probed]) -> Measured:
    expected = getattr(record, name)
    mine = [run for run in runs if name in run.measures]
    told: dict[str, tuple[Any, str]] = {}
    whys = []
    for run in mine:
        if run.trace is None:
            whys.append(f"{run.name}: {run.why}")
            continue
        scores = _scores(record, name, run)
        best = min(scores.values())
        values = [value for value in _values(record, name) if scores[repr(value)] == best]
        if len(set(scores.values())) == 1:
            whys.append(f"{run.name}: every value predicts the same")
        elif best and len(values) > 1:
            whys.append(f"{run.name}: no value predicts what was seen")
        else:
            # Several values may predict the same here; that of the record is taken first.
            value = expected if expected in values else values[0]
            told.setdefault(repr(value), (value, run.name))
    if len(told) == 1:
        ((value, probe),) = told.values()
        verdict = "equal" if value == expected else "different"
        return Measured(name, verdict, expected, value, probe)
    if told:
        why = "; ".join(f"{probe} shows {value!r}" for value, probe in told.values())
        return Measured(name, "unclear", expected, why=why)
    if any(run.trace is not None for run in mine):
        return Measured(name, "unclear", expected, why="; ".join(whys))
    return Measured(name, "not measured", expected, why="; ".join(whys) or "no probe tells it")


def _values(record: Release, name: str) -> list[Any]:
    """Return the values to try, the record's first."""
    expected = getattr(record, name)
    return [expected, *(value for value in alternatives(name) if value != expected)]


def _scores(record: Release, name: str, run: Probed) -> dict[str, int]:
    """Return for each value how many fields differ from what was observed."""
    assert run.trace is not None
    start = run.trace.steps[0].observation
    scores = {}
    for value in _values(record, name):
        try:
            predicted = predict(run.scenario, start, record=replace(record, **{name: value}))
        except InputError:
            continue  # a kernel of that kind has no such file or step
        scores[repr(value)] = _nr_different(predicted, run.trace)
    return scores


def _nr_different(predicted: Trace, observed: Trace) -> int:
    files = compare(predicted, observed).files
    return sum(not each.within for file in files for each in file.differences)


def measured_record(record: Release, found: Iterable[Measured]) -> Release:
    """Return the record with each value that was measured."""
    values: Mapping[str, Any] = {
        each.behaviour: each.value for each in found if each.verdict == "different"
    }
    return replace(record, **values)
