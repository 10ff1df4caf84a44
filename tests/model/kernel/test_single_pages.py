"""Single pages: which free pages of which zone a balloon gets first, and which pages that move.

The order is that of ``mm/page_alloc.c: get_page_from_freelist`` with ALLOC_NOFRAGMENT.
"""

import pytest

from altmap.model.kernel.expected import expect_movable_allocation
from altmap.model.kernel.single_pages import (
    find_movable_pages,
    find_unmovable_pages,
    unmovable_pageblocks,
)
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Online, Plug, Size

PAGEBLOCK, CHUNK = 512, 1024
FIRST = 0x100000


@pytest.fixture
def kernel():
    """A kernel of 1 GiB and 128 MiB in zone Normal, of which two pages are in use."""
    machine = Machine(memory=Size(1 << 30), release="6.12", auto_online_blocks="offline")
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="k", size=Size(128 << 20))).outcome
    assert model.perform(Online(id="k", to="online_kernel")).outcome
    kernel = model.kernel
    kernel.used -= PfnRange(FIRST, FIRST + 32768)
    kernel.expected_unmovable = PfnSet()
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks()
    return kernel


def use(kernel, pfn, *, movable):
    page = PfnRange(pfn, pfn + 1)
    kernel.used |= page
    if movable:
        kernel.movable |= page


def taken_in_order(kernel, nr_pages):
    return find_unmovable_pages(kernel, 0, nr_pages)


def normal(kernel):
    return kernel.zones[0, "Normal"]


def test_free_pages_of_unmovable_pageblocks_come_first(kernel):
    use(kernel, FIRST + 20 * PAGEBLOCK, movable=False)
    (first,) = taken_in_order(kernel, PAGEBLOCK)
    chunk = PfnRange(FIRST + 10 * CHUNK, FIRST + 11 * CHUNK)  # claimed as a whole
    assert first.issubset(PfnSet.of(chunk))
    assert len(first) == PAGEBLOCK


def test_a_claimed_chunk_is_two_pageblocks_unless_one_has_pages_that_move(kernel):
    use(kernel, FIRST + CHUNK, movable=False)
    use(kernel, FIRST + 4 * CHUNK, movable=False)
    use(kernel, FIRST + 4 * CHUNK + PAGEBLOCK, movable=True)
    assert unmovable_pageblocks(kernel, normal(kernel)) == PfnSet.of(
        PfnRange(FIRST + CHUNK, FIRST + 2 * CHUNK),
        PfnRange(FIRST + 4 * CHUNK, FIRST + 4 * CHUNK + PAGEBLOCK),
    )


def test_pageblocks_that_processes_share_come_after_the_lower_zone(kernel):
    use(kernel, FIRST + 7, movable=True)
    shared = PfnRange(FIRST, FIRST + PAGEBLOCK)
    whole = 32768 - PAGEBLOCK
    first, below = taken_in_order(kernel, whole + 100)
    assert first == PfnSet.of(PfnRange(FIRST + PAGEBLOCK, FIRST + 32768))
    assert below.issubset(kernel.zones[0, "DMA32"].present)
    everything = taken_in_order(kernel, 1 << 20)
    assert PfnSet.of(*everything).count(shared) == PAGEBLOCK - 1


def test_pages_that_move_leave_pageblocks_of_kernel_pages_to_the_zone_below(kernel):
    """alloc_flags_nofragment: of such pageblocks only whole free ones are claimed."""
    use(kernel, FIRST + 7, movable=False)
    zones = [normal(kernel), kernel.zones[0, "DMA32"]]
    shared = PfnRange(FIRST, FIRST + PAGEBLOCK)
    found = find_movable_pages(kernel, zones, 32768)
    assert found.count(normal(kernel).present) == 32768 - PAGEBLOCK
    assert not found.count(shared)
    everything = find_movable_pages(kernel, zones, 1 << 20)
    assert everything.count(shared) == PAGEBLOCK - 1


def test_pages_that_move_take_pageblocks_of_kernel_pages_last(kernel):
    use(kernel, FIRST + 7, movable=False)
    found = find_movable_pages(kernel, [normal(kernel)], 32768 - PAGEBLOCK)
    assert not found.count(PfnRange(FIRST, FIRST + PAGEBLOCK))


def test_a_zone_gives_down_to_its_low_watermark_then_the_zone_below(kernel):
    normal(kernel).watermarks = Watermarks(100, 200, 300, 400, (0, 0, 0, 0))
    first, below = taken_in_order(kernel, 32768)
    assert len(first) == 32768 - 200
    assert len(below) == 200
    assert below.issubset(kernel.zones[0, "DMA32"].present)


def test_in_the_end_zones_give_down_to_the_minimum_with_its_boost(kernel):
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks(100, 2000, 3000, 4000, (0, 0, 0, 0))
    free = {name: kernel.nr_free(kernel.zones[0, name]) for name in ("DMA", "DMA32", "Normal")}
    taken = PfnSet.of(*taken_in_order(kernel, 1 << 20))
    for name, nr_free in free.items():
        left = nr_free - taken.count(kernel.zones[0, name].present)
        assert left == min(nr_free, 100 + PAGEBLOCK)


def test_without_zone_normal_a_shared_pageblock_is_no_different(kernel):
    """alloc_flags_nofragment: only where the first zone is ZONE_NORMAL."""
    zone = normal(kernel)
    kernel.used -= zone.present
    zone.present = PfnSet()
    dma32 = kernel.zones[0, "DMA32"]
    free = kernel.free(dma32)
    (only,) = taken_in_order(kernel, 700)
    assert only == free.highest(700)


def test_beside_a_second_node_dma32_must_have_pages(kernel):
    use(kernel, FIRST + 7, movable=True)
    kernel.boot_nodes = frozenset({0, 1})
    first, *_ = taken_in_order(kernel, 32768 - 1)
    assert first == PfnSet.of(PfnRange(FIRST + PAGEBLOCK, FIRST + 32768))
    kernel.zones[0, "DMA32"].present = PfnSet()
    (only,) = taken_in_order(kernel, 32768 - 1)
    assert only.count(PfnRange(FIRST, FIRST + PAGEBLOCK)) == PAGEBLOCK - 1


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ([(0, 3 * CHUNK)], 0),  # chunks of the maximum order: the first
        ([(0, CHUNK + PAGEBLOCK)], CHUNK),  # a smaller one behind it
        ([(PAGEBLOCK, 3 * CHUNK)], PAGEBLOCK),  # behind a memmap
        ([(0, PAGEBLOCK - 1)], None),
    ],
)
def test_processes_use_the_smallest_free_chunk_of_a_new_movable_zone_first(free, expected):
    machine = Machine(memory=Size(1 << 30), release="6.12", auto_online_blocks="offline")
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="m", size=Size(128 << 20))).outcome
    assert model.perform(Online(id="m", to="online_movable")).outcome
    kernel, block = model.kernel, PfnRange(FIRST, FIRST + 32768)
    kernel.expected_movable = PfnSet()
    kernel.used |= PfnSet.of(block) - PfnSet(PfnRange(FIRST + s, FIRST + e) for s, e in free)
    expect_movable_allocation(kernel, kernel.zones[0, "Movable"], block)
    at = None if expected is None else FIRST + expected
    assert kernel.expected_movable == (PfnSet() if at is None else PfnSet([PfnRange(at, at + 1)]))
