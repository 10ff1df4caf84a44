"""A claim as data, and the verdict that its experiments come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.model.machine import predict
from altmap.scenario import Plug, Scenario
from altmap.trace import Trace

__all__ = (
    "HOLDS",
    "NOT_TESTABLE",
    "REFUTED",
    "Claim",
    "ClaimCase",
    "Experiment",
    "Finding",
    "Load",
    "Measure",
    "Measured",
    "Value",
    "claims_named",
    "judge",
    "run_cases",
    "scenario_of",
)

HOLDS, REFUTED, NOT_TESTABLE = "holds", "refuted", "not testable here"

Value = int | str
#: Reads one number or word off the traces of a case.
Measure = Callable[[Sequence[Trace]], Value]
#: Reads a scenario of the package by its file's name, with settings as ``altmap run --set``.
Load = Callable[[str, Sequence[str]], Scenario]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run of one scenario.

    Attributes
    ----------
    scenario : str
        Name of the file in ``claims/scenarios``.
    settings : tuple of str
        ``KEY=VALUE`` for the machine, the policy among them, as ``altmap run --set`` takes them.
    plug : tuple of str
        ``size=`` and ``address=`` that replace those of the first plug step.
    """

    scenario: str
    settings: tuple[str, ...] = ()
    plug: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimCase:
    """One measurement, and what it must be if the claim is right.

    Attributes
    ----------
    label : str
    experiments : tuple of Experiment
        Several where the number needs a sweep.
    measure : Measure
    unit : str
    claimed : int, str, range or None
        A range holds every number that agrees; ``None`` shows the number and judges nothing.
    when : str
        The condition that this case stands for, in the words of "holds only when ..."; cases of
        one condition stand or fall together. Without one the case must agree in any event.
    """

    label: str
    experiments: tuple[Experiment, ...]
    measure: Measure
    unit: str
    claimed: Value | range | None = None
    when: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of the discussion.

    Attributes
    ----------
    id : str
        ``C1`` to ``C24``, in the order of the discussion.
    who : str
        The role of who said or asked it: ``author`` or ``reviewer``.
    statement, question : str
        A claim of the discussion, and the question that an experiment answers.
    cases : tuple of ClaimCase
    expected : str
        The verdict that is known to come out.
    settled : str
        The release that settled it, and how.
    note : str
        What the experiments do not cover.
    """

    id: str
    who: str
    statement: str
    question: str
    cases: tuple[ClaimCase, ...]
    expected: str
    settled: str
    note: str = ""

    @property
    def experiment(self) -> Experiment | None:
        """The run that shows the claim best: the first, with the scenario's own devices."""
        if not self.cases:
            return None
        first = self.cases[0].experiments[0]
        return Experiment(first.scenario, first.settings)


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a case; ``agrees`` is ``None`` where nothing was claimed."""

    case: ClaimCase
    value: Value

    @property
    def agrees(self) -> bool | None:
        """Whether the value is what the claim says."""
        claimed = self.case.claimed
        if claimed is None:
            return None
        return self.value in claimed if isinstance(claimed, range) else self.value == claimed


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim with what was measured."""

    claim: Claim
    measured: tuple[Measured, ...]

    @property
    def verdict(self) -> str:
        """``holds``, ``refuted``, ``holds only when ...`` or ``not testable here``."""
        agrees: dict[str, bool] = {}
        for item in self.measured:
            if item.agrees is not None:
                when = item.case.when
                agrees[when] = agrees.get(when, True) and item.agrees
        if not agrees:
            return NOT_TESTABLE
        if all(agrees.values()):
            return HOLDS
        conditions = [when for when, agreed in agrees.items() if agreed and when]
        if not agrees.get("", True) or not conditions:
            return REFUTED
        return f"holds only when {' or '.join(conditions)}"

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the one that is known."""
        return self.verdict == self.claim.expected


def claims_named(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    """Return the claims of those ids, in the order of the discussion; all if none is named.

    Raises
    ------
    InputError
        If an id is unknown.
    """
    wanted = {id_.upper() for id_ in ids}
    for id_ in ids:
        if id_.upper() not in {claim.id for claim in claims}:
            raise InputError(f"claim {id_!r}: need one of {claims[0].id} to {claims[-1].id}")
    return [claim for claim in claims if not wanted or claim.id in wanted]


def judge(claims: Sequence[Claim], load: Load, settings: Sequence[str] = ()) -> list[Finding]:
    """Run the claims' experiments on the model and return what they come to.

    Parameters
    ----------
    claims : sequence of Claim
    load : Load
    settings : sequence of str
        Put over those of every experiment: what would the verdicts be under another policy?
    """
    every = [case for claim in claims for case in claim.cases]
    measured = iter(run_cases(every, load, settings))
    return [Finding(claim, tuple(next(measured) for _ in claim.cases)) for claim in claims]


def run_cases(
    cases: Sequence[ClaimCase], load: Load, settings: Sequence[str] = ()
) -> list[Measured]:
    """Run the experiments of cases on the model, each once, and measure each case."""
    traces: dict[Experiment, Trace] = {}

    def trace(experiment: Experiment) -> Trace:
        if experiment not in traces:
            traces[experiment] = _run(experiment, load, settings)
        return traces[experiment]

    return [
        Measured(case, case.measure([trace(each) for each in case.experiments])) for case in cases
    ]


def scenario_of(experiment: Experiment, load: Load, settings: Sequence[str] = ()) -> Scenario:
    """Return the scenario of an experiment, with settings put over its own."""
    scenario = load(experiment.scenario, (*experiment.settings, *settings))
    if experiment.plug:
        at, plug = next((i, s) for i, s in enumerate(scenario.steps) if isinstance(s, Plug))
        steps = list(scenario.steps)
        steps[at] = plug.replace(**dict(_key_value(text) for text in experiment.plug))
        scenario = scenario.with_steps(steps)
    return scenario


def _run(experiment: Experiment, load: Load, settings: Sequence[str]) -> Trace:
    return predict(scenario_of(experiment, load, settings), pages=False)


def _key_value(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value
