"""A policy of a user's own is loaded by name, and refused with the reason."""

from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError
from altmap.model.kernel.accounting import POLICIES
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.machine import predict
from altmap.model.policies import load_policy
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
EXAMPLE = "examples.every_driver:EveryDriver"
BUILT_IN = {*PLACEMENTS, "total-and-allocated"}


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("altmap.model.policies._OURS", [])
    for name in set(POLICIES) - BUILT_IN:
        monkeypatch.delitem(POLICIES, name)
    yield
    POLICIES.pop("every-driver", None)


def test_the_example_moves_the_fault_from_add_to_online():
    # The merged code first writes a self-hosted memmap when its block goes online.
    scenario = load_scenario(ROOT / "scenarios/hyperv-64MiB-second-half.toml")
    scenario.machine.policy = load_policy(EXAMPLE).name
    step = predict(scenario).steps[1]
    assert (step.outcome.status, step.faults[0].pfn) == ("fault", 0x100000)
    assert step.faults[0].function == "mhp_init_memmap_on_memory"
    assert "added" in [event.kind for event in step.events]


LAST_BLOCK = """
from altmap.model.kernel.memmap import Memmap

class LastBlock:
    name = "last-block"
    written_at_add = None

    def place(self, arch, release, request):
        nr_pages, block = len(request.pfns), request.block_nr_pages
        hosted = arch.memmap_nr_pages(nr_pages)
        return Memmap(arch, request.pfns, nr_pages, hosted, nr_pages - block)
"""


@pytest.mark.parametrize(("accounting", "total_kb"), [("", 1032192), ("+total", 1048576)])
def test_a_policy_of_ones_own_may_use_any_offset_and_any_accounting(
    tmp_path, monkeypatch, accounting, total_kb
):
    (tmp_path / "last_block.py").write_text(LAST_BLOCK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    scenario = load_scenario(ROOT / "scenarios/dimm-1GiB.toml")
    scenario.machine.policy = load_policy(f"last_block:LastBlock{accounting}").name
    monkeypatch.setattr("altmap.model.policies._OURS", [])
    try:
        trace = predict(scenario)
    finally:
        POLICIES.pop(scenario.machine.policy)
    start, plugged = (step.observation for step in trace.steps[:2])
    assert plugged.meminfo["MemTotal"] - start.meminfo["MemTotal"] == total_kb
    placed = [e for step in trace.steps for e in step.events if e.kind == "memmap-placed"]
    assert placed[0].pfns.hull().start == 0x100000 + 7 * 32768  # not at the start, as elsewhere


def test_loading_a_policy_again_replaces_it():
    first = load_policy(EXAMPLE)
    assert load_policy(EXAMPLE) is not first
    assert POLICIES["every-driver"] is not first


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobodys", ["'nobodys'", "opt-in", "MODULE:CLASS"]),
        ("no_such_module:Class", ["no_such_module"]),
        ("examples.every_driver:Nobody", ["Nobody"]),
        ("collections:OrderedDict", ["OrderedDict", "no name", "no place"]),
        ("os:environ", ["environ", "not callable"]),
    ],
)
def test_what_is_no_policy_is_refused(name, words, capsys):
    with pytest.raises(InputError) as caught:
        load_policy(name)
    assert all(word in str(caught.value) for word in words)
    assert cli.main(["run", "scenarios/dimm-1GiB.toml", "--policy", name]) == cli.FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_a_built_in_policy_cannot_be_replaced(monkeypatch):
    monkeypatch.setattr("examples.every_driver.EveryDriver.name", "opt-in")
    with pytest.raises(InputError, match="'opt-in' is taken"):
        load_policy(EXAMPLE)
