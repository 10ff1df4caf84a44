"""Add and remove: what existing memory pays, what a failure leaves, and the bounds of a range."""

import pytest

from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.offline import memory_block_offline
from altmap.model.kernel.online import memory_block_online, online_blocks
from altmap.model.kernel.registration import (
    restore_online_page_callback,
    set_online_page_callback,
)
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Node, Offline, Plug, Size

B = 0x8000  # pages of a block
BASE = 32 * B  # 4 GiB
MEMMAP = B * 64 // 4096  # pages of a block's memmap


def block(first, end=None):
    """Return the page frames of blocks, counted from 4 GiB."""
    return PfnRange(BASE + first * B, BASE + (first + 1 if end is None else end) * B)


def kernel_of(**changes):
    machine = {"memory": Size(1 << 30), "release": "6.12", "auto_online_blocks": "offline"}
    kernel = ModelMachine.start(Machine(**machine | changes)).kernel
    kernel.check_access = lambda touch: None  # all memory is backed
    return kernel


def add(kernel, pfns, node=0, *, asks=False, **more):
    return add_memory_resource(kernel, pfns, node, asks=asks, **more)


@pytest.mark.parametrize(
    ("pfns", "errno"),
    [
        (PfnRange(BASE + 1, BASE + 1 + B), "EINVAL"),
        (PfnRange(BASE, BASE + B + 512), "EINVAL"),
        (PfnRange(BASE, BASE), "EINVAL"),
        (PfnRange((1 << 34) - B, 1 << 34), None),  # x86_64 maps 46 bits of addresses
        (PfnRange((1 << 34) - B, (1 << 34) + B), "E2BIG"),
        (PfnRange(0, B), "EEXIST"),
    ],
)
def test_a_range_is_whole_blocks_that_can_be_mapped_and_are_not_ram(pfns, errno):
    assert add(kernel_of(), pfns).errno == errno


def test_the_end_of_memory_grows_with_an_add_and_never_shrinks():
    kernel = kernel_of()
    assert add(kernel, block(4))
    assert kernel.max_pfn == block(4).end
    assert add(kernel, block(2))
    assert kernel.max_pfn == block(4).end
    assert try_remove_memory(kernel, kernel.additions[0])
    assert kernel.max_pfn == block(4).end


def test_a_remove_frees_what_the_add_has_taken():
    kernel = kernel_of()
    used, free = kernel.used.copy(), kernel.free_nr_pages()
    assert add(kernel, block(0, 2))
    assert len(kernel.used - used) == 2 * MEMMAP + len(kernel.page_tables)
    assert try_remove_memory(kernel, kernel.additions[0])
    assert (kernel.used, kernel.free_nr_pages()) == (used, free)


# --- injected failures --------------------------------------------------------------------------


def test_an_add_without_a_page_for_its_page_tables_takes_nothing():
    kernel = kernel_of()
    used = kernel.used.copy()
    kernel.failures.inject("allocation", 2)  # the first one is the memmap's
    outcome = add(kernel, block(0))
    assert (outcome.errno, outcome.function) == ("ENOMEM", "arch_add_memory")
    assert kernel.used == used
    assert not kernel.failed_additions


def test_an_add_without_a_page_for_its_memmap_leaves_what_it_took():
    kernel = kernel_of()
    for zone in kernel.zones.values():
        kernel.used |= kernel.free(zone)
        zone.watermarks = Watermarks()
    kernel.used -= PfnSet([PfnRange(0x10000, 0x10000 + MEMMAP + 700)])
    used = kernel.used.copy()
    outcome = add(kernel, block(0, 4))
    assert (outcome.errno, outcome.function) == ("ENOMEM", "vmemmap_populate")
    (failed,) = kernel.failed_additions
    assert failed.host_pages == kernel.used - used
    assert len(failed.host_pages) > MEMMAP


def test_an_allocation_that_the_add_does_not_make_cannot_fail():
    kernel = kernel_of(memmap_on_memory="on")
    assert add(kernel, block(0), asks=True)  # its page tables serve the next block too
    kernel.failures.inject("allocation", 1)
    assert add(kernel, block(1), asks=True)
    assert kernel.failures.allocation == 0


def test_a_failure_that_was_not_reached_is_dropped_with_the_add():
    kernel = kernel_of()
    kernel.failures.inject("allocation", 9)
    assert add(kernel, block(0))
    assert kernel.failures.allocation == 0


def test_blocks_that_cannot_be_created_are_a_failure_of_one_add():
    kernel = kernel_of()
    used = kernel.used.copy()
    kernel.failures.inject("block_devices", True)
    assert add(kernel, block(0)).function == "create_memory_block_devices"
    assert (kernel.used, kernel.added_blocks.count(PfnRange(32, 64))) == (used, 0)
    assert add(kernel, block(0))


@pytest.mark.parametrize(("memmap", "end"), [("off", 2), ("on", 1)])
def test_a_failed_add_leaves_the_end_of_memory_where_it_got_to(memmap, end):
    """update_end_of_memory_vars; with a memmap of its own, each block is added by itself."""
    kernel = kernel_of(memmap_on_memory=memmap)
    kernel.failures.inject("block_devices", True)
    assert not add(kernel, block(0, 2), asks=True)
    assert kernel.max_pfn == block(0, end).end


# --- where the memmap goes ----------------------------------------------------------------------


def test_a_shared_host_serves_its_own_node_only():
    nodes = [Node(memory=Size(1 << 30)), Node(memory=Size(1 << 30))]
    kernel = kernel_of(policy="shared-host", memory=Size(2 << 30), nodes=nodes)
    assert add(kernel, block(0, 8), 0, asks=True)
    assert add(kernel, block(8), 1)
    assert add(kernel, block(9), 0)
    hosts = [addition.memmap.host for addition in kernel.additions]
    assert hosts[1] is None
    assert block(0, 8).overlaps(hosts[2])


def test_what_is_inaccessible_while_offline_is_not_poisoned_at_add():
    """MHP_OFFLINE_INACCESSIBLE: page_init_poison waits until the blocks go online."""
    for inaccessible, function in ((False, "page_init_poison"), (True, None)):
        kernel = kernel_of(debug_vm=True, memmap_on_memory="on")
        kernel.log.take()
        assert add(kernel, block(0), asks=True, inaccessible=inaccessible)
        written = [event.function for event in kernel.log.take() if event.kind == "write"]
        assert written == ([function] if function else [])
        assert memory_block_online(kernel, block(0), "online_movable")
        written = [event.function for event in kernel.log.take() if event.kind == "write"]
        assert ("page_init_poison" in written) == inaccessible


# --- what the kernel allocates next -------------------------------------------------------------


def test_a_new_kernel_zone_serves_the_next_allocation_on_a_node_with_cpus_only():
    nodes = [Node(memory=Size(1 << 30)), Node(memory=Size(0))]
    kernel = kernel_of(nodes=nodes)
    assert add(kernel, block(0), 1)
    assert memory_block_online(kernel, block(0), "online_kernel")
    assert not kernel.expected_unmovable
    kernel = kernel_of()
    assert add(kernel, block(0), 0)
    assert memory_block_online(kernel, block(0), "online_movable")
    assert not kernel.expected_unmovable
    assert add(kernel, block(1), 0)
    assert memory_block_online(kernel, block(1), "online_kernel")
    assert kernel.expected_unmovable == PfnSet([PfnRange(BASE + B, BASE + B + 1)])


def test_the_next_allocation_takes_the_first_whole_chunk_of_the_highest_order():
    """__rmqueue_fallback looks from the highest order down; a run of one chunk is whole."""
    kernel = kernel_of()
    assert add(kernel, block(0))
    chunk = 1 << kernel.arch.max_page_order
    whole = PfnRange(BASE + 2 * chunk, BASE + 3 * chunk)
    kernel.used |= PfnSet.of(block(0)) - whole - PfnRange(BASE + 7, BASE + chunk + 9)
    assert memory_block_online(kernel, block(0), "online_kernel")
    assert kernel.expected_unmovable == PfnSet([PfnRange(whole.start, whole.start + 1)])


# --- what drivers register ----------------------------------------------------------------------


def test_one_driver_s_online_callback_is_set_and_only_that_driver_restores_it():
    """set_online_page_callback and restore_online_page_callback: EINVAL for another one's."""
    kernel = kernel_of()

    def first(pages):
        return pages

    def second(pages):
        return PfnSet()

    assert set_online_page_callback(kernel, first)
    assert set_online_page_callback(kernel, first)
    assert not set_online_page_callback(kernel, second)
    restore_online_page_callback(kernel, second)
    assert kernel.online_page_callback is first
    restore_online_page_callback(kernel, first)
    assert kernel.online_page_callback is None


def test_pages_that_may_be_free_on_per_cpu_lists_make_a_refusal_likely():
    kernel = kernel_of()
    assert add(kernel, block(0))
    assert memory_block_online(kernel, block(0), "online_movable")
    page = PfnRange(BASE + 5, BASE + 6)
    kernel.used |= page
    assert memory_block_offline(kernel, block(0)).certainty == "certain"
    kernel.maybe_pcp |= page
    outcome = memory_block_offline(kernel, block(0))
    assert (outcome.errno, outcome.certainty) == ("EBUSY", "likely")
    assert "per-CPU" in outcome.doubt
    kernel.used |= PfnRange(BASE + 9, BASE + 10)  # one that is not free for sure
    assert memory_block_offline(kernel, block(0)).certainty == "certain"


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
@pytest.mark.parametrize("nr_blocks", [2, 3, 5])
def test_watermarks_of_blocks_that_are_onlined_together_are_those_of_the_last(release, nr_blocks):
    """The high watermark of each enters the next result."""
    together, singly = kernel_of(release=release), kernel_of(release=release)
    ids = range(72, 72 + nr_blocks)
    for kernel in (together, singly):
        assert add(kernel, block(40, 40 + nr_blocks))
    assert online_blocks(together, ids, "online_kernel")[0]
    for id_ in ids:
        assert memory_block_online(singly, singly.block_pfns(id_), "online_kernel")
    assert [z.watermarks for z in together.zones.values()] == [
        z.watermarks for z in singly.zones.values()
    ]


# --- several blocks at once ---------------------------------------------------------------------


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
@pytest.mark.parametrize("to", ["online", "online_kernel", "online_movable"])
@pytest.mark.parametrize("movable_node", [False, True])
def test_blocks_that_are_onlined_together_end_as_one_by_one(release, to, movable_node):
    kernels = [kernel_of(release=release, movable_node=movable_node) for _ in range(2)]
    for kernel in kernels:
        assert add(kernel, block(20, 24))
        assert online_blocks(kernel, range(52, 53), to)[0]
        assert add(kernel, block(0, 16))
    together, singly = kernels
    assert online_blocks(together, range(32, 48), to)[0]
    for id_ in range(32, 48):
        assert memory_block_online(singly, singly.block_pfns(id_), to)
    for one, other in zip(together.zones.values(), singly.zones.values(), strict=True):
        assert (one.span, one.present) == (other.span, other.present)
        assert one.watermarks == other.watermarks
    assert together.used == singly.used


def test_a_page_behind_an_addition_is_of_the_next_one():
    kernel = kernel_of()
    assert add(kernel, block(1))
    assert add(kernel, block(0))  # the newest is looked at first
    assert kernel.addition_of(block(0).end - 1).pfns == block(0)
    assert kernel.addition_of(block(0).end).pfns == block(1)
    assert kernel.addition_of(block(1).end) is None
    assert kernel.addition_of(BASE - 1) is None


@pytest.mark.parametrize("to", ["online", "online_movable"])
def test_blocks_without_a_group_are_asked_for_their_zone_one_by_one(to):
    """auto-movable with ``online``: each block changes the ratio that is checked for the next."""
    changes = {"online_policy": "auto-movable", "auto_movable_ratio": 100}
    together, singly = kernel_of(**changes), kernel_of(**changes)
    for kernel in (together, singly):
        assert add(kernel, block(0, 16))
    assert online_blocks(together, range(32, 48), to)[0]
    for id_ in range(32, 48):
        assert memory_block_online(singly, singly.block_pfns(id_), to)
    present = {zone.name: len(zone.present) for zone in together.zones.values()}
    assert present == {zone.name: len(zone.present) for zone in singly.zones.values()}
    assert (present["Normal"] > 0) == (to == "online")
    assert present["Movable"]


def test_pages_of_a_self_hosted_memmap_are_present_and_not_freed():
    kernel = kernel_of(memmap_on_memory="on")
    assert add(kernel, block(0), asks=True)
    kernel.log.take()
    assert memory_block_online(kernel, block(0), "online_movable")
    (event,) = [event for event in kernel.log.take() if event.kind == "onlined"]
    assert f"{B} pages present, {B - MEMMAP} freed" in event.text


@pytest.mark.parametrize(
    ("node", "sizes_mib", "nr_pages"),
    [
        (1, (256, 512), 0),  # it ends below 2 GiB: 128 sections of 16 MiB fill one page
        (1, (256, 1024), 1),
        (1, (256, 17408), 9),
        (0, (256, 1024), 0),  # a node with CPUs has a slab with room
    ],
)
def test_a_node_without_cpus_keeps_the_arrays_of_new_sections(node, sizes_mib, nr_pages):
    """sparse_index_alloc asks the added memory's node, where a kernel zone has pages for it."""
    nodes = (Node(memory=Size(1 << 30)), Node(memory=Size(0)))
    model = ModelMachine.start(
        Machine(
            arch="ppc64le",
            nodes=nodes,
            release="6.12",
            memmap_on_memory="force",
            auto_online_blocks="online_kernel",
        )
    )
    first, second = (
        Plug(id=name, size=Size(mib << 20), node=node)
        for name, mib in zip("ab", sizes_mib, strict=True)
    )
    assert model.perform(first).outcome
    kernel = model.kernel
    kernel.used -= kernel.expected_unmovable
    added = kernel.additions[0].pfns
    assert not kernel.used.count(added)
    kernel.tunables.auto_online_blocks = "offline"
    assert model.perform(second).outcome
    assert (kernel.used - kernel.expected_unmovable).count(PfnRange(added.start, 1 << 40)) == (
        nr_pages
    )


@pytest.mark.parametrize(
    ("release", "to", "outcome"),
    [
        ("6.12", "online_kernel", "ok"),
        ("6.18", "online_kernel", "refused"),
        ("7.3", "online_kernel", "refused"),
        ("7.3", "online_movable", "ok"),
    ],
)
def test_the_threads_of_a_node_without_cpus_lie_in_its_first_kernel_memory(release, to, outcome):
    """kswapd_run: kthread_create_on_node since 6.14."""
    nodes = (Node(memory=Size(1 << 30)), Node(memory=Size(0)))
    model = ModelMachine.start(Machine(nodes=nodes, release=release, auto_online_blocks=to))
    assert model.perform(Plug(id="d", size=Size(128 << 20), node=1)).outcome
    assert model.perform(Offline(id="d")).outcome.status == outcome
