"""Explanations of blocks and errnos, against recordings, and against what kernels log."""

import json
import re
from pathlib import Path

import pytest

from altmap.cli import main
from altmap.host.blockers import Blocks
from altmap.host.errnos import REASONS, reasons_of
from altmap.host.explain import block_named, explain_block
from altmap.host.kinds import KINDS, kind_of, pages_by_kind
from altmap.linux.observation import Observation, PageRun
from altmap.linux.sysroot import Sysroot

RECORDINGS = Path(__file__).parents[1] / "recordings/files"
FLAG = {
    name: 1 << bit
    for bit, name in {
        5: "LRU",
        7: "SLAB",
        10: "BUDDY",
        11: "MMAP",
        12: "ANON",
        14: "SWAPBACKED",
        15: "HEAD",
        16: "TAIL",
        17: "HUGE",
        19: "HWPOISON",
        20: "NOPAGE",
        22: "THP",
        23: "OFFLINE",
        26: "PGTABLE",
        32: "RESERVED",
        37: "OWNER_PRIVATE",
    }.items()
}


def machine(name, **changes):
    sysroot = Sysroot.read(RECORDINGS / f"linux-{name}.tar.xz")
    for path, raw in changes.items():
        sysroot.files[path] = raw
    return sysroot


def with_flags(sysroot, pfn, nr_pages, flags):
    """Return an observation whose pages from *pfn* on have other flags."""
    seen = Observation.read(sysroot)
    runs = []
    for run in seen.kpageflags:
        end = run.start_pfn + run.nr_pages
        for start, stop, bits in (
            (run.start_pfn, min(end, pfn), run.flags),
            (max(run.start_pfn, pfn), min(end, pfn + nr_pages), flags),
            (max(run.start_pfn, pfn + nr_pages), end, run.flags),
        ):
            if start < stop:
                runs.append(PageRun(start, stop - start, bits))
    return type(seen)(**{f: getattr(seen, f) for f in seen.__slots__} | {"kpageflags": tuple(runs)})


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("BUDDY", "free"),
        ("NOPAGE", None),
        ("RESERVED", "reserved"),
        ("RESERVED OWNER_PRIVATE", None),  # a self-hosted memmap on 6.1
        ("OWNER_PRIVATE", None),  # and on 6.12
        ("LRU OWNER_PRIVATE", "moves"),  # a file's page
        ("LRU", "moves"),
        ("ANON SWAPBACKED MMAP", "moves"),  # on its way to the LRU
        ("THP TAIL LRU", "moves"),
        ("HEAD", "compound"),
        ("TAIL", "compound"),
        ("HUGE HEAD", "hugetlb"),
        ("SLAB HEAD", "slab"),
        ("PGTABLE MMAP", "page-tables"),
        ("OFFLINE", "withheld"),
        ("HWPOISON SLAB", None),
        ("MMAP", "kernel"),
        ("", "kernel"),
    ],
)
def test_pages_are_of_the_kind_that_the_kernel_takes_them_for(names, kind):
    assert kind_of(sum(FLAG[name] for name in names.split())) == kind


def test_every_page_is_of_one_kind_at_most():
    for name in ("6.1-dimm", "6.12-dimm", "7.3-two-nodes"):
        runs = Observation.read(machine(name)).kpageflags
        pages = list(pages_by_kind(runs).values())
        for at, one in enumerate(pages):
            assert all(one.isdisjoint(other) for other in pages[at + 1 :])
        counted = sum(map(len, pages))
        assert counted == sum(run.nr_pages for run in runs if kind_of(run.flags))


@pytest.mark.parametrize("name", ["6.1-dimm", "6.12-dimm", "7.3-dimm"])
def test_movable_memory_meets_nothing_and_kernel_memory_does(name):
    seen = Observation.read(machine(name))
    free = explain_block(seen, 32)
    assert (free.verdict, free.blockers) == ("nothing visible in the way", [])
    assert free.device == "PNP0C80:00"
    kernel = explain_block(seen, 33)
    assert kernel.verdict in ("refused", "likely refused")
    assert {blocker.errno for blocker in kernel.blockers} == {"EBUSY"}
    assert explain_block(seen, 34).verdict == "offline already"
    hole = explain_block(seen, 7)
    assert hole.verdict == "refused"
    assert (hole.blockers[0].name, hole.blockers[0].errno) == ("hole", "EINVAL")
    # QEMU's firmware keeps 0x20 pages at the end of boot memory: proc/iomem, 3ffe0000-3fffffff.
    assert hole.blockers[0].nr_pages == 0x20
    assert [each.name for each in explain_block(seen, 0).blockers][:2] == ["zones", "hole"]


def test_pages_of_a_block_add_up():
    seen = Observation.read(machine("6.12-dimm"))
    blocks = Blocks(seen)
    for nr, memmap in ((32, 512), (33, 512), (1, 0)):
        found = explain_block(seen, nr)
        stuck = sum(blocker.nr_pages for blocker in found.blockers)
        assert found.free_nr_pages + found.moving_nr_pages + stuck + memmap == len(blocks.pfns(nr))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_page_shows_in_a_kernel_zone_and_in_movable_only_if_it_counts(kind):
    flags = {
        "reserved": FLAG["RESERVED"],
        "page-tables": FLAG["PGTABLE"],
        "slab": FLAG["SLAB"],
        "compound": FLAG["HEAD"],
        "kernel": 0,
        "withheld": FLAG["OFFLINE"],
        "hugetlb": FLAG["HUGE"] | FLAG["HEAD"],
    }[kind]
    in_kernel = explain_block(with_flags(machine("6.12-dimm"), 0x10C000, 7, flags), 33)
    assert kind in {blocker.name for blocker in in_kernel.blockers}
    found = explain_block(with_flags(machine("6.12-dimm"), 0x104000, 7, flags), 32).blockers
    expected = [(kind, 7, 0x104000)] if kind in ("reserved", "withheld", "hugetlb") else []
    assert [(each.name, each.nr_pages, each.first_pfn) for each in found] == expected


def test_few_untyped_pages_may_be_on_per_cpu_lists_and_many_are_not():
    sysroot = machine("6.12-dimm")
    seen = Observation.read(sysroot)
    (zone,) = (zone for zone in seen.zoneinfo if zone.name == "DMA32")
    waiting = sum(pageset["count"] for pageset in zone.pagesets)
    assert waiting > 1
    for nr_pages, certainty, verdict in (
        (waiting, "likely", "likely refused"),
        (waiting + 1, "certain", "refused"),
    ):
        # memory1 is all free in the recording.
        found = explain_block(with_flags(sysroot, 0x8000, nr_pages, 0), 1)
        assert [(each.name, each.certainty) for each in found.blockers] == [("kernel", certainty)]
        assert found.verdict == verdict


def test_what_virtio_mem_withholds_is_no_blocker_in_its_own_blocks():
    sysroot = machine("6.12-dimm")
    text = sysroot.files["proc/iomem"].decode()
    line = "100000000-11fffffff : System RAM\n"
    assert line in text
    for path in [path for path in sysroot.links if path.endswith("firmware_node")]:
        del sysroot.links[path]
    sysroot.files["proc/iomem"] = text.replace(
        line, "100000000-17fffffff : virtio0\n  100000000-11fffffff : System RAM (virtio_mem)\n"
    ).encode()
    found = explain_block(with_flags(sysroot, 0x104000, 512, FLAG["OFFLINE"]), 32)
    assert (found.driver, found.device, found.blockers) == ("virtio_mem", "virtio0", [])


def test_pages_that_find_no_room_never_end():
    sysroot = machine("6.12-dimm")
    text = sysroot.files["proc/zoneinfo"].decode()
    sysroot.files["proc/zoneinfo"] = re.sub(
        r"pages free     \d+", "pages free     0", text
    ).encode()
    found = explain_block(Observation.read(sysroot), 32)
    assert (found.verdict, found.room_nr_pages) == ("no room", 0)


def test_boot_memory_of_arm64_never_goes():
    sysroot = machine("6.12-dimm", **{"proc/sys/kernel/arch": b"aarch64\n"})
    boot, added = (explain_block(Observation.read(sysroot), nr) for nr in (1, 32))
    assert [(each.name, each.errno) for each in boot.blockers] == [("boot-memory", "EPERM")]
    assert added.blockers == []


def test_without_page_flags_nothing_is_known():
    sysroot = machine("6.12-dimm")
    del sysroot.files["proc/kpageflags.runs"]
    found = explain_block(Observation.read(sysroot), 33)
    assert (found.verdict, found.free_nr_pages) == ("unknown", None)
    assert any("kpageflags" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "nr"), [("32", 32), ("memory7", 7), ("EBUSY", None), ("-1", None), ("9" * 10, None)]
)
def test_blocks_are_named_by_number(text, nr):
    assert block_named(text) == nr


def test_an_errno_names_every_rule(capsys):
    assert main(["explain", "ebusy", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["version"]) == ("altmap-explain", 1)
    assert {each["function"] for each in made["reasons"]} >= {
        "start_isolate_page_range",
        "scan_movable_pages",
        "try_remove_memory",
    }
    assert {reason.errno for reason in REASONS} >= {"EBUSY", "EINVAL", "ENOMEM", "EEXIST", "E2BIG"}


def test_an_errno_tells_which_blocks_would_give_it_now(capsys):
    source = str(RECORDINGS / "linux-6.12-dimm.tar.xz")
    assert main(["explain", "EINVAL", source]) == 0
    out = capsys.readouterr().out
    assert "here now: memory0\n" in out  # two zones
    assert "here now: memory7\n" in out  # a hole
    assert reasons_of("einval")


@pytest.mark.parametrize("what", ["99", "EFOO", "-5x", "memory"])
def test_what_is_neither_block_nor_errno_is_refused_in_one_line(capsys, what):
    source = str(RECORDINGS / "linux-6.12-dimm.tar.xz")
    assert main(["explain", "--", what, source]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert what.removeprefix("memory") in err
