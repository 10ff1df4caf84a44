"""Explanations of blocks and errnos, against recordings, and against what kernels log."""

import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.host.anonymous import anonymous
from altmap.host.blockers import Blocks
from altmap.host.blocking_pages import BLANK, KINDS, kind_of, pages_by_kind
from altmap.host.errnos import REASONS, reasons_of
from altmap.host.explain import block_named, explain_block
from altmap.host.hot_remove import lacks_hot_remove
from altmap.host.text.explanation import block_text
from altmap.linux.evidence import Given
from altmap.linux.observation import Observation, PageRun
from altmap.linux.pagewords import PageWords
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Offline, Plug

HERE = Path(__file__).parent
RECORDINGS = HERE.parent / "recordings/files"
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
        38: "ARCH",
    }.items()
}


def machine(name, **changes):
    sysroot = Sysroot.read(RECORDINGS / f"linux-{name}.tar.xz")
    for path, raw in changes.items():
        sysroot.files[path] = raw
    return sysroot


def with_flags(sysroot, pfn, nr_pages, flags):
    """Return an observation whose pages from *pfn* on have other flags."""
    seen = sysroot if isinstance(sysroot, Observation) else Observation.read(sysroot)
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
    return replace(seen, kpageflags=PageWords.of(runs))


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
        ("OFFLINE", "fake-offline"),
        ("HWPOISON SLAB", None),
        ("MMAP", "mapped"),
        ("", "kernel"),
    ],
)
def test_pages_are_of_the_kind_that_the_kernel_takes_them_for(names, kind):
    assert kind_of(sum(FLAG[name] for name in names.split())) == kind


def test_every_page_is_of_one_kind_at_most():
    for name in ("6.1-dimm", "6.12-dimm", "7.3-two-nodes"):
        runs = Observation.read(machine(name)).kpageflags
        found = pages_by_kind(runs)
        del found[BLANK]  # they are of the kind "kernel"
        pages = list(found.values())
        for at, one in enumerate(pages):
            assert all(one.isdisjoint(other) for other in pages[at + 1 :])
        counted = sum(map(len, pages))
        assert counted == sum(run.nr_pages for run in runs if kind_of(run.flags))


@pytest.mark.parametrize("name", ["6.1-dimm", "6.12-dimm", "7.3-dimm"])
def test_movable_memory_meets_nothing_and_kernel_memory_does(name):
    seen = Observation.read(machine(name))
    free = explain_block(seen, 32)
    assert (free.verdict, free.blockers) == ("no visible blocker", [])
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
        "mapped": FLAG["MMAP"],
        "kernel": FLAG["ARCH"],
        "fake-offline": FLAG["OFFLINE"],
        "hugetlb": FLAG["HUGE"] | FLAG["HEAD"],
    }[kind]
    in_kernel = explain_block(with_flags(machine("6.12-dimm"), 0x10C000, 7, flags), 33)
    assert kind in {blocker.name for blocker in in_kernel.blockers}
    found = explain_block(with_flags(machine("6.12-dimm"), 0x104000, 7, flags), 32).blockers
    expected = [(kind, 7, 0x104000)] if kind in ("reserved", "fake-offline", "hugetlb") else []
    assert [(each.name, each.nr_pages, each.first_pfn) for each in found] == expected


def blank_pages(sysroot, name, wanted):
    """Return an observation whose zone has so many pages without any flag, all in memory1."""
    seen = Observation.read(sysroot)
    runs = [
        PageRun(*run[:2], run.flags or FLAG["SLAB"]) for run in seen.kpageflags
    ]  # none elsewhere
    made = replace(seen, kpageflags=PageWords.of(runs))
    (zone,) = (zone for zone in seen.zoneinfo if zone.name == name)
    waiting = sum(pageset["count"] for pageset in zone.pagesets)
    assert waiting > 1
    return with_flags(made, 0x8000, wanted(waiting), 0), waiting


@pytest.mark.parametrize(
    ("wanted", "found", "verdict"),
    [
        (lambda waiting: waiting, [], "no visible blocker"),
        (lambda waiting: waiting + 1, [("kernel", "certain")], "refused"),
    ],
)
def test_pages_without_a_flag_that_fit_on_the_per_cpu_lists_are_free(wanted, found, verdict):
    seen, waiting = blank_pages(machine("6.12-dimm"), "DMA32", wanted)
    told = explain_block(seen, 1)
    assert [(each.name, each.certainty) for each in told.blockers] == found
    assert told.verdict == verdict
    free = f"{waiting} pages are free on per-CPU lists, which offlining empties first"
    assert (free in told.notes) == (not found)
    # The plan judges by the same rule; a zone of boot memory has no block that may stay.
    step = Offline(blocks=1)
    outcome = ModelMachine.start(Machine(), seen, pages=False).perform(step).outcome
    assert bool(outcome) == (not found)


def test_pages_of_a_block_of_two_zones_count_in_both():
    # memory0 has pages of DMA and of DMA32, and valid_zones names neither.
    seen, _ = blank_pages(machine("6.12-dimm"), "DMA32", lambda waiting: waiting)
    seen = with_flags(seen, 0x4000, 1, 0)
    assert [(each.name, each.certainty) for each in explain_block(seen, 1).blockers] == [
        ("kernel", "unknown")
    ]


@pytest.mark.parametrize(("factor", "certainty"), [(1, "unknown"), (3, "likely")])
def test_few_pages_without_a_flag_are_in_doubt_while_others_are_not_on_the_lists(factor, certainty):
    seen, waiting = blank_pages(machine("6.12-dimm"), "DMA32", lambda waiting: waiting)
    seen = with_flags(seen, 0x10000, factor * waiting - waiting + 1, 0)  # in memory2
    (found,) = explain_block(seen, 1).blockers
    assert (found.name, found.certainty) == ("kernel", certainty)
    machine_ = ModelMachine.start(Machine(), seen, pages=False)
    outcome = machine_.perform(Offline(blocks=1)).outcome
    assert (outcome.errno, outcome.certainty) == ("EBUSY", "likely")
    assert "per-CPU lists" in outcome.doubt


def with_uses(seen, pfn, nr_pages, count, inode):
    """Return an observation in which pages are mapped so often and charged to that cgroup."""

    def runs(value):
        end = seen.kpageflags.nr_pages
        before, behind = PageRun(0, pfn, 0), PageRun(pfn + nr_pages, end - pfn - nr_pages, 0)
        return PageWords.of((before, PageRun(pfn, nr_pages, value), behind))

    return replace(
        seen, kpagecount=runs(count), kpagecgroup=runs(inode), cgroups={1: "/", 7: "/a.slice"}
    )


ANONYMOUS = FLAG["LRU"] | FLAG["ANON"] | FLAG["SWAPBACKED"]


@pytest.mark.parametrize(
    ("flags", "count", "inode", "held"),
    [
        (ANONYMOUS, 0, 7, 5),
        (ANONYMOUS, 1, 7, 0),
        (ANONYMOUS, 0, 0, 0),  # came into use between the readings
        (ANONYMOUS | 1 << 13, 0, 7, 0),  # in the swap cache
        (ANONYMOUS | FLAG["THP"], 0, 7, 0),  # mapped in part
        (FLAG["LRU"], 0, 7, 0),  # of a file
    ],
)
def test_anonymous_pages_that_nobody_maps_are_held_by_somebody(flags, count, inode, held):
    seen = with_uses(
        with_flags(machine("6.12-dimm"), 0x104000, 5, flags), 0x104000, 5, count, inode
    )
    found = explain_block(seen, 32)
    assert [each.nr_pages for each in found.blockers] == ([held] if held else [])
    assert found.verdict == ("unknown" if held else "no visible blocker")
    assert found.mapped_nr_pages == (5 if count else 0)
    if inode:
        assert [(each.cgroup, each.nr_pages) for each in found.owners] == [("/a.slice", 5)]
    outcome = ModelMachine.start(Machine(), seen, pages=False).perform(Offline(blocks=32)).outcome
    assert outcome.errno == ("EINTR" if held else None)
    if held:
        assert found.blockers[0].owners == found.owners
        assert "may never end" in block_text(found)


def test_a_cgroup_without_a_name_is_shown_by_its_inode():
    flagged = with_flags(machine("6.12-dimm"), 0x10C000, 3, FLAG["PGTABLE"])
    seen = replace(with_uses(flagged, 0x10C000, 3, 0, 9), cgroups={})
    tables = {each.name: each for each in explain_block(seen, 33).blockers}["page-tables"]
    assert {each.cgroup: each.nr_pages for each in tables.owners}["inode 9"] == 3


@pytest.mark.parametrize(
    ("taken", "given", "note"),
    [(40, 30, "10 pages of this machine are pinned"), (40, 40, "no page is pinned now")],
)
def test_pins_are_counted_though_no_file_says_where(taken, given, note):
    seen = with_flags(machine("6.12-dimm"), 0x104000, 5, ANONYMOUS)
    counters = {"nr_foll_pin_acquired": taken, "nr_foll_pin_released": given}
    found = explain_block(replace(seen, vmstat=seen.vmstat | counters), 32)
    assert any(each.startswith(note) for each in found.notes)


@pytest.mark.parametrize(("inflated", "certainty"), [(7, "unknown"), (0, "certain")])
def test_pages_of_a_balloon_that_can_compact_may_move(inflated, certainty):
    seen = with_flags(machine("6.12-dimm"), 0x104000, 7, FLAG["OFFLINE"])
    counters = {"balloon_inflate": inflated, "balloon_deflate": 0, "balloon_migrate": 0}
    seen = replace(seen, vmstat=seen.vmstat | counters)
    (found,) = explain_block(seen, 32).blockers
    assert (found.name, found.certainty) == ("fake-offline", certainty)


def test_memory_set_aside_for_cma_may_be_anywhere_in_its_zone():
    seen = Observation.read(machine("6.12-dimm"))
    zones = tuple(
        replace(zone, pages=zone.pages | {"cma": 4096}) if zone.name == "DMA32" else zone
        for zone in seen.zoneinfo
    )
    found = explain_block(replace(seen, zoneinfo=zones), 1)
    assert [(each.name, each.certainty) for each in found.blockers] == [("cma", "unknown")]
    assert explain_block(replace(seen, zoneinfo=zones), 32).blockers == []


def test_who_uses_pages_is_kept_in_a_snapshot_and_read_back(tmp_path):
    root = tmp_path / "root"
    machine("6.12-dimm").write(root)
    count, group = (root / "proc" / name for name in ("kpagecount", "kpagecgroup"))
    count.write_bytes(struct.pack("<4Q", 0, 2, 2, 0))
    group.write_bytes(struct.pack("<4Q", 7, 7, 7, 0))
    assert "proc/kpagecount.runs" not in Sysroot.read(root).files
    sysroot = Sysroot.read(root, uses=True)
    sysroot.files["proc/kpagecgroup.names"] = b"0x7 /a.slice\n"
    target = tmp_path / "s.tar"
    sysroot.pack(target)
    seen = Observation.read(Sysroot.read(target))
    assert list(seen.kpagecount) == [PageRun(0, 1, 0), PageRun(1, 2, 2), PageRun(3, 1, 0)]
    assert list(seen.kpagecgroup) == [PageRun(0, 3, 7), PageRun(3, 1, 0)]
    assert seen.cgroups == {7: "/a.slice"}
    assert "proc/kpagecgroup.names" not in anonymous(sysroot).files
    # After a prediction it would no longer be true.
    assert not [path for path in seen.render(sysroot).files if "kpagec" in path]


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
    seen = Observation.read(machine("6.12-dimm"), Given(machine="aarch64"))
    boot, added = (explain_block(seen, nr) for nr in (1, 32))
    assert [(each.name, each.errno) for each in boot.blockers] == [("boot-memory", "EPERM")]
    assert added.blockers == []


@pytest.mark.parametrize(
    ("release", "memmap", "names"),
    [
        ("7.3", "on", ["leaf-split"]),
        ("7.2", "on", ["leaf-split"]),
        ("6.12", "on", []),
        ("7.3", "off", []),
    ],
)
def test_a_block_of_arm64_that_hosts_its_memmap_never_goes_since_7_1(release, memmap, names):
    model = ModelMachine.start(
        Machine(
            arch="aarch64",
            release=release,
            memory="2GiB",
            memmap_on_memory=memmap,
            auto_online_blocks="online_movable",
        )
    )
    assert model.perform(
        Plug(id="d", driver="kmem", dax="cxl", address="4GiB", size="256MiB", node=0)
    ).outcome
    found = explain_block(model.observe(), 33)
    assert [each.name for each in found.blockers] == names
    for each in found.blockers:
        assert (each.errno, each.function, each.certainty) == (
            *("EPERM", "prevent_memory_remove_notifier", "certain"),
        )
        assert "memory_hotplug.memmap_on_memory=0" in each.cure


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


def test_a_kernel_without_hot_remove_refuses_every_block(capsys):
    # A guest's kernel without CONFIG_MEMORY_HOTREMOVE, 6.x: removable is 0, no valid_zones.
    source = HERE / "machines/no-hot-remove.tar.gz"
    seen = Observation.read(Sysroot.read(source))
    for nr in (0, 7, 32, 33):
        found = explain_block(seen, nr)
        assert found.verdict == "refused"
        assert [(each.name, each.errno) for each in found.blockers] == [("no-hot-remove", "EINVAL")]
    # By the zones' spans, as no block names its zone.
    assert (explain_block(seen, 32).zones, explain_block(seen, 33).zones) == (
        ("Movable",),
        ("Normal",),
    )
    assert main(["explain", "EINVAL", str(source)]) == 0
    out = capsys.readouterr().out
    assert out.count("here now: memory0-7,32-33\n") == 1
    rule = out.index("CONFIG_MEMORY_HOTREMOVE")
    assert rule < out.index("here now") < rule + 400


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("Linux version 5.7.0 (x)", {}),  # removable was about the block
        (None, {}),
        ("Linux version 6.12.0 (x)", {"removable": True}),
        ("Linux version 6.12.0 (x)", {"valid_zones": ("Normal",)}),
    ],
)
def test_other_kernels_are_not_taken_for_one_without_hot_remove(version, changes):
    seen = Observation.read(Sysroot.read(HERE / "machines/no-hot-remove.tar.gz"))
    memory = seen.memory
    blocks = memory.blocks | {5: replace(memory.blocks[5], **changes)}
    seen = replace(seen, version=version, memory=replace(memory, blocks=blocks))
    assert not lacks_hot_remove(seen)
