"""A prediction from one boot of a real kernel, and another boot that did what was predicted.

The recordings ``start`` and ``dimm`` are two boots of the same kernel, the second with a DIMM of
512 MiB at 4 GiB and some of its blocks online (``tests/recordings/files/README.md``). Two boots use
their memory differently, so that free pages are not compared; all that hotplug decides is.
"""

import re
import tarfile
from pathlib import Path

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.scenario import Machine, Online, Plug, Scenario, Size

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
BLOCK_PAGES = 32768
MEMMAP_PAGES = BLOCK_PAGES * 64 // 4096
# include/linux/kernel-page-flags.h
OWNER_PRIVATE, LRU, SWAPBACKED = (1 << bit for bit in (37, 5, 14))

STEPS = [
    Plug(id="d1", size=Size(512 << 20)),
    Online(blocks=32, to="online_movable"),
    Online(blocks=33, to="online_kernel"),
]


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def release(request):
    return request.param


@pytest.fixture(scope="module")
def texts(release):
    """The files of both recordings as they are, read by the standard library."""

    def read(name):
        with tarfile.open(RECORDINGS / f"linux-{release}-{name}.tar.xz") as tar:
            return {m.name: tar.extractfile(m).read().decode() for m in tar if m.isreg()}

    return {name: read(name) for name in ("start", "dimm")}


@pytest.fixture(scope="module")
def trace(release):
    start = Sysroot.read(RECORDINGS / f"linux-{release}-start.tar.xz")
    machine = Machine(auto_online_blocks="offline")
    scenario = Scenario(name="dimm", machine=machine, steps=STEPS)
    return predict(scenario, Observation.read(start))


@pytest.fixture(scope="module")
def predicted(trace):
    """The files that the prediction renders, as text."""
    rendered = trace.steps[-1].observation.render()
    return {path: raw.decode() for path, raw in rendered.files.items()}


def zones(text):
    """Return the numbers of each zone, found by a plain search."""
    found = {}
    for part in re.split(r"^Node ", text, flags=re.M)[1:]:
        node, name = re.match(r"(\d+), zone +(\w+)", part).groups()
        names = ("min", "low", "high", "spanned", "present", "managed")
        numbers = {n: int(re.search(rf"^        {n} +(\d+)$", part, re.M)[1]) for n in names}
        boost = re.search(r"^        boost +(\d+)$", part, re.M)
        for mark in ("min", "low", "high"):
            # A boost comes and goes by itself, and is part of the marks.
            numbers[mark] -= int(boost[1]) if boost else 0
        start = re.search(r"^  start_pfn: +(\d+)$", part, re.M)
        found[int(node), name] = numbers | {"start_pfn": int(start[1]) if start else None}
    return found


def changes(before, after, names):
    assert list(before) == list(after)
    return {key: {n: after[key][n] - before[key][n] for n in names} for key in before}


@pytest.mark.parametrize("names", [("present", "managed", "spanned"), ("min", "low", "high")])
def test_zones_change_as_they_did(texts, predicted, names):
    start = zones(texts["start"]["proc/zoneinfo"])
    happened = changes(start, zones(texts["dimm"]["proc/zoneinfo"]), names)
    assert changes(start, zones(predicted["proc/zoneinfo"]), names) == happened


def test_zones_that_grew_are_the_two_that_were_onlined_to(texts, release):
    """The recordings alone: what the comparison above would miss if they were the same."""
    start, dimm = (zones(texts[name]["proc/zoneinfo"]) for name in ("start", "dimm"))
    grown = changes(start, dimm, ("present", "managed"))
    # 6.1 hosts no memmap in a DIMM of more than one block.
    managed = BLOCK_PAGES if release == "6.1" else BLOCK_PAGES - MEMMAP_PAGES
    new = {"present": BLOCK_PAGES, "managed": managed}
    assert {key: change for key, change in grown.items() if any(change.values())} == {
        (0, "Normal"): new,
        (0, "Movable"): new,
    }


def test_zones_start_where_they_did(texts, predicted):
    dimm = zones(texts["dimm"]["proc/zoneinfo"])
    assert {key: zone["start_pfn"] for key, zone in zones(predicted["proc/zoneinfo"]).items()} == {
        key: zone["start_pfn"] for key, zone in dimm.items()
    }


def memmap_counter(files):
    found = re.search(r"^nr_memmap_pages (\d+)$", files["proc/vmstat"], re.M)
    return int(found[1]) if found else None


def test_memmap_pages_are_counted_as_they_were(texts, predicted, release):
    counted = [memmap_counter(files) for files in (texts["start"], predicted, texts["dimm"])]
    if release == "6.1":
        assert counted == [None, None, None]
    else:
        start, foretold, seen = counted
        assert foretold - start == seen - start == 4 * MEMMAP_PAGES


def memmap_runs(files):
    """Return the runs of pages that a memmap is made of: ``(start, nr_pages, flags)``."""
    rows = [line.split() for line in files["proc/kpageflags.runs"].splitlines()[1:]]
    runs = [(int(start, 16), int(nr), int(flags, 16)) for start, nr, flags in rows]
    return [run for run in runs if run[2] & OWNER_PRIVATE and not run[2] & (LRU | SWAPBACKED)]


def test_memmap_pages_are_where_they_were_with_the_flags_they_had(texts, predicted, release):
    seen = memmap_runs(texts["dimm"])
    assert memmap_runs(predicted) == seen
    first = [] if release == "6.1" else [0x100000, 0x108000]
    assert seen == [(pfn, MEMMAP_PAGES, OWNER_PRIVATE) for pfn in first]


def test_pages_without_an_online_memmap_are_the_same(texts, predicted):
    def nopage(files):
        return re.findall(r"^(0x\w+ \d+) 0x100000$", files["proc/kpageflags.runs"], re.M)

    assert nopage(predicted) == nopage(texts["dimm"]) != []


def test_block_files_are_the_same_to_the_byte(texts, predicted):
    def block_files(files):
        pattern = re.compile(r"sys/devices/system/memory/(memory\d+/\w+|\w+)")
        names = ("state", "online", "valid_zones", "removable", "phys_index", "phys_device")
        wanted = (*names, "block_size_bytes", "auto_online_blocks")
        return {
            path: text
            for path, text in files.items()
            if pattern.fullmatch(path) and path.rpartition("/")[2] in wanted
        }

    seen = block_files(texts["dimm"])
    assert block_files(predicted) == seen
    states = [seen[f"sys/devices/system/memory/memory{nr}/state"] for nr in range(32, 36)]
    assert states == ["online\n", "online\n", "offline\n", "offline\n"]
    valid = [seen[f"sys/devices/system/memory/memory{nr}/valid_zones"] for nr in range(32, 36)]
    assert valid == ["Movable\n", "Normal\n", "Normal Movable\n", "Normal Movable\n"]


def test_blocks_are_linked_to_the_node_as_they_were(release, trace):
    def node_links(sysroot):
        return {p: to for p, to in sysroot.links.items() if not p.endswith("/firmware_node")}

    dimm = Sysroot.read(RECORDINGS / f"linux-{release}-dimm.tar.xz")
    assert node_links(trace.steps[-1].observation.render()) == node_links(dimm)


def test_total_memory_changes_as_it_did(texts, predicted):
    def total(files):
        paths = ("proc/meminfo", "sys/devices/system/node/node0/meminfo")
        return [int(re.search(r"MemTotal: +(\d+) kB", files[path])[1]) for path in paths]

    start, foretold, seen = map(total, (texts["start"], predicted, texts["dimm"]))
    gained = [after - before for before, after in zip(start, seen, strict=True)]
    assert [after - before for before, after in zip(start, foretold, strict=True)] == gained
    assert gained[0] == gained[1] > 0


def test_resources_above_4_gib_are_the_same(texts, predicted):
    def above(files):
        lines = files["proc/iomem"].splitlines()
        return [line for line in lines if int(line.strip().partition("-")[0], 16) >= 4 << 30]

    assert above(predicted) == above(texts["dimm"])
    assert any(line.endswith(": System RAM") for line in above(predicted))


def test_every_step_succeeded_without_an_assumption(trace):
    assert [step.outcome.status for step in trace.steps] == ["ok"] * 4
    assert trace.notes == []
