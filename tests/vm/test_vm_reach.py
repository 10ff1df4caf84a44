"""How far guests grow: against the kernel's arithmetic, done by hand."""

from dataclasses import replace

import pytest
from definitions import GIB, MIB, qemu, with_virtio_mem

from altmap.errors import InputError
from altmap.model.kernel.allocator import available_nr_pages
from altmap.scenario import Offline, Plug, Resize, Size, Unplug
from altmap.vm.answers import started, way_answer
from altmap.vm.definition import DefinedDevice
from altmap.vm.growth import growth_scenario
from altmap.vm.reach import GivenBack, reach, sizes_of

MOVABLE = "memhp_default_state=online_movable"
SMALL = qemu(256 * MIB, max_memory_bytes=12 * GIB + 256 * MIB)


def answer(definition, sizes=(), **keys):
    guest = started(definition, **keys)
    return way_answer(guest, guest.ways()[0], sizes)


def last(definition, size, **keys):
    return answer(definition, [size], **keys).rows[-1]


def test_sizes_double_from_boot_memory_to_the_limit():
    way = started(SMALL).ways()[0]
    assert sizes_of(way) == [
        *(256 * MIB << doubling for doubling in range(6)),
        12 * GIB + 256 * MIB,
    ]


def test_the_largest_add_is_as_many_blocks_as_their_memmap_fits():
    """64 bytes for each page: 2 MiB for a block of 128 MiB, and page tables."""
    guest = started(SMALL)
    free_bytes = available_nr_pages(guest.booted.kernel) * 4096
    found = way_answer(guest, guest.ways()[0])
    blocks = found.largest_add_bytes // (128 * MIB)
    assert blocks * 2 * MIB <= free_bytes < (blocks + 2) * 2 * MIB
    assert found.careful_add_bytes == free_bytes // 2 // (2 * MIB) * 128 * MIB


def test_one_add_more_than_fits_is_refused_and_several_are_not():
    found = answer(SMALL, [8 * GIB])
    assert found.rows[0].adds_bytes == (
        found.largest_add_bytes,
        8 * GIB - 256 * MIB - found.largest_add_bytes,
    )
    guest = started(SMALL)
    plug = Plug(id="d", size=Size(found.largest_add_bytes + 128 * MIB))
    assert guest.booted.copy().perform(plug).outcome.errno == "ENOMEM"
    assert guest.booted.copy().perform(plug.replace(size=Size(found.largest_add_bytes))).outcome


def test_movable_memory_does_not_hold_the_memmap_of_more():
    found = answer(SMALL, cmdline=MOVABLE)
    assert found.rows[-1].result == "refused"
    assert "ENOMEM by vmemmap_populate" in found.stops
    assert found.stops_bytes == 256 * MIB + found.largest_add_bytes
    grown = answer(SMALL)
    assert (grown.stops_bytes, grown.stops) == (12544 * MIB, "the maximum, 12.25 GiB")


def test_a_self_hosted_memmap_needs_no_free_memory_but_page_tables():
    found = answer(SMALL, [12 * GIB], cmdline=f"memory_hotplug.memmap_on_memory=1 {MOVABLE}")
    (row,) = found.rows
    assert row.result == "ok"
    assert row.memmap_boot_bytes == row.memmap_added_bytes == 0
    assert row.memmap_self_bytes == (12 * GIB - 256 * MIB) // 64
    assert row.mem_total_bytes < 12 * GIB - row.memmap_self_bytes


@pytest.mark.parametrize(
    ("cmdline", "kernel", "movable", "back"),
    [
        ("", 4 * GIB, 0, GivenBack(0, 0, 4 * GIB)),
        (MOVABLE, 0, 4 * GIB, GivenBack(0, 4 * GIB, 0)),
        ("memhp_default_state=offline", 0, 0, GivenBack(4 * GIB, 0, 0)),
    ],
)
def test_where_added_memory_comes_online_decides_what_is_given_back(cmdline, kernel, movable, back):
    row = last(qemu(), 8 * GIB, cmdline=cmdline)
    assert (row.online_kernel_bytes, row.online_movable_bytes) == (kernel, movable)
    assert row.offline_bytes == 4 * GIB - kernel - movable
    assert row.given == back
    assert row.ratio == pytest.approx(movable / (4 * GIB), rel=0.001)


def test_a_dimm_with_one_block_in_a_kernel_zone_is_not_given_back():
    """Under auto-movable a DIMM goes to one zone, a virtio-mem device to both."""
    definition = with_virtio_mem(qemu(GIB))
    policy = "memory_hotplug.online_policy=auto-movable"
    row = last(definition, 9 * GIB, cmdline=policy)
    assert 0 < row.given.likely == row.online_movable_bytes < 8 * GIB
    assert row.given.unlikely == row.online_kernel_bytes == 8 * GIB - row.given.likely


def test_virtio_mem_adds_block_by_block_and_needs_memory_for_the_first():
    row = last(with_virtio_mem(qemu(256 * MIB)), 8 * GIB)
    assert row.result == "ok"
    assert row.memmap_added_bytes > row.memmap_boot_bytes
    assert row.needs_free_bytes < 16 * MIB
    movable = last(with_virtio_mem(qemu(256 * MIB)), 4 * GIB, cmdline=MOVABLE)
    assert movable.needs_free_bytes > 60 * MIB


def test_virtio_mem_that_stays_offline_stops_after_a_gib():
    """drivers/virtio/virtio_mem.c: virtio_mem_could_add_memory."""
    found = answer(with_virtio_mem(qemu()), release="6.1")
    assert found.rows[-1].result == "refused"
    assert found.stops_bytes == 5 * GIB


def test_slots_end_growth():
    definition = replace(SMALL, slots=1)
    found = answer(definition, [8 * GIB])
    assert found.rows[0].result == "refused"
    assert "no slot is free: 1 were" in found.rows[0].why
    used = replace(definition, devices=(DefinedDevice("dimm", 128 * MIB, "d0"),))
    assert "no slot is free: 0 were" in answer(used, [GIB]).rows[0].why


def test_the_region_of_a_virtio_mem_device_is_not_left_for_dimms():
    definition = replace(with_virtio_mem(qemu(), requested=4 * GIB), growth=("dimm", "virtio-mem"))
    dimm, virtio_mem = started(definition).ways()
    assert dimm.start_bytes == virtio_mem.start_bytes == 8 * GIB
    assert dimm.limit_bytes == 64 * GIB - 12 * GIB
    assert virtio_mem.limit_bytes == 20 * GIB


def test_sizes_are_multiples_of_the_block_and_of_the_devices_block():
    assert started(qemu()).ways()[0].unit_bytes == 128 * MIB
    assert started(qemu(62 * GIB, max_memory_bytes=256 * GIB)).ways()[0].unit_bytes == 2 * GIB
    definition = with_virtio_mem(qemu(), block_bytes=32 * MIB)
    assert started(definition).ways()[0].unit_bytes == 32 * MIB


@pytest.mark.parametrize(("memory", "limit"), [(4 * GIB, 8 << 40), (9 << 40, 9 << 40)])
def test_no_size_above_8_tib_is_computed(memory, limit):
    (way,) = started(qemu(memory, max_memory_bytes=1 << 52)).ways()
    assert way.limit_bytes == limit
    assert "is computed" in way.limit


def test_a_way_that_the_definition_does_not_have_is_supposed():
    (way,) = started(qemu(growth=(), max_memory_bytes=None)).ways(["virtio-mem"], 8 * GIB)
    assert (way.defined, way.limit_bytes) == (False, 8 * GIB)
    assert "supposed" in way.limit
    with pytest.raises(InputError, match="need one of dimm, virtio-mem, hyperv, balloon"):
        started(qemu()).ways(["floppy"])


def test_a_driver_that_the_kernel_lacks_reaches_nothing():
    found = answer(qemu(arch="aarch64", machine="virt"))
    assert [row.result for row in found.rows] == ["ok", "refused"]
    assert "CONFIG_ACPI_HOTPLUG_MEMORY" in found.stops
    assert found.stops_bytes == 4 * GIB


def test_too_many_blocks_are_not_computed_one_by_one():
    found = answer(with_virtio_mem(qemu(max_memory_bytes=1 << 42), size=1 << 40), [1 << 40])
    (row,) = found.rows
    assert row.result == "about"
    assert row.memmap_boot_bytes + row.memmap_added_bytes == (1 << 40) // 64 - 4 * GIB // 64


def test_an_add_that_no_hypervisor_takes_is_a_refusal():
    guest = started(qemu())
    way = replace(guest.ways()[0], unit_bytes=MIB)
    (row,) = reach(guest.booted, way, [4 * GIB + MIB])
    assert row.result == "refused"
    assert "need a multiple of 2 MiB" in row.why


# --- as a scenario ---------------------------------------------------------------------------


def test_growth_is_a_scenario_that_gives_back_what_it_adds():
    guest = started(SMALL, cmdline=MOVABLE)
    found = way_answer(guest, guest.ways()[0], [256 * MIB, 2 * GIB])
    made = growth_scenario(guest, found)
    assert [type(step) for step in made.steps] == [Plug, Unplug]
    assert made.steps[0].size == 2 * GIB - 256 * MIB
    machine = guest.booted.copy()
    assert all(machine.perform(step).outcome for step in made.steps)


def test_a_virtio_mem_device_is_plugged_and_resized_by_the_scenario():
    guest = started(with_virtio_mem(qemu(), requested=GIB), cmdline=MOVABLE)
    found = way_answer(guest, guest.ways()[0], [5 * GIB, 8 * GIB])
    made = growth_scenario(guest, found)
    assert [type(step) for step in made.steps] == [Plug, Resize, Resize]
    plug, grow, shrink = made.steps
    assert (plug.size, plug.requested) == (16 * GIB, GIB)
    assert (grow.size, shrink.size) == (4 * GIB, GIB)
    assert made.machine.devices == ()


def test_what_likely_goes_back_goes_offline_on_the_model():
    guest = started(SMALL, cmdline=MOVABLE)
    machine = guest.booted.copy()
    machine.perform(Plug(id="d", size=Size(GIB)))
    blocks = list(machine.kernel.added_blocks - guest.booted.kernel.added_blocks)
    assert machine.perform(Offline(blocks=blocks)).outcome


def test_a_maximum_of_many_logical_memory_blocks_is_answered_up_to_what_takes_seconds():
    guest = started(qemu(GIB, arch="ppc64le", machine="pseries", max_memory_bytes=1 << 50))
    way = next(way for way in guest.ways() if way.driver == "dimm")
    assert (way.start_bytes, way.limit_bytes) == (GIB, 513 * GIB)
    assert way.limit == "no size above 513 GiB is computed"


def test_dlpar_needs_free_memory_for_its_first_block_where_later_ones_are_hosted():
    guest = started(qemu(GIB, arch="ppc64le", machine="pseries", max_memory_bytes=65 * GIB))
    way = next(way for way in guest.ways() if way.driver == "dimm")
    (_, kernel) = way_answer(guest, way, [GIB, 65 * GIB]).rows
    assert kernel.result == "ok"
    assert kernel.needs_free_bytes < 200 * MIB
    movable = started(guest.definition, cmdline=MOVABLE)
    (_, all_movable) = way_answer(movable, way, [GIB, 33 * GIB]).rows
    assert all_movable.needs_free_bytes > 32 * GIB // 64
