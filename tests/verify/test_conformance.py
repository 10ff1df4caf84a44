"""The table of what agrees with real kernels."""

import re
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError, LabError
from altmap.model.machine import predict
from altmap.verify import conformance
from altmap.verify.conformance import (
    ConformanceCase,
    ConformanceRow,
    conform,
    conformance_page,
    read_cases,
)

HERE = Path(__file__).parents[1]
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
    case = ConformanceCase(scenarios=["dimm-1GiB"], releases=["6.1", "6.12"])
    rows = conform([case], SCENARIOS, 2, lambda _: None)
    assert [(row.release, row.verdict) for row in rows] == [
        ("6.1", "cannot run"),
        ("6.12", "equal"),
    ]
    page = conformance_page(rows, "2026-11-24")
    assert "| dimm-1GiB | x86_64 | 6.1 | dimm | cannot run |  |  | no kernel |" in page
    assert "1 runs on real kernels: 1 equal, 0 equal within tolerance, 0 different." in page


def test_rows_that_differ_come_first_and_the_others_keep_their_order():
    verdicts = ["equal", "different", "cannot run", "different", "equal within tolerance"]
    rows = [
        ConformanceRow(f"s{number}", "x86_64", "6.12", "dimm", verdict, 1, 0, "", {})
        for number, verdict in enumerate(verdicts)
    ]
    page = conformance_page(rows, "2026-11-24")
    assert re.findall(r"^\| (s\d)", page, re.MULTILINE) == ["s1", "s3", "s0", "s2", "s4"]


def test_a_difference_is_named_in_the_table(monkeypatch):
    def guest(scenario, _):
        other = predict(scenario)
        other.steps[-1].observation.meminfo["MemTotal"] += 4
        return other, []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    (row,) = conform([ConformanceCase(scenarios=["dimm-1GiB"])], SCENARIOS, 1, lambda _: None)
    assert (row.verdict, row.why) == ("different", "02-unplug-dimm1 proc/meminfo: MemTotal")


@pytest.mark.parametrize(
    ("altered", "verdict", "nr_tolerated", "why"),
    [
        ({}, "equal", 0, ""),
        ({"MemFree": 4}, "equal within tolerance", 1, ""),
        ({"MemTotal": 4}, "different", 0, "02-unplug-dimm1 proc/meminfo: MemTotal"),
        ({"MemTotal": 4, "MemFree": 4}, "different", 1, "02-unplug-dimm1 proc/meminfo: MemTotal"),
    ],
)
def test_a_row_counts_equal_and_tolerated_fields_and_names_the_others(
    altered, verdict, nr_tolerated, why, monkeypatch
):
    def row(changes):
        def guest(scenario, _):
            other = predict(scenario)
            for name, by in changes.items():
                other.steps[-1].observation.meminfo[name] += by
            return other, []

        monkeypatch.setattr(conformance, "run_in_guest", guest)
        (made,) = conform([ConformanceCase(scenarios=["dimm-1GiB"])], SCENARIOS, 1, lambda _: None)
        return made

    found = row(altered)
    assert (found.verdict, found.nr_tolerated, found.why) == (verdict, nr_tolerated, why)
    assert found.nr_exact == row({}).nr_exact - len(altered)


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
        conform([ConformanceCase(scenarios=["absent"])], tmp_path, 1, lambda _: None)


def test_an_interrupted_run_resumes(monkeypatch, tmp_path):
    started = []

    def guest(scenario, _):
        started.append(scenario.machine.release)
        return predict(scenario), []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    kept = tmp_path / "build" / "rows.jsonl"
    both = [ConformanceCase(scenarios=["dimm-1GiB"], releases=["6.1", "6.12"])]
    first = conform(
        [ConformanceCase(scenarios=["dimm-1GiB"], releases=["6.1"])], SCENARIOS, 1, print, kept
    )
    with kept.open("ab") as file:  # killed in the middle of a line
        file.write(b'{"scenario": "dimm-1')
    rows = conform(both, SCENARIOS, 1, print, kept)
    assert started == ["6.1", "6.12"]
    assert rows[0] == first[0]
    assert conform(both, SCENARIOS, 1, print, kept) == rows
    assert started == ["6.1", "6.12"]


def test_a_kept_row_of_another_scenario_or_of_a_guest_that_failed_is_run_again(
    monkeypatch, tmp_path
):
    failing = True

    def guest(scenario, _):
        if failing:
            raise LabError("no disk")
        return predict(scenario), []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    kept = tmp_path / "rows.jsonl"
    (tmp_path / "s.toml").write_text("[[steps]]\ndo = 'plug'\nid = 'd'\nsize = '128MiB'\n")
    cases = [ConformanceCase(scenarios=["s"])]
    assert conform(cases, tmp_path, 1, print, kept)[0].verdict == "cannot run"
    failing = False
    assert conform(cases, tmp_path, 1, print, kept)[0].verdict == "equal"
    (tmp_path / "s.toml").write_text("[[steps]]\ndo = 'plug'\nid = 'd'\nsize = '256MiB'\n")
    failing = True
    assert conform(cases, tmp_path, 1, print, kept)[0].verdict == "cannot run"


def test_malformed_kept_rows_are_refused_in_one_line(tmp_path, capsys):
    kept = tmp_path / "rows.jsonl"
    kept.write_text('{"scenario": 1}\n')
    cases = tmp_path / "cases.toml"
    cases.write_text("[[case]]\nscenarios = ['dimm-1GiB']\n")
    arguments = ["conform", str(cases), "--scenarios", str(SCENARIOS), "--rows", str(kept)]
    assert cli.main(arguments) == cli.FAILED
    error = capsys.readouterr().err
    assert f"{kept}, line 1" in error
    assert error.count("\n") == 1


def test_what_differs_once_is_noted_and_what_differs_twice_is_different(monkeypatch):
    wrong = iter([4, 0, 4, 4, 0])

    def guest(scenario, _):
        other = predict(scenario)
        other.steps[-1].observation.meminfo["MemTotal"] += next(wrong)
        return other, []

    monkeypatch.setattr(conformance, "run_in_guest", guest)
    case = ConformanceCase(scenarios=["dimm-1GiB"], differs="a known cause (its source)")
    (once,) = conform([case], SCENARIOS, 1, lambda _: None)
    (twice,) = conform([case], SCENARIOS, 1, lambda _: None)
    (never,) = conform([case], SCENARIOS, 1, lambda _: None)
    assert (never.verdict, never.why) == ("equal", "may differ: a known cause (its source)")
    assert once.verdict == "equal"
    assert once.why.startswith("the first of two runs: different, 02-unplug-dimm1 proc/meminfo")
    assert "a known cause" not in once.why
    assert twice.verdict == "different"
    assert twice.why.startswith("a known cause (its source): 02-unplug-dimm1")


def test_cases_nested_beyond_all_limits_are_one_line(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match=r"^cases .*deep\.toml: not TOML: "):
        read_cases(path)


@pytest.mark.parametrize(
    ("nr_files", "shown"),
    [(1, "f0"), (4, "f0; f1; f2; f3"), (5, "f0; f1; f2; and 2 files more")],
)
def test_a_row_of_the_page_names_few_of_many_files(nr_files, shown):
    why = "; ".join(f"f{number}" for number in range(nr_files))
    row = ConformanceRow("s", "x86_64", "6.12", "dimm", "different", 1, 1, why)
    assert f"| {shown} |" in conformance_page([row], "2026-11-29")
