"""DIMMs: what the ACPI driver asks for, and how it gives a DIMM back."""

import pytest

from altmap.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Machine, Offline, Online, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30
B = 0x8000


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "offline",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def plug(model, id_="d", mib=512):
    return model.perform(Plug(id=id_, size=Size(mib * MIB)))


def hold_unmovable(model, pfn):
    model.kernel.used |= PfnRange(pfn, pfn + 1)


@pytest.mark.parametrize(
    ("release", "mode", "mib", "hosted"),
    [
        ("6.1", "on", 128, 512),
        ("6.1", "on", 256, 0),
        ("6.1", "off", 128, 0),
        ("6.12", "on", 128, 512),
        ("6.12", "on", 256, 1024),
        ("6.12", "force", 256, 1024),
        ("6.12", "off", 256, 0),
        ("4.20", "on", 128, 0),
    ],
)
def test_the_driver_asks_so_that_the_add_is_never_refused_for_it(release, mode, mib, hosted):
    model = guest(release=release, memmap_on_memory=mode)
    assert plug(model, mib=mib).outcome
    assert len(model.kernel.self_hosted) == hosted


def test_a_dimm_is_one_static_group():
    model = guest()
    plug(model)
    (addition,) = model.kernel.additions
    assert addition.group.max_nr_pages == 4 * B
    model.perform(Online(blocks=32, to="online_kernel"))
    model.perform(Online(blocks=[33, 34], to="online_movable"))
    assert addition.group.present_kernel_nr_pages == B
    assert addition.group.present_movable_nr_pages == 2 * B
    model.perform(Offline(blocks=33))
    assert addition.group.present_movable_nr_pages == B


def test_the_insert_is_answered_with_success_also_if_the_kernel_refuses_the_memory():
    model = guest()
    for mib, status in ((64, "refused"), (128, "refused")):
        record = plug(model, f"d{mib}", mib)
        assert record.outcome.status == status
        assert "_OST status 0" in record.events[-1].text


def test_online_blocks_are_offlined_by_the_kernel_itself():
    model = guest()
    plug(model)
    model.perform(Online(id="d", to="online_movable"))
    record = model.perform(Unplug(id="d"))
    assert record.outcome
    assert record.events[-1].text.endswith("_OST status 0")
    assert not model.kernel.additions
    assert list(model.kernel.added_blocks) == list(range(8))
    assert not model.kernel.zones[0, "Movable"].present


def test_one_block_that_stays_brings_all_back_online_and_none_that_was_offline():
    model = guest()
    plug(model)
    model.perform(Online(blocks=[32, 33, 35], to="online_movable"))
    hold_unmovable(model, 33 * B + 0x400)
    total = model.kernel.total_ram_nr_pages()
    record = model.perform(Unplug(id="d"))
    assert (record.outcome.status, record.outcome.errno) == ("refused", "EBUSY")
    assert f"{33 * B + 0x400:#x}" in record.outcome.why
    assert "_OST status 0x82" in record.events[-1].text
    assert list(model.kernel.online_blocks)[8:] == [32, 33, 35]
    assert model.kernel.total_ram_nr_pages() == total
    # It can be asked for again, and is given back once nothing holds it.
    model.kernel.used -= PfnRange(33 * B + 0x400, 33 * B + 0x401)
    model.kernel.used -= model.kernel.zones[0, "Normal"].present
    assert model.perform(Unplug(id="d")).outcome


def test_blocks_are_onlined_again_by_the_policy_so_the_zone_may_change():
    model = guest()
    plug(model)
    model.perform(Online(blocks=32, to="online_movable"))
    model.perform(Online(blocks=33, to="online_kernel"))  # holds a page of the kernel from now on
    record = model.perform(Unplug(id="d"))
    assert record.outcome.errno == "EBUSY"
    # Block 32 was movable; as a plain "online" no span claims it, so it goes to the kernel zone.
    assert not model.kernel.zones[0, "Movable"].present
    assert len(model.kernel.zones[0, "Normal"].present) == 2 * B


def test_the_group_counts_every_block_again_after_a_refused_eject():
    model = guest()
    plug(model)
    model.perform(Online(id="d", to="online_movable"))
    hold_unmovable(model, 35 * B + 0x400)
    model.perform(Unplug(id="d"))
    (addition,) = model.kernel.additions
    group = addition.group
    assert group.present_kernel_nr_pages + group.present_movable_nr_pages == 4 * B
