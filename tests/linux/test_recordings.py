"""Files of real kernels: nothing is lost, and the values are the ones that are in the text."""

import re
import tarfile

import pytest

from altmap.linux import buddyinfo, iomem, meminfo, vmstat, zoneinfo
from altmap.linux.observation import Observation
from altmap.linux.pagewords import PageWords
from altmap.linux.sysroot import Sysroot

from .conftest import ARCHIVES, NAMES, RECORDINGS

PARSERS = {
    "proc/meminfo": meminfo,
    "proc/vmstat": vmstat,
    "proc/zoneinfo": zoneinfo,
    "proc/buddyinfo": buddyinfo,
    "proc/iomem": iomem,
}


def members(archive):
    """Read an archive with nothing but the standard library."""
    with tarfile.open(archive) as tar:
        return {
            member.name: tar.extractfile(member).read() if member.isreg() else member.linkname
            for member in tar
            if not member.isdir()
        }


def test_every_release_and_guest_is_there():
    assert [
        f"linux-{release}-{guest}"
        for release in ("6.1", "6.12", "7.3")
        for guest in ("dimm", "start", "two-nodes")
    ] == NAMES
    assert sum(path.stat().st_size for path in RECORDINGS.iterdir()) < 150_000


@pytest.mark.parametrize("archive", ARCHIVES, ids=NAMES)
def test_files_survive_byte_for_byte(archive):
    files = members(archive)
    for path, parser in PARSERS.items():
        assert parser.render(parser.parse(files[path].decode())).encode() == files[path]
    if "proc/kpageflags" not in files:
        runs = files["proc/kpageflags.runs"]
        assert PageWords.parse(runs.decode()).render().encode() == runs


@pytest.mark.parametrize("archive", ARCHIVES, ids=NAMES)
def test_node_vmstat_survives_byte_for_byte(archive):
    texts = [
        raw.decode() for path, raw in members(archive).items() if re.search(r"node\d/vmstat$", path)
    ]
    assert texts
    assert [vmstat.render(vmstat.parse(text)) for text in texts] == texts


@pytest.mark.parametrize("archive", ARCHIVES, ids=NAMES)
def test_observation_alone_renders_what_it_was_read_from(archive):
    original = members(archive)
    made = Observation.read(Sysroot.read(archive)).render()
    rendered = made.files | made.links
    assert {path: original.get(path) for path in rendered if path != "proc/kpageflags.runs"} == {
        path: value for path, value in rendered.items() if path != "proc/kpageflags.runs"
    }
    # What the observation has no words for.
    assert {re.sub(r"\d+", "N", path) for path in set(original) - set(rendered)} <= {
        "proc/kpageflags",
        "proc/pagetypeinfo",
        "proc/sys/kernel/arch",
        "proc/sys/kernel/osrelease",
        "proc/sys/vm/lowmem_reserve_ratio",
        "proc/sys/vm/min_free_kbytes",
        "proc/sys/vm/watermark_scale_factor",
        "sys/devices/system/memory/crash_hotplug",
        *(
            f"sys/devices/system/node/nodeN/{name}"
            for name in ("cpulist", "cpumap", "distance", "numastat", "vmstat")
        ),
        *(
            f"sys/devices/system/node/nodeN/memory_failure/{name}"
            for name in ("delayed", "failed", "ignored", "recovered", "total")
        ),
        *(f"sys/firmware/memmap/N/{name}" for name in ("end", "start", "type")),
    }


def test_nothing_is_missing(recorded):
    assert Observation.read(recorded).missing == ()


def test_zone_numbers_are_those_of_a_plain_search(recorded):
    text = recorded.text("proc/zoneinfo")
    seen = Observation.read(recorded)
    headers = re.findall(r"^Node (\d+), zone +(\w+)$", text, re.M)
    assert [zone.key for zone in seen.zoneinfo] == [(int(nr), name) for nr, name in headers]
    for name in ("spanned", "present", "managed", "high"):
        numbers = re.findall(rf"^        {name} +(\d+)$", text, re.M)
        assert [zone.pages[name] for zone in seen.zoneinfo] == [int(nr) for nr in numbers]
    starts = re.findall(r"start_pfn: +(\d+)", text)
    assert [z.start_pfn for z in seen.zoneinfo if z.populated] == [int(nr) for nr in starts]
    assert [z.key for z in seen.zoneinfo if z.populated] == list(seen.buddyinfo)


def test_files_of_one_machine_agree(recorded):
    seen = Observation.read(recorded)
    managed = sum(zone.pages["managed"] for zone in seen.zoneinfo)
    assert seen.meminfo["MemTotal"] == managed * 4
    assert sum(table["MemTotal"] for table in seen.nodes.meminfo.values()) == managed * 4
    assert seen.nodes.lists["has_memory"] == tuple(seen.nodes.meminfo)
    present = sum(zone.pages["present"] for zone in seen.zoneinfo)
    ram = sum(
        (r.end >> 12) - -(-r.start >> 12) for r in seen.iomem if r.name.startswith("System RAM")
    )
    offline = sum(block.state == "offline" for block in seen.memory.blocks.values())
    assert present == ram - offline * (seen.memory.block_size_bytes >> 12)
    last = max(seen.memory.blocks)
    assert seen.kpageflags.nr_pages == (last + 1) * (seen.memory.block_size_bytes >> 12)


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_dimm_blocks_are_as_they_were_onlined(recording, release):
    memory = Observation.read(recording(f"linux-{release}-dimm")).memory
    dimm = {nr: (b.state, b.valid_zones, b.nodes) for nr, b in memory.blocks.items() if nr >= 32}
    assert dimm == {
        32: ("online", ("Movable",), (0,)),
        33: ("online", ("Normal",), (0,)),
        34: ("offline", ("Normal", "Movable"), (0,)),
        35: ("offline", ("Normal", "Movable"), (0,)),
    }
    assert memory.block_size_bytes == 128 << 20
    assert memory.auto_online_blocks == "offline"
    assert memory.blocks[32].firmware_node.endswith("/PNP0C80:00")


@pytest.mark.parametrize(
    ("release", "pageset", "tail"),
    [
        ("6.1", ["count", "high", "batch"], []),
        ("6.12", ["count", "high", "batch"], []),
        (
            "7.3",
            ["count", "high", "batch", "high_min", "high_max"],
            ["reserved_highatomic", "free_highatomic"],
        ),
    ],
)
def test_releases_differ_in_what_a_zone_shows(recording, release, pageset, tail):
    zones = Observation.read(recording(f"linux-{release}-two-nodes")).zoneinfo
    zone = next(zone for zone in zones if zone.populated)
    assert [list(each) for each in zone.pagesets] == [
        ["cpu", *pageset, "vm stats threshold"] for _ in range(2)
    ]
    assert list(zone.tail) == ["node_unreclaimable", "start_pfn", *tail]
    assert ("promo" in zone.pages) is (release != "6.1")
    assert ("nr_free_pages_blocks" in zone.stats) is (release == "7.3")
    # The second node's first populated zone has its own.
    assert [z.key for z in zones if z.node_stats] == [(0, "DMA"), (1, "DMA32")]
