"""Pages that a driver takes out of online memory, and gives back."""

import pytest

from altmap.model.kernel.contig import fake_offline, fake_online
from altmap.model.kernel.files import write_file
from altmap.model.kernel.hugetlb import hugetlbfs_fallocate
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Fill, Machine, Plug, Size

MIB, GIB = 1 << 20, 1 << 30
BASE = 0x100000
RANGE = PfnRange(BASE + 512, BASE + 1024)


@pytest.fixture(params=["6.1", "6.12", "7.3"])
def kernel(request):
    """A kernel with a DIMM of 256 MiB in ZONE_MOVABLE."""
    machine = Machine(memory=Size(GIB), release=request.param, auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="d", size=Size(256 * MIB))).outcome
    return model.kernel


def marks(kernel):
    return {key: zone.watermarks for key, zone in kernel.zones.items()}


def test_taken_pages_are_present_and_not_managed_and_come_back(kernel):
    zone = kernel.movable_zone(0)
    before = kernel.nr_managed(zone), kernel.nr_free(zone), marks(kernel)
    assert fake_offline(kernel, RANGE)
    assert kernel.nr_present(zone) == 256 * 256
    assert (kernel.nr_managed(zone), kernel.nr_free(zone)) == (before[0] - 512, before[1] - 512)
    fake_online(kernel, RANGE)
    assert (kernel.nr_managed(zone), kernel.nr_free(zone), marks(kernel)) == before


def test_watermarks_stay_and_only_7_3_sets_the_reserves_anew(kernel):
    before = marks(kernel)
    assert fake_offline(kernel, RANGE)
    after = marks(kernel)
    for key, mark in after.items():
        assert (mark.min, mark.low, mark.high) == (
            before[key].min,
            before[key].low,
            before[key].high,
        )
    # ZONE_DMA32 keeps one page of 256 managed pages above it.
    kept = after[0, "DMA32"].protection[-1]
    assert before[0, "DMA32"].protection[-1] == 256
    assert kept == (254 if kernel.release.name == "7.3" else 256)


def test_movable_pages_move_within_their_node_first(kernel):
    write_file(kernel, "file", 1000)
    assert kernel.files["file"] == PfnSet([PfnRange(BASE, BASE + 1000)])
    assert fake_offline(kernel, RANGE)
    assert kernel.files["file"] == PfnSet(
        [PfnRange(BASE, BASE + 512), PfnRange(BASE + 1024, BASE + 1024 + 488)]
    )
    assert kernel.movable == kernel.files["file"]


@pytest.mark.parametrize("what", ["used", "reserved", "fake_offline"])
def test_a_page_that_cannot_move_refuses_and_nothing_changes(kernel, what):
    getattr(kernel, what).__ior__(PfnRange(BASE + 700, BASE + 701))
    before = kernel.total_ram_nr_pages(), kernel.used.copy()
    outcome = fake_offline(kernel, RANGE)
    assert (outcome.errno, outcome.function) == ("EBUSY", "alloc_contig_range")
    assert "pfn 0x1002bc" in outcome.why
    assert (kernel.total_ram_nr_pages(), kernel.used) == before


def test_no_page_to_move_to_is_enomem_and_nothing_changes(kernel):
    write_file(kernel, "file", 400)
    pages = PfnRange(BASE, BASE + 512)
    for zone in kernel.zones.values():
        kernel.used |= kernel.free(zone) - pages
    before = kernel.total_ram_nr_pages(), kernel.files["file"].copy()
    outcome = fake_offline(kernel, pages)
    assert (outcome.errno, outcome.function) == ("ENOMEM", "alloc_contig_range")
    assert (kernel.total_ram_nr_pages(), kernel.files["file"]) == before
    assert not kernel.fake_offline


def test_pages_of_kernel_memory_do_not_move_to_zone_movable():
    """alloc_migration_target: the target has the source's zone type or a lower one."""
    machine = Machine(memory=Size(GIB), release="6.12", auto_online_blocks="online_kernel")
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="k", size=Size(128 * MIB))).outcome
    model.kernel.tunables.auto_online_blocks = "online_movable"
    assert model.perform(Plug(id="m", size=Size(128 * MIB))).outcome
    kernel = model.kernel
    kernel.used |= RANGE
    kernel.movable |= RANGE
    assert fake_offline(kernel, RANGE)
    assert len(kernel.movable) == len(RANGE)
    assert not kernel.movable.count(kernel.zones[0, "Movable"].present)


def test_the_block_is_shown_anew_after_each_change(kernel):
    for change in (fake_offline, fake_online):
        kernel.changed.blocks = PfnSet()
        change(kernel, RANGE)
        assert 32 in kernel.changed.blocks


def test_pages_that_are_freed_were_onlined(kernel):
    assert fake_offline(kernel, RANGE)
    kernel.never_onlined |= RANGE
    fake_online(kernel, RANGE)
    assert not kernel.never_onlined


# --- huge pages -----------------------------------------------------------------------------------


def with_pool(release, nr_huge, to="online_movable"):
    """Return a kernel with a pool of huge pages of 2 MiB, which lies in ZONE_MOVABLE or Normal."""
    machine = Machine(memory=Size(GIB), release=release, auto_online_blocks=to)
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="d", size=Size(128 * MIB))).outcome
    size = Size(nr_huge * 2 * MIB)
    assert model.perform(Fill(id="h", size=size, kind="hugetlb", page_size=Size(2 * MIB))).outcome
    return model.kernel


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_free_huge_pages_of_a_range_are_replaced_by_others_of_the_pool(release):
    kernel = with_pool(release, 4)
    pool, zone = kernel.hugetlb[512], kernel.movable_zone(0)
    (run,) = pool.free_pages.ranges()
    taken = PfnRange(run.start, run.start + 1024)
    before, used = kernel.nr_managed(zone), len(kernel.used)
    assert fake_offline(kernel, taken)
    assert len(pool.free_pages) == 4 * 512  # as many as before
    assert not pool.free_pages & taken
    assert pool.free_pages & PfnRange(run.start + 1024, run.end)  # the others stay
    assert kernel.nr_managed(zone) == before - 1024
    assert len(kernel.used) == used


def test_before_5_13_a_free_huge_page_keeps_its_range_from_being_taken():
    kernel = with_pool("5.10", 4)
    pool = kernel.hugetlb[512]
    (run,) = pool.free_pages.ranges()
    before = pool.free_pages
    outcome = fake_offline(kernel, PfnRange(run.start, run.start + 512))
    assert outcome.errno == "EBUSY"
    assert pool.free_pages == before


@pytest.mark.parametrize(
    ("release", "to", "taken"),
    [
        ("6.12.117", "online_kernel", False),
        ("6.12.118", "online_kernel", True),
        ("7.3", "online_kernel", True),
        ("6.1", "online_movable", True),  # by the driver's second try
        ("6.12", "online_movable", True),
    ],
)
def test_a_huge_page_in_use_that_goes_to_the_pool_is_replaced_since_6_15_and_6_12_118(
    release, to, taken
):
    kernel = with_pool(release, 2, to)
    pool = kernel.hugetlb[512]
    (_run,) = pool.free_pages.ranges()
    assert hugetlbfs_fallocate(kernel, pool, "file", 1)
    range_ = pool.in_use.span()
    assert bool(fake_offline(kernel, range_)) is taken
    assert not pool.in_use & range_  # it has moved to the free one in any case
    assert len(pool.free_pages) == 512


def test_an_unmovable_page_keeps_the_huge_pages_of_a_range_where_they_are():
    kernel = with_pool("7.3", 4)
    pool = kernel.hugetlb[512]
    before = pool.free_pages
    (run,) = before.ranges()
    kernel.reserved |= PfnRange(run.end, run.end + 1)
    assert fake_offline(kernel, PfnRange(run.start, run.end + 512)).errno == "EBUSY"
    assert pool.free_pages == before


def test_a_pinned_page_stops_the_range_after_its_huge_pages_have_left():
    kernel = with_pool("7.3", 4)
    pool = kernel.hugetlb[512]
    (run,) = pool.free_pages.ranges()
    write_file(kernel, "held", 1)
    (held,) = kernel.files["held"].ranges()
    kernel.pinned |= kernel.files["held"]
    taken = PfnRange(
        min(run.start, held.start // 512 * 512), max(run.end, held.start // 512 * 512 + 512)
    )
    assert fake_offline(kernel, taken).errno == "EBUSY"
    assert not pool.free_pages & taken
