"""Pages in use by kind: what comes of each when its memory block goes offline."""

from pathlib import Path

import pytest

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.kernel.initial_state import adopt_huge_pages
from altmap.model.kernel.pool import HugePool, aligned_chunks, whole_chunks
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Address,
    Device,
    Fill,
    Free,
    HugePages,
    Machine,
    Node,
    Offline,
    Online,
    Plug,
    Poison,
    SetTunables,
    Size,
    Unplug,
)
from altmap.trace import OK

MIB, GIB = 1 << 20, 1 << 30
HUGE = 512  # pages of a huge page
B = 0x8000  # pages of a block


def guest(mib=512, to="online_movable", **changes):
    """Return a guest with a DIMM at 4 GiB."""
    machine = Machine(
        **{"memory": Size(GIB), "auto_online_blocks": to, "memmap_on_memory": "on"} | changes
    )
    model = ModelMachine.start(machine)
    if mib:
        do(model, Plug(id="d", size=Size(mib * MIB)))
    return model


def do(model, step):
    outcome = model.perform(step).outcome
    assert outcome, outcome


def fill(model, id_, mib, kind, **more):
    outcome = model.perform(Fill(id=id_, size=Size(mib * MIB), kind=kind, **more)).outcome
    assert outcome, outcome


def pool(model, size=HUGE):
    return model.kernel.hugetlb[size]


def meminfo(model, *names):
    return tuple(model.observe().meminfo[name] for name in names)


HUGE_NAMES = ("HugePages_Total", "HugePages_Free", "HugePages_Surp", "Hugetlb")


# --- huge pages of 2 MiB -------------------------------------------------------------------------


def test_small_chunks_become_huge_pages_first():
    """As seen on 6.12: 512 MiB of four blocks with a memmap of 2 MiB each."""
    model = guest()
    fill(model, "p", 64, "hugetlb")
    pages = pool(model).pages
    # What the memmap leaves of a chunk of 4 MiB is a huge page in each block but the first one,
    # where processes use it.
    huge = [pages.count(PfnRange(s + HUGE, s + 2 * HUGE)) for s in range(0x100000, 0x120000, B)]
    assert huge == [0, HUGE, HUGE, HUGE]
    assert pages.count(PfnRange(0x100000, 0x108000)) == 29 * HUGE
    assert meminfo(model, *HUGE_NAMES) == (32, 32, 0, 32 * 2048)


def test_free_huge_pages_are_dissolved_with_their_block():
    model = guest()
    before = meminfo(model, "CommitLimit")[0]
    fill(model, "p", 64, "hugetlb")
    assert meminfo(model, "CommitLimit")[0] == before - 32 * 2048 // 2
    do(model, Offline(id="d", part="first"))
    assert meminfo(model, *HUGE_NAMES) == (3, 3, 0, 3 * 2048)
    do(model, Free(id="p"))
    assert meminfo(model, *HUGE_NAMES) == (0, 0, 0, 0)
    assert not model.kernel.used & PfnRange(0x108000, 0x120000)


def test_huge_pages_of_a_file_move_and_the_pool_keeps_its_size():
    model = guest()
    fill(model, "f", 32, "hugetlb-file")
    do(model, Offline(id="d", part="first"))
    assert meminfo(model, *HUGE_NAMES) == (16, 0, 0, 16 * 2048)
    size, pages = model.kernel.huge_files["f"]
    assert (size, pages) == (HUGE, pool(model).in_use)
    assert not pages.count(PfnRange(0x100000, 0x108000))
    do(model, Unplug(id="d"))
    assert len(pool(model).pages) == 16 * HUGE
    do(model, Free(id="f"))
    assert not model.kernel.hugetlb_pages()


def test_huge_pages_move_to_another_node_that_has_memory():
    nodes = [Node(memory=Size(GIB)), Node(memory=Size(GIB))]
    model = guest(0, nodes=nodes, memory=Size(2 * GIB))
    do(model, Plug(id="d", size=Size(128 * MIB), node=1))
    fill(model, "f", 16, "hugetlb-file", node=1)
    do(model, Offline(id="d"))
    numbers = model.observe().nodes.meminfo
    assert [numbers[node]["HugePages_Total"] for node in (0, 1)] == [8, 0]


@pytest.mark.parametrize("release", ["6.1", "6.12.117", "6.12", "7.3"])
def test_huge_pages_in_use_leave_a_block_with_free_ones_where_those_are_no_target(release):
    model = guest(release=release)
    fill(model, "f", 16, "hugetlb-file")
    # Small chunks of other blocks come first; one file of 16 MiB is enough.
    fill(model, "p", 16, "hugetlb")
    record = model.perform(Offline(blocks=32))
    assert record.outcome.certainty == "certain"
    if model.kernel.release.hugetlb_dequeues_isolated:
        assert record.outcome.errno == "EINTR"
        assert record.outcome.kind == "hugetlb"
    else:
        assert record.outcome
        assert any(event.kind == "migrated" for event in record.events)


def test_a_pool_gets_as_many_huge_pages_as_there_are_and_the_kernel_says_ok():
    model = guest()
    record = model.perform(Fill(id="p", size=Size(8 * GIB), kind="hugetlb"))
    assert record.outcome
    (event,) = (event for event in record.events if event.kind == "hugetlb")
    got = meminfo(model, "HugePages_Total")[0]
    assert 0 < got < 4096
    assert event.text.startswith(f"{got} of 4096 ")
    assert event.certainty == "likely"
    assert all(model.kernel.nr_free(z) > 0 for z in model.kernel.zones.values() if z.present)


def test_a_file_of_too_many_huge_pages_is_refused_and_leaves_nothing():
    model = guest()
    outcome = model.perform(Fill(id="f", size=Size(8 * GIB), kind="hugetlb-file")).outcome
    assert (outcome.errno, outcome.function) == ("ENOSPC", "hugetlbfs_fallocate")
    assert meminfo(model, *HUGE_NAMES) == (0, 0, 0, 0)
    assert model.perform(Free(id="f")).outcome.errno == "ENOENT"


def test_huge_pages_in_use_become_surplus_when_their_pool_shrinks():
    model = guest()
    fill(model, "p", 8, "hugetlb")
    fill(model, "f", 8, "hugetlb-file")
    do(model, Free(id="p"))
    assert meminfo(model, *HUGE_NAMES)[:3] == (4, 0, 0)
    fill(model, "q", 4, "hugetlb")
    do(model, Offline(blocks="32-35"))  # dissolves what is free
    do(model, Free(id="q"))
    total, free, surplus, _ = meminfo(model, *HUGE_NAMES)
    assert (total, free) == (4, 0)
    assert surplus == 2
    do(model, Free(id="f"))
    assert meminfo(model, *HUGE_NAMES) == (0, 0, 0, 0)


# --- huge pages of 1 GiB -------------------------------------------------------------------------


def gigantic(release, memmap="off", size=3 * GIB):
    model = guest(0, "online_kernel", release=release, memmap_on_memory=memmap)
    do(model, Plug(id="d", size=Size(size), address=Address(8 * GIB)))
    fill(model, "g", 1024, "hugetlb", page_size=Size(GIB))
    return model


def test_no_huge_page_of_1_gib_where_each_block_holds_its_own_memmap():
    """Found on 6.12, where Hugetlb stayed 0 kB."""
    assert meminfo(gigantic("6.12", "on"), "Hugetlb") == (0,)
    assert meminfo(gigantic("6.12", "off"), "Hugetlb") == (1 << 20,)


def test_a_gigantic_page_avoids_unmovable_pages_and_the_movable_zone():
    model = gigantic("6.12")
    (taken,) = pool(model, GIB >> 12).pages.ranges()
    # The kernel's own pages have settled in the first block.
    assert taken == PfnRange(0x240000, 0x280000)
    model = guest(0)
    do(model, Plug(id="d", size=Size(3 * GIB), address=Address(8 * GIB)))
    fill(model, "g", 1024, "hugetlb", page_size=Size(GIB))
    assert meminfo(model, "Hugetlb") == (0,)


def test_a_gigantic_page_moves_movable_pages_out_of_its_way():
    model = guest(0, "online_kernel", memmap_on_memory="off")
    do(model, Plug(id="d", size=Size(2 * GIB), address=Address(8 * GIB)))
    there = PfnRange(0x240000, 0x240010)
    model.kernel.used |= there
    model.kernel.movable |= there
    fill(model, "g", 1024, "hugetlb", page_size=Size(GIB))
    assert meminfo(model, "Hugetlb") == (1 << 20,)
    assert len(model.kernel.movable) == 16
    assert not model.kernel.movable.count(PfnRange(0x240000, 0x280000))


@pytest.mark.parametrize("release", ["5.15", "6.1", "6.12", "7.3"])
def test_a_gigantic_page_beyond_the_end_keeps_a_block_online_on_6_1_only(release):
    model = gigantic(release)
    outcome = model.perform(Offline(blocks=76)).outcome
    if release == "6.1":
        assert (outcome.errno, outcome.function) == ("EBUSY", "isolate_single_pageblock")
        assert outcome.pfns == PfnRange(0x240000, 0x280000)
        # The last block of it has nothing beyond its end.
        do(model, Offline(blocks=79))
    else:
        assert outcome
    assert meminfo(model, "Hugetlb") == (0,)


def test_a_gigantic_page_in_use_moves_only_to_a_free_one():
    for more, answer in ((0, "EINTR"), (1024, None)):
        model = guest(0, "online_kernel", memmap_on_memory="off")
        do(model, Plug(id="d", size=Size(4 * GIB), address=Address(8 * GIB)))
        fill(model, "g", 1024, "hugetlb-file", page_size=Size(GIB))
        if more:
            fill(model, "h", more, "hugetlb", page_size=Size(GIB))
        block = pool(model, GIB >> 12).in_use.min() // B
        outcome = model.perform(Offline(blocks=block)).outcome
        assert outcome.errno == answer
        assert bool(outcome) == (answer is None)


# --- pinned, held, the kernel's ------------------------------------------------------------------


def test_held_pages_make_an_offline_endless_and_the_rest_has_moved():
    model = guest(128)
    fill(model, "f", 16, "held")
    before = model.kernel.files["f"].copy()
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.errno, outcome.function, outcome.kind) == ("EINTR", "offline_pages", "pinned")
    assert outcome.pfns == before.lowest(16)
    assert model.kernel.files["f"] & PfnRange(0x100000, 0x108000) == before.lowest(16)
    assert len(model.kernel.files["f"]) == len(before)
    do(model, Free(id="f"))
    do(model, Offline(id="d"))


def test_pages_that_are_pinned_for_long_are_in_no_movable_zone():
    model = guest()
    fill(model, "f", 16, "pinned")
    movable = model.kernel.movable_zone(0).present
    assert len(model.kernel.pinned) == 4096
    assert not model.kernel.pinned.count(movable)
    do(model, Unplug(id="d"))


def test_pages_of_the_kernel_refuse_by_function_and_frames():
    model = guest(128, "online_kernel")
    fill(model, "k", 16, "kernel")
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "has_unmovable_pages")
    assert (outcome.kind, outcome.certainty) == ("unmovable", "certain")
    assert len(outcome.pfns) == 4097  # one more settled there
    do(model, Free(id="k"))
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.errno, outcome.certainty) == ("EBUSY", "likely")
    assert outcome.doubt
    assert model.perform(Unplug(id="d")).outcome.certainty == "likely"


def test_a_reserved_page_is_named_as_such():
    model = guest(128)
    model.kernel.reserved |= PfnRange(0x100400, 0x100401)
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.kind, outcome.function) == ("reserved", "has_unmovable_pages")


def test_a_fake_offline_page_that_its_driver_let_go_does_not_keep_a_block_online():
    model = guest(128)
    pages = PfnRange(0x100400, 0x100410)
    model.kernel.fake_offline |= pages
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.kind, outcome.function) == ("fake-offline", "scan_movable_pages")
    model.kernel.notifier.register(
        lambda told: (
            model.kernel.unreferenced.__ior__(pages) and None
            if told.action == "MEM_GOING_OFFLINE"
            else None
        )
    )
    do(model, Offline(id="d"))
    assert not model.kernel.fake_offline


# --- poisoned pages ------------------------------------------------------------------------------


def poisoned(release, **changes):
    model = guest(256, release=release, **changes)
    do(model, Poison(address=Address(0x10F000000)))
    return model


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_a_poisoned_page_lets_its_block_go_and_back_only_before_6_2(release):
    model = poisoned(release)
    before = meminfo(model, "MemTotal")
    do(model, Offline(blocks=33))
    outcome = model.perform(Online(blocks=33, to="online_movable")).outcome
    if release == "6.1":
        assert outcome
        assert meminfo(model, "MemTotal") == before
        assert not model.kernel.poisoned  # the page is in use again
    else:
        assert (outcome.errno, outcome.function) == ("EHWPOISON", "memory_block_online")
        assert outcome.pfns == PfnSet([PfnRange(0x10F000, 0x10F001)])
    assert meminfo(model, "HardwareCorrupted") == (4,)
    do(model, Unplug(id="d"))
    # 6.1 counts for ever what it has forgotten.
    assert meminfo(model, "HardwareCorrupted") == (4 if release == "6.1" else 0,)


def test_a_page_of_a_huge_page_that_cannot_move_is_not_poisoned():
    model = guest(256, release="6.12")
    kernel = model.kernel
    page = PfnRange(0x10F000, 0x10F200)
    adopt_huge_pages(kernel, 512, PfnSet.of(page), in_use=True)
    kernel.used = PfnSet.of(*(zone.present for zone in kernel.zones.values()))  # nothing is free
    outcome = model.perform(Poison(address=Address(0x10F000000))).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "soft_offline_in_use_page")
    assert (outcome.kind, outcome.pfns) == ("hugetlb", PfnSet.of(page))
    assert not kernel.poisoned


def test_a_poisoned_page_shows_in_kpageflags_and_is_not_free():
    model = poisoned("6.12")
    flags = {
        run.flags
        for run in model.observe().kpageflags
        if run.start_pfn <= 0x10F000 and run.start_pfn + run.nr_pages > 0x10F000
    }
    assert flags == {1 << 19}
    assert 0x10F000 not in model.kernel.free(model.kernel.movable_zone(0))


def test_what_is_in_a_page_moves_before_the_page_is_withdrawn():
    model = guest(128)
    fill(model, "f", 16, "file")
    pfn = model.kernel.files["f"].min()
    do(model, Poison(address=Address(pfn << 12)))
    assert pfn not in model.kernel.files["f"]
    assert len(model.kernel.files["f"]) == 4096
    do(model, Poison(address=Address(pfn << 12)))  # again: nothing happens
    assert len(model.kernel.poisoned) == 1
    do(model, Free(id="f"))
    do(model, Unplug(id="d"))


@pytest.mark.parametrize("kind", ["hugetlb", "hugetlb-file"])
def test_a_page_of_a_huge_page_is_withdrawn_and_the_rest_of_it_is_free(kind):
    model = guest(256)
    fill(model, "h", 8, kind)
    pfn = pool(model).pages.min() + 3
    do(model, Poison(address=Address(pfn << 12)))
    total = 3 if kind == "hugetlb" else 4
    assert meminfo(model, "HugePages_Total") == (total,)
    huge = PfnRange(pfn - 3, pfn - 3 + HUGE)
    assert model.kernel.used & huge == PfnSet([PfnRange(pfn, pfn + 1)])


@pytest.mark.parametrize(
    ("pfn", "errno", "kind"),
    [
        (0x100000, "EIO", "self-hosted memmap"),
        (0x1, "EIO", "reserved"),
        (0x900000, "ENXIO", None),
    ],
)
def test_a_page_that_cannot_be_withdrawn_is_refused(pfn, errno, kind):
    model = guest(128)
    outcome = model.perform(Poison(address=Address(pfn << 12))).outcome
    assert (outcome.errno, outcome.kind) == (errno, kind)


def test_a_page_that_is_offline_or_pinned_cannot_be_withdrawn():
    model = guest(128, "offline")
    assert model.perform(Poison(address=Address(4 * GIB))).outcome.errno == "EIO"
    model = guest(128)
    fill(model, "f", 1, "held")
    pfn = model.kernel.pinned.min()
    assert model.perform(Poison(address=Address(pfn << 12))).outcome.errno == "EBUSY"


# --- HVO, bad input, sets ------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "hosted"), [("5.15", 0), ("6.1", 512), ("6.12", 512)])
def test_hugetlb_free_vmemmap_switched_memmap_on_memory_off_before_6_0(release, hosted):
    model = guest(128, release=release, hugetlb_free_vmemmap=True)
    assert len(model.kernel.self_hosted) == hosted
    model = guest(128, release=release)
    assert len(model.kernel.self_hosted) == 512


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (Fill(id="h", size=Size(MIB), kind="hugetlb"), "need a multiple of one of"),
        (
            Fill(id="h", size=Size(8 * MIB), kind="hugetlb", page_size=Size(4 * MIB)),
            "2 MiB, 1 GiB",
        ),
        (Fill(id="h", size=Size(2 * MIB), kind="hugetlb", node=3), "node 3 is not online"),
        (Fill(id="f", size=Size(MIB)), "exists already"),
        (Free(id="x"), "no such file"),
    ],
)
def test_what_no_kernel_can_be_asked_is_an_error(step, match):
    model = guest(128)
    fill(model, "f", 1, "file")
    with pytest.raises(InputError, match=match):
        model.perform(step)


@pytest.mark.parametrize("kind", ["file", "kernel", "hugetlb-file"])
def test_freeing_what_was_refused_is_refused_and_ends_nothing(kind):
    """A shell's rm of a file that could not be written says so, and the next command runs."""
    model = guest(128)
    assert not model.perform(Fill(id="big", size=Size(64 << 30), kind=kind)).outcome
    assert model.perform(Free(id="big")).outcome.errno == "ENOENT"
    assert model.perform(Fill(id="big", size=Size(2 * MIB), kind="file")).outcome
    assert model.perform(Free(id="big")).outcome


def test_a_pool_hands_out_the_last_that_came_first():
    made = HugePool(4)
    made.put(PfnSet([PfnRange(0, 8)]))
    made.put(PfnSet([PfnRange(16, 24)]))
    everywhere = PfnSet([PfnRange(0, 100)])
    assert made.take(1, everywhere, ascending=True) == PfnSet([PfnRange(16, 20)])
    assert made.take(2, everywhere, ascending=False) == PfnSet([PfnRange(20, 24), PfnRange(4, 8)])
    assert made.pages == PfnSet([PfnRange(0, 4)])


def test_chunks_lie_wholly_in_a_set_or_touch_it():
    pages = PfnSet([PfnRange(3, 13), PfnRange(17, 18)])
    assert aligned_chunks(pages, 4) == PfnSet([PfnRange(4, 12)])
    assert whole_chunks(pages, 4) == PfnSet([PfnRange(0, 20)])


def test_ok_is_certain():
    assert OK.certainty == "certain"


def test_a_machine_with_huge_and_poisoned_pages_is_carried_on_from_its_files():
    model = guest(256)
    fill(model, "p", 16, "hugetlb")
    do(model, Poison(address=Address(0x10F000000)))
    seen = model.observe()
    device = Device(id="d", address=Address(4 * GIB), size=Size(256 * MIB))
    again = ModelMachine.start(Machine(release="6.12", devices=[device]), seen)
    assert pool(again).free_pages == pool(model).free_pages
    assert again.kernel.poisoned == model.kernel.poisoned
    do(again, Offline(blocks=32))
    do(again, Offline(blocks=33))
    assert meminfo(again, *HUGE_NAMES) == (0, 0, 0, 0)
    assert meminfo(again, "HardwareCorrupted") == (4,)


# --- nr_hugepages --------------------------------------------------------------------------------


def set_pool(model, nr_hugepages, **more):
    do(model, HugePages(nr_hugepages=nr_hugepages, **more))


def in_block(model, start):
    return pool(model).pages.count(PfnRange(start, start + B)) // HUGE


@pytest.mark.parametrize(
    ("release", "shrunk", "left"), [("6.1", [62, 8], 8), ("6.12", [24, 46], 46)]
)
def test_free_huge_pages_leave_a_pool_as_the_release_has_them(release, shrunk, left):
    """As recorded: first in, first out since 6.7; before that, last in, first out."""
    model = guest(128, release=release)
    do(model, Plug(id="e", size=Size(128 * MIB)))
    for wanted, blocks in ((8, [7, 1]), (108, [62, 46]), (70, shrunk)):
        set_pool(model, wanted)
        assert [in_block(model, 0x100000), in_block(model, 0x108000)] == blocks
    do(model, Offline(id="d"))
    assert meminfo(model, "HugePages_Total") == (left,)
    set_pool(model, 4)
    assert meminfo(model, *HUGE_NAMES) == (4, 4, 0, 4 * 2048)
    set_pool(model, 0)
    assert meminfo(model, *HUGE_NAMES) == (0, 0, 0, 0)


def test_a_pool_that_shrinks_below_what_is_in_use_has_surplus_pages():
    model = guest()
    fill(model, "f", 16, "hugetlb-file")
    set_pool(model, 3)
    assert meminfo(model, *HUGE_NAMES) == (8, 0, 5, 8 * 2048)
    do(model, HugePages(nr_hugepages=8))
    assert meminfo(model, *HUGE_NAMES) == (8, 0, 0, 8 * 2048)


def test_the_number_is_the_nodes():
    nodes = [{"memory": "512MiB"}, {"memory": "512MiB"}]
    model = guest(0, memory=None, nodes=nodes)
    set_pool(model, 3)
    set_pool(model, 5, node=1)
    set_pool(model, 1)
    assert meminfo(model, "HugePages_Total") == (6,)


def node_files(observation):
    prefix = "sys/devices/system/node/"
    return {
        path.removeprefix(prefix): text
        for path, text in observation.render().files.items()
        if path.startswith(prefix) and "/hugepages/" in path
    }


def test_the_files_of_a_nodes_pools_follow():
    archive = Path(__file__).parents[2] / "recordings" / "files" / "linux-6.12-start.tar.xz"
    sysroot = Sysroot.read(archive)
    folder = "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    for name in ("nr", "free", "surplus"):
        sysroot.files[f"{folder}/{name}_hugepages"] = b"0\n"
    model = ModelMachine.start(Machine(), Observation.read(sysroot))
    fill(model, "f", 16, "hugetlb-file")
    set_pool(model, 5)
    shown = node_files(model.observe())
    assert shown == {
        "node0/hugepages/hugepages-2048kB/nr_hugepages": b"8\n",
        "node0/hugepages/hugepages-2048kB/free_hugepages": b"0\n",
        "node0/hugepages/hugepages-2048kB/surplus_hugepages": b"3\n",
    }
    set_pool(model, 11)
    assert sorted(node_files(model.observe()).items()) == [
        ("node0/hugepages/hugepages-2048kB/free_hugepages", b"3\n"),
        ("node0/hugepages/hugepages-2048kB/nr_hugepages", b"11\n"),
        ("node0/hugepages/hugepages-2048kB/surplus_hugepages", b"0\n"),
    ]


def test_a_file_of_a_pool_that_holds_no_number_is_left_out():
    archive = Path(__file__).parents[2] / "recordings" / "files" / "linux-6.12-start.tar.xz"
    sysroot = Sysroot.read(archive)
    folder = "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    sysroot.files |= {f"{folder}/nr_hugepages": b"7\n", f"{folder}/free_hugepages": b"x\n"}
    counts = Observation.read(sysroot).nodes.huge_pages
    assert counts == {0: {"hugepages-2048kB/nr_hugepages": 7}}


@pytest.mark.parametrize(
    ("fields", "match"),
    [({"page_size": Size(4 * MIB)}, "need one of 2 MiB, 1 GiB"), ({"node": 1}, "not online")],
)
def test_a_pool_that_no_node_has_is_an_error(fields, match):
    with pytest.raises(InputError, match=match):
        guest(0).perform(HugePages(nr_hugepages=1, **fields))


# --- what processes use at once -------------------------------------------------------------------


def test_a_new_movable_zone_gives_one_huge_page_fewer():
    """As recorded on 6.1 and 6.12: of 63 pageblocks behind the memmap, 62 become huge pages."""
    model = guest(128)
    do(model, Plug(id="e", size=Size(128 * MIB)))
    fill(model, "p", 16, "hugetlb")
    assert [pool(model).pages.count(PfnRange(s, s + B)) // HUGE for s in (0x100000, 0x108000)] == [
        7,
        1,
    ]
    fill(model, "q", 200, "hugetlb")
    assert pool(model).pages.count(PfnRange(0x100000, 0x108000)) == 62 * HUGE
    do(model, Offline(id="d"))
    assert meminfo(model, "HugePages_Total") == (46,)


@pytest.mark.parametrize(
    ("changes", "pfn"),
    [
        ({"memmap_on_memory": "on", "release": "6.12"}, 0x100200),
        ({"memmap_on_memory": "off"}, 0x100000),
    ],
)
def test_processes_use_the_smallest_chunk_of_the_first_block(changes, pfn):
    kernel = guest(512, **changes).kernel
    assert kernel.expected_movable == PfnSet.of(PfnRange(pfn, pfn + 1))


def test_the_first_block_is_the_one_that_was_onlined_first():
    model = guest(512, auto_online_blocks="offline")
    do(model, Online(id="d", part="last", to="online_movable"))
    do(model, Online(id="d", part="first", to="online_movable"))
    assert model.kernel.expected_movable.min() // B == 0x118000 // B
    do(model, Offline(id="d", part="last"))
    assert not model.kernel.expected_movable


@pytest.mark.parametrize(("mode", "pfn"), [("on", 0x100200), ("off", 0x100400)])
def test_processes_use_a_new_kernel_zone_without_zone_movable(mode, pfn):
    """Not the chunk that an unmovable allocation has claimed: its pageblocks are unmovable."""
    kernel = guest(256, to="online_kernel", memmap_on_memory=mode).kernel
    assert kernel.expected_movable == PfnSet.of(PfnRange(pfn, pfn + 1))
    beside = guest(256, auto_online_blocks="offline")
    do(beside, Online(id="d", part="last", to="online_movable"))
    do(beside, Online(id="d", part="first", to="online_kernel"))
    assert beside.kernel.expected_movable.min() == 0x108200


def test_the_first_huge_page_of_a_new_kernel_zone_lies_behind_the_memmap_of_its_second_block():
    model = guest(256, to="online_kernel", memmap_on_memory="on")
    do(model, HugePages(nr_hugepages=1))
    assert model.kernel.hugetlb_pages().min() == 0x108200


def test_a_node_without_cpus_has_no_page_that_processes_use():
    nodes = [{"memory": "512MiB"}, {"memory": "512MiB"}]
    model = guest(0, memory=None, nodes=nodes)
    do(model, Plug(id="d", size=Size(128 * MIB), node=1))
    assert not model.kernel.expected_movable


@pytest.mark.parametrize(
    ("release", "second"), [("6.18", "EBUSY"), ("6.12", None), ("7.0", "EBUSY"), ("7.2", None)]
)
def test_a_huge_page_that_moved_within_its_node_stays_on_some_kernels(release, second):
    # On 6.18.15, 14 huge pages that had come from block 33 stayed, the first at pfn 0x110400; one
    # that was allocated in block 34 moved.
    model = guest(release=release)
    do(model, Offline(blocks=32))
    fill(model, "f", 32, "hugetlb-file")
    do(model, Offline(blocks=33))
    outcome = model.perform(Offline(blocks=34)).outcome
    assert outcome.errno == second
    if second is not None:
        assert outcome.function == "dissolve_free_hugetlb_folios"
        assert outcome.pfns.min() == 0x110400
        do(model, Free(id="f"))
        do(model, Offline(blocks=34))


def test_a_huge_page_that_came_from_another_node_can_move_again():
    nodes = [Node(memory=Size(GIB)), Node(memory=Size(GIB))]
    model = guest(0, nodes=nodes, memory=Size(2 * GIB), release="6.18")
    do(model, Plug(id="d", size=Size(128 * MIB), node=1))
    fill(model, "f", 16, "hugetlb-file", node=1)
    do(model, Offline(id="d"))
    assert not pool(model).not_migratable


def test_a_huge_page_that_moved_within_its_node_cannot_be_poisoned():
    model = guest(release="6.18")
    do(model, Offline(blocks=32))
    fill(model, "f", 32, "hugetlb-file")
    do(model, Offline(blocks=33))
    pfn = pool(model).not_migratable.min()
    outcome = model.perform(Poison(address=Address(pfn << 12))).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "soft_offline_in_use_page")


@pytest.mark.parametrize("allowed", [False, True])
def test_gigantic_pages_lie_in_the_movable_zone_where_the_parameter_says_so(allowed):
    model = guest(2048, release="7.3", memmap_on_memory="off")
    if allowed:
        do(model, SetTunables(movable_gigantic_pages=True))
    do(model, HugePages(nr_hugepages=1, page_size=Size(GIB)))
    pages = pool(model, GIB >> 12).pages
    assert pages == (PfnSet([PfnRange(0x100000, 0x140000)]) if allowed else PfnSet())


def test_a_gigantic_page_of_the_movable_zone_moves_only_to_a_free_one_of_the_pool():
    model = guest(3072, release="7.3", memmap_on_memory="off")
    do(model, SetTunables(movable_gigantic_pages=True))
    fill(model, "f", 1024, "hugetlb-file", page_size=Size(GIB))
    assert model.perform(Offline(blocks=32)).outcome.errno == "EINTR"
    do(model, HugePages(nr_hugepages=2, page_size=Size(GIB)))
    do(model, Offline(blocks=32))


def test_releases_before_7_0_have_no_gigantic_pages_in_the_movable_zone():
    outcome = guest(release="6.18").perform(SetTunables(movable_gigantic_pages=True)).outcome
    assert (outcome.errno, outcome.why) == ("ENOENT", "movable_gigantic_pages: no such parameter")
