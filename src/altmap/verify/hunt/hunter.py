"""The hunt: draw, run on both sides, repeat what differs, make it smaller, keep it.

Effects: clock, processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from altmap.compare import Comparison
from altmap.errors import InputError, LabError
from altmap.lab.side_by_side import check_interrupted, side_by_side
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Scenario, scenario_text
from altmap.storage.lines import LineFile
from altmap.trace import Trace
from altmap.verify.hunt.complaints import complaints_of
from altmap.verify.hunt.coverage import Coverage, features_of
from altmap.verify.hunt.draw import draw_scenario
from altmap.verify.hunt.finding import HuntFinding, log_of
from altmap.verify.hunt.judge import Judgement, judge
from altmap.verify.hunt.shrink import shrink
from altmap.verify.hunt.space import Family
from altmap.verify.hunt.store import HuntStore, RunRow

__all__ = ("Hunt", "HuntResult", "hunt")

#: Runs of a scenario that differs, the first included. A difference that all of them show is
#: certain; else it counts as chance.
_NR_RUNS = 3
_MOST_TRIES = 40

#: Runs a scenario on the model and on a real kernel.
RunBoth = Callable[[Scenario], Comparison]


@dataclass(frozen=True, slots=True)
class Hunt:
    """What is hunted, and how long.

    Attributes
    ----------
    family : Family
    release : str
    seed : int
    seconds : float
        No scenario is started after this time. One that differs is still repeated and made
        smaller.
    most_scenarios : int or None
        End after so many.
    nr_guests : int
        Guests side by side. With one, the same seed draws the same scenarios.
    """

    family: Family
    release: str
    seed: int
    seconds: float
    most_scenarios: int | None = None
    nr_guests: int = 1


@dataclass(slots=True)
class HuntResult:
    """What a hunt did.

    Attributes
    ----------
    rows : list of RunRow
    new : list of str
        Keys of findings that were not there before.
    seconds : float
    """

    rows: list[RunRow] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    seconds: float = 0.0


def hunt(
    plan: Hunt, store: HuntStore, run_both: RunBoth, progress: Callable[[str], None]
) -> HuntResult:
    """Hunt until the time is over, and return what was found.

    Scenarios of the same kind, release and seed that have run before are not run again.

    Parameters
    ----------
    plan : Hunt
    store : HuntStore
    run_both : callable
        Runs a scenario on both sides; raises InputError if the lab cannot perform it, LabError if
        the guest fails.
    progress : callable
        Takes a line for each scenario.

    Raises
    ------
    InputError
        If another hunt has the same seed, or the folder cannot be read or written.
    """
    name = f"{plan.family.name}-{plan.release}-{plan.seed}"
    with store.open_runs(name) as file:
        hunter = _Hunter(plan, store, file, run_both, progress)
        with side_by_side(plan.nr_guests) as pool:
            for job in [pool.submit(hunter.work) for _ in range(plan.nr_guests)]:
                job.result()
        return hunter.result()


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a scenario on both sides; *verdict* is what it is if nothing differs."""

    verdict: str
    judgement: Judgement = field(default_factory=Judgement)
    predicted: Trace | None = None
    observed: Trace | None = None
    sysroots: list[Sysroot] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    why: str = ""


class _Hunter:
    def __init__(
        self,
        plan: Hunt,
        store: HuntStore,
        file: LineFile,
        run_both: RunBoth,
        progress: Callable[[str], None],
    ) -> None:
        self._plan, self._store, self._file = plan, store, file
        self._run_both, self._progress = run_both, progress
        self._coverage: Coverage = store.coverage()
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._numbers = self._left(len(file.lines))
        self._result = HuntResult()

    def _left(self, first: int) -> Iterator[int]:
        """Yield the numbers of the scenarios to run, until the time is over."""
        most = self._plan.most_scenarios
        number = first
        while time.monotonic() - self._began < self._plan.seconds:
            if most is not None and number - first >= most:
                return
            yield number
            number += 1

    def result(self) -> HuntResult:
        self._result.seconds = time.monotonic() - self._began
        return self._result

    def work(self) -> None:
        """Run one scenario after the other."""
        while True:
            with self._lock:
                number = next(self._numbers, None)
                if number is None:
                    return
                plan = self._plan
                scenario, predicted = draw_scenario(
                    plan.family, plan.release, plan.seed, number, self._coverage
                )
            row, kept = self._hunted(scenario, predicted)
            check_interrupted()
            with self._lock:
                self._coverage.add(row.model, row.kernel)
                self._file.add(msgspec.json.encode(row))
                self._result.rows.append(row)
                if kept:
                    self._result.new.append(row.key)
            self._progress(f"{row.name}: {row.verdict} {row.key or row.why}".rstrip())

    def _hunted(self, scenario: Scenario, predicted: frozenset[str]) -> tuple[RunRow, bool]:
        began, kept, key = time.monotonic(), False, ""
        run = self._run(scenario)
        verdict = run.verdict
        if run.judgement.reason:
            key = run.judgement.key
            certain = self._store.is_certain(key)  # of a scenario before: not examined again
            if not certain:
                finding, kept = self._examined(scenario, run.judgement)
                certain = finding.certain
            verdict = "finding" if certain else "chance"
        row = RunRow(
            name=scenario.name,
            verdict=verdict,
            nr_steps=len(scenario.steps),
            seconds=round(time.monotonic() - began, 1),
            key=key,
            model=sorted(predicted),
            kernel=sorted(features_of(run.observed)) if run.observed else [],
            why=run.why,
            scenario=scenario_text(scenario) if run.why else "",
        )
        return row, kept

    def _examined(self, scenario: Scenario, first: Judgement) -> tuple[HuntFinding, bool]:
        """Repeat a scenario that differs, make it smaller if it does each time, and keep it."""

        def shows(other: Scenario) -> bool:
            return self._run(other).judgement.key == first.key

        nr_shown = 1 + sum(shows(scenario) for _ in range(_NR_RUNS - 1))
        smallest = scenario
        if nr_shown == _NR_RUNS:
            smallest, _ = shrink(scenario, shows, _MOST_TRIES)
        run = self._run(smallest)
        judgement = run.judgement if run.judgement.key == first.key else first
        finding = HuntFinding(
            key=first.key,
            reason=first.reason,
            lines=judgement.lines,
            nr_runs=_NR_RUNS,
            nr_shown=nr_shown,
            drawn=scenario.name,
            scenario=scenario_text(smallest),
            kernel=run.provenance,
            predicted_log=log_of(run.predicted) if run.predicted else (),
            kernel_log=log_of(run.observed) if run.observed else (),
        )
        return finding, self._store.add_finding(finding, run.observed, run.sysroots)

    def _run(self, scenario: Scenario) -> _Run:
        try:
            comparison = self._run_both(scenario)
        except InputError as error:
            return _Run("cannot", why=str(error))
        except LabError as error:
            check_interrupted()
            complaints = complaints_of(error.console.splitlines())  # the guest died of its kernel
            why = str(error).splitlines()[0]
            return _Run("failed", Judgement(complaints, complaints), why=why)
        predicted, observed = comparison.traces
        judgement = judge(comparison, observed)
        provenance = comparison.provenance
        return _Run("equal", judgement, predicted, observed, comparison.sysroots, provenance)
