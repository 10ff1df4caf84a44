"""What a comparison found: a verdict for each file after each step, and the fields that differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

from altmap.linux.sysroot import Sysroot
from altmap.pfn import PfnSet
from altmap.trace import Trace

__all__ = ("Comparison", "Difference", "FileVerdict", "Verdict", "value_text")

#: Runs of page frames shown for one value; the rest is counted.
_MOST_RUNS = 3


class Verdict(StrEnum):
    """How a file's prediction compares with the observation."""

    EQUAL = "equal"
    TOLERATED = "equal within tolerance"
    DIFFERENT = "different"
    MISSING = "not compared"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field whose prediction and observation differ.

    Attributes
    ----------
    field : str
    predicted, observed : str
        ``absent`` where a side does not show the field.
    source : str
        The kernel file and function that decide the value.
    tolerance : str
        Empty for an exact field; else how far the two may be apart, and why.
    within : bool
        The difference is within the tolerance.
    """

    field: str
    predicted: str
    observed: str
    source: str
    tolerance: str = ""
    within: bool = False


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """One file after one step.

    Attributes
    ----------
    step, file : str
    verdict : Verdict
    nr_fields : int
        Fields compared, those that are equal included.
    differences : tuple of Difference
    """

    step: str
    file: str
    verdict: Verdict
    nr_fields: int
    differences: tuple[Difference, ...] = ()

    @classmethod
    def of(
        cls, step: str, file: str, nr_fields: int, differences: tuple[Difference, ...]
    ) -> FileVerdict:
        """Return the verdict that follows from the differences of a file's fields."""
        if not nr_fields:
            verdict = Verdict.MISSING
        elif not differences:
            verdict = Verdict.EQUAL
        elif all(difference.within for difference in differences):
            verdict = Verdict.TOLERATED
        else:
            verdict = Verdict.DIFFERENT
        return cls(step, file, verdict, nr_fields, differences)


@dataclass(slots=True)
class Comparison:
    """Every file after every step.

    Attributes
    ----------
    predicted, observed : str
        Target and release of each trace: ``model 6.12``, ``lab 6.12``.
    files : list of FileVerdict
    provenance : dict of str to str
        What is needed to repeat the comparison: scenario, kernel, programs.
    traces : tuple of Trace
        Prediction and observation.
    sysroots : list of Sysroot
        The files behind the observations of a guest that ran for this comparison.
    """

    predicted: str
    observed: str
    files: list[FileVerdict] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    traces: tuple[Trace, ...] = ()
    sysroots: list[Sysroot] = field(default_factory=list)

    def to_builtins(self, scenario: str) -> dict[str, Any]:
        """Return the comparison as JSON's types, without the traces."""
        return {
            "schema": "altmap-comparison",
            "version": 1,
            "scenario": scenario,
            "predicted": self.predicted,
            "observed": self.observed,
            "equal": self.equal,
            "provenance": self.provenance,
            "files": [asdict(file) for file in self.files],
        }

    @property
    def equal(self) -> bool:
        """Whether no field differs beyond its tolerance."""
        return all(file.verdict is not Verdict.DIFFERENT for file in self.files)


def value_text(value: object) -> str:
    """Return a field's value in one line; ``None`` is a value that a side does not show."""
    if isinstance(value, PfnSet):
        shown = " ".join(str(run) for run in islice(value.ranges(), _MOST_RUNS))
        more = " …" if value.nr_ranges() > _MOST_RUNS else ""
        return f"{len(value)} pages {shown}{more}".rstrip()
    if isinstance(value, dict):
        return "; ".join(f"{key}: {value_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "absent" if value is None else str(value)
