"""``altmap compare --policy``: built-in ones on both sides, one in Python on the model's alone."""

from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.storage.recording import read_recording
from altmap.verify import both_sides

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz"
SCENARIO = ROOT / "scenarios/dimm-1GiB.toml"


@pytest.fixture
def guests(monkeypatch):
    """The scenarios that guests are booted for; each does what a recorded one did."""
    asked = []

    def run_in_guest(scenario, progress, **options):
        asked.append(scenario.machine.policy)
        return read_recording(RECORDING).trace, []

    monkeypatch.setattr(both_sides, "run_in_guest", run_in_guest)
    return asked


def test_a_policy_in_python_is_the_models_alone(guests, tmp_path, monkeypatch):
    (tmp_path / "own_policy.py").write_text((ROOT / "examples/every_driver.py").read_text())
    monkeypatch.chdir(tmp_path)
    named = ["--policy", "own_policy:EveryDriver", "--policy", "opt-in"]
    predicted = []

    def predict(scenario, start, *, policy=None, **others):
        predicted.append((scenario.machine.policy, policy and policy.name))
        return model(scenario, start, policy=policy, **others)

    model = both_sides.predict
    monkeypatch.setattr(both_sides, "predict", predict)
    main(["compare", str(SCENARIO), *named])
    assert guests == [None, "opt-in"]
    assert predicted == [(None, "every-driver"), ("opt-in", None)]


def test_a_policy_that_is_none_is_refused_before_a_guest_boots(guests, capsys):
    assert main(["compare", str(SCENARIO), "--policy", "opt-im"]) == 2
    assert "did you mean 'opt-in'?" in capsys.readouterr().err
    assert guests == []
