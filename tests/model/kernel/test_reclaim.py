"""Room for pages that must move: free pages, page cache that can be dropped, and swap."""

from dataclasses import replace
from pathlib import Path

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Fill, Machine, Node, Offline, Online, Plug, Size

MIB, GIB = 1 << 20, 1 << 30
#: A guest of 1 GiB with Debian's 6.12: a block device had been read and was still open.
PAGE_CACHE = Path(__file__).parents[2] / "host/machines/page-cache-6.12.tar.gz"
B = 0x8000
PAGES = 256  # of a MiB


def started(**machine):
    settings = {"release": "6.12", "memory": Size(512 * MIB), "auto_online_blocks": "offline"}
    return ModelMachine.start(Machine(**settings | machine))


def full(*, clean_mib=0, swappable_mib=0, swap_mib=0, **machine):
    """A guest whose Movable DIMM of 128 MiB and boot memory are in use."""
    model = started(**machine)
    kernel = model.kernel
    model.perform(Plug(id="d", size=Size(128 * MIB)))
    model.perform(Online(id="d", to="online_movable"))
    block = PfnRange(32 * B, 33 * B)
    for zone in kernel.zones.values():
        free = kernel.free(zone)
        kernel.used |= free
        kernel.movable |= free
    rest = kernel.movable & kernel.boot_ram
    kernel.clean_cache |= rest.lowest(clean_mib * PAGES)
    kernel.swappable |= (rest - kernel.clean_cache).lowest(swappable_mib * PAGES)
    kernel.swap_free_nr_pages = swap_mib * PAGES
    return model, block


def offline(model):
    return model.perform(Offline(blocks=32))


def counts(record):
    found = {}
    for event in record.events:
        if event.kind in ("migrated", "dropped", "swapped"):
            found[event.kind] = found.get(event.kind, 0) + len(event.pfns)
    return found


def test_what_finds_no_free_page_finds_room_in_page_cache_that_is_dropped():
    model, block = full(clean_mib=300)
    record = offline(model)
    assert record.outcome
    done = counts(record)
    assert done["migrated"] == len(block)
    # As much is dropped as moves, and what zones lacked to their low watermarks.
    marks = sum(zone.watermarks.low for zone in model.kernel.zones.values() if zone.present)
    assert (
        len(block)
        <= done["dropped"]
        <= len(block)
        + marks
        + sum(max(zone.watermarks.protection, default=0) for zone in model.kernel.zones.values())
    )
    assert not model.kernel.used.count(block)
    assert model.kernel.clean_cache.issubset(model.kernel.used)


@pytest.mark.parametrize(("swap_mib", "ends"), [(300, True), (64, False), (0, False)])
def test_anonymous_pages_are_room_as_far_as_swap_has_room(swap_mib, ends):
    model, _ = full(swappable_mib=300, swap_mib=swap_mib)
    record = offline(model)
    assert bool(record.outcome) is ends
    if not ends:
        assert (record.outcome.errno, record.outcome.function) == ("EINTR", "offline_pages")
    assert counts(record).get("swapped", 0) <= swap_mib * PAGES
    assert model.kernel.swap_free_nr_pages == swap_mib * PAGES - counts(record).get("swapped", 0)


def test_page_cache_goes_before_anonymous_pages_are_swapped():
    model, _ = full(clean_mib=300, swappable_mib=100, swap_mib=100)
    assert "swapped" not in counts(offline(model))


def test_dirty_and_mlocked_pages_are_no_room():
    """They are movable and in none of the sets that reclaim scans."""
    model, _ = full()
    record = offline(model)
    assert record.outcome.errno == "EINTR"
    assert counts(record).keys() <= {"migrated"}


def test_pages_of_a_kernel_zone_find_no_room_in_movable():
    """alloc_migration_target sets __GFP_HIGHMEM for sources in ZONE_MOVABLE only."""
    model = started()
    kernel = model.kernel
    model.perform(Plug(id="d", size=Size(512 * MIB)))
    model.perform(Online(blocks=32, to="online_kernel"))
    model.perform(Online(blocks="33-35", to="online_movable"))
    for zone in kernel.zones.values():
        free = kernel.free(zone) if zone.name != "Movable" else PfnSet()
        kernel.used |= free
        kernel.movable |= free
    kernel.clean_cache |= kernel.used & PfnRange(33 * B, 36 * B)
    kernel.used -= kernel.expected_unmovable
    record = offline(model)
    assert record.outcome.errno == "EINTR"
    # As much page cache in a zone that may serve it is room.
    kernel.clean_cache |= kernel.movable & kernel.boot_ram
    assert offline(model).outcome


def test_pages_move_to_other_nodes_only_while_one_has_memory():
    """do_migrate_range clears the own node from the mask unless nothing is left of it."""
    nodes = [Node(memory=Size(512 * MIB)), Node(memory=Size(512 * MIB))]
    model = started(memory=None, nodes=nodes)
    kernel = model.kernel
    model.perform(Plug(id="d", size=Size(256 * MIB)))
    model.perform(Online(id="d", to="online_movable"))
    block = kernel.blocks(kernel.additions[0].pfns).start
    pages = kernel.block_pfns(block)
    kernel.used |= pages
    kernel.movable |= pages
    for zone in kernel.node_zones(1):
        free = kernel.free(zone)
        kernel.used |= free
        kernel.movable |= free
    # Node 0 has room, and it is the block's own.
    assert model.perform(Offline(blocks=block)).outcome.errno == "EINTR"
    # Its own page cache is on a node that the allocation does not scan.
    kernel.clean_cache |= kernel.movable & pages
    assert model.perform(Offline(blocks=block)).outcome.errno == "EINTR"
    assert kernel.clean_cache.count(pages) == kernel.movable.count(pages)
    kernel.clean_cache |= kernel.movable & kernel.node_pages(1)
    assert model.perform(Offline(blocks=block)).outcome


def test_what_may_be_reclaimed_makes_the_refusal_unknown():
    model, block = full()
    model.kernel.maybe_reclaimable_nr_pages = len(block)
    assert offline(model).outcome.certainty == "unknown"
    model, block = full()
    model.kernel.maybe_reclaimable_nr_pages = 16
    assert offline(model).outcome.certainty == "certain"
    model, block = full()
    model.kernel.maybe_reclaimable_nr_pages = None
    assert offline(model).outcome.certainty == "unknown"


def test_swapped_pages_leave_the_files_that_held_them():
    model = started()
    model.perform(Plug(id="d", size=Size(128 * MIB)))
    model.perform(Online(id="d", to="online_movable"))
    kernel = model.kernel
    kernel.swap_free_nr_pages = GIB // 4096
    free_mib = kernel.free_nr_pages() // PAGES
    assert model.perform(Fill(id="f", size=Size((free_mib - 64) * MIB))).outcome
    before = len(kernel.files["f"])
    record = offline(model)
    assert record.outcome
    swapped = counts(record)["swapped"]
    assert swapped > 0
    assert len(kernel.files["f"]) == before - swapped
    assert kernel.files["f"].issubset(kernel.used)


def adopted():
    sysroot = Sysroot.read(PAGE_CACHE)
    return sysroot, ModelMachine.start(Machine(), Observation.read(sysroot))


def test_a_guest_full_of_page_cache_gives_its_blocks_as_the_real_one_did():
    """Measured there: memory3 to 6 went at once; MemFree 74768 → 41200 kB, Buffers −493260 kB."""
    _, model = adopted()
    dropped = 0
    for block in (3, 4, 5, 6):
        record = model.perform(Offline(blocks=block))
        assert record.outcome
        dropped += counts(record)["dropped"]
    assert abs(dropped * 4 - 493260) < 25000
    assert abs(model.kernel.free_nr_pages() * 4 - 41200) < 15000


def test_page_flags_and_the_zones_counters_say_the_same():
    sysroot, by_flags = adopted()
    sysroot.files = {n: raw for n, raw in sysroot.files.items() if "kpageflags" not in n}
    by_counters = ModelMachine.start(Machine(), Observation.read(sysroot))
    for one, other in (
        (by_flags.kernel.clean_cache, by_counters.kernel.clean_cache),
        (by_flags.kernel.swappable, by_counters.kernel.swappable),
    ):
        assert abs(len(one) - len(other)) <= max(512, len(one) // 50)


def test_without_counters_of_the_lru_lists_nothing_is_known_of_reclaim():
    sysroot, _ = adopted()
    text = sysroot.files["proc/zoneinfo"].decode()
    lines = [line for line in text.splitlines(keepends=True) if "nr_zone_" not in line]
    sysroot.files["proc/zoneinfo"] = "".join(lines).encode()
    sysroot.files = {n: raw for n, raw in sysroot.files.items() if "kpageflags" not in n}
    model = ModelMachine.start(Machine(), Observation.read(sysroot))
    assert model.kernel.maybe_reclaimable_nr_pages is None


def test_pages_under_write_of_all_zones_and_slab_are_in_doubt():
    sysroot, _ = adopted()
    sysroot.files = {n: raw for n, raw in sysroot.files.items() if "kpageflags" not in n}
    seen = Observation.read(sysroot)
    stats = ("nr_zone_active_file", "nr_zone_inactive_file", "nr_zone_active_anon")
    counts = dict.fromkeys((*stats, "nr_zone_inactive_anon"), 0)
    zones = [
        replace(zone, stats=counts | {"nr_zone_write_pending": 3 + number})
        for number, zone in enumerate(seen.zoneinfo)
    ]
    meminfo = seen.meminfo | {"SReclaimable": 40, "KReclaimable": 40}
    model = ModelMachine.start(Machine(), replace(seen, zoneinfo=tuple(zones), meminfo=meminfo))
    with_pages = [number for number, zone in enumerate(zones) if zone.pages["managed"]]
    assert len(with_pages) > 1
    expected = sum(3 + number for number in with_pages) + 10
    assert model.kernel.maybe_reclaimable_nr_pages == expected
