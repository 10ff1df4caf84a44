"""The zones of /proc/zoneinfo: lines of populated zones, and zones of other nodes."""

from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Node, Offline, Plug, Size

MIB, GIB = 1 << 20, 1 << 30


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online_movable",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


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
