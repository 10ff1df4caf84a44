"""The model against real kernels: every case of ``conformance.toml``, every exact field."""

from pathlib import Path

import pytest

from altmap.conformance import read_cases
from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.verify import compare_with_lab

HERE = Path(__file__).parent
SCENARIOS = HERE.parent / "scenarios"
CASES = [
    pytest.param(name, settings, release, id="-".join((name, *settings, release)))
    for case in read_cases(HERE / "conformance.toml")
    if not (case.cannot or case.slow)
    for name in case.scenarios
    for settings in case.settings
    for release in case.releases
]


@pytest.mark.lab
@pytest.mark.parametrize(("name", "settings", "release"), CASES)
def test_prediction_equals_the_real_kernel(name, settings, release):
    scenario = load_scenario(SCENARIOS / f"{name}.toml", settings)
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)
