"""DIMMs: what the ACPI driver asks for, and how it gives a DIMM back."""

import pytest

from altmap.errors import InputError
from altmap.model.kernel.notifier import NotifierVeto
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import (
    Address,
    Machine,
    Offline,
    Online,
    Plug,
    Range,
    SetTunables,
    Size,
    Unplug,
)

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
        assert "_OST event 0x1 status 0x0 " in record.events[-1].text


def test_online_blocks_are_offlined_by_the_kernel_itself():
    model = guest()
    plug(model)
    model.perform(Online(id="d", to="online_movable"))
    record = model.perform(Unplug(id="d"))
    assert record.outcome
    assert "_OST event 0x3 status 0x0 " in record.events[-1].text
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
    assert "_OST event 0x3 status 0x82 " in record.events[-1].text
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


def said(record):
    """The conversation of a step: who, and what."""
    texts = [event.text for event in record.events if event.kind == "driver"]
    return [text.split(" (")[0] for text in texts if "→" in text]


def test_the_conversation_of_a_plug_and_an_unplug():
    model = guest()
    assert said(plug(model)) == ["host→guest: Notify 0x1", "guest→host: _OST event 0x1 status 0x0"]
    assert said(model.perform(Unplug(id="d"))) == [
        "host→guest: Notify 0x3",
        "guest→host: _OST event 0x3 status 0x84",
        "guest→host: _EJ0 1",
        "guest→host: _OST event 0x3 status 0x0",
    ]


def test_a_refused_eject_says_in_progress_and_then_busy():
    model = guest()
    plug(model)
    model.perform(Online(id="d", to="online_movable"))
    hold_unmovable(model, 33 * B)
    assert said(model.perform(Unplug(id="d")))[1:] == [
        "guest→host: _OST event 0x3 status 0x84",
        "guest→host: _OST event 0x3 status 0x82",
    ]


def test_eject_can_be_disabled_in_sysfs():
    model = guest()
    plug(model)
    model.perform(SetTunables(acpi_memory_hotplug=False))
    record = model.perform(Unplug(id="d"))
    assert (record.outcome.errno, record.outcome.function) == (
        "EPERM",
        "acpi_generic_hotplug_event",
    )
    assert said(record)[1:] == ["guest→host: _OST event 0x3 status 0x80"]
    # A DIMM whose add was refused has no driver that could say so.
    plug(model, "odd", 64)
    assert model.perform(Unplug(id="odd")).outcome
    model.perform(SetTunables(acpi_memory_hotplug=True))
    assert model.perform(Unplug(id="d")).outcome


def device(model, first_mib, *more, base=8 * GIB):
    """Plug a device with several ranges: (offset, size) in MiB after the first one."""
    ranges = [Range(address=Address(base + at * MIB), size=Size(mib * MIB)) for at, mib in more]
    size, address = Size(first_mib * MIB), Address(base)
    return model.perform(Plug(id="d", size=size, address=address, more_ranges=ranges))


def test_several_ranges_are_several_adds_of_one_group():
    model = guest()
    assert device(model, 128, (512, 256)).outcome
    one, two = model.kernel.additions
    assert (len(one.pfns), len(two.pfns)) == (B, 2 * B)
    assert one.group is two.group
    assert one.group.max_nr_pages == 3 * B
    model.perform(Online(id="d", to="online_movable"))
    assert list(model.kernel.online_blocks)[8:] == [64, 68, 69]
    assert model.perform(Unplug(id="d")).outcome
    assert not model.kernel.additions
    assert not model.backing.backed.count(PfnRange(64 * B, 80 * B))


def test_ranges_that_follow_each_other_are_one_add():
    model = guest()
    device(model, 128, (128, 128), (512, 128), (256, 128))
    assert [addition.pfns for addition in model.kernel.additions] == [
        PfnRange(64 * B, 67 * B),
        PfnRange(68 * B, 69 * B),
    ]


def test_a_range_that_is_refused_is_skipped_and_the_device_is_bound_all_the_same():
    model = guest()
    record = device(model, 64, (256, 128))
    assert record.outcome
    assert "EINVAL by check_hotplug_memory_range" in record.events[1].text
    assert [addition.pfns for addition in model.kernel.additions] == [PfnRange(66 * B, 67 * B)]
    assert model.perform(Unplug(id="d")).outcome
    assert not model.kernel.additions


def test_a_device_of_refused_ranges_only_is_refused_with_the_first_reason():
    record = device(guest(), 64, (256, 192))
    assert (record.outcome.errno, record.outcome.function) == (
        "EINVAL",
        "check_hotplug_memory_range",
    )
    assert "[0x200000000, 0x204000000)" in record.outcome.why


def test_on_6_1_the_flag_stays_for_the_ranges_that_follow_a_single_block():
    """mhp_flags is set in the loop and never cleared, so the longer range is refused."""
    model = guest(release="6.1")
    record = device(model, 128, (512, 256))
    assert record.outcome
    assert [addition.pfns for addition in model.kernel.additions] == [PfnRange(64 * B, 65 * B)]
    assert any("EINVAL" in event.text for event in record.events)
    model = guest(release="6.1")
    assert device(model, 256, (512, 128)).outcome
    assert len(model.kernel.additions) == 2
    assert len(model.kernel.self_hosted) == 512


def test_one_block_of_one_range_keeps_all_ranges():
    model = guest()
    device(model, 256, (512, 256))
    model.perform(Online(id="d", to="online_movable"))
    hold_unmovable(model, 68 * B + 5)
    outcome = model.perform(Unplug(id="d")).outcome
    assert outcome.errno == "EBUSY"
    assert list(model.kernel.online_blocks)[8:] == [64, 65, 68, 69]
    assert len(model.kernel.additions) == 2


def test_the_second_pass_ends_at_its_first_refusal():
    """acpi_bus_offline: the first pass tries every block, the second stops at an error."""
    model = guest()
    plug(model)
    model.perform(Online(id="d", to="online_movable"))
    for block in (33, 35):
        page = PfnRange(block * B + 7, block * B + 8)
        model.kernel.fake_offline |= page
    record = model.perform(Unplug(id="d"))
    tried = [
        event.pfns.start // B
        for event in record.events
        if event.kind == "notified" and event.text.startswith("MEM_GOING_OFFLINE")
    ]
    assert tried == [32, 33, 34, 35, 33]
    assert f"{33 * B + 7:#x}" in record.outcome.why


def test_a_block_that_goes_in_the_second_pass_only_is_no_reason_to_refuse():
    """A first pass may fail for memmaps of other blocks: its errors are dropped."""
    model = guest()
    plug(model, mib=256)
    model.perform(Online(id="d", to="online_movable"))
    vetoes = iter([NotifierVeto("EBUSY", "listener", "once")])
    model.kernel.notifier.register(
        lambda n: next(vetoes, None) if n.action == "MEM_GOING_OFFLINE" else None
    )
    assert model.perform(Unplug(id="d")).outcome
    assert not model.kernel.additions


@pytest.mark.parametrize("more", [(64, 128), (-8192 + 512, 128)])
def test_ranges_may_not_overlap_what_is_there(more):
    with pytest.raises(InputError, match="overlap"):
        device(guest(), 128, more)


@pytest.mark.parametrize(("release", "again"), [("6.1", False), ("6.12", True), ("7.3", True)])
def test_a_dimm_whose_add_failed_is_added_with_the_next_one(release, again):
    """acpi_scan_device_check scans the parent's bus: whatever is present and has no driver."""
    model = guest(release=release)
    assert model.perform(SetTunables(fail_block_devices=True)).outcome
    assert not model.perform(Plug(id="first", size=Size(256 * MIB))).outcome
    assert not model.kernel.additions
    assert model.perform(Plug(id="second", size=Size(128 * MIB))).outcome
    assert len(model.kernel.additions) == 1 + again
    assert len(model.devices.additions("first")) == again
    assert model.perform(Unplug(id="first")).outcome
    assert len(model.kernel.additions) == 1
