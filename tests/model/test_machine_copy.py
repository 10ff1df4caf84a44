"""A copied machine does what the machine does, and leaves it alone."""

from pathlib import Path

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Online, Plug, load_scenario

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_every_step_does_on_a_copy_what_it_does_on_the_machine(path):
    scenario = load_scenario(path)
    machine = ModelMachine.start(scenario.machine, pages=False)
    for step in scenario.steps:
        copied, before = machine.copy(), machine.observe()
        first = copied.perform(step)
        assert machine.observe() == before, "the copy's step changed the machine"
        second = machine.perform(step)
        assert (first.outcome, first.events) == (second.outcome, second.events)
        assert copied.observe() == machine.observe()


def test_page_sets_of_an_adopted_machine_are_shared_until_one_changes():
    sysroot = Sysroot.read(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
    machine = ModelMachine.start(Machine(), Observation.read(sysroot), pages=False)
    copied = machine.copy()
    assert copied.kernel.used.is_copy_of(machine.kernel.used)
    assert copied.kernel.release is machine.kernel.release
    assert copied.perform(Plug(id="new", size=128 << 20)).outcome
    assert copied.perform(Online(id="new")).outcome
    assert len(copied.kernel.added_blocks) == len(machine.kernel.added_blocks) + 1
