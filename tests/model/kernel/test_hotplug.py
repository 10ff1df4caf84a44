"""Add, online, offline and remove: the worked numbers of x86_64 guests."""

import pytest

from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.online import memory_block_online, zone_for_pfn_range
from altmap.model.machine import ModelMachine
from altmap.model.observe.buddyinfo import free_chunks
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Machine, Node, Offline, Online, Plug, SetTunables, Size, Unplug

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
B = 0x8000  # pages of a block


def guest(memory=GIB, **changes):
    settings = {
        "memory": Size(memory),
        "release": "6.12",
        "auto_online_blocks": "offline",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def plug(model, id_="d", mib=128, **more):
    if "address" in more:
        more["address"] = Address(more["address"])
    outcome = model.perform(Plug(id=id_, size=Size(mib * MIB), **more)).outcome
    assert outcome, outcome
    return outcome


def do(model, step):
    outcome = model.perform(step).outcome
    assert outcome, outcome


def zone(model, name, node=0):
    return model.kernel.zones[node, name]


def shown(seen, name, node=0):
    return next(info for info in seen.zoneinfo if info.key == (node, name))


def flags(seen, start, end):
    """Return (flags, pages) of the runs inside the range."""
    cut = (
        (run.flags, min(end, run.start_pfn + run.nr_pages) - max(start, run.start_pfn))
        for run in seen.kpageflags
    )
    return [(value, nr) for value, nr in cut if nr > 0]


# --- one block of 128 MiB at 4 GiB ---------------------------------------------------------------


def test_adding_a_self_hosted_block_changes_nothing_in_zones_but_takes_page_tables():
    model = guest()
    before = model.observe()
    plug(model)
    seen = model.observe()
    assert seen.meminfo["MemTotal"] == before.meminfo["MemTotal"]
    assert before.meminfo["MemFree"] - seen.meminfo["MemFree"] == 4
    assert seen.vmstat["nr_memmap_pages"] - before.vmstat["nr_memmap_pages"] == 512
    assert seen.meminfo["DirectMap2M"] - before.meminfo["DirectMap2M"] == 131072
    line = seen.iomem[-1]
    assert (line.start, line.end, line.name) == (0x100000000, 0x108000000, "System RAM")
    block = seen.memory.blocks[32]
    assert (block.state, block.valid_zones) == ("offline", ("Normal", "Movable"))
    for info in seen.zoneinfo:
        old = shown(before, info.name)
        for name in ("present", "managed", "spanned"):
            assert info.pages[name] == old.pages[name]
    assert flags(seen, 0x100000, 0x108000) == [(0x100000, B)]


def test_onlining_it_counts_the_memmap_as_present_and_never_as_managed():
    model = guest()
    plug(model)
    before = model.observe()
    do(model, Online(id="d"))
    seen = model.observe()
    info = shown(seen, "Normal")
    assert info.tail["start_pfn"] == 1048576
    assert {name: info.pages[name] for name in ("spanned", "present", "managed")} == {
        "spanned": 32768,
        "present": 32768,
        "managed": 32256,
    }
    assert seen.meminfo["MemTotal"] - before.meminfo["MemTotal"] == 129024
    assert seen.memory.blocks[32].valid_zones == ("Normal",)
    assert flags(seen, 0x100000, 0x100200) == [(0x2000000000, 512)]
    # One page stands for what the kernel allocates from a zone that is new.
    rest = flags(seen, 0x100200, 0x108000)
    assert sum(nr for value, nr in rest if value == 0x400) == 32256 - 1


def test_its_free_chunks_are_one_of_order_9_and_31_of_order_10():
    model = guest()
    plug(model, "first")
    do(model, Online(id="first"))  # the zone is there, so nothing settles in the next block
    plug(model)
    before = model.observe().buddyinfo[0, "Normal"]
    do(model, Online(id="d"))
    now = model.observe().buddyinfo[0, "Normal"]
    gained = [new - old for new, old in zip(now, before, strict=True)]
    assert gained == [0] * 9 + [1, 31]


def test_without_an_altmap_add_costs_2_mib_more_and_online_gives_all_pages():
    model = guest(memmap_on_memory="off")
    before = model.observe()
    plug(model)
    added = model.observe()
    assert before.meminfo["MemFree"] - added.meminfo["MemFree"] == 4 + 2048
    assert added.vmstat["nr_memmap_pages"] - before.vmstat["nr_memmap_pages"] == 512
    do(model, Online(id="d", to="online_movable"))
    seen = model.observe()
    assert seen.meminfo["MemTotal"] - before.meminfo["MemTotal"] == 131072
    assert seen.buddyinfo[0, "Movable"] == (0,) * 10 + (32,)
    assert flags(seen, 0x100000, 0x108000) == [(0x400, B)]


def test_6_1_marks_memmap_pages_reserved_as_well_and_does_not_count_them():
    model = guest(release="6.1")
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    seen = model.observe()
    assert flags(seen, 0x100000, 0x108000) == [(0x2100000000, 512), (0x400, 32256)]
    assert "nr_memmap_pages" not in seen.vmstat
    assert shown(seen, "Movable").pages["managed"] == 32256


def test_offlining_and_removing_it_leaves_what_there_was():
    model = guest()
    before = model.observe()
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    do(model, Offline(id="d"))
    do(model, Unplug(id="d"))
    seen = model.observe()
    for name in ("meminfo", "vmstat", "zoneinfo", "buddyinfo", "iomem", "memory", "nodes"):
        assert getattr(seen, name) == getattr(before, name), name
    # max_pfn never shrinks, so neither does kpageflags.
    assert sum(run.nr_pages for run in seen.kpageflags) == 0x108000
    assert flags(seen, 0x40000, 0x108000) == [(0x100000, 0x108000 - 0x40000)]


def test_a_dimm_of_1_gib_has_an_altmap_per_block_on_6_12_and_none_on_6_1():
    model = guest()
    plug(model, mib=1024)
    (addition,) = model.kernel.additions
    assert (addition.memmap.unit_nr_pages, len(addition.memmap.hosted())) == (B, 8 * 512)
    assert not addition.host_pages
    model = guest(release="6.1")
    free = model.kernel.free_nr_pages()
    plug(model, mib=1024)
    (addition,) = model.kernel.additions
    assert not addition.memmap.self_hosted
    assert len(addition.host_pages) == 4096
    assert free - model.kernel.free_nr_pages() == 4096  # a leaf of 1 GiB needs no table
    do(model, Online(id="d"))
    assert model.kernel.nr_managed(zone(model, "Normal")) == 8 * B


@pytest.mark.parametrize(
    ("release", "mib", "managed"), [("6.1", 256, 65536), ("6.1", 128, 32256), ("6.12", 256, 64512)]
)
def test_managed_pages_of_dimms_as_seen_on_real_kernels(release, mib, managed):
    model = guest(release=release)
    plug(model, mib=mib)
    do(model, Online(id="d"))
    assert model.kernel.nr_managed(zone(model, "Normal")) == managed


def test_64_tib_are_added_and_onlined_with_exact_counts():
    model = ModelMachine.start(
        Machine(
            arch="x86_64-la57",
            memory=Size(2 * GIB),
            block_size=Size(2 * GIB),
            release="6.12",
            memmap_on_memory="on",
            auto_online_blocks="online_movable",
        ),
        pages=False,
    )
    before = model.kernel.total_ram_nr_pages()
    plug(model, mib=64 * TIB // MIB)
    movable = zone(model, "Movable")
    nr_pages = 64 * TIB // 4096
    assert len(model.kernel.online_blocks) == 1 + 64 * TIB // (2 * GIB)
    assert model.kernel.nr_present(movable) == nr_pages == len(movable.span)
    assert model.kernel.nr_managed(movable) == nr_pages - nr_pages // 64
    assert model.kernel.memmap_nr_pages() == nr_pages // 64
    assert model.kernel.total_ram_nr_pages() - before == nr_pages - nr_pages // 64
    assert model.observe().meminfo["MemTotal"] == model.kernel.total_ram_nr_pages() * 4


# --- one block elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "block", "mode", "nr_pages", "hosted", "chunks"),
    [
        ("x86_64", 128 * MIB, "on", 32768, 512, {9: 1, 10: 31}),
        ("x86_64", 128 * MIB, "off", 32768, 0, {10: 32}),
        ("x86_64", 2 * GIB, "on", 524288, 8192, {10: 504}),
        ("aarch64", 128 * MIB, "on", 32768, 512, {9: 1, 10: 31}),
        ("aarch64-64k", 512 * MIB, "force", 8192, 0, {13: 1}),
        ("s390x", 256 * MIB, "on", 65536, 1024, {10: 63}),
        ("ppc64le-64k", 256 * MIB, "force", 4096, 32, {5: 1, 6: 1, 7: 1, 8: 15}),
        ("ppc64le-64k", 256 * MIB, "on", 4096, 0, {8: 16}),
        ("ppc64le", 256 * MIB, "on", 65536, 1024, {10: 1, 11: 1, 12: 15}),
    ],
)
def test_one_block_of_each_architecture_as_memmap_and_free_chunks(
    arch, block, mode, nr_pages, hosted, chunks
):
    model = guest(arch=arch, memory=2 * GIB, block_size=Size(block), memmap_on_memory=mode)
    kernel = model.kernel
    start = TIB // kernel.arch.page_size_bytes
    pfns = PfnRange(start, start + nr_pages)
    model.backing.backed |= pfns
    assert add_memory_resource(kernel, pfns, 0, asks=True)
    assert memory_block_online(kernel, pfns, "online_movable")
    movable = kernel.zones[0, "Movable"]
    assert kernel.nr_present(movable) == nr_pages
    assert kernel.nr_managed(movable) == nr_pages - hosted
    assert kernel.self_hosted.count(pfns) == hosted
    found = free_chunks(kernel.free(movable), kernel.arch.max_page_order + 1)
    assert {order: nr for order, nr in enumerate(found) if nr} == chunks


def test_with_64k_pages_memmap_pages_are_rounded_up_per_section():
    kernel = guest(arch="ppc64le-64k", block_size=Size(256 * MIB)).kernel
    start = TIB // 65536
    assert add_memory_resource(kernel, PfnRange(start, start + 4096), 0, asks=True)
    assert kernel.memmap_nr_pages() == 16  # one for each section of 16 MiB, four times the truth


def test_arm64_never_offlines_boot_memory():
    model = guest(arch="aarch64")
    outcome = model.perform(Offline(blocks=10)).outcome
    assert (outcome.status, outcome.errno) == ("refused", "EPERM")


# --- spans -----------------------------------------------------------------------------------


def span(model, name):
    found = zone(model, name).span
    return (found.start // B, found.end // B)


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_span_shrinks_past_blocks_at_its_edges_and_keeps_holes(mode):
    model = guest(memmap_on_memory=mode)
    plug(model, mib=4 * 128)
    do(model, Online(id="d", to="online_movable"))
    assert span(model, "Movable") == (32, 36)
    do(model, Offline(blocks=34))
    assert span(model, "Movable") == (32, 36)
    do(model, Offline(blocks=35))
    assert span(model, "Movable") == (32, 34)
    do(model, Offline(blocks=32))
    assert span(model, "Movable") == (33, 34)
    do(model, Offline(blocks=33))
    assert zone(model, "Movable").span == PfnRange(0, 0)
    do(model, Online(blocks=35, to="online_movable"))
    assert span(model, "Movable") == (35, 36)


def pages_of(first, last):
    return PfnSet([PfnRange(first * B, last * B)])


# --- zone choice -------------------------------------------------------------------------------


def chosen(model, block, how="online"):
    node = model.kernel.node_of(block * B) or 0
    return zone_for_pfn_range(model.kernel, PfnRange(block * B, block * B + B), node, how).name


def test_contig_zones_follows_the_span_that_the_block_lies_in():
    model = guest()
    plug(model, mib=8 * 128)
    assert chosen(model, 33) == "Normal"
    do(model, Online(blocks=[32, 34], to="online_movable"))
    assert chosen(model, 33) == "Movable"
    assert chosen(model, 35) == "Normal"
    do(model, Online(blocks=[36, 38], to="online_kernel"))
    assert chosen(model, 37) == "Normal"
    do(model, Online(blocks=39, to="online_movable"))
    # Movable now spans [32, 40): so do both at block 37, and the kernel zone wins.
    assert chosen(model, 37) == "Normal"
    assert chosen(model, 33) == "Movable"
    assert model.observe().memory.blocks[37].valid_zones == ("Normal", "Movable")
    assert model.observe().memory.blocks[33].valid_zones == ("Movable", "Normal")


def test_movable_node_prefers_movable_where_spans_do_not_decide():
    model = guest(movable_node=True)
    plug(model, mib=4 * 128)
    assert chosen(model, 32) == "Movable"
    assert model.observe().memory.blocks[32].valid_zones == ("Movable", "Normal")
    do(model, Online(blocks=[32, 34], to="online_kernel"))
    assert chosen(model, 33) == "Normal"
    assert chosen(model, 35) == "Movable"


def test_memory_below_4_gib_that_no_dma32_span_touches_goes_to_normal():
    model = guest()
    assert add_memory_resource(model.kernel, PfnRange(10 * B, 11 * B), 0, asks=False)
    assert chosen(model, 10) == "Normal"
    do(model, Online(blocks=10))
    assert span(model, "Normal") == (10, 11)


def auto_movable(ratio=301, **changes):
    return guest(
        memory=2 * GIB,
        online_policy="auto-movable",
        auto_movable_ratio=ratio,
        memmap_on_memory="off",
        **changes,
    )


def early(model):
    """Pages that booted in kernel zones, by hand: 2 GiB less what firmware keeps."""
    return sum(len(z.present) for z in model.kernel.zones.values())


def test_auto_movable_takes_what_the_ratio_allows_block_by_block_of_many_dimms():
    model = auto_movable(ratio=100)
    allowed = early(model)
    for index in range(20):
        plug(model, f"d{index}")
    names = []
    for block in range(32, 52):
        names.append(chosen(model, block))
        do(model, Online(blocks=block))
    # 2 GiB booted, a little less than 16 blocks.
    assert names == ["Movable"] * (allowed // B) + ["Normal"] * (20 - allowed // B)
    assert allowed // B == 15


def test_a_static_group_goes_to_movable_whole_or_not_at_all():
    model = auto_movable(ratio=100)
    plug(model, "large", mib=16 * 128)  # 16 blocks do not fit below the ratio
    plug(model, "small", mib=15 * 128)
    assert chosen(model, 32) == "Normal"
    do(model, Online(id="small"))
    assert zone(model, "Movable").present == pages_of(48, 63)
    do(model, Online(id="large"))
    assert zone(model, "Normal").present == pages_of(32, 48)


def test_a_group_with_kernel_memory_stays_out_of_movable():
    model = auto_movable()
    plug(model, mib=4 * 128)
    assert chosen(model, 33) == "Movable"
    do(model, Online(blocks=32, to="online_kernel"))
    assert chosen(model, 33) == "Normal"


def test_a_group_counts_what_of_it_is_movable_already():
    model = auto_movable(ratio=100)
    plug(model, mib=15 * 128)
    do(model, Online(blocks=[32, 33], to="online_movable"))
    # 2 blocks are there, 13 are to come: together they are still within the ratio.
    assert chosen(model, 34) == "Movable"


def test_a_ratio_of_zero_means_kernel_memory_and_movable_node_does_not_count():
    assert chosen_of_fresh_dimm(auto_movable(ratio=0)) == "Normal"
    assert chosen_of_fresh_dimm(auto_movable(ratio=0, movable_node=True)) == "Normal"
    assert chosen_of_fresh_dimm(auto_movable(ratio=301)) == "Movable"


def chosen_of_fresh_dimm(model):
    plug(model)
    return chosen(model, 32)


def test_a_node_without_boot_memory_of_its_own_counts_only_if_numa_aware():
    nodes = [Node(memory=Size(2 * GIB)), Node(memory=Size(0))]
    for aware, name in ((True, "Normal"), (False, "Movable")):
        model = auto_movable(nodes=nodes, auto_movable_numa_aware=aware)
        plug(model, node=1)
        assert chosen(model, 32) == name, aware


def test_numa_awareness_looks_at_the_node_as_well_as_at_the_machine():
    nodes = [Node(memory=Size(GIB + 512 * MIB)), Node(memory=Size(512 * MIB))]
    for aware, name in ((True, "Normal"), (False, "Movable")):
        model = auto_movable(ratio=100, nodes=nodes, auto_movable_numa_aware=aware)
        plug(model, mib=8 * 128, node=1)  # 1 GiB for a node of 512 MiB, on a machine of 2 GiB
        assert chosen(model, 32) == name, aware


def test_the_policy_can_be_changed_while_the_kernel_runs():
    model = guest(memory=2 * GIB)
    plug(model)
    assert chosen(model, 32) == "Normal"
    do(model, SetTunables(online_policy="auto-movable"))
    assert chosen(model, 32) == "Movable"


# --- what is refused --------------------------------------------------------------------------


def test_auto_online_onlines_every_block_of_an_add():
    model = guest(auto_online_blocks="online")
    plug(model, mib=4 * 128)
    assert list(model.kernel.online_blocks)[-4:] == [32, 33, 34, 35]


def test_unmovable_pages_and_boot_reservations_keep_a_block_online():
    model = guest()
    # Block 7 holds what the kernel keeps for itself; block 0 lies in two zones.
    for block, errno in ((7, "EINVAL"), (0, "EINVAL")):
        outcome = model.perform(Offline(blocks=block)).outcome
        assert (outcome.status, outcome.errno) == ("refused", errno), outcome
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    model.kernel.used |= PfnRange(0x100300, 0x100301)
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "has_unmovable_pages")
    assert "0x100300" in outcome.why


def use(model, start, end):
    model.kernel.used |= PfnRange(start, end)
    model.kernel.movable |= PfnRange(start, end)


def test_movable_pages_migrate_and_memory_in_use_stays_the_same():
    model = guest()
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    use(model, 0x100400, 0x100464)
    in_use = len(model.kernel.used)
    do(model, Offline(id="d"))
    assert len(model.kernel.used) == in_use
    assert len(model.kernel.movable) == 100
    assert not model.kernel.movable.count(PfnRange(0x100000, 0x108000))


def test_pages_migrate_to_other_nodes_as_long_as_there_are_any_with_memory():
    nodes = [Node(memory=Size(512 * MIB)), Node(memory=Size(512 * MIB))]
    for node in (0, 1):
        model = guest(nodes=nodes)
        plug(model, "d", node=node)
        do(model, Online(id="d", to="online_movable"))
        use(model, 0x100400, 0x100464)
        do(model, Offline(id="d"))
        there = [
            sum(model.kernel.movable.count(z.present) for z in model.kernel.node_zones(n))
            for n in (0, 1)
        ]
        assert there == ([0, 100] if node == 0 else [100, 0])


def test_pages_of_a_kernel_zone_do_not_migrate_to_movable():
    model = guest()
    plug(model, "k")
    do(model, Online(id="k", to="online_kernel"))
    plug(model, "m")
    do(model, Online(id="m", to="online_movable"))
    model.kernel.used -= PfnRange(0x100000, 0x108000)  # nothing settled for this once
    use(model, 0x100400, 0x100464)
    do(model, Offline(id="k"))
    assert model.kernel.movable.count(zone(model, "Movable").present) == 0
    assert len(model.kernel.movable) == 100


def test_pages_that_find_no_place_keep_the_block_online_until_a_signal():
    model = guest(memory=256 * MIB)
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    use(model, 0x100200, 0x108000)
    for other in model.kernel.kernel_zones(0):
        model.kernel.used |= model.kernel.free(other)
    before = model.observe()
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.status, outcome.errno) == ("refused", "EINTR")
    assert model.observe() == before


def test_an_add_for_which_memory_is_too_small_is_refused():
    model = guest(memory=128 * MIB, memmap_on_memory="off")
    model.kernel.used |= model.kernel.free(zone(model, "DMA32"))
    outcome = model.perform(Plug(id="d", size=Size(4 * GIB))).outcome
    assert (outcome.status, outcome.errno) == ("refused", "ENOMEM")
    assert 32 not in model.kernel.added_blocks
    assert model.kernel.additions == []


@pytest.mark.parametrize(
    ("start", "end", "node", "errno"),
    [
        (32 * B, 33 * B, 9, "EINVAL"),
        (32 * B + 1, 33 * B + 1, 0, "EINVAL"),
        (32 * B, 33 * B - 512, 0, "EINVAL"),
        (7 * B, 8 * B, 0, "EEXIST"),
        (1 << 34, (1 << 34) + B, 0, "E2BIG"),
        ((1 << 34) - B, (1 << 34) + B, 0, "E2BIG"),
        ((1 << 34) - B, 1 << 34, 0, None),
    ],
)
def test_what_cannot_be_added(start, end, node, errno):
    model = guest()
    outcome = add_memory_resource(model.kernel, PfnRange(start, end), node, asks=True)
    assert outcome.errno == errno
    assert bool(outcome) == (errno is None)


# --- how it is counted by the other policies -----------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "present", "managed", "free"),
    [
        ("opt-in", 32768, 32256, 32256),
        ("existing", 32768, 32768, 32768),
        ("rfc-2018", 32256, 32256, 32256),
        ("total-and-allocated", 32768, 32768, 32256),
    ],
)
def test_what_each_policy_counts_of_one_block(policy, present, managed, free):
    model = guest(policy=policy)
    before = model.kernel.total_ram_nr_pages()
    plug(model)
    do(model, Online(id="d", to="online_movable"))
    movable = zone(model, "Movable")
    assert model.kernel.nr_present(movable) == present
    assert model.kernel.nr_managed(movable) == managed
    assert model.kernel.nr_free(movable) == free
    assert model.kernel.total_ram_nr_pages() - before == managed
    info = shown(model.observe(), "Movable")
    assert (info.pages["present"], info.pages["managed"]) == (present, managed)
