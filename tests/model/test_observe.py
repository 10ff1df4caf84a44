"""What a machine shows: chunks of the buddy, resources, nodes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from altmap.model.machine import ModelMachine
from altmap.model.observe import free_chunks
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Machine, Node, Offline, Online, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online_movable",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def merged(pages, nr_orders):
    """Free the pages one by one, and merge buddies as far as they go."""
    free = [set() for _ in range(nr_orders)]
    for page in pages:
        pfn, order = page, 0
        while order < nr_orders - 1 and pfn ^ (1 << order) in free[order]:
            free[order].discard(pfn ^ (1 << order))
            pfn &= ~(1 << order)
            order += 1
        free[order].add(pfn)
    return [len(chunks) for chunks in free]


@settings(deadline=None, print_blob=True)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), max_size=8),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_chunks_are_those_of_freeing_the_pages_one_by_one(runs, nr_orders, random):
    pages = PfnSet(PfnRange(start, start + nr) for start, nr in runs)
    order_of_freeing = list(pages)
    random.shuffle(order_of_freeing)
    assert free_chunks(pages, nr_orders) == merged(order_of_freeing, nr_orders)


def lines(seen):
    return [(line.start >> 20, line.end >> 20) for line in seen.iomem if line.start >= 4 * GIB]


def test_each_dimm_is_a_resource_and_what_hyperv_adds_merges():
    model = guest()
    for index in range(2):
        model.perform(Plug(id=f"d{index}", size=Size(128 * MIB)))
    assert lines(model.observe()) == [(4096, 4224), (4224, 4352)]
    model = guest()
    for index in (1, 0, 3):
        address = Address(4 * GIB + index * 128 * MIB)
        model.perform(Plug(id=f"h{index}", driver="hyperv", size=Size(128 * MIB), address=address))
    assert lines(model.observe()) == [(4096, 4352), (4480, 4608)]


def test_the_resource_goes_with_the_device():
    model = guest()
    before = model.observe()
    model.perform(Plug(id="d", size=Size(256 * MIB)))
    assert lines(model.observe()) == [(4096, 4352)]
    assert model.perform(Unplug(id="d")).outcome
    assert model.observe().iomem == before.iomem


def test_a_second_node_shows_its_own_zones_blocks_and_meminfo():
    model = guest(nodes=[Node(memory=Size(512 * MIB)), Node(memory=Size(512 * MIB))])
    before = model.observe()
    assert [block.nodes for _, block in sorted(before.memory.blocks.items())] == (
        [(0,)] * 4 + [(1,)] * 4
    )
    model.perform(Plug(id="d", size=Size(128 * MIB), node=1))
    seen = model.observe()
    assert seen.memory.blocks[32].nodes == (1,)
    gained = {
        node: seen.nodes.meminfo[node]["MemTotal"] - before.nodes.meminfo[node]["MemTotal"]
        for node in (0, 1)
    }
    assert gained == {0: 0, 1: 129024}
    zone = next(info for info in seen.zoneinfo if info.key == (1, "Movable"))
    assert zone.pages["managed"] == 32256
    assert seen.buddyinfo[1, "Movable"] == (0,) * 9 + (1, 31)


def test_a_zone_that_empties_loses_the_lines_of_a_populated_one():
    model = guest()
    before = model.observe()
    model.perform(Plug(id="d", size=Size(128 * MIB)))
    movable = next(info for info in model.observe().zoneinfo if info.name == "Movable")
    assert movable.stats
    assert movable.pagesets
    assert movable.tail["start_pfn"] == 0x100000
    assert (0, "Movable") in model.observe().buddyinfo
    model.perform(Offline(id="d"))
    movable = next(info for info in model.observe().zoneinfo if info.name == "Movable")
    assert (movable.stats, movable.pagesets, movable.tail) == ({}, (), {})
    assert (0, "Movable") not in model.observe().buddyinfo
    assert before.buddyinfo.keys() == model.observe().buddyinfo.keys()


def test_without_pages_every_counter_is_the_same():
    for pages in (True, False):
        model = ModelMachine.start(
            Machine(memory=Size(GIB), memmap_on_memory="on", auto_online_blocks="online"),
            pages=pages,
        )
        model.perform(Plug(id="d", size=Size(GIB)))
        model.perform(Offline(id="d", part="last"))
        model.perform(Online(id="d", part="last", to="online_movable"))
        seen = model.observe()
        if pages:
            expected = seen
        else:
            for name in ("meminfo", "vmstat", "zoneinfo", "iomem", "memory", "nodes"):
                assert getattr(seen, name) == getattr(expected, name), name
