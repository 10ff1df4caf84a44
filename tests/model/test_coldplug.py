"""Devices that are there at boot, and what a reboot makes of those that were plugged.

A DIMM that is there at boot was compared with guests of Debian's 6.1 and 6.12
(tests/verify/test_lab_coldplug.py).
"""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine, predict
from altmap.pfn import PfnRange, PfnSet
from altmap.report.account import account_trace
from altmap.scenario import (
    Address,
    Device,
    Fill,
    Machine,
    Plug,
    Reboot,
    Resize,
    Scenario,
    SetTunables,
    Size,
    Unplug,
)

MIB, GIB = 1 << 20, 1 << 30
B = 0x8000
DIMM = Device(id="dimm1", address=Address(4 * GIB), size=Size(512 * MIB))


def guest(*devices, **changes):
    settings = {"memory": Size(GIB), "release": "6.12", "auto_online_blocks": "online"}
    return ModelMachine.start(Machine(devices=devices or (DIMM,), **settings | changes))


def zones(model):
    return {key: zone.present for key, zone in model.kernel.zones.items() if zone.present}


def test_a_dimm_at_boot_is_no_boot_memory_and_is_online_by_the_policy():
    model = guest()
    assert zones(model)[0, "Normal"] == PfnSet([PfnRange(32 * B, 36 * B)])
    assert not model.kernel.boot_ram.count(PfnRange(32 * B, 36 * B))
    seen = model.observe()
    assert [seen.memory.blocks[nr].state for nr in range(32, 36)] == ["online"] * 4
    assert any(line.start == 4 * GIB for line in seen.iomem)
    assert not model.notes


@pytest.mark.parametrize(
    ("changes", "errno"),
    [
        ({}, "EBUSY"),
        ({"memory": Size(6 * GIB)}, "EBUSY"),  # the zone is not a new one
        ({"movable_node": True}, None),
        ({"auto_online_blocks": "online_movable"}, None),
        ({"auto_online_blocks": "offline"}, None),
        ({"auto_online_blocks": "online_kernel", "movable_node": True}, "EBUSY"),
    ],
)
def test_its_unplug_is_likely_refused_unless_the_kernel_kept_out_of_it(changes, errno):
    device = DIMM if "memory" not in changes else DIMM.replace(address=Address(8 * GIB))
    outcome = guest(device, **changes).perform(Unplug(id="dimm1")).outcome
    assert outcome.errno == errno
    if errno is not None:
        assert (outcome.function, outcome.certainty) == ("acpi_scan_try_to_offline", "likely")


def test_the_same_dimm_leaves_if_it_is_hot_plugged_into_a_zone_that_exists():
    model = ModelMachine.start(
        Machine(memory=Size(6 * GIB), release="6.12", auto_online_blocks="online")
    )
    assert model.perform(Plug(id="dimm1", size=Size(512 * MIB), address=Address(8 * GIB))).outcome
    assert model.perform(Unplug(id="dimm1")).outcome


def test_a_dimm_at_boot_of_arm64_is_not_refused_as_boot_memory():
    model = guest(DIMM.replace(address=Address(8 * GIB)), arch="aarch64")
    outcome = model.perform(Unplug(id="dimm1")).outcome
    assert outcome.errno != "EPERM"


def test_a_device_that_the_kernel_refuses_at_boot_is_noted():
    device = Device(id="odd", address=Address(4 * GIB), size=Size(64 * MIB))
    model = guest(device)
    assert model.notes == ["device 'odd' at boot: not added: EINVAL by check_hotplug_memory_range"]


@pytest.mark.parametrize(
    ("device", "changes", "why"),
    [
        (DIMM.replace(driver="hyperv"), {}, "need one of dimm, virtio-mem, kmem, standby"),
        (DIMM.replace(driver="probe"), {}, "need one of"),
        (DIMM.replace(self_hosted=True), {}, "need a sysroot"),
        (DIMM.replace(node=3), {}, "node 3 does not exist"),
        (DIMM.replace(address=Address(512 * MIB)), {}, "device memory starts"),
        (DIMM, {"arch": "ppc64le"}, "boot memory: add it to machine.memory"),
    ],
)
def test_what_no_kernel_finds_at_boot_is_an_error(device, changes, why):
    with pytest.raises(InputError, match=why):
        guest(device, **changes)


def test_standby_memory_and_virtio_mem_are_found_at_boot():
    standby = Device(id="s", driver="standby", address=Address(GIB), size=Size(GIB))
    model = guest(standby, arch="s390x", auto_online_blocks="offline")
    assert model.device_ids("standby") == ["s"]
    virtio = Device(
        id="v",
        driver="virtio-mem",
        address=Address(4 * GIB),
        size=Size(GIB),
        requested=Size(256 * MIB),
    )
    model = guest(virtio)
    assert sorted(model.kernel.added_blocks - PfnSet([PfnRange(0, 8)])) == [32, 33]


def reboot(model):
    record = model.perform(Reboot())
    assert record.outcome
    return " ".join(event.text for event in record.events)


def test_what_was_hot_plugged_is_there_at_boot_after_a_reboot():
    model = ModelMachine.start(
        Machine(memory=Size(6 * GIB), release="6.12", auto_online_blocks="online")
    )
    model.perform(Plug(id="dimm1", size=Size(512 * MIB)))
    address = model.devices.addresses()[0][0]
    model.perform(Plug(id="v", driver="virtio-mem", size=Size(GIB), requested=Size(128 * MIB)))
    model.perform(Resize(id="v", size=Size(384 * MIB)))
    model.perform(SetTunables(auto_online_blocks="online_movable"))
    model.perform(Fill(id="f", size=Size(64 * MIB)))
    assert "dimm1, v" in reboot(model)
    assert model.devices.addresses()[0][0] == address
    assert model.device_sizes("v")[0] == 384 * MIB
    assert model.parameter("auto_online_blocks") == "online"
    assert not model.kernel.files
    assert {key for key, pages in zones(model).items() if pages.count(PfnRange(56 * B, 57 * B))}
    assert (0, "Movable") not in zones(model)
    outcome = model.perform(Unplug(id="dimm1")).outcome
    assert (outcome.errno, outcome.certainty) == ("EBUSY", "likely")


def test_memory_that_no_firmware_keeps_is_gone_after_a_reboot():
    steps = [
        Plug(id="p", driver="probe", size=Size(128 * MIB), address=Address(4 * GIB)),
        Plug(id="h", driver="hyperv", size=Size(128 * MIB), address=Address(8 * GIB)),
        Plug(id="x", driver="kmem", dax="pmem", size=Size(GIB), address=Address(16 * GIB)),
        Plug(id="c", driver="kmem", dax="cxl", size=Size(GIB), address=Address(32 * GIB)),
        Reboot(),
    ]
    machine = Machine(memory=Size(GIB), release="6.12", auto_online_blocks="online")
    trace = predict(Scenario(name="r", machine=machine, steps=steps))
    assert all(step.outcome for step in trace.steps)
    texts = [event.text for event in trace.steps[-1].events]
    assert "memory that is gone: p, h, x" in ", ".join(texts).replace("balloon, ", "")
    blocks = trace.steps[-1].observation.memory.blocks
    assert sorted(blocks) == [*range(8), *range(256, 264)]
    requested = account_trace(trace)[0]
    assert requested.name == "memory blocks" or requested.size_bytes <= 3 * GIB


def test_a_device_that_was_unplugged_is_not_there_after_a_reboot():
    model = guest(DIMM, auto_online_blocks="online_movable")
    assert model.perform(Unplug(id="dimm1")).outcome
    reboot(model)
    assert not model.device_ids("dimm")


def test_a_machine_that_has_just_booted_boots_again_to_its_files():
    machine = Machine(memory=Size(GIB), release="6.12", auto_online_blocks="offline")
    start = ModelMachine.start(machine).observe()
    model = ModelMachine.start(Machine(), start, booted=True)
    model.perform(Plug(id="dimm1", size=Size(GIB)))
    model.perform(Fill(id="f", size=Size(64 * MIB)))
    reboot(model)
    added = model.observe()
    assert sorted(added.memory.blocks)[8:] == [*range(32, 40)]
    assert {added.memory.blocks[nr].state for nr in range(32, 40)} == {"offline"}
    assert added.meminfo["MemTotal"] == start.meminfo["MemTotal"]
    model.perform(Unplug(id="dimm1"))
    reboot(model)
    assert model.observe().meminfo == start.meminfo


def test_files_with_a_device_do_not_show_a_boot_without_it():
    model = ModelMachine.start(Machine(devices=[DIMM]), guest(DIMM).observe(), booted=True)
    with pytest.raises(InputError, match="how its machine boots"):
        model.perform(Reboot())


def test_a_machine_from_a_sysroot_does_not_show_how_it_boots():
    model = guest(DIMM)
    adopted = ModelMachine.start(Machine(), model.observe())
    with pytest.raises(InputError, match="how its machine boots"):
        adopted.perform(Reboot())
