"""The allocator: watermarks, reserves and the boost, and which free pages are taken."""

import pytest

from altmap.model.kernel.allocator import (
    allocate,
    available,
    available_nr_pages,
    find_aligned_units,
    find_free,
    free_pages,
)
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Offline, Online, Plug, Size

PAGEBLOCK = 512


@pytest.fixture
def kernel():
    """A kernel of 1 GiB with 128 MiB in zone Normal and 128 MiB in ZONE_MOVABLE."""
    machine = Machine(memory=Size(1 << 30), release="6.12", auto_online_blocks="offline")
    model = ModelMachine.start(machine)
    for name, to in (("k", "online_kernel"), ("m", "online_movable")):
        assert model.perform(Plug(id=name, size=Size(128 << 20))).outcome
        assert model.perform(Online(id=name, to=to)).outcome
    model.kernel.used -= model.kernel.expected_unmovable
    for zone in model.kernel.zones.values():
        zone.watermarks = Watermarks(100, 200, 300, 400, (0, 0, 0, 0))
    return model.kernel


def zone(kernel, name):
    return kernel.zones[0, name]


@pytest.mark.parametrize(
    ("name", "mark", "kept"),
    [
        ("Normal", "low", 200),
        ("Normal", "min", 100 + PAGEBLOCK),
        ("Movable", "low", 200),
        ("Movable", "min", 100),  # fragmentation boosts no watermark of ZONE_MOVABLE
    ],
)
def test_a_zone_keeps_its_watermark_and_at_the_minimum_the_boost(kernel, name, mark, kept):
    """boost_watermark raises the watermark once kswapd was woken at the low mark, not before."""
    one = zone(kernel, name)
    assert available(kernel, one, [one], mark) == kernel.nr_free(one) - kept


def test_a_zone_keeps_its_reserve_against_the_highest_zone_that_the_request_may_use(kernel):
    dma32, normal = zone(kernel, "DMA32"), zone(kernel, "Normal")
    dma32.watermarks = Watermarks(100, 200, 300, 400, (0, 0, 1000, 2000))
    free = kernel.nr_free(dma32)
    assert available(kernel, dma32, [dma32], "low") == free - 200
    assert available(kernel, dma32, [normal, dma32], "low") == free - 200 - 1000
    assert available(kernel, dma32, [normal, dma32], "min") == free - 100 - 1000  # and no boost
    assert available(kernel, dma32, list(kernel.zones.values()), "low") == free - 200 - 2000


def test_a_zone_below_its_watermark_gives_nothing(kernel):
    normal = zone(kernel, "Normal")
    kernel.used |= kernel.free(normal).highest(kernel.nr_free(normal) - 150)
    assert available(kernel, normal, [normal], "low") == 0
    zones = [each for each in kernel.zones.values() if each.name != "Movable"]
    low = [zone(kernel, name) for name in ("DMA", "DMA32")]
    assert available_nr_pages(kernel) == sum(available(kernel, z, zones, "min") for z in low)


def test_every_zone_gives_down_to_its_low_mark_before_one_gives_down_to_its_minimum(kernel):
    normal, dma32 = zone(kernel, "Normal"), zone(kernel, "DMA32")
    zones = [normal, dma32]
    at_low = available(kernel, normal, zones, "low")
    taken = find_free(kernel, zones, at_low + 10)
    assert (taken.count(normal.present), taken.count(dma32.present)) == (at_low, 10)


def test_boot_memory_gives_its_highest_pages_and_added_memory_its_lowest(kernel):
    normal, dma32 = zone(kernel, "Normal"), zone(kernel, "DMA32")
    assert find_free(kernel, [normal], 3) == kernel.free(normal).lowest(3)
    assert find_free(kernel, [dma32], 3) == kernel.free(dma32).highest(3)


def test_too_few_pages_are_none_and_take_nothing(kernel):
    used = kernel.used.copy()
    assert allocate(kernel, 0, 1 << 30) is None
    assert kernel.used == used


def test_units_are_aligned_and_go_down_to_the_minimum(kernel):
    normal = zone(kernel, "Normal")
    kernel.used |= PfnRange(0x101001, 0x101002)
    starts = range(normal.span.start, normal.span.end, PAGEBLOCK)
    units = [PfnRange(start, start + PAGEBLOCK) for start in starts]
    whole = [unit for unit in units if kernel.free(normal).covers(unit)]
    assert whole[0] != units[0]
    assert find_aligned_units(kernel, PAGEBLOCK, 3) == PfnSet(whole[:3])
    everything = find_aligned_units(kernel, 1, 1 << 30)
    zones = [z for z in kernel.zones.values() if z.name != "Movable"]
    assert everything.count(normal.present) == available(kernel, normal, zones, "min")


def test_freed_pages_are_not_movable_and_not_pinned(kernel):
    page = PfnSet([PfnRange(0x100000, 0x100001)])
    for pages in (kernel.used, kernel.movable, kernel.pinned):
        pages |= page
    free_pages(kernel, page)
    assert not (kernel.used | kernel.movable | kernel.pinned) & page


def onlined(release, **machine):
    """A kernel of 1 GiB whose added memory went online in a kernel zone."""
    start = Machine(
        memory=Size(1 << 30), release=release, auto_online_blocks="online_kernel", **machine
    )
    model = ModelMachine.start(start)
    assert model.perform(Plug(id="k", size=Size(256 << 20))).outcome
    model.kernel.used -= model.kernel.expected_unmovable
    return model.kernel


@pytest.mark.parametrize(
    ("release", "machine", "first"),
    [
        ("6.12", {"arch": "ppc64le"}, True),
        ("6.12", {"arch": "ppc64le-64k"}, True),
        ("6.8", {"arch": "ppc64le"}, False),
        ("6.12", {"arch": "ppc64le", "mmu": "hash"}, False),  # a chunk is one pageblock
        ("6.12", {"platform": "q35"}, False),  # it is two pageblocks
    ],
)
def test_what_went_online_last_is_used_first_where_a_chunk_has_more_than_two_pageblocks(
    release, machine, first
):
    kernel = onlined(release, **machine)
    zones = [one for one in kernel.zones.values() if one.name != "Movable" and one.present]
    added = PfnSet.of(*(addition.pfns for addition in kernel.additions))
    chunk = 1 << kernel.arch.max_page_order
    if not first:  # boot memory has room for all
        zones = [one for one in zones if (one.present & kernel.boot_ram)]
    pages = find_free(kernel, zones, 2 * chunk)
    assert bool(pages & added) is first
    # Less than a pageblock needs no chunk of its own.
    assert not find_free(kernel, zones, kernel.arch.pageblock_nr_pages - 1) & added


def test_what_is_left_of_a_claimed_chunk_is_used_before_what_went_online_last():
    kernel = onlined("6.12", arch="ppc64le")
    chunk, block = 1 << kernel.arch.max_page_order, kernel.arch.pageblock_nr_pages
    (zone,) = (one for one in kernel.zones.values() if one.name == "Normal")
    top = (kernel.free(zone) & kernel.boot_ram).max() // chunk * chunk
    kernel.used = (kernel.used - PfnRange(top, top + chunk)) | PfnRange(top + block, top + chunk)
    taken = find_free(kernel, [zone], 3 * block)
    assert taken & kernel.boot_ram == PfnSet([PfnRange(top, top + block)])
    last = kernel.additions[-1].pfns.end
    assert taken - kernel.boot_ram == PfnSet([PfnRange(last - 2 * block, last)])


def test_memory_is_used_in_the_order_in_which_it_went_online(kernel):
    """What goes online is freed to the tails of the lists (``__free_pages_core``, FPI_TO_TAIL)."""
    model = ModelMachine.start(Machine(memory=Size(1 << 30), auto_online_blocks="online_kernel"))
    for id_, address in (("high", 0x1_8000_0000), ("low", 0x1_0000_0000)):
        assert model.perform(Plug(id=id_, size=Size(256 << 20), address=address)).outcome
    zone = model.kernel.zones[0, "Normal"]
    high, low = PfnSet.of(PfnRange(0x180000, 0x190000)), PfnSet.of(PfnRange(0x100000, 0x110000))
    assert find_free(model.kernel, [zone], 100).issubset(high)
    assert model.perform(Offline(blocks=(49,))).outcome
    assert model.perform(Online(blocks=(49,), to="online_kernel")).outcome
    found = find_free(model.kernel, [zone], 32768 + 100)
    assert found.count(PfnRange(0x188000, 0x190000)) == 0
    assert found.count(low.span()) > 100


def test_boot_memory_that_went_online_again_is_used_last(kernel):
    model = ModelMachine.start(Machine(memory=Size(1 << 30)))
    assert model.perform(Offline(blocks=(5,))).outcome
    assert model.perform(Online(blocks=(5,), to="online")).outcome
    zone = model.kernel.zones[0, "DMA32"]
    block = model.kernel.block_pfns(5)
    nr_others = len(model.kernel.free(zone)) - len(block)
    assert not find_free(model.kernel, [zone], nr_others // 2).count(block)
