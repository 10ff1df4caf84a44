"""Numbers of the discussion, worked out by hand, on the model: sizes, adds, smallest examples."""

import pytest

from altmap.model.arch import ARCHES
from altmap.model.kernel.memmap import block_memmap_nr_pages
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.machine import ModelMachine
from altmap.model.observe.buddyinfo import free_chunks
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Machine, Online, Plug, Size

MIB, GIB = 1 << 20, 1 << 30

#: Architecture, block, memmap pages, their bytes, served with "on", pages that "force" adds; None:
#: refused, since the padded memmap would be the block.
SIZES = [
    ("x86_64", 128 * MIB, 512, 2 * MIB, True, 0),
    ("x86_64", 256 * MIB, 1024, 4 * MIB, True, 0),
    ("x86_64", 1 * GIB, 4096, 16 * MIB, True, 0),
    ("x86_64", 2 * GIB, 8192, 32 * MIB, True, 0),
    ("s390x", 256 * MIB, 1024, 4 * MIB, True, 0),
    ("aarch64", 128 * MIB, 512, 2 * MIB, True, 0),
    ("aarch64-64k", 512 * MIB, 8, 512 << 10, False, None),
    ("ppc64le-64k", 256 * MIB, 4, 256 << 10, False, 28),
    ("ppc64le-64k", 1 * GIB, 16, 1 * MIB, False, 16),
]


@pytest.mark.parametrize(("arch", "block", "nr_pages", "size", "served", "pads"), SIZES)
def test_what_a_block_s_memmap_takes(arch, block, nr_pages, size, served, pads):
    sizes = ARCHES[arch]
    block_nr_pages = block // sizes.page_size_bytes
    assert sizes.memmap_nr_pages(block_nr_pages) == nr_pages
    assert sizes.memmap_bytes(block_nr_pages) == size
    assert block_memmap_nr_pages(sizes, block_nr_pages) == (nr_pages if served else 0)
    padded = block_memmap_nr_pages(sizes, block_nr_pages, padded=True)
    assert padded == (0 if pads is None else nr_pages + pads)


@pytest.mark.parametrize(("arch", "pageblock"), [("x86_64", 2), ("s390x", 1), ("aarch64-64k", 512)])
def test_pageblocks_in_mib(arch, pageblock):
    sizes = ARCHES[arch]
    assert sizes.pageblock_nr_pages * sizes.page_size_bytes == pageblock * MIB


# --- adds ------------------------------------------------------------------------------------


def machine(policy, **keys):
    defaults = {"memmap_on_memory": "on", "auto_online_blocks": "online_movable"}
    return ModelMachine.start(Machine(policy=policy, **defaults | keys))


def added(policy, size_bytes, **keys):
    """Return a machine after an add, the add's pages, and what of them is free memory."""
    made = machine(policy, memory=Size(4 * GIB), **keys)
    assert made.perform(Plug(id="d1", size=Size(size_bytes))).outcome
    kernel = made.kernel
    pfns = kernel.additions[-1].pfns
    free = PfnSet.of(*(kernel.free(zone) for zone in kernel.zones.values())) & pfns
    return made, pfns, free


@pytest.mark.parametrize(
    ("gib", "sections", "nr_pages", "memmap_nr_pages"),
    [(2, 16, 524288, 8192), (9, 72, 2359296, 36864), (10, 80, 2621440, 40960)],
)
def test_adds_of_the_cover_letters(gib, sections, nr_pages, memmap_nr_pages):
    made, pfns, free = added("rfc-2018", gib * GIB)
    assert len(pfns) == nr_pages
    assert len(pfns) // made.kernel.arch.section_nr_pages == sections
    assert len(made.kernel.self_hosted) == memmap_nr_pages
    assert len(free) == nr_pages - memmap_nr_pages


def test_a_whole_range_leaves_252_mib_in_one_piece_and_a_memmap_per_block_126_twice():
    for policy, pieces in (("rfc-2018", [252]), ("opt-in", [126, 126])):
        _, _, free = added(policy, 256 * MIB)
        assert [len(run) * 4096 // MIB for run in free.ranges()] == pieces


def test_the_memmap_of_8_gib_fills_a_section_exactly():
    made, pfns, free = added("rfc-2018", 8 * GIB)
    first = PfnRange(pfns.start, pfns.start + made.kernel.arch.section_nr_pages)
    assert made.kernel.self_hosted.covers(first)
    assert not free.count(first)
    assert free.covers(PfnRange(first.end, pfns.end))


def test_1_gib_shows_1008_mib():
    made = machine("opt-in", memory=Size(4 * GIB), arch="aarch64")
    before = made.kernel.total_ram_nr_pages()
    made.perform(Plug(id="d1", size=Size(GIB)))
    assert (made.kernel.total_ram_nr_pages() - before) * 4096 == 1008 * MIB


def test_12_gib_need_192_mib_of_existing_memory():
    made, _, _ = added("existing", 12 * GIB)
    assert len(made.kernel.additions[-1].host_pages) * 4096 == 192 * MIB


def test_a_block_of_2_gib_yields_one_huge_page_of_1_gib_and_with_a_host_elsewhere_two():
    def huge(policy, id_):
        made = machine(policy, block_size=Size(2 * GIB))
        for name in ("d1", "d2"):
            assert made.perform(Plug(id=name, size=Size(2 * GIB))).outcome
        pfns = made.kernel.additions[("d1", "d2").index(id_)].pfns
        free = made.kernel.free(made.kernel.movable_zone(0)) & pfns
        return free_chunks(free, 19)[18]  # order 18 is 1 GiB

    assert [huge("opt-in", id_) for id_ in ("d1", "d2")] == [1, 1]
    assert [huge("shared-host", id_) for id_ in ("d1", "d2")] == [1, 2]


# --- ppc64 with 64 KiB pages and force -------------------------------------------------------


def test_a_logical_memory_block_of_ppc64_with_force():
    made = machine("opt-in", arch="ppc64le-64k", memory=Size(4 * GIB), memmap_on_memory="force")
    before = made.observe()
    assert made.perform(Plug(id="d1", size=Size(256 * MIB))).outcome
    seen = made.observe()
    assert seen.meminfo["MemTotal"] - before.meminfo["MemTotal"] == 260096
    assert len(made.kernel.self_hosted) == 32
    gained = seen.vmstat["nr_memmap_pages"] - before.vmstat["nr_memmap_pages"]
    assert gained == 16


# --- smallest examples -----------------------------------------------------------------------


def hot_add(policy, offset, size, **keys):
    """Return when Hyper-V's add of part of a block faults, if it does."""
    made = machine(policy, auto_online_blocks="offline", **keys)
    plug = Plug(id="h", driver="hyperv", address=Address(4 * GIB + offset), size=Size(size))
    for step, name in ((plug, "add"), (Online(id="h"), "online")):
        if made.perform(step).faults:
            return name
    return "no fault"


BIG = {"block_size": Size(2 * GIB)}


@pytest.mark.parametrize(
    ("offset", "size", "keys", "rfc", "per_block", "hinted"),
    [
        (0, 64 * MIB, {}, "no fault", "no fault", "no fault"),
        (64 * MIB, 64 * MIB, {}, "add", "online", "no fault"),
        (64 * MIB, 64 * MIB, {"debug_vm": True}, "add", "add", "no fault"),
        # 32 MiB of memmap: the marks fit into 16 MiB, what describes the second GiB does not.
        (0, 16 * MIB, BIG, "online", "online", "no fault"),
        (0, 16 * MIB, {**BIG, "debug_vm": True}, "add", "add", "no fault"),
        (0, 64 * MIB, BIG, "no fault", "no fault", "no fault"),
    ],
)
def test_smallest_examples_of_partial_backing(offset, size, keys, rfc, per_block, hinted):
    assert hot_add("rfc-2018", offset, size, **keys) == rfc
    assert hot_add("per-block", offset, size, **keys) == per_block
    assert hot_add("hinted", offset, size, **keys) == hinted
    for policy in ("opt-in", "existing"):
        assert hot_add(policy, offset, size, **keys) == "no fault"


def test_half_of_64_mib_in_a_block_of_2_gib_is_memmap():
    made = machine("per-block", block_size=Size(2 * GIB))
    before = made.kernel.total_ram_nr_pages()
    made.perform(Plug(id="h", driver="hyperv", address=Address(4 * GIB), size=Size(64 * MIB)))
    assert (made.kernel.total_ram_nr_pages() - before) * 4096 == 32 * MIB


def test_every_placement_is_named_as_it_is_listed():
    assert [placement.name for placement in PLACEMENTS.values()] == list(PLACEMENTS)
