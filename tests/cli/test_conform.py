"""``altmap conform``: which cases run, where the table goes, and the exit code.

The guest is the model here: what is tested is the command, not the kernel.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.model.machine import predict
from altmap.storage.lines import LineFile
from altmap.verify import conformance

SCENARIOS = str(Path(__file__).parents[2] / "scenarios")
QUICK = "[[case]]\nscenarios = ['dimm-1GiB']\nreleases = ['6.12']\n"
SLOW = "[[case]]\nscenarios = ['dimm-1GiB']\nreleases = ['6.1']\nslow = true\n"


@pytest.fixture
def conform(monkeypatch, tmp_path, capsys):
    """Return the function that runs cases; with the releases *wrong*, the guest differs."""

    def run(cases, *options, wrong=()):
        def guest(scenario, _):
            observed = predict(scenario)
            if scenario.machine.release in wrong:
                observed.steps[-1].observation.meminfo["MemTotal"] += 4
            return observed, []

        monkeypatch.setattr(conformance, "run_in_guest", guest)
        path = tmp_path / "cases.toml"
        path.write_text(cases)
        status = main(["conform", str(path), "--scenarios", SCENARIOS, *map(str, options)])
        return status, *capsys.readouterr()

    return run


def rows(page):
    """Return release and verdict of each row of a table."""
    cells = [line.split(" | ") for line in page.splitlines() if line.startswith("| dimm-1GiB ")]
    return [(row[2], row[4]) for row in cells]


def test_slow_cases_run_on_demand(conform):
    assert rows(conform(QUICK + SLOW)[1]) == [("6.12", "equal")]
    assert rows(conform(QUICK + SLOW, "--slow")[1]) == [("6.12", "equal"), ("6.1", "equal")]


@pytest.mark.parametrize(("wrong", "code"), [((), 0), (("6.1",), 1), (("6.1", "6.12"), 1)])
def test_the_exit_code_is_1_if_any_run_differs(conform, wrong, code):
    status, out, err = conform(QUICK + SLOW, "--slow", wrong=wrong)
    assert status == code
    assert {release for release, verdict in rows(out) if verdict == "different"} == set(wrong)
    assert err.count("altmap: dimm-1GiB x86_64 ") == 2


def test_the_page_has_the_day_and_is_written_to_a_file(conform, tmp_path):
    before = datetime.now(UTC).date()
    status, out, _ = conform(QUICK, "-o", tmp_path / "table.md", "-j", 2)
    after = datetime.now(UTC).date()
    assert (status, out) == (0, "")
    page = (tmp_path / "table.md").read_text()
    assert any(str(day) in page for day in (before, after))
    assert rows(page) == [("6.12", "equal")]


def test_without_a_guest_nothing_runs(conform):
    assert conform(QUICK, "-j", 0)[::2] == (2, "altmap: -j 0: need at least one guest\n")


def test_two_runs_with_one_file_of_rows_do_not_mix_them(conform, tmp_path):
    kept = tmp_path / "rows.jsonl"
    with LineFile(kept, "", flags=os.O_CREAT):
        status, out, err = conform(QUICK, "--rows", kept)
        assert (status, out) == (2, "")
        assert err == f"altmap: rows {kept}: another run is writing to it\n"
    assert conform(QUICK, "--rows", kept)[0] == 0
    assert len(kept.read_text().splitlines()) == 1
