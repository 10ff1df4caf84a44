"""The model against real kernels: scenarios of ``conformance.toml``, every exact field.

Each scenario of a case runs with one of its settings on one of its kernels; both take turns, so
that every kernel is booted. ``make conformance`` runs all of them.
"""

from itertools import count
from pathlib import Path

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.verify.both_sides import compare_with_lab
from altmap.verify.conformance import read_cases
from built import skip_unless_built

HERE = Path(__file__).parents[1]
SCENARIOS = HERE.parent / "scenarios"


def case(name, settings, release):
    """Return a test's parameters, marked with the architecture of its guest."""
    machine = load_scenario(SCENARIOS / f"{name}.toml", settings).machine
    family = (machine.arch or "x86_64").partition("-")[0]
    mark = pytest.mark.lab(family)
    return pytest.param(
        name, settings, release, id="-".join((name, *settings, release)), marks=mark
    )


TURN = count()
CASES = [
    case(name, each.settings[turn % len(each.settings)], each.releases[turn % len(each.releases)])
    for each in read_cases(HERE / "conformance.toml")
    if not (each.cannot or each.slow)
    for name, turn in zip(each.scenarios, TURN, strict=False)
]


@pytest.mark.parametrize(("name", "settings", "release"), CASES)
def test_prediction_equals_the_real_kernel(name, settings, release):
    skip_unless_built(release)
    scenario = load_scenario(SCENARIOS / f"{name}.toml", settings)
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)
