"""The file probe: one block at the address, whatever is behind it."""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Address, Dump, Machine, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30
B = 0x8000


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def write(model, address, mib=128, id_="p", **keys):
    size = Size(mib * MIB)
    return model.perform(Plug(id=id_, driver="probe", address=Address(address), size=size, **keys))


def test_a_write_adds_one_block_without_a_memmap_in_it_and_without_a_group():
    model = guest()
    assert write(model, 4 * GIB).outcome
    (addition,) = model.kernel.additions
    assert addition.pfns == PfnRange(32 * B, 33 * B)
    assert addition.group is None
    assert addition.resource_name == "System RAM"
    assert not model.kernel.self_hosted


def test_the_block_is_as_large_as_blocks_are():
    model = guest(block_size=Size(GIB))
    assert write(model, 4 * GIB, 256).outcome
    assert [len(addition.pfns) for addition in model.kernel.additions] == [8 * B]


def test_an_address_within_a_block_is_refused_by_the_file_itself():
    model = guest()
    outcome = write(model, 4 * GIB + 64 * MIB).outcome
    assert (outcome.errno, outcome.function) == ("EINVAL", "probe_store")
    assert not model.kernel.additions


def test_nobody_checks_what_is_behind_the_address_until_it_is_read():
    model = guest()
    assert write(model, 4 * GIB, 64).outcome
    assert len(model.kernel.zones[0, "Normal"].present) == B
    assert model.kernel.nr_managed(model.kernel.zones[0, "Normal"]) == B
    record = model.perform(Dump())
    (fault,) = record.faults
    assert (fault.pfn, len(fault.pfns)) == (32 * B + B // 2, B // 2)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"address": 4 * GIB, "mib": 256}, "one memory block, 128 MiB"),
        ({"address": 4 * GIB, "node": 3}, "node 3 does not exist"),
    ],
)
def test_what_cannot_be_asked_is_an_error(keys, why):
    with pytest.raises(InputError, match=why):
        write(guest(), **keys)


def test_there_is_no_way_back_and_only_x86_has_the_file():
    model = guest()
    write(model, 4 * GIB)
    with pytest.raises(InputError, match="never removes"):
        model.perform(Unplug(id="p"))
    with pytest.raises(InputError, match="'probe': on x86_64 only, not aarch64"):
        write(guest(arch="aarch64"), 8 * GIB)


@pytest.mark.parametrize("address", [512 * MIB, 4 * GIB])
def test_a_write_where_memory_is_already_is_refused_and_changes_nothing(address):
    model = guest(release="5.13", auto_online_blocks="offline")
    assert model.perform(Plug(id="dimm1", size=Size(256 * MIB))).outcome
    before, backed = model.observe(), model.backed
    outcome = write(model, address).outcome
    assert (outcome.errno, outcome.function) == ("EEXIST", "register_memory_resource")
    assert f"[{address:#x}, {address + 128 * MIB:#x})" in outcome.why
    assert model.observe() == before
    assert model.backed == backed
    assert model.device_ids("probe") == []
    assert write(model, 8 * GIB).outcome  # the id is free
    assert model.perform(Unplug(id="dimm1")).outcome  # only its own memory leaves
