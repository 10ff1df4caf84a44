"""Guests of other architectures: what is theirs alone; ``conformance.toml`` names the rest."""

from pathlib import Path

import pytest

from altmap.errors import InputError
from altmap.lab import Guest, Hardware, fetch
from altmap.lab.target import hardware_of, run_in_guest
from altmap.scenario import Machine, Plug, Scenario, Size, load_scenario

SCENARIOS = Path(__file__).parent.parent / "scenarios"


@pytest.mark.lab("ppc64le")
def test_dlpar_fails_half_way_and_undoes_it_on_a_real_kernel():
    scenario = load_scenario(SCENARIOS / "ppc64-refused-unplug.toml")
    del scenario.steps[-1]
    trace, _ = run_in_guest(scenario, lambda _: None)
    assert [step.outcome.status for step in trace.steps] == ["ok"] * 5 + ["refused"]
    before, after = trace.steps[-2].observation, trace.steps[-1].observation
    assert after.memory == before.memory
    # The first block left, and was added and onlined again.
    assert any("adding any removed LMBs" in event.text for event in trace.steps[-1].events)


@pytest.mark.lab("s390x")
def test_a_guest_of_another_byte_order_shows_the_same_flags():
    """``od`` prints words as the guest's CPU has them: page 0 is in use, none is out of range."""
    with Guest(fetch("6.12", arch="s390x"), Hardware(arch="s390x")) as guest:
        first = guest.run("od -A n -t x8 -N 8 /proc/kpageflags").text
        assert guest.run("uname -m").text.strip() == "s390x"
    assert 0 < int(first.replace(" ", ""), 16) < 1 << 48


@pytest.mark.parametrize(
    ("arch", "why"),
    [("aarch64", "ACPI_HOTPLUG_MEMORY"), ("s390x", "no pc-dimm device")],
)
def test_a_dimm_where_none_can_be_is_refused_before_any_boot(arch, why):
    steps = [Plug(id="d1", size=Size(256 << 20))]
    scenario = Scenario(name="d", machine=Machine(arch=arch), steps=steps)
    with pytest.raises(InputError, match=f"'d1': no DIMM on {arch}: .*{why}"):
        run_in_guest(scenario, pytest.fail)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(arch="riscv64"), ["'riscv64'", "no guest", "ppc64le-64k"]),
        (Machine(arch="x86_64-la57"), ["'x86_64-la57'", "no guest"]),
        (Machine(arch="s390x", platform="pseries"), ["'pseries'", "s390x has s390-ccw"]),
        (Machine(mmu="hash"), ["machine.mmu", "'hash'"]),
    ],
)
def test_a_machine_that_no_guest_can_be_is_refused_by_name(machine, words):
    with pytest.raises(InputError) as caught:
        hardware_of(machine)
    assert all(word in str(caught.value) for word in words)
