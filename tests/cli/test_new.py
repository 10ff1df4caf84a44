"""What ``altmap new`` writes can be used at once."""

import pytest

from altmap.cli.main import main
from altmap.cli.new import TEMPLATES
from altmap.explore.spec import load_exploration
from altmap.model.machine import predict
from altmap.model.policies import load_policy
from altmap.scenario import load_scenario
from altmap.sweep.grid import load_grid


@pytest.fixture
def made(tmp_path, capsys):
    """Return the file of a kind, written by the command."""

    def make(kind, name):
        path = tmp_path / name
        assert main(["new", kind, "-o", str(path)]) == 0
        assert main(["new", kind]) == 0
        assert capsys.readouterr().out == path.read_text() == TEMPLATES[kind]
        return path

    return make


def test_a_new_scenario_runs(made):
    trace = predict(load_scenario(made("scenario", "s.toml")))
    assert [bool(step.outcome) for step in trace.steps] == [True] * 4


def test_a_new_exploration_and_a_new_grid_are_read(made):
    assert load_exploration(made("exploration", "e.toml"))
    assert len(load_grid(made("grid", "g.toml"))) == 8


def test_a_new_policy_is_imported_and_places_a_memmap(made, monkeypatch, tmp_path):
    made("policy", "new_policy.py")
    monkeypatch.chdir(tmp_path)
    policy = load_policy("new_policy:Policy")
    scenario = load_scenario(made("scenario", "s.toml"), ["memmap_on_memory=on"])
    own, merged = predict(scenario, policy=policy), predict(scenario)
    assert own.steps[-1].observation.meminfo == merged.steps[-1].observation.meminfo


def test_a_file_that_exists_stays(made, capsys):
    path = made("grid", "g.toml")
    path.write_text("mine")
    assert main(["new", "grid", "-o", str(path)]) == 2
    assert "File exists" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_the_kind_is_a_scenario_by_default(capsys):
    assert main(["new"]) == 0
    assert capsys.readouterr().out == TEMPLATES["scenario"]
