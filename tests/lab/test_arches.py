"""Guests as data: every record is whole, and agrees with the model's architectures."""

import platform
from pathlib import Path

import pytest

from altmap.errors import InputError
from altmap.lab import accelerator
from altmap.lab.arches import GUESTS, guest_arch
from altmap.lab.hardware import hardware_of
from altmap.lab.kernels import kernel_folder
from altmap.lab.qemu import Hardware, Payload, qemu_arguments
from altmap.lab.requirements import check_steps
from altmap.model.arch import ARCHES
from altmap.scenario import Address, Device, Machine, Plug, Reboot, Scenario, Size

GIB = 1 << 30
DIMM = Device(id="dimm1", address=Address(4 * GIB), size=Size(GIB))


@pytest.mark.parametrize("name", GUESTS)
def test_a_record_names_what_the_model_names(name):
    guest, arch = guest_arch(name), ARCHES[name]
    assert guest.family == arch.family
    own = tuple(p for p, _ in guest.platforms)
    assert (*own, *arch.board.maps) == arch.board.platforms  # the maps are other hypervisors'
    assert guest.mmus == arch.mmus
    assert bool(guest.dimm) != bool(guest.no_dimm)
    assert guest.shell != guest.console


def test_an_architecture_without_a_guest_is_refused_with_those_that_have_one():
    with pytest.raises(InputError, match=r"'vax': no guest has it, need one of x86_64, .*s390x"):
        guest_arch("vax")


def test_somebody_elses_words_stand_for_machine_and_memory():
    words = ("-M", "pc-q35-7.2", "-m", "1G,slots=4,maxmem=8G", "-smp", "2")
    made = arguments(Hardware(written=words))
    assert made[made.index("-M") : made.index("-M") + 6] == list(words)
    assert "-machine" not in made
    assert made.count("-m") == made.count("-smp") == 1


def arguments(hardware):
    return qemu_arguments(hardware, "tcg", Payload(Path("/k"), "quiet", 3), 4, 5, 6)


@pytest.mark.parametrize("name", GUESTS)
def test_console_and_command_port_are_two_devices(name):
    words = arguments(Hardware(arch=name))
    assert sum("chardev=console" in w or w == "chardev:console" for w in words) == 1
    assert sum("chardev=shell" in w or w == "chardev:shell" for w in words) == 1
    assert not any("{" in word for word in words)


def test_a_machine_without_memory_devices_gets_no_slots():
    assert "1024M" in arguments(Hardware(arch="s390x"))
    assert any("slots=32" in word for word in arguments(Hardware(arch="ppc64le")))


def test_a_machine_of_another_architecture_is_refused():
    with pytest.raises(InputError, match="'q35': s390x has s390-ccw-virtio"):
        Hardware(arch="s390x", machine="q35")


def test_a_guest_of_another_architecture_is_never_tried_with_kvm(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert {accelerator.remembered_accelerator(g.family) for g in GUESTS.values()} == {"tcg"}


def test_the_cache_of_x86_64_stays_where_it_was(tmp_path):
    assert kernel_folder("6.12", "x86_64", tmp_path) == tmp_path / "kernels/6.12"
    assert kernel_folder("6.12", "s390x", tmp_path) == tmp_path / "kernels/s390x/6.12"


@pytest.mark.parametrize(
    ("changes", "plug"),
    [
        ({"arch": "aarch64"}, Plug(id="d", size=Size(GIB))),
        ({}, Plug(id="v", driver="virtio-mem", size=Size(GIB), requested=Size(0))),
        ({"devices": [DIMM]}, Plug(id="d", size=Size(GIB))),
    ],
)
def test_only_dimms_of_x86_64_that_a_step_plugged_are_there_after_a_reboot(changes, plug):
    machine = Machine(memory=Size(GIB), **changes)
    scenario = Scenario(name="r", machine=machine, steps=[Reboot(), plug])
    with pytest.raises(InputError, match="reboot: in the lab on x86_64 only"):
        check_steps(scenario, hardware_of(machine))
    fit = Scenario(name="r", machine=Machine(), steps=[Plug(id="d", size=Size(GIB)), Reboot()])
    check_steps(fit, hardware_of(fit.machine))
