"""Offline: the order of reasons, what stays afterwards, and which files change."""

import contextlib

import pytest

from altmap.model.kernel.offline import memory_block_offline
from altmap.model.kernel.online import memory_block_online, online_blocks
from altmap.model.kernel.remove import offline_and_remove_memory
from altmap.model.kernel.touch import KernelFault
from altmap.model.kernel.zonelists import node_order
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Node, Offline, Online, Plug, Size

B = 0x8000  # pages of a block
BASE = 32 * B  # 4 GiB


def block(number):
    """Return the page frames of a block, counted from 4 GiB."""
    return PfnRange(BASE + number * B, BASE + (number + 1) * B)


def kernel_with(nr_blocks=2, to=None, release="6.12", node=0, **changes):
    """Return a kernel of 1 GiB with a DIMM at 4 GiB, its blocks offline or onlined."""
    machine = {"memory": Size(1 << 30), "release": release, "auto_online_blocks": "offline"}
    model = ModelMachine.start(Machine(**machine | changes))
    assert model.perform(Plug(id="d", size=Size(nr_blocks << 27), node=node)).outcome
    if to is not None:
        assert online_blocks(model.kernel, range(32, 32 + nr_blocks), to)[0]
    return model.kernel


def use(kernel, pfn, *, pinned=False):
    page = PfnRange(pfn, pfn + 1)
    kernel.used |= page
    kernel.movable |= page
    if pinned:
        kernel.pinned |= page


# --- online -------------------------------------------------------------------------------------


def test_a_poisoned_page_keeps_its_own_block_offline_and_no_other():
    """Blocks of one zone are onlined together, but not across one with HWPoison pages."""
    kernel = kernel_with(4)
    kernel.poisoned |= PfnRange(BASE + 2 * B + 5, BASE + 2 * B + 6)
    outcome, at = online_blocks(kernel, range(32, 36), "online_movable")
    assert (outcome.errno, outcome.function, at) == ("EHWPOISON", "memory_block_online", 34)
    assert [id_ for id_ in kernel.online_blocks if id_ >= 32] == [32, 33]


def test_blocks_that_go_online_together_write_their_memmaps_in_one_touch_unless_one_faults():
    """The kernel goes block by block, so that a fault is that of the first block that has one."""

    def written(gone):
        kernel = kernel_with(4, memmap_on_memory="on")
        kernel.log.take()
        kernel.check_access.__self__.backed -= gone
        with contextlib.suppress(KernelFault):
            online_blocks(kernel, range(32, 36), "online_movable")
        writes = [event.pfns for event in kernel.log.take() if event.kind == "write"]
        return [len(PfnSet.of(pfns)) for pfns in writes]

    assert written(PfnRange(0, 1)) == [4 * 8, 4 * 504]
    assert written(PfnRange(BASE + 2 * B, BASE + 2 * B + 1)) == [8, 504, 8, 504, 8]


def test_a_zone_that_begins_where_the_blocks_end_decides_for_none_of_them():
    """With Normal above, the first block's span reaches to it, and so over the second."""
    kernel = kernel_with(4)
    assert memory_block_online(kernel, block(3), "online_kernel")
    assert online_blocks(kernel, range(32, 35), "online")[0]
    assert {zone.name for zone in kernel.zones_of(PfnRange(BASE, BASE + 3 * B))} == {"Normal"}
    movable = kernel_with(4)
    assert memory_block_online(movable, block(3), "online_movable")
    assert online_blocks(movable, range(32, 35), "online")[0]
    assert movable.zones[0, "Normal"].present.count(PfnRange(BASE, BASE + 3 * B)) == 3 * B


# --- the order of reasons -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("referenced", "pinned", "errno", "function", "kind"),
    [
        (10, 20, "EBUSY", "scan_movable_pages", "fake-offline"),
        (20, 10, "EINTR", "offline_pages", "pinned"),
        (10, None, "EBUSY", "scan_movable_pages", "fake-offline"),
        (None, 10, "EINTR", "offline_pages", "pinned"),
    ],
)
def test_the_page_that_a_scan_finds_first_is_the_reason(referenced, pinned, errno, function, kind):
    """scan_movable_pages returns at the first page that can be migrated, or must not be offline."""
    kernel = kernel_with(to="online_movable")
    if referenced is not None:
        kernel.fake_offline |= PfnRange(BASE + referenced, BASE + referenced + 1)
    if pinned is not None:
        use(kernel, BASE + pinned, pinned=True)
    outcome = memory_block_offline(kernel, block(0))
    assert (outcome.errno, outcome.function, outcome.kind) == (errno, function, kind)


def test_pinned_pages_are_the_reason_also_if_others_find_no_target():
    kernel = kernel_with(1, to="online_movable", memory=Size(128 << 20))
    movable = kernel.zones[0, "Movable"]
    pages = kernel.free(movable)
    kernel.used |= pages
    kernel.movable |= pages
    kernel.pinned |= PfnRange(BASE, BASE + 1)
    outcome = memory_block_offline(kernel, block(0))
    assert (outcome.errno, outcome.kind, outcome.pfns) == ("EINTR", "pinned", kernel.pinned)
    assert kernel.nr_online(block(0)) == 1
    assert movable.present.covers(block(0))


def test_pinned_pages_stay_where_they_are_and_the_others_move():
    kernel = kernel_with(to="online_movable")
    use(kernel, BASE + 5, pinned=True)
    use(kernel, BASE + 6)
    assert not memory_block_offline(kernel, block(0))
    assert kernel.movable.count(block(0)) == 1
    assert BASE + 5 in kernel.movable


# --- what stays ---------------------------------------------------------------------------------


def test_a_block_that_went_offline_is_shown_anew():
    kernel = kernel_with(to="online_movable")
    kernel.changed.blocks -= kernel.blocks(block(0))  # as if it had been online at the start
    assert memory_block_offline(kernel, block(0))
    assert 32 in kernel.changed.blocks


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("fake_offline", ("unreferenced",)),
        ("unreferenced", ("fake_offline",)),
        ("never_onlined", ("fake_offline", "unreferenced")),
        ("left_reserved", ("fake_offline", "unreferenced")),
        ("used", ("pcp",)),
        ("pcp", ("used",)),
        ("expected_unmovable", ("used", "pcp")),
    ],
)
def test_no_page_of_an_offline_block_has_a_use(name, others):
    """Pages whose driver has dropped its reference, and those of per-CPU lists, go offline."""
    kernel = kernel_with(to="online_movable")
    for each in (name, *others):
        setattr(kernel, each, getattr(kernel, each) | PfnRange(BASE + 5, BASE + 6))
    assert memory_block_offline(kernel, block(0))
    assert not getattr(kernel, name).count(block(0))


def test_a_group_counts_down_when_its_block_goes_offline():
    kernel = kernel_with(to="online_movable")
    (addition,) = kernel.additions
    assert addition.group.present_movable_nr_pages == 2 * B
    assert memory_block_offline(kernel, block(0))
    assert addition.group.present_movable_nr_pages == B
    assert memory_block_online(kernel, block(0), "online_kernel")
    assert addition.group.present_kernel_nr_pages == B


def test_zonelists_are_built_anew_when_a_zone_gets_its_first_or_loses_its_last_page():
    nodes = [Node(memory=Size(1 << 30)), Node(memory=Size(0))]
    kernel = kernel_with(2, nodes=nodes, node=1)
    assert node_order(kernel, 0) == [0]
    assert memory_block_online(kernel, block(0), "online_movable")
    assert node_order(kernel, 0) == [0, 1]
    assert memory_block_online(kernel, block(1), "online_movable")
    assert memory_block_offline(kernel, block(0))
    assert node_order(kernel, 0) == [0, 1]
    assert memory_block_offline(kernel, block(1))
    assert node_order(kernel, 0) == [0]


def test_zonelists_of_boot_stay_while_a_zone_of_boot_only_grows():
    """online_pages: they are built anew only if the zone had no pages."""
    sizes = (Size(4 << 30), Size(1 << 29), Size(1 << 29))
    machine = Machine(nodes=[Node(memory=size) for size in sizes], auto_online_blocks="offline")
    model = ModelMachine.start(machine)
    kernel = model.kernel
    assert kernel.zones[0, "Normal"].present
    at_boot = [node_order(kernel, node) for node in range(3)]
    assert model.perform(Plug(id="d", size=Size(1 << 28), node=0)).outcome
    assert model.perform(Online(id="d", part="first", to="online_kernel")).outcome
    assert [node_order(kernel, node) for node in range(3)] == at_boot
    assert model.perform(Online(id="d", part="last", to="online_movable")).outcome
    assert [node_order(kernel, node) for node in range(3)] != at_boot


def test_a_boot_block_with_a_hole_of_one_page_cannot_go_offline():
    kernel = kernel_with()
    pfns = kernel.block_pfns(4)
    for pages in (kernel.boot_ram, kernel.zones[0, "DMA32"].present):
        pages -= PfnRange(pfns.start + 3, pfns.start + 4)
    outcome = memory_block_offline(kernel, pfns)
    assert (outcome.errno, outcome.function) == ("EINVAL", "offline_pages")


# --- offline and remove -------------------------------------------------------------------------


def test_blocks_come_back_to_the_kind_of_zone_that_they_had_when_one_cannot_go():
    """try_reonline_memory_block: not by the policy, which would put the first into Normal."""
    kernel = kernel_with(2)
    assert memory_block_online(kernel, block(0), "online_movable")
    assert memory_block_online(kernel, block(1), "online_kernel")
    kernel.used |= PfnRange(BASE + B + 5, BASE + B + 6)
    outcome = offline_and_remove_memory(kernel, PfnRange(BASE, BASE + 2 * B))
    assert outcome.errno == "EBUSY"
    assert [zone.name for zone in kernel.zones_of(block(0))] == ["Movable"]
    assert [zone.name for zone in kernel.zones_of(block(1))] == ["Normal"]


def test_kernel_memory_comes_back_as_kernel_memory():
    kernel = kernel_with(2, movable_node=True)
    assert memory_block_online(kernel, block(0), "online_kernel")
    kernel.used -= kernel.expected_unmovable
    assert memory_block_online(kernel, block(1), "online_movable")
    use(kernel, BASE + B + 5, pinned=True)
    assert not offline_and_remove_memory(kernel, PfnRange(BASE, BASE + 2 * B))
    assert [zone.name for zone in kernel.zones_of(block(0))] == ["Normal"]


def test_a_part_of_an_add_is_not_removed():
    kernel = kernel_with(2)
    outcome = offline_and_remove_memory(kernel, block(0))
    assert (outcome.errno, outcome.function) == ("EINVAL", "try_remove_memory")
    assert len(kernel.additions) == 1


# --- struct pages -------------------------------------------------------------------------------


def reads_of_offlining(nr_blocks=1, **machine):
    """Return what offlining the first block of self-hosted memory reads, by function."""
    model = ModelMachine.start(
        Machine(
            memory=Size(1 << 30), memmap_on_memory="on", auto_online_blocks="offline", **machine
        )
    )
    assert model.perform(Plug(id="d", size=Size(nr_blocks << 27))).outcome
    assert model.perform(Online(id="d", to="online_movable")).outcome
    record = model.perform(Offline(blocks=[32]))
    assert record.outcome
    return {event.function: event.pfns for event in record.events if event.kind == "read"}


@pytest.mark.parametrize(
    ("release", "policy"),
    [("6.1", None), ("6.12", None), ("7.3", None), ("6.12", "per-block"), ("6.12", "rfc-2018")],
)
def test_pages_before_the_first_isolated_one_are_read_as_far_as_a_chunk_may_reach(release, policy):
    """The first other page is the 512th of 1024. Real kernels read the same eight frames."""
    reads = reads_of_offlining(release=release, policy=policy)
    assert PfnSet.of(reads["isolate_single_pageblock"]) == PfnSet([PfnRange(BASE, BASE + 8)])


@pytest.mark.parametrize(
    ("machine", "nr_blocks"), [({"release": "5.15"}, 1), ({"policy": "rfc-2018"}, 2)]
)
def test_pages_of_other_chunks_are_not_read_and_before_5_19_none(machine, nr_blocks):
    """The memmap of 256 MiB is 1024 pages, which fill a chunk."""
    reads = reads_of_offlining(nr_blocks, **machine)
    assert list(reads) == ["has_unmovable_pages"]
    own = 8 * nr_blocks
    unread = PfnSet([PfnRange(BASE + 1, BASE + own)])
    assert PfnSet.of(reads["has_unmovable_pages"]) == PfnSet([PfnRange(BASE, BASE + 512)]) - unread
