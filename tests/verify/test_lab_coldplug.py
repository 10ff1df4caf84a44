"""A DIMM that is there at boot, on the model and on real kernels."""

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import Address, Device, Machine, Scenario, Size, Unplug
from altmap.verify.both_sides import compare_with_lab

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
