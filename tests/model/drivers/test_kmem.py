"""dax/kmem: alignment, several ranges, the device's own switch, and how it gives memory back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Address,
    Machine,
    Node,
    Offline,
    Online,
    Plug,
    Range,
    Size,
    Unplug,
    Veto,
    Write,
)

MIB, GIB = 1 << 20, 1 << 30
B = 0x8000


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online_movable",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def plug(model, address=4 * GIB, mib=512, more=(), id_="dax0.0", **keys):
    ranges = [Range(address=Address(at), size=Size(size * MIB)) for at, size in more]
    return model.perform(
        Plug(
            id=id_,
            driver="kmem",
            address=Address(address),
            size=Size(mib * MIB),
            more_ranges=ranges,
            **keys,
        )
    )


def added(model):
    return [addition.pfns for addition in model.kernel.additions]


def test_the_add_is_one_static_group_under_a_name_of_its_own():
    model = guest()
    assert plug(model, more=[(8 * GIB, 256)]).outcome
    one, two = model.kernel.additions
    assert one.group is two.group
    assert one.group.max_nr_pages == 6 * B
    lines = [line for line in model.observe().iomem if line.name == "System RAM (kmem)"]
    assert [(line.start, line.end - line.start) for line in lines] == [
        (4 * GIB, 512 * MIB),
        (8 * GIB, 256 * MIB),
    ]


@pytest.mark.parametrize(
    ("offset", "mib", "blocks"),
    [
        (0, 512, range(32, 36)),
        (64, 512, range(33, 36)),
        (2, 512, range(33, 36)),
        (0, 130, range(32, 33)),
        (127, 130, range(33, 34)),
    ],
)
def test_a_range_is_cut_to_whole_blocks_at_both_ends(offset, mib, blocks):
    model = guest()
    record = plug(model, 4 * GIB + offset * MIB, mib)
    assert record.outcome
    assert added(model) == [PfnRange(blocks.start * B, blocks.stop * B)]
    lost = mib - len(blocks) * 128
    cut = [event.text for event in record.events if "cut off" in event.text]
    assert cut == ([f"{lost} MiB of the device are cut off by alignment to blocks"] if lost else [])


def test_256_mib_at_an_odd_place_can_hold_one_block_or_none():
    model = guest()
    assert plug(model, 4 * GIB + 64 * MIB, 256).outcome
    assert added(model) == [PfnRange(33 * B, 34 * B)]
    model = guest(block_size=Size(256 * MIB))
    record = plug(model, 4 * GIB + 64 * MIB, 256)
    assert (record.outcome.errno, record.outcome.function) == ("EINVAL", "dev_dax_kmem_probe")
    assert any("too small after alignment" in event.text for event in record.events)
    assert not added(model)


def test_a_range_that_is_too_small_is_skipped():
    model = guest()
    assert plug(model, 4 * GIB + 64 * MIB, 128, more=[(8 * GIB, 128)]).outcome
    assert added(model) == [PfnRange(64 * B, 65 * B)]


def test_the_first_range_decides_and_later_ones_may_fail():
    beyond = 1 << 46
    model = guest()
    assert plug(model, more=[(beyond, 128)]).outcome
    assert len(added(model)) == 1
    model = guest()
    outcome = plug(model, beyond, 128, more=[(8 * GIB, 128)]).outcome
    assert outcome.errno == "E2BIG"
    assert not added(model)


@pytest.mark.parametrize(
    ("release", "mode", "keys", "hosted"),
    [
        ("6.1", "on", {}, 0),
        ("6.6", "on", {}, 0),
        ("6.8", "on", {}, 2048),
        ("6.12", "on", {}, 2048),
        ("6.12", "on", {"dax": "cxl"}, 2048),
        ("6.12", "on", {"dax": "pmem"}, 0),
        ("6.12", "on", {"dax": "hmem"}, 0),
        ("6.12", "on", {"dax": "pmem", "memmap_on_memory": True}, 2048),
        ("7.3", "on", {"dax": "cxl", "memmap_on_memory": False}, 0),
        ("6.12", "off", {"dax": "cxl"}, 0),
    ],
)
def test_the_device_says_whether_it_hosts_its_memmap(release, mode, keys, hosted):
    model = guest(release=release, memmap_on_memory=mode)
    assert plug(model, **keys).outcome
    assert len(model.kernel.self_hosted) == hosted


@pytest.mark.parametrize(
    ("release", "mode", "errno"), [("6.6", "on", "ENOENT"), ("6.12", "off", "EOPNOTSUPP")]
)
def test_a_switch_that_is_not_there_or_not_possible_is_refused(release, mode, errno):
    model = guest(release=release, memmap_on_memory=mode)
    outcome = plug(model, memmap_on_memory=True).outcome
    assert (outcome.errno, outcome.function) == (errno, "memmap_on_memory_store")
    assert not added(model)
    # The device is there, unbound, and can be taken away.
    assert model.perform(Unplug(id="dax0.0")).outcome.errno == "ENODEV"


def test_the_node_is_the_device_s_own():
    model = guest(memory=None, nodes=[Node(memory=Size(GIB)), Node(memory=Size(0))])
    assert plug(model, node=1).outcome
    assert len(model.kernel.movable_zone(1).present) == 4 * B


# --- giving back ----------------------------------------------------------------------------


def test_before_the_state_file_an_online_block_keeps_the_memory_until_reboot():
    model = guest(release="6.12")
    plug(model)
    outcome = model.perform(Unplug(id="dax0.0")).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "dev_dax_kmem_remove")
    # Too late: the device is unbound, and nobody can remove its memory any more.
    model.perform(Offline(id="dax0.0"))
    outcome = model.perform(Unplug(id="dax0.0")).outcome
    assert outcome.errno == "ENODEV"
    assert added(model)


def test_unbinding_removes_the_ranges_that_are_offline_and_leaves_the_others():
    model = guest(release="6.12")
    plug(model, more=[(8 * GIB, 256)])
    model.perform(Offline(blocks=[64, 65]))
    record = model.perform(Unplug(id="dax0.0"))
    assert record.outcome.errno == "EBUSY"
    assert added(model) == [PfnRange(32 * B, 36 * B)]
    assert any("until the next reboot" in event.text for event in record.events)


def test_blocks_that_are_offline_are_removed_on_every_release():
    for release in ("6.1", "6.12", "7.3"):
        model = guest(release=release)
        plug(model, more=[(8 * GIB, 256)])
        model.perform(Offline(id="dax0.0"))
        assert model.perform(Unplug(id="dax0.0")).outcome
        assert not added(model)
        assert not model.backing.backed.count(PfnRange(32 * B, 80 * B))
        assert plug(model).outcome


def test_the_state_file_offlines_all_and_removes_it():
    model = guest(release="7.3")
    plug(model, more=[(8 * GIB, 256)])
    assert model.perform(Unplug(id="dax0.0")).outcome
    assert not added(model)


def test_the_state_file_is_all_or_nothing_and_zones_stay():
    model = guest(release="7.3", auto_online_blocks="offline")
    plug(model)
    model.perform(Online(blocks=32, to="online_movable"))
    model.perform(Online(blocks=[33, 34], to="online_kernel"))
    model.kernel.used |= PfnRange(34 * B + 9, 34 * B + 10)
    model.kernel.used -= PfnRange(33 * B, 34 * B)
    before = {zone.key: zone.present.copy() for zone in model.kernel.zones.values()}
    outcome = model.perform(Unplug(id="dax0.0")).outcome
    assert outcome.errno == "EBUSY"
    assert f"{34 * B + 9:#x}" in outcome.why
    # Unlike an eject of ACPI, a movable block comes back as a movable one.
    assert {zone.key: zone.present for zone in model.kernel.zones.values()} == before
    model.kernel.used -= model.kernel.zones[0, "Normal"].present
    assert model.perform(Unplug(id="dax0.0")).outcome


# --- what cannot be asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"address": 832 * MIB, "mib": 64}, "overlaps memory"),
        ({"address": 4 * GIB + 1}, "page size"),
        ({"node": 5}, "node 5 does not exist"),
        ({"more": [(4 * GIB + 256 * MIB, 128)]}, "overlaps"),
        ({"more": [(0, 128)]}, "overlaps"),
    ],
)
def test_a_device_that_cannot_be_is_an_error(keys, why):
    with pytest.raises(InputError, match=why):
        plug(guest(), **keys)


def test_devices_without_an_address_are_placed_one_behind_the_other():
    model = guest()
    for id_, mib in (("a", 256), ("b", 128)):
        model.perform(Plug(id=id_, driver="kmem", size=Size(mib * MIB)))
    assert added(model) == [PfnRange(32 * B, 34 * B), PfnRange(34 * B, 35 * B)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 24)), min_size=1, max_size=4))
def test_what_is_added_is_the_union_of_whole_blocks_inside_the_ranges(pieces):
    """Twin: a loop over blocks, each of which is inside one range or not."""
    unit, at, ranges = 32 * MIB, 4 * GIB, []
    for gap, length in pieces:
        ranges.append((at + gap * unit, length * 32))
        at += (gap + length) * unit
    model = guest(auto_online_blocks="offline")
    outcome = plug(model, *ranges[0], more=ranges[1:]).outcome
    whole = [
        block
        for block in range(32, 32 + 300)
        if any(
            start <= block * 128 * MIB and (block + 1) * 128 * MIB <= start + mib * MIB
            for start, mib in ranges
        )
    ]
    assert list(model.kernel.added_blocks)[8:] == whole
    assert bool(outcome) == bool(whole)
    assert PfnSet(added(model)) == PfnSet(PfnRange(b * B, (b + 1) * B) for b in whole)


def test_a_device_that_shares_a_block_with_boot_memory_has_no_part_in_it():
    """Blocks that its range touches and that boot memory owns were onlined with the device's."""
    model = guest(memory=Size(4 * GIB), auto_online_blocks="offline")
    end = 5 * GIB  # of boot memory, of which the upper part is taken away
    model.kernel.boot_ram -= PfnRange((end - 200 * MIB) // 4096, end // 4096)
    model.backing.backed -= PfnRange((end - 200 * MIB) // 4096, end // 4096)
    for zone in model.kernel.zones.values():
        zone.present -= PfnRange((end - 200 * MIB) // 4096, end // 4096)
    model.kernel.added_blocks -= PfnRange(39, 40)
    model.kernel.online_blocks -= PfnRange(39, 40)
    assert plug(model, end - 200 * MIB, 328).outcome
    assert model._devices.blocks("dax0.0") == [39, 40]
    assert model.perform(Online(id="dax0.0", to="online_movable")).outcome


@pytest.mark.parametrize("address", [512 * MIB, 4 * GIB + 128 * MIB])
def test_a_device_where_system_ram_is_already_is_refused_and_changes_nothing(address):
    # request_mem_region() fails in dev_dax_kmem_probe, before add_memory_driver_managed().
    model = guest()
    assert plug(model, 4 * GIB, 256).outcome
    before, backed = model.observe(), model.backed
    outcome = model.perform(
        Plug(id="dax1.0", driver="kmem", size=Size(256 * MIB), address=Address(address))
    ).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "dev_dax_kmem_probe")
    assert f"[{address:#x}, {address + 256 * MIB:#x})" in outcome.why
    assert model.observe() == before
    assert model.backed == backed


@pytest.mark.parametrize(
    ("keys", "dax", "node"),
    [
        ({"release": "5.13"}, "pmem", None),
        ({"release": "6.12"}, "pmem", None),
        ({"release": "6.12"}, "hmem", None),
        ({"release": "6.12"}, "cxl", 0),  # memory_add_physaddr_to_nid
        # phys_to_target_node() is 0 on arm64 from the fallback's release until it has tables
        ({"release": "5.13", "arch": "aarch64"}, "pmem", None),
        ({"release": "5.15", "arch": "aarch64"}, "pmem", 0),
        ({"release": "6.8", "arch": "aarch64"}, "pmem", 0),
        ({"release": "6.12", "arch": "aarch64"}, "pmem", None),
    ],
)
def test_a_device_without_a_node_is_refused_unless_there_is_a_fallback(keys, dax, node):
    model = guest(**keys)
    step = Plug(id="d", driver="kmem", size=Size(GIB), address=Address(64 * GIB), node=-1, dax=dax)
    outcome = model.perform(step).outcome
    if node is None:
        assert (outcome.errno, outcome.function) == ("EINVAL", "dev_dax_kmem_probe")
        assert "invalid node: -1" in outcome.why
        assert not model.kernel.additions
    else:
        assert outcome
        assert {addition.node for addition in model.kernel.additions} == {node}


# --- the file state --------------------------------------------------------------------------


def write_state(model, word, id_="dax0.0"):
    file = f"/sys/bus/dax/devices/{id_}/state"
    return model.perform(Write(file=file, word=word)).outcome


def with_state(**changes):
    model = guest(release="7.3", **changes)
    assert plug(model).outcome
    return model


def test_the_state_is_at_first_what_added_memory_goes_online_to():
    model = with_state(auto_online_blocks="offline")
    assert model.dax_state("dax0.0") == "offline"
    assert model.dax_state("other") is None
    assert with_state().dax_state("dax0.0") == "online_movable"


def test_memory_goes_online_by_the_state_only_from_unplugged():
    model = with_state(auto_online_blocks="offline")
    assert write_state(model, "online_movable").errno == "EBUSY"
    assert write_state(model, "unplugged")
    assert not added(model)
    assert write_state(model, "online_kernel")
    assert model.dax_state("dax0.0") == "online_kernel"
    assert all(zone.name == "Normal" for zone in model.kernel.zones_of(PfnRange(32 * B, 36 * B)))
    assert model.kernel.tunables.auto_online_blocks == "offline"


def test_what_a_device_is_already_changes_nothing():
    model = with_state(auto_online_blocks="offline")
    assert write_state(model, "unplugged")
    assert write_state(model, "unplugged")
    assert write_state(model, "online_movable")
    assert write_state(model, "online_movable")


@pytest.mark.parametrize("word", ["offline", "movable", "1"])
def test_other_words_are_invalid_offline_among_them(word):
    assert write_state(with_state(), word).errno == "EINVAL"


def test_the_state_does_not_follow_blocks_one_by_one():
    model = with_state(auto_online_blocks="offline")
    model.perform(Online(id="dax0.0", to="online_movable"))
    assert model.dax_state("dax0.0") == "offline"


def test_memory_that_cannot_go_offline_keeps_its_state():
    model = with_state(auto_online_blocks="offline")
    write_state(model, "unplugged")
    write_state(model, "online_movable")
    model.perform(Veto(on="going_offline", errno="EPERM"))
    assert write_state(model, "unplugged").errno == "EPERM"
    assert model.dax_state("dax0.0") == "online_movable"
    assert added(model)


def test_the_flag_of_a_device_stays_when_its_memory_comes_again():
    model = guest(release="7.3", auto_online_blocks="offline")
    plug(model, dax="pmem", memmap_on_memory=True)
    write_state(model, "unplugged")
    write_state(model, "online_movable")
    assert all(each.memmap.self_hosted for each in model.kernel.additions)


def test_a_device_that_was_given_back_has_no_state():
    model = with_state()
    assert model.perform(Unplug(id="dax0.0")).outcome
    assert write_state(model, "online").errno == "ENOENT"
    assert write_state(model, "online", "other").errno == "ENOENT"


def test_no_earlier_release_has_the_file():
    model = guest()
    plug(model)
    assert model.dax_state("dax0.0") is None
    assert write_state(model, "unplugged").errno == "ENOENT"


def test_a_device_of_captured_files_can_be_taken_back_and_added_again():
    start = guest(release="7.3")
    plug(start, dax="pmem", memmap_on_memory=True)
    model = ModelMachine.start(Machine(release="7.3"), start.observe())
    assert write_state(model, "unplugged")
    assert write_state(model, "online_movable")
    assert [each.memmap.self_hosted for each in model.kernel.additions] == [True]
