"""The zones of /proc/zoneinfo: lines of populated zones, and zones of other nodes."""

from altmap.linux.observation import ZoneInfo
from altmap.model.boot import boot
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.state import Addition
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.model.observe.zoneinfo import zoneinfo_shown
from altmap.pfn import PfnRange
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


PAGES = dict.fromkeys(("free", "min", "low", "high", "promo", "spanned", "present", "managed"), 50)
STATS = {"nr_free_pages": 7, "nr_mlock": 3}
PAGESET = {"cpu": 5, "count": 9, "high": 8}
TAIL = {"node_unreclaimable": 1, "start_pfn": 4}


def info(name, pages=PAGES, node=0, **more):
    return ZoneInfo(node, name, dict(pages), (1,) * 5, **more)


def populated(name, node=0, **more):
    return info(name, PAGES, node, stats=STATS, pagesets=(PAGESET,), tail=TAIL, **more)


def shown(base, gains=(), kernel=None):
    """Return the zones shown by name, with gains by name: free, present and managed alike."""
    kernel = boot(Machine(memory=Size(GIB)))[0] if kernel is None else kernel
    gains = dict(gains)
    now = {
        zone.key: dict.fromkeys(("free", "present", "managed"), gains.get(zone.name, 0))
        for zone in kernel.zones.values()
    }
    return {(zone.node, zone.name): zone for zone in zoneinfo_shown(tuple(base), kernel, {}, now)}


def test_pages_gain_and_never_fall_below_0():
    zones = shown([populated("DMA"), populated("DMA32")], {"DMA": 5, "DMA32": -51})
    assert [zones[0, "DMA"].pages[name] for name in ("free", "present", "managed")] == [55] * 3
    assert [zones[0, "DMA32"].pages[name] for name in ("free", "present", "managed")] == [0] * 3


def test_span_watermarks_and_free_pages_are_the_kernels():
    kernel = boot(Machine(memory=Size(GIB)))[0]
    kernel.zones[0, "DMA"].watermarks = Watermarks(11, 12, 13, 14, (0, 21, 22, 23))
    zone = shown([populated("DMA")], {"DMA": 5}, kernel)[0, "DMA"]
    marks = [zone.pages[name] for name in ("min", "low", "high", "promo", "spanned")]
    assert marks == [11, 12, 13, 14, 4095]
    # ZONE_DEVICE is above all zones of the model, and manages nothing.
    assert zone.protection == (0, 21, 22, 23, 23)
    assert zone.stats == STATS | {"nr_free_pages": 55}
    assert zone.tail == TAIL | {"start_pfn": 1}
    assert zone.pagesets == (PAGESET,)


def test_promo_is_shown_where_the_release_shows_it():
    pages = {name: nr for name, nr in PAGES.items() if name != "promo"}
    assert "promo" not in shown([info("DMA", pages)])[0, "DMA"].pages


def test_a_zone_that_was_empty_gets_the_lines_of_another():
    empty = info("Movable", PAGES | {"present": 0, "managed": 0, "free": 0})
    zone = shown([populated("DMA"), empty], {"Movable": 8})[0, "Movable"]
    assert zone.stats == {"nr_free_pages": 8, "nr_mlock": 0}
    assert zone.pagesets == ({"cpu": 5, "count": 0, "high": 0},)
    assert zone.tail == {"node_unreclaimable": 0, "start_pfn": 0}


def test_a_zone_that_is_not_modelled_stays_as_it_was():
    zones = shown([populated("Device"), populated("Odd", node=7)])
    assert zones[0, "Device"] == populated("Device")
    assert zones[7, "Odd"] == populated("Odd", node=7)
    blank = populated("Device")
    blank.pages["present"] = 0
    zone = shown([blank])[0, "Device"]
    assert (zone.stats, zone.pagesets, zone.tail, zone.node_stats) == ({}, (), {}, {})


def test_statistics_of_a_node_are_in_its_first_populated_zone():
    stats = {"nr_inactive_anon": 5}
    base = [populated("DMA", node_stats=stats), populated("DMA32"), populated("Odd", node=7)]
    zones = shown(base)
    assert [zone.node_stats for zone in zones.values()] == [
        stats,
        {},
        {"nr_inactive_anon": 0},
    ]
    zones = shown(base, {"DMA": -50})
    assert [zones[0, name].node_stats for name in ("DMA", "DMA32")] == [{}, stats]


def test_a_node_that_came_with_memory_shows_the_zones_of_the_first():
    kernel = boot(Machine(nodes=[Node(memory=Size(GIB)), Node(memory=Size(0))]))[0]
    pfns = PfnRange(0x100000, 0x108000)
    kernel.additions.append(Addition(pfns, 1, Memmap(kernel.arch, pfns)))
    kernel.zones[1, "Normal"].present |= pfns
    kernel.zones[1, "Normal"].span = pfns
    zones = shown([populated("DMA"), populated("Normal")], {"Normal": 32768}, kernel)
    assert list(zones) == [(0, "DMA"), (0, "Normal"), (1, "DMA"), (1, "Normal")]
    assert zones[1, "Normal"].pages["present"] == 32768
    assert zones[1, "Normal"].pages["min"] == 0
    assert zones[1, "Normal"].stats == {"nr_free_pages": 32768, "nr_mlock": 0}
