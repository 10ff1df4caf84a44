"""Pages of an adopted kernel: what their flags say, and what is assumed without flags."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_machine import BLOCKS, DIMM, FIRST, ZONES, files, with_runs

from altmap.linux.kpageflags import PageFlag as F
from altmap.linux.pagewords import PageWords
from altmap.model.adopt import adopt
from altmap.model.adopt.pages import _by_size
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Device, Machine

KERNEL, MOVABLE = PfnRange(0x1C000, 0x20000), PfnRange(0x18000, 0x1C000)
HERE = PfnRange(0x4000, 0x4200)


def kernel_of(seen=None, **machine):
    return adopt(files() if seen is None else seen, Machine(devices=[DIMM], **machine)).kernel


def test_the_machine_has_the_pages_that_its_flags_say():
    kernel = kernel_of()
    # Page 0 and the hole below 1 MiB are reserved and no RAM.
    reserved = [PfnRange(0, 1), PfnRange(0x9F, 0x200)]
    assert kernel.reserved == PfnSet(reserved)
    assert kernel.used == PfnSet([MOVABLE, KERNEL])
    assert kernel.movable == PfnSet.of(MOVABLE)
    assert kernel.self_hosted == PfnSet.of(PfnRange(FIRST, FIRST + 512))
    free = {zone.name: kernel.nr_free(zone) for zone in kernel.zones.values()}
    assert free == {zone.name: zone.pages["free"] for zone in ZONES if zone.name != "Device"}
    for pages in (kernel.fake_offline, kernel.poisoned, kernel.pcp, kernel.pinned):
        assert not pages


SETS = ("reserved", "used", "movable", "fake_offline", "never_onlined", "poisoned", "pcp")


@pytest.mark.parametrize(
    ("flags", "sets"),
    [
        (F.BUDDY, set()),
        (F.BUDDY | F.OFFLINE, set()),
        (F.HWPOISON, {"poisoned", "used"}),
        (F.HWPOISON | F.OFFLINE, {"poisoned", "used"}),
        (F.HWPOISON | F.LRU, {"poisoned", "used"}),
        (F.OFFLINE, {"fake_offline"}),
        (F.OFFLINE | F.DIRTY, {"fake_offline", "never_onlined"}),
        (F.OFFLINE | F.RESERVED, {"fake_offline"}),
        (F.RESERVED, {"reserved"}),
        (F.RESERVED | F.OWNER_PRIVATE, {"used"}),
        (F.OWNER_PRIVATE, {"used"}),
        (F.LRU | F.DIRTY, {"used", "movable"}),
        (F.UPTODATE | F.MMAP | F.ANON, {"used", "movable"}),  # in a CPU's batch for the LRU lists
        (F.SLAB, {"used"}),
        (F.HUGE, {"used", "movable"}),  # of no pool: neither head nor tail
        (0, {"used"}),
    ],
)
def test_a_page_is_of_the_sets_that_its_flags_say(flags, sets):
    runs = with_runs((HERE.start, len(HERE), flags))
    seen = files(runs=runs)
    kernel = kernel_of(seen)
    assert {name for name in SETS if getattr(kernel, name).count(HERE)} == sets


def test_all_that_is_in_use_in_zone_movable_can_move_but_poisoned_pages():
    runs = with_runs((FIRST + 1024, 16, F.SLAB), (FIRST + 2048, 16, F.HWPOISON))
    kernel = kernel_of(files(runs=runs))
    assert kernel.movable.count(PfnRange(FIRST + 1024, FIRST + 1040)) == 16
    assert kernel.movable.count(PfnRange(FIRST, FIRST + 32768)) == 16


def percpu(nr_listed, *blank, zones=ZONES):
    """Return what is free on per-CPU lists, and what may be, of pages without any flag."""
    pagesets = ({"cpu": 0, "count": nr_listed - 1}, {"cpu": 1, "count": 1})
    zones = (zones[0], replace(zones[1], pagesets=pagesets), *zones[2:])
    runs = with_runs(*((start, nr, 0) for start, nr in blank))
    kernel = kernel_of(files(runs=runs, zoneinfo=zones))
    return len(kernel.pcp), [(r.start, len(r)) for r in kernel.maybe_pcp.ranges()]


def test_as_many_pages_without_a_flag_as_the_lists_hold_are_free():
    assert percpu(8, (0x4000, 8)) == (8, [])
    assert percpu(9, (0x4000, 4), (0x8000, 4)) == (8, [])


def test_of_more_pages_those_of_a_block_that_the_lists_can_hold_are_in_doubt():
    assert percpu(8, (0x4000, 9)) == (0, [])
    assert percpu(8, (0x4000, 8), (0x8000, 9), (0x10000, 3)) == (0, [(0x4000, 8), (0x10000, 3)])


def test_pages_without_a_flag_beside_those_of_processes_are_free():
    """Their pageblock is a movable one; slab in it would say otherwise."""
    process, slab = F.LRU | F.UPTODATE | F.ANON, F.SLAB

    def lists(nr_listed, *runs):
        zones = (
            ZONES[0],
            replace(ZONES[1], pagesets=({"cpu": 0, "count": nr_listed},)),
            *ZONES[2:],
        )
        kernel = kernel_of(files(runs=with_runs(*runs), zoneinfo=zones))
        return kernel.pcp, kernel.maybe_pcp

    beside = PfnSet.of(PfnRange(0x4010, 0x4018), PfnRange(0x41F0, 0x41F8))
    blank = [(run.start, len(run), 0) for run in beside.ranges()]
    alone = (0x4400, 40, 0)
    assert lists(20, (0x4000, 16, process), *blank, alone) == (beside, PfnSet())
    free, maybe = lists(20, (0x4000, 16, process), *blank, (0x8200, 20, 0))
    assert (free, maybe) == (beside, PfnSet.of(PfnRange(0x8200, 0x8214)))
    free, maybe = lists(20, (0x4000, 16, process), (0x4100, 1, slab), *blank, alone)
    assert not free
    free, maybe = lists(15, (0x4000, 16, process), *blank, alone)  # they cannot all be
    assert not free


def test_pages_of_zone_movable_are_of_no_list():
    zones = (*ZONES[:3], replace(ZONES[3], pagesets=({"cpu": 0, "count": 8},)), ZONES[4])
    kernel = kernel_of(files(runs=with_runs((FIRST + 1024, 4, 0)), zoneinfo=zones))
    assert not kernel.pcp
    assert not kernel.maybe_pcp


HEAD, TAIL = F.COMPOUND_HEAD | F.HUGE, F.COMPOUND_TAIL | F.HUGE


def test_huge_pages_are_in_pools_by_their_size():
    kernel = kernel_of(
        files(
            runs=with_runs(
                *((0x4000, 1, HEAD | F.UPTODATE), (0x4001, 511, TAIL)),
                *((0x4200, 1, HEAD), (0x4201, 511, TAIL)),
                *((0x4400, 1, HEAD), (0x4401, 511, TAIL)),
                *((0x8000, 1, HEAD), (0x8001, 15, TAIL)),
            )
        )
    )
    assert set(kernel.hugetlb) == {512, 16}
    pool = kernel.hugetlb[512]
    assert pool.in_use == PfnSet.of(PfnRange(0x4000, 0x4200))
    assert pool.free_pages == PfnSet.of(PfnRange(0x4200, 0x4600))
    assert kernel.hugetlb[16].free_pages == PfnSet.of(PfnRange(0x8000, 0x8010))
    assert kernel.used.count(PfnRange(0x4000, 0x4600)) == 0x600
    assert not kernel.movable.count(PfnRange(0x4000, 0x9000))


@pytest.mark.parametrize(
    "runs",
    [
        [(0x4008, 1, HEAD), (0x4009, 511, TAIL)],  # not aligned to its size
        [(0x4000, 1, HEAD), (0x4002, 510, TAIL)],
        [(0x4000, 512, TAIL)],
    ],
)
def test_what_is_no_whole_huge_page_is_of_no_pool(runs):
    assert not kernel_of(files(runs=with_runs(*runs))).hugetlb


@given(st.lists(st.sampled_from("ht-"), max_size=40).map("".join))
def test_huge_pages_are_aligned_heads_with_their_tails(text):
    expected = {}
    for match in re.finditer("ht+", text):
        size = match.end() - match.start()
        if match.start() % size == 0:
            expected.setdefault(size, set()).update(range(match.start(), match.end()))
    heads, tails = (PfnSet(PfnRange(i, i + 1) for i, c in enumerate(text) if c == x) for x in "ht")
    found = _by_size(heads, tails)
    assert {size: set(pages) for size, pages in found.items()} == expected


def test_an_anonymous_page_that_no_process_maps_is_pinned():
    anon = F.ANON | F.LRU
    runs = with_runs((0x4000, 8, anon), (0x5000, 8, anon))
    counts = PageWords.of([(0, 0x4000, 1), (0x4000, 4, 0), (0x4004, 0xFFFFC, 1)])
    charges = PageWords.of([(0, 0x108000, 7)])
    kernel = kernel_of(files(runs=runs, kpagecount=counts, kpagecgroup=charges))
    assert kernel.pinned == PfnSet.of(PfnRange(0x4000, 0x4004))


def test_without_page_flags_every_counter_agrees_with_a_note():
    made = adopt(files(kpageflags=None), Machine(devices=[DIMM]))
    kernel = made.kernel
    assert made.notes[0].startswith("proc/kpageflags is missing: ")
    for name in ("present", "managed", "free"):
        numbers = {z.name: getattr(kernel, f"nr_{name}")(z) for z in kernel.zones.values()}
        assert numbers == {z.name: z.pages[name] for z in ZONES if z.name != "Device"}
    assert {zone.managed_offset for zone in kernel.zones.values()} == {0}
    # Reserved and used are the lowest pages, free ones the highest.
    assert kernel.reserved == PfnSet([PfnRange(1, 0x9F), PfnRange(0x100, 0x162)])
    assert kernel.used == PfnSet.of(PfnRange(0x1000, 0x1000 + 32768))
    assert not kernel.movable


def test_without_page_flags_what_is_in_use_in_zone_movable_can_move():
    zones = (*ZONES[:3], replace(ZONES[3], pages=ZONES[3].pages | {"free": 32000}), ZONES[4])
    kernel = kernel_of(files(kpageflags=None, zoneinfo=zones))
    assert kernel.movable == PfnSet.of(PfnRange(FIRST + 512, FIRST + 768))


def test_page_tables_and_memmap_of_added_memory_are_the_highest_unmovable_pages():
    runs = with_runs((FIRST, 512, F.BUDDY))
    kernel = kernel_of(files(runs=runs), memmap_on_memory="off")
    (addition,) = kernel.additions
    tables = len(kernel.page_tables)
    assert tables > 0
    assert kernel.page_tables == PfnSet.of(PfnRange(0x20000 - tables, 0x20000))
    memmap = PfnRange(0x20000 - tables - 512, 0x20000 - tables)
    assert addition.host_pages == PfnSet.of(memmap)
    assert not kernel_of().additions[0].host_pages


def test_memmaps_of_added_memory_lie_in_boot_memory():
    zones = (*ZONES[:2], replace(ZONES[3], name="Normal"), replace(ZONES[2], name="Movable"))
    blocks = BLOCKS | {32: replace(BLOCKS[32], valid_zones=("Normal",))}
    runs = with_runs((FIRST, 512, F.BUDDY), (FIRST + 30000, 2768, F.SLAB))
    seen = files(runs=runs, blocks=blocks, zoneinfo=(*zones, ZONES[4]))
    kernel = kernel_of(seen, memmap_on_memory="off")
    assert kernel.unmovable().count(PfnRange(FIRST + 30000, FIRST + 32768)) == 2768
    assert kernel.additions[0].host_pages == PfnSet.of(PfnRange(0x20000 - 512, 0x20000))


def test_memmaps_share_no_pages():
    blocks = BLOCKS | {33: BLOCKS[32]}
    runs = with_runs((FIRST, 512, F.BUDDY))
    second = Device(id="e", address=Address(DIMM.address + DIMM.size), size=DIMM.size)
    ram = [*((line.start, line.end) for line in files().iomem), (0x108000000, 0x110000000)]
    runs = [*runs, (FIRST + 32768, 32768, F.BUDDY)]
    seen = files(runs=runs, blocks=blocks, ram=ram)
    made = adopt(seen, Machine(devices=[DIMM, second], memmap_on_memory="off"))
    one, other = (addition.host_pages for addition in made.kernel.additions)
    assert (len(one), len(other)) == (512, 512)
    assert not one & other
