"""What of the claims a real kernel can show: the same measure on a guest and on its prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from altmap.studies.claims.claim import Experiment, Load, Measure, Value
from altmap.studies.claims.measure import (
    counter_at,
    gained_kb,
    hosted_shown,
    kept_back_pages,
    missing_kb,
    most_hosted_in_a_block,
    touched_pages,
    used_kb_at,
    written_hosted,
)
from altmap.trace import Trace
from altmap.verify.both_sides import run_on_both

__all__ = (
    "REAL",
    "Agreement",
    "RealCase",
    "agreements",
    "agreements_builtins",
    "agreements_text",
    "cases_of",
)

#: What processes of a guest come and go by, and slab for each of eight blocks, as in comparisons.
_FREE_KB = (512 + 8 * 16) * 4


@dataclass(frozen=True, slots=True)
class RealCase:
    """One number of a claim that a guest shows.

    Attributes
    ----------
    claim : str
        Its id.
    label : str
    experiment : Experiment
        Without a policy: the kernel has its own.
    measure : Measure
        Reads it off either trace.
    unit : str
    tolerance : int
        How far the two may be apart; 0 where the number is exact.
    slow : bool
        Left out unless asked for: minutes, and much memory of the host.
    """

    claim: str
    label: str
    experiment: Experiment
    measure: Measure
    unit: str
    tolerance: int = 0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of a case on the real kernel and on the model."""

    case: RealCase
    observed: Value
    predicted: Value

    @property
    def agrees(self) -> bool:
        """Whether the two are equal, or within the tolerance."""
        if isinstance(self.observed, int) and isinstance(self.predicted, int):
            return abs(self.observed - self.predicted) <= self.case.tolerance
        return self.observed == self.predicted


def agreements(
    cases: Sequence[RealCase], load: Load, release: str | None, progress: Callable[[str], None]
) -> list[Agreement]:
    """Measure cases of claims on a real kernel, and on the model that starts where it had booted.

    Each experiment is run once on either.
    """
    traces: dict[Experiment, tuple[Trace, Trace]] = {}
    for case in cases:
        if case.experiment not in traces:
            scenario = load(case.experiment.scenario, case.experiment.settings)
            scenario = scenario.with_machine(release=release)
            traces[case.experiment] = run_on_both(scenario, progress, watch_writes=True)
    return [
        Agreement(case, *(case.measure([trace]) for trace in traces[case.experiment]))
        for case in cases
    ]


def _gib(mode: str) -> Experiment:
    return Experiment("real-round-trip", (f"memmap_on_memory={mode}",))


_BIG = Experiment("real-big-blocks", ())


def _both(claim: str, what: str, measure: Measure, unit: str, tolerance: int = 0) -> list[RealCase]:
    return [
        RealCase(
            claim, f"1 GiB, memmap_on_memory {mode}: {what}", _gib(mode), measure, unit, tolerance
        )
        for mode in ("off", "on")
    ]


_ONLINE = 2  # the step of the scenario after which 1 GiB is online

#: Every case, in the order of the claims.
REAL: tuple[RealCase, ...] = (
    *_both("C1", "MemTotal gains", gained_kb("MemTotal", _ONLINE), "kB"),
    *_both("C1", "in use", used_kb_at(_ONLINE), "kB", _FREE_KB),
    *_both("C2", "present, but not managed", kept_back_pages(_ONLINE), "pages"),
    *_both("C3", "nr_memmap_pages gains at add", counter_at(1), "pages"),
    *_both("C3", "nr_memmap_pages left after removal", counter_at(-1), "pages"),
    *_both("C4", "missing of what was requested", missing_kb(_ONLINE), "kB"),
    *_both("C5", "pages of the DIMM that hold its memmap", hosted_shown(_ONLINE), "pages"),
    *_both("C12", "first block, written before online", touched_pages(before_online=True), "pages"),
    RealCase(
        "C13",
        "1 GiB, memmap_on_memory on: most memmap pages in a block",
        _gib("on"),
        most_hosted_in_a_block(_ONLINE),
        "pages",
    ),
    RealCase(
        "C13",
        "1 GiB, memmap_on_memory on: first block's memmap pages that are written",
        _gib("on"),
        written_hosted(_ONLINE),
        "pages",
    ),
    RealCase(
        "C15",
        "2 GiB block: memmap pages in it",
        _BIG,
        most_hosted_in_a_block(_ONLINE),
        "pages",
        slow=True,
    ),
)


def cases_of(ids: Sequence[str], *, slow: bool) -> list[RealCase]:
    """Return the cases of claims by id, all if none is named; slow ones only if asked for."""
    wanted = {id_.upper() for id_ in ids}
    return [
        case for case in REAL if (not wanted or case.claim in wanted) and (slow or not case.slow)
    ]


def agreements_text(found: Sequence[Agreement]) -> str:
    """Return a line for each case, claims in order, and a summary."""
    lines, last = [], ""
    for item in found:
        head = item.case.claim if item.case.claim != last else ""
        last = item.case.claim
        mark = "=" if item.agrees else "!"
        unit = f" {item.case.unit}" if isinstance(item.observed, int) else ""
        value = f"{item.observed}{unit}"
        said = "" if item.observed == item.predicted else f" (model: {item.predicted})"
        within = f" within {item.case.tolerance}" if item.agrees and said else ""
        lines.append(f"{head:5}{mark} {value:>16}  {item.case.label}{said}{within}")
    wrong = sum(not item.agrees for item in found)
    lines.append(
        f"\n{len(found)} numbers of a real kernel: {len(found) - wrong} as the model says, "
        f"{wrong} not."
    )
    return "\n".join(lines) + "\n"


def agreements_builtins(found: Sequence[Agreement], release: str) -> dict[str, Any]:
    """Return the same as JSON's types."""
    made = [
        {
            "claim": item.case.claim,
            "label": item.case.label,
            "observed": item.observed,
            "predicted": item.predicted,
            "unit": item.case.unit,
            "tolerance": item.case.tolerance,
            "agrees": item.agrees,
        }
        for item in found
    ]
    return {"schema": "altmap-claims-lab", "version": 1, "release": release, "numbers": made}
