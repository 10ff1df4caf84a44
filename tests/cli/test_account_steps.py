"""``altmap account`` after each step, and how much of memory is movable."""

import json
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.model.machine import predict
from altmap.report.account import kernel_and_movable_bytes
from altmap.scenario import load_scenario

SCENARIO = Path(__file__).parents[2] / "scenarios/auto-movable.toml"
MIB = 1 << 20


def told(capsys, *words):
    assert main(["account", *words]) == 0
    return capsys.readouterr().out


def test_a_step_is_accounted_for_as_a_run_shows_it(capsys):
    trace = predict(load_scenario(SCENARIO))
    every = json.loads(told(capsys, str(SCENARIO), "--step", "all", "--json"))["steps"]
    assert len(every) == len(trace.steps)
    for step, shown in zip(trace.steps, every, strict=True):
        levels = {level["name"]: level["size_bytes"] for level in shown["levels"]}
        assert shown["step"].endswith(step.name)
        assert levels["MemTotal"] == step.observation.meminfo["MemTotal"] * 1024
    one = json.loads(told(capsys, str(SCENARIO), "--step", "1", "--json"))["levels"]
    assert one == every[1]["levels"]
    last = json.loads(told(capsys, str(SCENARIO), "--json"))["levels"]
    assert last == every[-1]["levels"]


@pytest.mark.parametrize("step", ["9", "-1", "first", "\u0661"])
def test_a_step_that_is_not_there_is_refused(capsys, step):
    assert main(["account", str(SCENARIO), f"--step={step}"]) == 2
    assert "need all, or 0 to " in capsys.readouterr().err


def test_files_have_no_steps(capsys, tmp_path):
    assert main(["account", str(tmp_path), "--step", "1"]) == 2
    assert "files have no steps" in capsys.readouterr().err


def test_kernel_and_movable_memory_are_told_where_memory_is_movable(capsys):
    # A machine of 1 GiB; the first DIMM, of 512 MiB, goes to ZONE_MOVABLE.
    seen = predict(load_scenario(SCENARIO)).steps[1].observation
    kernel, movable = kernel_and_movable_bytes(seen)
    assert movable == 512 * MIB
    assert 1023 * MIB < kernel < 1024 * MIB
    shown = told(capsys, str(SCENARIO), "--step", "1")
    assert shown.splitlines()[-1] == "kernel : movable 1023.5 MiB : 512 MiB (2.0 : 1)"
    assert "kernel : movable" not in told(capsys, str(SCENARIO), "--step", "0")
    assert main(["run", str(SCENARIO)]) == 0
    assert "  zones     kernel : movable 1023.5 MiB : 512 MiB (2.0 : 1)" in capsys.readouterr().out
