"""Offlining in a kernel worker, which no signal reaches: it does not end, and holds the lock."""

import pytest

from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import (
    Dump,
    Fill,
    Free,
    Machine,
    Offline,
    Online,
    Plug,
    Resize,
    Size,
    Unplug,
    VirtioMemParameters,
)

MIB, GIB = 1 << 20, 1 << 30
B = 0x8000


def guest(**machine):
    settings = {"release": "6.12", "memory": Size(GIB), "auto_online_blocks": "offline"}
    return ModelMachine.start(Machine(**settings | machine))


def hold(model, *blocks):
    """Pin one page of each block, as a pipe or O_DIRECT does."""
    for block in blocks:
        pfns = model.kernel.block_pfns(block)
        page = PfnRange(pfns.start + 7, pfns.start + 8)
        for pages in (model.kernel.used, model.kernel.movable, model.kernel.pinned):
            pages |= page


def let_go(model, block):
    model.kernel.pinned -= model.kernel.block_pfns(block)


def with_held_dimm():
    model = guest()
    model.perform(Plug(id="d", size=Size(384 * MIB)))
    model.perform(Online(id="d", to="online_movable"))
    hold(model, 33)
    return model


def states(model):
    blocks = model.observe().memory.blocks
    return {nr: blocks[nr].state for nr in (32, 33, 34) if nr in blocks}


def messages(record):
    return [event.text for event in record.events if event.kind == "driver"]


def test_an_eject_ends_with_a_signal_only_and_a_worker_gets_none():
    """Source: drivers/acpi/scan.c; seen in a guest: nothing follows status 0x84."""
    model = with_held_dimm()
    record = model.perform(Unplug(id="d"))
    outcome = record.outcome
    assert (outcome.status, outcome.errno, outcome.function) == (
        "does_not_end",
        None,
        "offline_pages",
    )
    assert not outcome
    assert messages(record)[-1] == "guest→host: _OST event 0x3 status 0x84 (eject in progress)"
    # The block before is done; the one behind is not reached.
    assert states(model) == {32: "offline", 33: "going-offline", 34: "online"}
    assert not any("CANCEL" in event.text for event in record.events)


def test_free_pages_of_the_block_are_isolated_meanwhile():
    model = with_held_dimm()
    zone = model.kernel.movable_zone(0)
    before = model.observe()
    model.perform(Unplug(id="d"))
    after = model.observe()
    assert before.meminfo["MemFree"] - after.meminfo["MemFree"] == (2 * B - 1) * 4
    # 33 is still present and managed, 32 is not.
    assert before.meminfo["MemTotal"] - after.meminfo["MemTotal"] == B * 4
    assert model.kernel.nr_free(zone) == len(model.kernel.free(zone)) == B


def test_the_same_block_by_hand_ends_with_a_signal():
    model = with_held_dimm()
    outcome = model.perform(Offline(blocks=33)).outcome
    assert (outcome.status, outcome.errno) == ("refused", "EINTR")
    assert states(model)[33] == "online"
    assert model.perform(Offline(blocks=34)).outcome


@pytest.mark.parametrize(
    ("step", "function"),
    [
        (Offline(blocks=34), "lock_device_hotplug_sysfs"),
        (Online(blocks=32, to="online"), "lock_device_hotplug_sysfs"),
        (Plug(id="e", size=Size(128 * MIB)), "lock_device_hotplug"),
        (Unplug(id="d"), "lock_device_hotplug"),
    ],
)
def test_what_needs_the_lock_waits_behind_it(step, function):
    model = with_held_dimm()
    model.perform(Unplug(id="d"))
    before = states(model)
    outcome = model.perform(step).outcome
    assert (outcome.status, outcome.function) == ("does_not_end", function)
    assert "memory33" in outcome.why
    assert states(model) == before


def test_other_steps_do_not_wait():
    model = with_held_dimm()
    model.perform(Unplug(id="d"))
    assert model.perform(Fill(id="f", size=Size(MIB))).outcome
    assert model.perform(Free(id="f")).outcome
    assert model.perform(Dump()).outcome
    assert states(model)[33] == "going-offline"


def test_the_eject_goes_on_when_the_reference_is_dropped():
    model = with_held_dimm()
    model.perform(Unplug(id="d"))
    let_go(model, 33)
    record = model.perform(Fill(id="f", size=Size(MIB)))
    assert messages(record)[-2:] == [
        "guest→host: _EJ0 1 (eject)",
        "guest→host: _OST event 0x3 status 0x0 (success)",
    ]
    assert states(model) == {}
    assert model.perform(Plug(id="d", size=Size(128 * MIB))).outcome


def test_an_eject_that_goes_on_and_is_refused_then_onlines_all_that_went():
    model = with_held_dimm()
    model.perform(Unplug(id="d"))
    let_go(model, 33)
    model.kernel.fake_offline |= PfnRange(34 * B, 34 * B + 1)
    record = model.perform(Fill(id="f", size=Size(MIB)))
    assert messages(record)[-1].endswith("status 0x82 (device busy)")
    assert states(model) == dict.fromkeys((32, 33, 34), "online")


def test_an_eject_without_room_goes_on_when_memory_is_freed():
    model = guest(memory=Size(256 * MIB), auto_online_blocks="online_movable")
    model.perform(Plug(id="dimm1", size=Size(256 * MIB)))
    model.perform(Fill(id="f1", size=Size(290 * MIB)))
    record = model.perform(Unplug(id="dimm1"))
    assert record.outcome.status == "does_not_end"
    assert "OOM killer" in record.outcome.why
    moved = sum(len(event.pfns) for event in record.events if event.kind == "migrated")
    assert moved > 0
    # What could be moved has used up the free memory of the kernel zones.
    kernel = model.kernel
    assert all(
        kernel.nr_free(zone) <= zone.watermarks.min + max(zone.watermarks.protection) + 512
        for zone in kernel.zones.values()
        if zone.present and zone.name != "Movable"
    )
    assert kernel.hotplug_lock_holder
    assert model.perform(Free(id="f1")).outcome
    assert not kernel.hotplug_lock_holder
    assert "dimm1" not in model.devices.by_id


def test_dlpar_of_the_hypervisor_runs_in_a_worker():
    """arch/powerpc/platforms/pseries/dlpar.c: queue_hotplug_event."""
    model = guest(arch="ppc64le", memory=Size(2 * GIB))
    model.perform(Plug(id="d", size=Size(GIB)))
    for block in (8, 9, 10, 11):
        model.perform(Offline(blocks=block))
        model.perform(Online(blocks=block, to="online_movable"))
    hold(model, 10)
    outcome = model.perform(Unplug(id="d")).outcome
    assert outcome.status == "does_not_end"
    assert "pseries_hp_wq" in outcome.why
    blocks = model.observe().memory.blocks
    assert sorted(nr for nr in blocks if nr >= 8) == [10, 11]
    assert blocks[10].state == "going-offline"
    let_go(model, 10)
    model.perform(Fill(id="f", size=Size(MIB)))
    assert max(model.observe().memory.blocks) == 7


def with_big_blocks(release, **parameters):
    model = guest(
        release=release,
        memory=Size(2 * GIB),
        auto_online_blocks="online_movable",
        virtio_mem=VirtioMemParameters(force_bbm=True, **parameters),
    )
    model.perform(Plug(id="v", driver="virtio-mem", size=Size(GIB), requested=Size(256 * MIB)))
    return model, max(model.observe().memory.blocks)


def test_virtio_mem_offlines_in_a_worker_where_it_does_not_take_the_pages_first():
    """virtio_mem_bbm_offline_remove_and_unplug_bb without bbm_safe_unplug, up to 6.5."""
    model, last = with_big_blocks("6.1", bbm_safe_unplug=False)
    hold(model, last)
    outcome = model.perform(Resize(id="v", size=Size(128 * MIB))).outcome
    assert outcome.status == "does_not_end"
    assert "system_freezable_wq" in outcome.why
    assert model.perform(Resize(id="v", size=Size(256 * MIB))).outcome.status == "does_not_end"
    let_go(model, last)
    model.perform(Fill(id="f", size=Size(MIB)))
    assert last not in model.observe().memory.blocks
    assert model.device_sizes("v")[0] == 128 * MIB


def test_virtio_mem_that_takes_the_pages_first_is_refused_instead():
    """alloc_contig_range gives up on pages that do not move."""
    model, last = with_big_blocks("6.1", bbm_safe_unplug=True)
    hold(model, last)
    assert model.perform(Resize(id="v", size=Size(128 * MIB))).outcome.ends


@pytest.mark.parametrize("policy", ["opt-in", "opt-in+total", "opt-in+hidden"])
def test_a_self_hosted_memmap_is_no_isolated_free_page(policy):
    model = guest(policy=policy, memmap_on_memory="on")
    model.perform(Plug(id="d", size=Size(128 * MIB)))
    model.perform(Online(id="d", to="online_movable"))
    model.perform(Fill(id="f", size=Size(2 * MIB), kind="held"))
    assert not model.perform(Unplug(id="d")).outcome.ends
    kernel = model.kernel
    assert kernel.self_hosted.count(kernel.isolated.span())
    for zone in kernel.zones.values():
        assert kernel.nr_free(zone) == len(kernel.free(zone))
