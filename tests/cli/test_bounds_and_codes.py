"""Numbers that options take, and exit codes that are 1 as soon as one of several is wrong."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.model.machine import predict
from altmap.studies import claims
from altmap.studies.claims import lab_cases
from altmap.sweep.grid import load_grid

ROOT = Path(__file__).parents[2]
GRID = ROOT / "examples/sweeps/overhead.toml"
HALF = ROOT / "scenarios/hyperv-64MiB-second-half.toml"
SYSROOT = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
NR_SCENARIOS = len(load_grid(GRID))

#: Options out of bounds, and the message. What is within them fails later, for another reason.
BEYOND = {
    "apply none.json --limit 0": "--limit 0.0: need seconds, more than 0 and a day at most",
    "apply none.json --limit 86401": "--limit 86401.0: need seconds, more than 0 and a day",
    "watch -s none --interval 0.04": "--interval 0.04: need seconds, at least 0.05",
    "watch -s none --for -1": "--for -1.0: need seconds, at least 0",
    "sweep GRID --show -1": f"--show -1: need 0 to {NR_SCENARIOS - 1}",
    f"sweep GRID --show {NR_SCENARIOS}": f"--show {NR_SCENARIOS}: need 0 to {NR_SCENARIOS - 1}",
    "sweep GRID --show 0 --limit 0": "--limit 0: need 1 or more",
    "sweep GRID --show 0 --chunk 0": "--chunk 0: need 1 or more",
    "sweep GRID --show 0 --jobs 0": "--jobs 0: need 1 or more",
    "explore books --jobs 0": "--jobs 0: need 1 to 256",
    "explore books --jobs 257": "--jobs 257: need 1 to 256",
    "explore books --time 0": "--time 0.0: need more than 0 seconds",
    "lab boot --cpus 0": "--cpus 0: need 1 to 255",
    "lab boot --cpus 256": "--cpus 256: need 1 to 255",
}
WITHIN = {
    "apply none.json --limit 86400": "none.json: No such file",
    "apply none.json --limit 0.1": "none.json: No such file",
    "watch -s none --interval 0.05 --for 0": "none: ",
    f"sweep GRID --show {NR_SCENARIOS - 1}": "",
    "sweep GRID --show 0 --limit 1 --chunk 1 --jobs 1": "",
}


def run(line, capsys):
    status = main([str(GRID) if word == "GRID" else word for word in line.split()])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("line", BEYOND)
def test_a_number_out_of_bounds_is_refused_with_value_and_bounds(line, capsys):
    status, err = run(line, capsys)
    assert status == 2
    assert err.startswith(f"altmap: {BEYOND[line]}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("line", WITHIN)
def test_a_number_at_its_bound_is_accepted(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, err = run(line, capsys)
    assert status == (2 if WITHIN[line] else 0)
    assert err.startswith(f"altmap: {WITHIN[line]}" if WITHIN[line] else "")


def test_one_wrong_verdict_among_others_makes_the_exit_code_1(capsys, monkeypatch):
    wrong = [replace(c, expected="refuted") if c.id == "C7" else c for c in claims.CLAIMS]
    monkeypatch.setattr(claims, "CLAIMS", tuple(wrong))
    assert main(["claims", "C13"]) == 0
    assert main(["claims", "C7", "C13"]) == 1


@pytest.mark.parametrize(("differs", "code"), [((), 0), (("on",), 1), (("off", "on"), 1)])
def test_one_number_that_a_real_kernel_contradicts_makes_it_1(capsys, monkeypatch, differs, code):
    """The guest is the model here: what is tested is the command, not the kernel."""

    def both(scenario, progress, *, touched):
        predicted = predict(scenario)
        observed = copy.deepcopy(predicted)
        if scenario.machine.memmap_on_memory in differs:
            observed.steps[2].observation.meminfo["MemTotal"] += 1 << 20
        return observed, predicted

    monkeypatch.setattr(lab_cases, "run_on_both", both)
    assert main(["claims", "C1", "--on", "lab"]) == code
    lines = capsys.readouterr().out.splitlines()[:2]
    assert [line[5] == "!" for line in lines] == [mode in differs for mode in ("off", "on")]


@pytest.mark.parametrize(
    "option", [["--policy", "opt-in"], ["--release", "6.1"], ["--set", "cpus=2"]]
)
def test_options_for_scenarios_are_refused_where_there_is_none(option, capsys):
    assert main(["report", str(SYSROOT), *option]) == 2
    assert "--policy, --release and --set are for scenarios in TOML" in capsys.readouterr().err


def test_without_a_terminal_lines_are_100_columns_wide(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)  # what shutil asks for the size of the terminal
    assert main(["run", str(HALF), "--policy", "opt-in", "--policy", "rfc-2018"]) == 0
    assert 90 < max(map(len, capsys.readouterr().out.splitlines())) <= 100
