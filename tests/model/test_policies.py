"""A user's policy is loaded by name or passed as an object; loading one changes nothing else."""

import pickle
import sys
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError
from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.placements import OptIn, WholeRange
from altmap.model.machine import ModelMachine, predict
from altmap.model.policies import load_policy, policy_of
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
EXAMPLE = "examples.every_driver:EveryDriver"


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def scenario():
    return load_scenario(ROOT / "scenarios/hyperv-64MiB-second-half.toml")


class LastBlock:
    """The memmap of a request lies in its last memory block."""

    name = "last-block"
    written_at_add = None

    def place(self, arch, release, request):
        nr_pages, block = len(request.pfns), request.block_nr_pages
        hosted = arch.memmap_nr_pages(nr_pages)
        return Memmap(arch, request.pfns, nr_pages, hosted, nr_pages - block)


LAST_BLOCK = """
import beside
from altmap.model.kernel.memmap import Memmap

class LastBlock:
    name = beside.NAME
    written_at_add = None

    def place(self, arch, release, request):
        nr_pages, block = len(request.pfns), request.block_nr_pages
        hosted = arch.memmap_nr_pages(nr_pages)
        return Memmap(arch, request.pfns, nr_pages, hosted, nr_pages - block)
"""


@pytest.mark.parametrize("as_object", [False, True])
def test_the_example_moves_the_fault_from_add_to_online(scenario, as_object):
    # The merged code first writes a self-hosted memmap when its block goes online.
    policy = load_policy(EXAMPLE).placement if as_object else EXAMPLE
    trace = predict(scenario, policy=policy)
    step = trace.steps[1]
    assert trace.policy == "every-driver"
    assert (step.outcome.status, step.faults[0].pfn) == ("fault", 0x100000)
    assert step.faults[0].function == "mhp_init_memmap_on_memory"
    assert "added" in [event.kind for event in step.events]


def test_a_trace_tells_policies_apart_by_its_hash(scenario):
    hashes = {
        predict(scenario, policy=name).scenario_sha256 for name in (None, EXAMPLE, "rfc-2018")
    }
    assert len(hashes) == 3


def gained_kb(trace):
    """Return what MemTotal gains by 1 GiB."""
    start, plugged = (step.observation.meminfo["MemTotal"] for step in trace.steps[:2])
    return plugged - start


@pytest.mark.parametrize(("accounting", "total_kb"), [("", 1032192), ("+total", 1048576)])
def test_a_user_s_policy_has_any_offset_and_any_accounting(
    tmp_path, monkeypatch, accounting, total_kb
):
    (tmp_path / "last_block.py").write_text(LAST_BLOCK, encoding="utf-8")
    (tmp_path / "beside.py").write_text("NAME = 'last-block'\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario(ROOT / "scenarios/dimm-1GiB.toml")
    trace = predict(scenario, policy=f"last_block:LastBlock{accounting}")
    assert gained_kb(trace) == total_kb
    placed = [e for step in trace.steps for e in step.events if e.kind == "memmap-placed"]
    assert placed[0].pfns.hull().start == 0x100000 + 7 * 32768  # not at the start, as elsewhere


def test_an_object_says_by_an_attribute_how_its_pages_are_counted():
    scenario = load_scenario(ROOT / "scenarios/dimm-1GiB.toml")
    placement = LastBlock()
    assert gained_kb(predict(scenario, policy=placement)) == 1032192
    placement.accounting = ACCOUNTINGS["total"]
    assert gained_kb(predict(scenario, policy=placement)) == 1048576


def test_loading_a_policy_changes_no_table_and_no_search_path():
    before = dict(POLICIES), list(sys.path)
    first = load_policy(EXAMPLE)
    assert (dict(POLICIES), sys.path) == before
    assert load_policy(EXAMPLE).placement is not first.placement


def test_the_search_path_is_as_before_when_a_module_cannot_be_imported():
    before = list(sys.path)
    with pytest.raises(InputError):
        load_policy("no_such_module:Class")
    assert sys.path == before


def test_a_scenario_file_imports_nothing(scenario):
    named = scenario.with_machine(policy=EXAMPLE)
    with pytest.raises(InputError, match="need one of opt-in"):
        predict(named)


def test_a_machine_with_a_user_s_policy_is_pickled(scenario):
    machine = ModelMachine.start(scenario.machine, policy=policy_of(LastBlock()))
    again = pickle.loads(pickle.dumps(machine))
    assert again.kernel.policy.placement.name == "last-block"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobodys", ["'nobodys'", "opt-in", "MODULE:CLASS"]),
        ("no_such_module:Class", ["no_such_module"]),
        ("examples.every_driver:Nobody", ["Nobody"]),
        ("collections:OrderedDict", ["OrderedDict", "no name", "no place"]),
        ("os:environ", ["environ", "not callable"]),
        (f"{EXAMPLE}+nothing", ["'nothing'", "need one of merged"]),
    ],
)
def test_what_is_no_policy_is_refused(name, words, capsys):
    with pytest.raises(InputError) as caught:
        load_policy(name)
    assert all(word in str(caught.value) for word in words)
    assert cli.main(["run", "scenarios/dimm-1GiB.toml", "--policy", name]) == cli.FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_an_object_that_is_no_placement_is_refused(scenario):
    with pytest.raises(InputError, match="object has no name and no written_at_add and no place"):
        predict(scenario, policy=object())


def test_the_name_of_a_built_in_policy_is_its_own(monkeypatch):
    monkeypatch.setattr("examples.every_driver.EveryDriver.name", "opt-in")
    with pytest.raises(InputError, match="'opt-in' is a built-in policy's"):
        load_policy(EXAMPLE)
    monkeypatch.setattr("examples.every_driver.EveryDriver.name", "total-and-allocated")
    with pytest.raises(InputError, match="'total-and-allocated' is a built-in policy's"):
        load_policy(EXAMPLE)


def test_a_built_in_placement_is_its_policy():
    assert policy_of(OptIn()).name == "opt-in"
    assert policy_of(WholeRange()).accounting == ACCOUNTINGS["hidden"]
    assert policy_of(POLICIES["existing"]) is POLICIES["existing"]


def test_a_file_in_the_current_folder_takes_the_place_of_no_library(tmp_path, monkeypatch):
    """A policy's folder may hold anything, and libraries may be imported for the first time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cProfile.py").write_text("raise SystemExit('not the library')")
    (tmp_path / "beside_it.py").write_text("NAME = 'mine-too'")
    (tmp_path / "shadowed.py").write_text(
        "import cProfile, beside_it\n"
        "class Mine:\n"
        "    name, written_at_add = beside_it.NAME, False\n"
        "    def place(self, *_): ...\n"
    )
    monkeypatch.delitem(sys.modules, "cProfile", raising=False)
    before = list(sys.path)
    assert load_policy("shadowed:Mine").name == "mine-too"
    assert "cProfile.py" in sys.modules["cProfile"].__file__
    assert not sys.modules["cProfile"].__file__.startswith(str(tmp_path))
    assert sys.path == before
