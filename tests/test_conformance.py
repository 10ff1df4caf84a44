"""The table of what agrees with real kernels."""

from pathlib import Path

import pytest

from altmap import cli, conformance
from altmap.conformance import Case, conform, conformance_page, read_cases
from altmap.errors import InputError, LabError
from altmap.machine import predict

HERE = Path(__file__).parent
SCENARIOS = HERE.parent / "scenarios"
CASES = read_cases(HERE / "conformance.toml")


def test_every_scenario_is_a_case():
    named = {name for case in CASES for name in case.scenarios}
    assert named == {path.stem for path in SCENARIOS.glob("*.toml")}


def test_every_case_says_what_runs_or_why_it_cannot():
    for case in CASES:
        assert case.releases
        assert not (case.cannot and case.slow)


def test_a_kernel_that_cannot_run_is_a_row_and_the_next_case_runs(monkeypatch):
    """The guest is the model here: what is tested is the table, not the kernel."""

    def guest(scenario, _):
        if scenario.machine.release == "6.1":
            raise LabError("no kernel\nand its console")
        return predict(scenario), []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    case = Case(scenarios=["dimm-1GiB"], releases=["6.1", "6.12"])
    rows = conform([case], SCENARIOS, 2, lambda _: None)
    assert [(row.release, row.verdict) for row in rows] == [
        ("6.1", "cannot run"),
        ("6.12", "equal"),
    ]
    page = conformance_page(rows, "2026-11-24")
    assert "| dimm-1GiB | x86_64 | 6.1 | dimm | cannot run |  |  | no kernel |" in page
    assert "1 runs on real kernels: 1 equal, 0 equal within tolerance, 0 different." in page


def test_a_difference_is_named_in_the_table(monkeypatch):
    def guest(scenario, _):
        other = predict(scenario)
        other.steps[-1].observation.meminfo["MemTotal"] += 4
        return other, []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    (row,) = conform([Case(scenarios=["dimm-1GiB"])], SCENARIOS, 1, lambda _: None)
    assert (row.verdict, row.why) == ("different", "02-unplug-dimm1 proc/meminfo: MemTotal")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[[case]]\n", "scenarios"),
        ("[[case]]\nscenarios = ['x']\nfoo = 1\n", "foo"),
        ("= 1", "Invalid"),
        (None, "No such file"),
    ],
)
def test_malformed_cases_are_refused_in_one_line(text, rule, tmp_path, capsys):
    path = tmp_path / "cases.toml"
    if text is not None:
        path.write_text(text)
    assert cli.main(["conform", str(path)]) == cli.FAILED
    error = capsys.readouterr().err
    assert str(path) in error
    assert rule in error
    assert error.count("\n") == 1


def test_a_missing_scenario_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="absent"):
        conform([Case(scenarios=["absent"])], tmp_path, 1, lambda _: None)
