"""The policy auto-movable: the ratio's bound, what counts in it, and the zone after a refusal."""

import pytest

from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.online import zone_for_pfn_range
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Offline, Online, Size

B = 0x8000  # pages of a block
BASE = 32 * B  # 4 GiB


def blocks(first, end):
    """Return the page frames of blocks, counted from 4 GiB."""
    return PfnRange(BASE + first * B, BASE + end * B)


def kernel_with(early=4 * B, cma=0, nr_blocks=4, group=None, node=0):
    """Return a kernel at a ratio of 100 %, with an add of some blocks that are offline."""
    machine = Machine(
        memory=Size(2 << 30),
        release="6.12",
        online_policy="auto-movable",
        auto_movable_ratio=100,
        auto_online_blocks="offline",
    )
    kernel = ModelMachine.start(machine).kernel
    for zone in kernel.zones.values():
        zone.early_nr_pages = zone.cma_nr_pages = 0
    kernel.zones[0, "Normal"].early_nr_pages = early
    kernel.zones[0, "Normal"].cma_nr_pages = cma
    pfns = blocks(0, nr_blocks)
    kernel.additions.append(Addition(pfns, node, Memmap(kernel.arch, pfns), group))
    kernel.added_blocks |= kernel.blocks(pfns)
    if group is not None and group.unit_nr_pages:
        kernel.groups.append(group)
    return kernel


def chosen(kernel, block=0):
    return zone_for_pfn_range(kernel, blocks(block, block + 1), 0, "online").name


def put_online(kernel, name, first, end):
    kernel.zones[0, name].present |= blocks(first, end)
    kernel.online_blocks |= kernel.blocks(blocks(first, end))


@pytest.mark.parametrize(("early", "name"), [(B, "Movable"), (B - 1, "Normal")])
def test_the_ratio_may_be_reached_exactly(early, name):
    """auto_movable_can_online_movable: ``movable_pages <= (ratio * kernel_early_pages) / 100``."""
    assert chosen(kernel_with(early)) == name


def test_without_early_kernel_memory_nothing_is_movable():
    kernel = kernel_with(early=0)
    kernel.tunables.auto_movable_ratio = 10**9
    assert chosen(kernel) == "Normal"


def test_a_device_s_own_kernel_memory_does_not_replace_early_memory():
    group = MemoryGroup(unit_nr_pages=B, present_kernel_nr_pages=9 * B)
    assert chosen(kernel_with(early=0, group=group)) == "Normal"


def test_cma_pages_count_as_movable_memory_and_not_as_kernel_memory():
    # 3 blocks of kernel memory, 1 of movable memory and 1 more: 2 of 3.
    assert chosen(kernel_with(early=4 * B, cma=B)) == "Movable"
    # 2 blocks of kernel memory, 2 of movable memory and 1 more: 3 of 2.
    assert chosen(kernel_with(early=4 * B, cma=2 * B)) == "Normal"


@pytest.mark.parametrize(("early", "name"), [(4 * B, "Movable"), (4 * B - 1, "Normal")])
def test_a_static_group_is_checked_with_all_pages_that_are_not_online_yet(early, name):
    group = MemoryGroup(max_nr_pages=4 * B, present_movable_nr_pages=2 * B)
    kernel = kernel_with(early, group=group)
    put_online(kernel, "Movable", 2, 4)
    assert chosen(kernel) == name


@pytest.mark.parametrize(("early", "name"), [(4 * B, "Movable"), (4 * B - 1, "Normal")])
def test_a_unit_of_a_dynamic_group_is_checked_with_its_rest(early, name):
    group = MemoryGroup(unit_nr_pages=4 * B)
    kernel = kernel_with(early, group=group)
    put_online(kernel, "Movable", 1, 2)  # and 3 blocks more
    assert chosen(kernel) == name


def test_a_unit_with_kernel_memory_stays_kernel_memory():
    kernel = kernel_with(100 * B, group=MemoryGroup(unit_nr_pages=4 * B))
    put_online(kernel, "Normal", 3, 4)
    assert chosen(kernel) == "Normal"


def test_kernel_memory_of_a_dynamic_group_allows_movable_memory_of_its_own():
    group = MemoryGroup(unit_nr_pages=B, present_kernel_nr_pages=1)
    assert chosen(kernel_with(B - 1, group=group)) == "Movable"
    assert chosen(kernel_with(B - 2, group=group)) == "Normal"


@pytest.mark.parametrize(("early", "name"), [(2 * B, "Movable"), (2 * B - 1, "Normal")])
def test_another_group_needs_early_memory_for_what_its_own_does_not_cover(early, name):
    """It has 2 movable blocks and 1 kernel block: 1 early block is its share, none of 2 movable."""
    kernel = kernel_with(early)
    other = MemoryGroup(unit_nr_pages=B, present_movable_nr_pages=2 * B, present_kernel_nr_pages=B)
    kernel.groups.append(other)
    put_online(kernel, "Movable", 8, 10)
    assert chosen(kernel) == name


def test_a_group_that_covers_itself_needs_nothing_and_gives_nothing():
    kernel = kernel_with(B)
    kernel.groups.append(MemoryGroup(unit_nr_pages=B, present_kernel_nr_pages=9 * B))
    assert chosen(kernel) == "Movable"
    kernel.zones[0, "Normal"].early_nr_pages = B - 1
    assert chosen(kernel) == "Normal"


# --- the zone after a refusal: default_kernel_zone_for_pfn(nid, pfn, nr_pages) ----------------


def test_a_refused_static_group_is_looked_up_with_the_length_of_its_rest():
    kernel = kernel_with(early=1, group=MemoryGroup(max_nr_pages=4 * B))
    kernel.zones[0, "DMA32"].span = blocks(2, 3)  # of the group, but not of the block
    assert chosen(kernel) == "DMA32"
    kernel.zones[0, "DMA32"].span = blocks(4, 5)
    assert chosen(kernel) == "Normal"


def test_a_refused_unit_is_looked_up_from_its_end_on():
    """The loop over sections leaves ``pfn`` at the end of the unit."""
    kernel = kernel_with(early=1, group=MemoryGroup(unit_nr_pages=2 * B))
    for span, name in ((blocks(0, 2), "Normal"), (blocks(3, 4), "DMA32"), (blocks(4, 5), "Normal")):
        kernel.zones[0, "DMA32"].span = span
        assert chosen(kernel) == name


def test_a_unit_with_kernel_memory_is_looked_up_from_there_on():
    kernel = kernel_with(100 * B, group=MemoryGroup(unit_nr_pages=4 * B))
    put_online(kernel, "Normal", 2, 3)
    for span, name in ((blocks(0, 1), "Normal"), (blocks(2, 3), "DMA32"), (blocks(3, 4), "Normal")):
        kernel.zones[0, "DMA32"].span = span
        assert chosen(kernel) == name


def test_pages_of_other_zones_do_not_matter_to_a_unit():
    kernel = kernel_with(100 * B, group=MemoryGroup(unit_nr_pages=4 * B))
    assert PfnSet.of(blocks(0, 4)) - kernel.zones[0, "Normal"].present
    assert chosen(kernel) == "Movable"


def test_boot_memory_counts_as_early_pages_of_the_zone_that_it_is_online_in():
    """``present_early_pages``: what of boot memory went offline, or to another zone, leaves it."""
    machine = Machine(memory=Size(2 << 30), release="6.12", auto_online_blocks="offline")
    model = ModelMachine.start(machine)
    dma32, movable = (model.kernel.zones[0, name] for name in ("DMA32", "Movable"))
    early, block = dma32.early_nr_pages, model.kernel.block_nr_pages
    id_ = next(
        nr
        for nr in range(14, 1, -1)
        if not model.kernel.unmovable(model.kernel.block_pfns(nr))
        and not model.kernel.reserved & model.kernel.block_pfns(nr)
    )
    assert model.perform(Offline(blocks=id_)).outcome
    assert (dma32.early_nr_pages, movable.early_nr_pages) == (early - block, 0)
    assert model.perform(Online(blocks=id_, to="online_movable")).outcome
    assert (dma32.early_nr_pages, movable.early_nr_pages) == (early - block, block)
