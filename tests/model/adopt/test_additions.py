"""What plugged devices have added: whole blocks, their group, and the place of their memmap."""

from dataclasses import replace

import pytest
from small_machine import BLOCK, BLOCKS, DIMM, FIRST, GIB, RAM, files, with_runs

from altmap.errors import InputError
from altmap.linux.kpageflags import PageFlag
from altmap.model.adopt import adopt
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Device, Machine, Size

MIB = 1 << 20


def adopted(seen=None, device=DIMM, **machine):
    return adopt(files() if seen is None else seen, Machine(devices=[device], **machine))


def other(driver, **changes):
    keys = {"id": "d", "address": Address(4 * GIB), "size": Size(BLOCK), "driver": driver}
    return Device(**keys | changes)


@pytest.mark.parametrize(
    ("address", "size"),
    [(4 * GIB + 4096, BLOCK), (4 * GIB, BLOCK + 4096), (4 * GIB, BLOCK // 2)],
)
def test_a_device_has_whole_blocks(address, size):
    device = other("dimm", address=Address(address), size=Size(size))
    with pytest.raises(InputError, match=rf"'d': \[{address:#x}, .*: need whole memory blocks of"):
        adopted(device=device)


@pytest.mark.parametrize("address", [4 * GIB + BLOCK, 4 * GIB])
def test_a_device_has_blocks_that_exist(address):
    device = other("dimm", address=Address(address), size=Size(2 * BLOCK))
    with pytest.raises(InputError, match=r"'d': \[.*\) has no memory blocks in the sysroot$"):
        adopted(device=device)


def test_devices_leave_boot_memory():
    device = other("dimm", address=Address(0), size=Size(4 * BLOCK))
    with pytest.raises(InputError, match="they cover all RAM"):
        adopted(files(ram=RAM[:2], blocks={k: v for k, v in BLOCKS.items() if k < 4}), device)


def test_ram_that_no_device_has_added_booted():
    kernel = adopted().kernel
    assert kernel.boot_ram == PfnSet([PfnRange(1, 0x9F), PfnRange(0x100, 0x20000)])
    assert adopt(files(), Machine()).kernel.boot_ram.count(PfnRange(FIRST, FIRST + 32768)) == 32768


@pytest.mark.parametrize(
    ("driver", "name", "is_grouped", "merges"),
    [
        ("dimm", "System RAM", True, False),
        ("kmem", "System RAM (kmem)", True, False),
        ("hyperv", "System RAM", False, True),
        ("probe", "System RAM", False, False),
    ],
)
def test_an_add_has_the_resource_and_group_of_its_driver(driver, name, is_grouped, merges):
    made = adopted(device=other(driver))
    (addition,) = made.kernel.additions
    assert made.devices == {"d": addition}
    assert (addition.resource_name, addition.merges) == (name, merges)
    assert (addition.group is not None) == is_grouped
    if addition.group is not None:
        assert addition.group.max_nr_pages == 32768
        assert addition.group.present_movable_nr_pages == 32768
        assert addition.group.present_kernel_nr_pages == 0


def hosted(seen=None, device=DIMM, **machine):
    kernel = adopted(seen, device, **machine).kernel
    return [(run.start - FIRST, len(run)) for run in kernel.self_hosted.ranges()]


def test_page_flags_tell_where_the_memmap_of_an_online_device_is():
    assert hosted() == [(0, 512)]
    assert hosted(files(runs=with_runs((FIRST, 512, PageFlag.BUDDY)))) == []
    # The memmap of another range is not the device's.
    flags = PageFlag.OWNER_PRIVATE
    runs = with_runs((FIRST, 512, PageFlag.BUDDY), (0x1000, 512, flags))
    assert hosted(files(runs=runs)) == []


def test_the_scenario_tells_it_before_page_flags():
    assert hosted(device=other("dimm", self_hosted=False)) == []
    runs = with_runs((FIRST, 512, PageFlag.BUDDY))
    assert hosted(files(runs=runs), other("dimm", self_hosted=True)) == [(0, 512)]
    # A release or mode that hosts no memmap has none in the range.
    assert hosted(device=other("dimm", self_hosted=True), memmap_on_memory="off") == []


def without_flags():
    return replace(files(), kpageflags=None)


def offline():
    blocks = BLOCKS | {32: replace(BLOCKS[32], state="offline")}
    return files(runs=with_runs((FIRST, 512, PageFlag.NOPAGE)), blocks=blocks)


@pytest.mark.parametrize("seen", [without_flags(), offline()])
def test_the_rule_tells_it_where_no_page_flag_does(seen):
    assert hosted(seen) == [(0, 512)]
    assert hosted(seen, memmap_on_memory="off") == []


REGION = other("virtio-mem", id="v", size=Size(4 * BLOCK))
FAKE_OFFLINE = (FIRST + 1024, 4096, PageFlag.OFFLINE | PageFlag.DIRTY)


def test_each_block_of_a_region_is_an_add_of_one_group():
    blocks = BLOCKS | {33: BLOCKS[32], 35: BLOCKS[32]}
    ram = [*RAM[:2], (4 * GIB, 4 * GIB + 4 * BLOCK)]
    made = adopted(files(runs=with_runs(FAKE_OFFLINE), ram=ram, blocks=blocks), REGION)
    kernel = made.kernel
    assert [add.pfns.start - FIRST for add in kernel.additions] == [0, 32768, 3 * 32768]
    assert {add.group for add in kernel.additions} == set(kernel.groups)
    assert [group.unit_nr_pages for group in kernel.groups] == [32768]
    assert {(add.resource_name, add.merges) for add in kernel.additions} == {
        ("System RAM (virtio_mem)", True)
    }
    assert kernel.groups[0].present_movable_nr_pages == 3 * 32768
    assert made.devices == {}


def test_a_region_has_the_requested_size_of_the_scenario_else_what_is_plugged():
    seen = files(runs=with_runs(FAKE_OFFLINE))
    made = adopted(seen, REGION)
    assert [region.requested for region in made.regions] == [BLOCK - 4096 * 4096]
    assert made.notes == ["device 'v': it is assumed to have its requested size"]
    made = adopted(seen, other("virtio-mem", id="v", requested=Size(BLOCK)))
    assert [region.requested for region in made.regions] == [BLOCK]
    assert made.notes == []


def test_an_offline_block_of_a_region_is_plugged_with_a_note():
    blocks = BLOCKS | {32: replace(BLOCKS[32], state="offline")}
    made = adopted(files(blocks=blocks), REGION)
    assert [region.requested for region in made.regions] == [BLOCK]
    assert made.notes[0].startswith("device 'v': memory blocks that are offline are assumed")


@pytest.mark.parametrize(
    ("driver", "is_backed"), [("virtio-mem", False), ("hyperv", False), ("dimm", True)]
)
def test_fake_offline_pages_are_not_backed_where_a_host_plugs_page_by_page(driver, is_backed):
    made = adopted(files(runs=with_runs(FAKE_OFFLINE)), other(driver))
    pages = PfnRange(FIRST + 1024, FIRST + 1024 + 4096)
    assert made.kernel.fake_offline == PfnSet.of(pages)
    assert made.backing.backed.count(pages) == (4096 if is_backed else 0)
    assert made.backing.backed.count(PfnRange(FIRST, FIRST + 1024)) == 1024
