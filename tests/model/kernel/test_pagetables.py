"""Page tables of added memory: x86_64 with four levels, counted by slot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Address, Machine, Plug, Size, Unplug

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "offline",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def plug(model, id_, size, address=None):
    step = Plug(id=id_, size=Size(size), address=address and Address(address))
    assert model.perform(step).outcome
    return page_table_nr_pages(model.kernel, model.kernel.additions)


@pytest.mark.parametrize(
    ("size", "mode", "nr_pages"),
    [
        # The slot of 512 GiB that 4 GiB lie in has boot memory, as has the vmemmap's first GiB.
        (128 * MIB, "on", 1),
        (128 * MIB, "off", 1),
        (8 * 128 * MIB, "on", 1),  # per-block calls: 2 MiB leaves, one PMD table
        (GIB, "off", 0),  # one call for the whole DIMM: one leaf of 1 GiB
        (GIB + 128 * MIB, "off", 1),
        (4 * GIB, "on", 4),
        (4 * GIB, "off", 0),
    ],
)
def test_a_pmd_table_for_each_gib_that_is_not_one_leaf(size, mode, nr_pages):
    model = guest(memmap_on_memory=mode)
    assert plug(model, "d", size) == nr_pages


def test_a_new_slot_of_512_gib_and_of_vmemmap_costs_a_table_each():
    model = guest()
    # One PMD table; a PUD table, as no boot memory lies in [1 TiB, 1.5 TiB); a vmemmap table, as
    # it is the first memory of its 64 GiB.
    assert plug(model, "far", 128 * MIB, TIB) == 3
    assert plug(model, "beside", 128 * MIB, TIB + 128 * MIB) == 3
    assert plug(model, "next", 128 * MIB, TIB + GIB) == 4
    assert plug(model, "vmemmap", 128 * MIB, TIB + 64 * GIB) == 6


def test_a_cpu_without_1_gib_leaves_needs_a_table_for_each_gib():
    model = guest(memmap_on_memory="off")
    model.kernel.tunables.direct_map_1g = False
    assert plug(model, "d", 4 * GIB) == 4


def test_adding_takes_them_from_free_memory_also_with_an_altmap_and_removing_gives_them_back():
    model = guest()
    free = model.kernel.free_nr_pages()
    assert plug(model, "d", 128 * MIB) == 1
    assert model.kernel.free_nr_pages() == free - 1
    assert model.perform(Unplug(id="d")).outcome
    assert model.kernel.free_nr_pages() == free


def test_without_an_altmap_the_memmap_is_taken_from_free_memory_as_well():
    model = guest(memmap_on_memory="off")
    free = model.kernel.free_nr_pages()
    plug(model, "d", 128 * MIB)
    assert model.kernel.free_nr_pages() == free - 512 - 1
    model.perform(Unplug(id="d"))
    assert model.kernel.free_nr_pages() == free


def test_the_direct_map_lines_rise_by_what_is_mapped():
    for mode, two_mib, one_gib in (("on", GIB, 0), ("off", 0, GIB)):
        model = guest(memmap_on_memory=mode)
        before = model.observe().meminfo
        plug(model, "d", GIB)
        now = model.observe().meminfo
        assert now["DirectMap2M"] - before["DirectMap2M"] == two_mib // 1024
        assert now["DirectMap1G"] - before["DirectMap1G"] == one_gib // 1024


def slots(additions, size_bytes):
    """Return the numbers of the aligned slots that pages of some ranges lie in, one by one."""
    found = set()
    for start, end in additions:
        found |= set(range(start // size_bytes, -(-end // size_bytes)))
    return found


@given(
    st.lists(st.tuples(st.integers(1, 24), st.booleans()), max_size=12),
    st.integers(32, 9000),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_tables_are_counted_slot_by_slot_in_any_order(sizes, first, leaves_1g, leaves_2m, chance):
    block = 128 * MIB
    model = guest()
    kernel = model.kernel
    kernel.tunables.direct_map_1g, kernel.tunables.direct_map_2m = leaves_1g, leaves_2m
    start, made, small = first * block, [], set()
    for nr_blocks, hosts in sizes:
        end = start + nr_blocks * block
        pfns = PfnRange(start // 4096, end // 4096)
        unit = block // 4096 if hosts else 0
        made.append(Addition(pfns, 0, Memmap(kernel.arch, pfns, unit, 512 if hosts else 0)))
        whole = {
            gib
            for gib in slots([(start, end)], GIB)
            if start <= gib * GIB and (gib + 1) * GIB <= end
        }
        small |= slots([(start, end)], GIB) - (whole if leaves_1g and not hosts else set())
        start = end + chance.choice([0, 0, block, 30 * GIB])
    ranges = [(add.pfns.start * 4096, add.pfns.end * 4096) for add in made]
    boot = [(run.start * 4096, run.end * 4096) for run in kernel.boot_ram.ranges()]
    expected = len(small - slots(boot, GIB))
    for size in (512 * GIB, 64 * GIB, 64 * 512 * GIB):
        expected += len(slots(ranges, size) - slots(boot, size))
    if not leaves_2m:
        for size in (2 * MIB, 128 * MIB):
            expected += len(slots(ranges, size) - slots(boot, size))
    chance.shuffle(made)
    assert page_table_nr_pages(kernel, made) == expected


@pytest.mark.parametrize(
    ("arch", "platform", "nr_pages"),
    [
        # A table for each 2 MiB, and one for each GiB; boot memory is below the same 512 GiB.
        ("aarch64", "virt", 1024 + 2),
        # A table for each 32 MiB, and one for each 64 GiB.
        ("aarch64-16k", "virt", 64 + 1),
        ("ppc64le", "pseries", 0),
    ],
)
def test_arm64_maps_added_memory_page_by_page(arch, platform, nr_pages):
    changes = {"arch": arch, "platform": platform, "memory": Size(2 * GIB)}
    model = ModelMachine.start(Machine(**changes, auto_online_blocks="offline"))
    page = model.kernel.arch.page_size_bytes
    pfns = PfnRange(64 * GIB // page, 66 * GIB // page)
    made = [Addition(pfns, 0, Memmap(model.kernel.arch, pfns, len(pfns), 0))]
    assert page_table_nr_pages(model.kernel, made) == nr_pages
