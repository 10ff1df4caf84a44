"""A DIMM that is there at boot, on the model and on real kernels."""

import re

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import Address, Device, Machine, Plug, Reboot, Scenario, Size, Unplug
from altmap.verify.both_sides import compare_with_lab

#: What the kernel sets before it has freed its initrd and initial code.
SET_EARLY = re.compile(r"node 0 \w+ (min|low|high|promo|protection)\b")

MIB, GIB = 1 << 20, 1 << 30

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("release", "word", "errno"),
    [("6.12", "online", "EBUSY"), ("6.1", "online_movable", None)],
)
def test_a_dimm_at_boot_is_predicted_from_the_synthetic_boot_state(release, word, errno):
    machine = Machine(
        memory=Size(GIB),
        release=release,
        auto_online_blocks=word,
        devices=[Device(id="dimm1", address=Address(4 * GIB), size=Size(512 * MIB))],
    )
    scenario = Scenario(name="cold", machine=machine, steps=[Unplug(id="dimm1")])
    comparison = compare_with_lab(scenario, None, lambda _: None)
    assert comparison.equal, comparison_text(comparison, "cold")
    assert comparison.traces[1].steps[1].outcome.errno == errno
    boot = {file.file for file in comparison.files if file.step == "boot"}
    assert any("memory" in name for name in boot)


def test_a_dimm_that_was_plugged_is_there_at_boot_after_a_reboot():
    machine = Machine(memory=Size(GIB), release="6.12", auto_online_blocks="online_movable")
    steps = [Plug(id="dimm1", size=Size(512 * MIB)), Reboot(), Unplug(id="dimm1")]
    scenario = Scenario(name="reboot", machine=machine, steps=steps)
    comparison = compare_with_lab(scenario, None, lambda _: None)
    differ = [each for file in comparison.files for each in file.differences if not each.within]
    assert all(SET_EARLY.match(each.field) for each in differ), comparison_text(comparison, "r")
    assert {file.step for file in comparison.files if file.verdict == "different"} <= {"02-reboot"}
    booted = comparison.traces[1].steps[2].observation
    assert [booted.memory.blocks[nr].valid_zones for nr in range(32, 36)] == [("Movable",)] * 4
