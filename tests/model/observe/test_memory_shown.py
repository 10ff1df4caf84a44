"""Memory blocks and nodes in sysfs: state, valid zones, node links and lists."""

from dataclasses import replace

from altmap.linux.observation import MemoryFolder, Observation
from altmap.model.machine import ModelMachine
from altmap.model.observe import Observer
from altmap.model.observe.memory import memory_shown
from altmap.scenario import Machine, Node, Offline, Online, Plug, Size

MIB, GIB = 1 << 20, 1 << 30


def guest(**changes):
    settings = {"memory": Size(GIB), "release": "6.12", "auto_online_blocks": "offline"}
    model = ModelMachine.start(Machine(**settings | changes))
    assert model.perform(Plug(id="d", size=Size(384 * MIB))).outcome
    return model


def test_a_block_that_did_not_change_stays_as_it_was():
    model = guest()
    model.kernel.changed.blocks -= model.kernel.changed.blocks
    base = model.observe()
    odd = replace(base.memory.blocks[3], phys_device=9, removable=False, valid_zones=("Odd",))
    gone = {id_: block for id_, block in base.memory.blocks.items() if id_ != 33}
    base = replace(base, memory=replace(base.memory, blocks=gone | {3: odd}))
    assert memory_shown(base, model.kernel).blocks[3] == odd
    model.kernel.changed.blocks |= model.kernel.added_blocks
    anew = memory_shown(base, model.kernel).blocks
    assert anew[3] == replace(odd, valid_zones=("DMA32",))
    assert anew[33].removable
    assert list(anew) == [*range(8), 32, 33, 34]


def test_an_offline_block_may_go_to_other_zones_after_its_neighbours_changed():
    model = guest()
    base = model.observe()
    assert base.memory.blocks[33].valid_zones == ("Normal", "Movable")
    observer = Observer(model.kernel, base)
    model.kernel.changed.blocks -= model.kernel.changed.blocks
    for block in (32, 34):
        assert model.perform(Online(blocks=block, to="online_movable")).outcome
    assert observer.observe().memory.blocks[33].valid_zones == ("Movable", "Normal")
    without = replace(base.memory.blocks[33], valid_zones=None)
    base = replace(base, memory=replace(base.memory, blocks=base.memory.blocks | {33: without}))
    assert Observer(model.kernel, base).observe().memory.blocks[33] == without


def test_a_block_of_several_zones_names_none():
    # The first block of a PC lies in DMA and DMA32.
    blocks = guest().observe().memory.blocks
    assert blocks[0].valid_zones == ("none",)
    assert blocks[1].valid_zones == ("DMA32",)


def test_the_kernel_zone_of_a_plain_online_comes_first():
    assert guest(movable_node=True).observe().memory.blocks[32].valid_zones == ("Movable", "Normal")
    assert guest(movable_node=False).observe().memory.blocks[32].valid_zones == (
        "Normal",
        "Movable",
    )


def test_blocks_link_to_nodes_where_the_machine_shows_nodes():
    model = guest()
    base = replace(model.observe(), memory=MemoryFolder(128 * MIB, "offline", {}))
    assert {block.nodes for block in memory_shown(base, model.kernel).blocks.values()} == {(0,)}
    base = replace(base, nodes=None)
    assert {block.nodes for block in memory_shown(base, model.kernel).blocks.values()} == {()}
    assert memory_shown(Observation(), model.kernel) is None


def test_the_default_online_type_is_shown_where_its_file_exists():
    model = guest(auto_online_blocks="online_kernel")
    folder = MemoryFolder(128 * MIB, "offline", {})
    assert memory_shown(Observation(memory=folder), model.kernel).auto_online_blocks == (
        "online_kernel"
    )
    folder = MemoryFolder(128 * MIB, None, {})
    assert memory_shown(Observation(memory=folder), model.kernel).auto_online_blocks is None


def test_nodes_are_listed_by_the_memory_that_they_have():
    nodes = [Node(memory=Size(GIB)), Node(memory=Size(0))]
    model = ModelMachine.start(Machine(nodes=nodes, auto_online_blocks="online_movable"))
    before = model.observe().nodes
    lists = ("online", "has_memory", "has_normal_memory", "possible")
    assert [before.lists[name] for name in lists] == [(0,), (0,), (0,), (0, 1)]
    assert model.perform(Plug(id="d", size=Size(256 * MIB), node=1)).outcome
    after = model.observe().nodes
    assert [after.lists[name] for name in lists] == [(0, 1), (0, 1), (0,), (0, 1)]
    assert set(after.meminfo) == {0, 1}
    assert list(after.meminfo[1]) == list(after.meminfo[0])
    zone = model.kernel.zones[1, "Movable"]
    managed, free = model.kernel.nr_managed(zone) * 4, model.kernel.nr_free(zone) * 4
    assert (managed, free) == (256 << 10, 256 << 10)
    assert after.meminfo[1]["MemTotal"] == managed
    assert model.perform(Offline(id="d")).outcome
    assert model.observe().nodes.meminfo[1]["MemTotal"] == 0


def test_a_nodes_used_memory_is_what_is_not_free():
    model = ModelMachine.start(Machine(memory=Size(GIB)))
    meminfo = model.observe().nodes.meminfo[0]
    assert meminfo["MemUsed"] == meminfo["MemTotal"] - meminfo["MemFree"] > 0
