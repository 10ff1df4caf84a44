"""Failures in a guest: what the lab's module is needed for, and where it cannot be loaded."""

import pytest

from altmap.errors import InputError
from altmap.lab.arches import GUESTS
from altmap.lab.hardware import hardware_of
from altmap.lab.inject import injects
from altmap.lab.requirements import check_steps
from altmap.scenario import Machine, Scenario, SetTunables, Veto

X86_64, ARM64 = GUESTS["x86_64"], GUESTS["aarch64"]
ONCE = Veto(on="going_offline", times=1)
ONE_BLOCK = Veto(on="going_offline", blocks=32)
FAILS = SetTunables(fail_block_devices=True)


def scenario(step, **machine):
    return Scenario(name="s", machine=Machine(**machine), steps=[step])


def refusal(step, **machine):
    made = scenario(step, **machine)
    with pytest.raises(InputError) as error:
        check_steps(made, hardware_of(made.machine))
    return str(error.value)


@pytest.mark.parametrize("step", [ONCE, ONE_BLOCK, FAILS], ids=["times", "blocks", "add"])
def test_what_the_kernels_own_module_cannot_do_takes_the_labs_module(step):
    assert injects(scenario(step), X86_64)
    assert not injects(scenario(step), ARM64)
    check_steps(scenario(step), hardware_of(Machine()))


def test_a_veto_of_every_block_takes_the_kernels_own_module():
    assert not injects(scenario(Veto(on="going_offline")), X86_64)


def test_what_a_guest_cannot_be_made_to_fail_is_refused_before_it_boots():
    assert "times 1: memory_notifier_error_inject does not count" in refusal(ONCE, arch="aarch64")
    assert "not on aarch64: the module is for x86_64" in refusal(FAILS, arch="aarch64")
    check_steps(scenario(ONE_BLOCK, arch="aarch64"), hardware_of(Machine(arch="aarch64")))
    assert "set fail_allocation" in refusal(SetTunables(fail_allocation=1))
    for step in (Veto(on="prepare_online"), Veto(on="prepare_online", times=1)):
        assert "can be going_online and going_offline" in refusal(step)
