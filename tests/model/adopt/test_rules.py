"""Rules of an adopted kernel: the scenario's, else the files', else a default or an error."""

import re
from dataclasses import replace

import pytest
from small_machine import DIMM, NODES, ZONES, files

from altmap.errors import InputError
from altmap.linux.evidence import Evidence, Given, Indication
from altmap.linux.observation import BalloonFolder, MemoryFolder
from altmap.linux.pagewords import PageWords
from altmap.model.adopt import adopt
from altmap.model.adopt.rules import given_of
from altmap.scenario import Machine, Node, Size

MIB = 1 << 20


def adopted(seen=None, **machine):
    return adopt(files() if seen is None else seen, Machine(devices=[DIMM], **machine))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("zoneinfo", "proc/zoneinfo"),
        ("iomem", "proc/iomem"),
        ("memory", "sys/devices/system/memory/block_size_bytes"),
    ],
)
def test_a_file_that_no_assumption_replaces_is_required(name, path):
    with pytest.raises(InputError, match=f"^sysroot: {path} is missing"):
        adopted(files(**{name: None}))


def test_a_zone_whose_protection_is_not_shown_has_no_reserves():
    zones = (ZONES[0], replace(ZONES[1], protection=()), *ZONES[2:])
    made = adopted(files(zoneinfo=zones))
    assert made.notes == ["proc/zoneinfo: node 0 DMA32: no reserves are shown"]


@pytest.mark.parametrize("protection", [(0, 0), (0,) * 4, (0,) * 6])
def test_a_zone_protects_against_each_zone_of_its_node(protection):
    zones = (ZONES[0], replace(ZONES[1], protection=protection), *ZONES[2:])
    with pytest.raises(InputError, match=r"node 0 DMA32: protection \(0, .*\): .* of 5 zones"):
        adopted(files(zoneinfo=zones))


@pytest.mark.parametrize(
    ("shown", "kib_of_a_page", "block_mib", "name"),
    [
        ("x86_64", 4, 128, "x86_64"),
        ("aarch64", 4, 128, "aarch64"),
        ("aarch64", 16, 512, "aarch64-16k"),
        ("s390x", 4, 256, "s390x"),
        # MemTotal need not be the sum of managed pages.
        ("x86_64", 16, 128, "x86_64"),
        ("x86_64", 1, 128, "x86_64"),
        ("aarch64", 16, 128, "aarch64"),
    ],
)
def test_machine_and_page_size_of_the_files_are_the_architecture(
    shown, kib_of_a_page, block_mib, name
):
    managed = sum(zone.pages["managed"] for zone in ZONES)
    seen = files(
        machine=shown,
        meminfo={"MemTotal": managed * kib_of_a_page},
        memory=MemoryFolder(block_mib * MIB, None, files().memory.blocks),
        iomem=files(ram=[(0, 4 * block_mib * MIB)]).iomem,
        kpageflags=PageWords(),
    )
    assert adopt(seen, Machine()).kernel.arch.name == name


def test_the_scenario_names_another_architecture():
    assert adopted(arch="x86_64-la57").kernel.arch.name == "x86_64-la57"


def test_without_a_machine_x86_64_is_assumed_with_a_note():
    made = adopted(files(machine=None))
    assert made.kernel.arch.name == "x86_64"
    assert made.notes[0] == (
        "no file names the architecture, x86_64 is assumed (--arch says which)"
    )
    assert adopted().notes == []


def ppc64(meminfo, **machine):
    seen = files(machine="ppc64le", meminfo=meminfo, kpageflags=PageWords())
    return adopt(seen, Machine(**machine)).kernel.arch.memmap_rule


def test_only_radix_shows_leaves_of_the_direct_map():
    total = files().meminfo["MemTotal"]
    assert ppc64({"MemTotal": total, "DirectMap2M": 0}) == "pmd"
    assert ppc64({"MemTotal": total}) == "never"
    assert ppc64(None) == "pmd"
    assert ppc64({"MemTotal": total}, mmu="radix") == "pmd"
    assert ppc64({"MemTotal": total, "DirectMap2M": 0}, mmu="hash") == "never"


def test_the_release_is_the_scenarios_or_that_of_proc_version():
    assert adopted().kernel.release.name == "6.12"
    assert adopted(release="6.1").kernel.release.name == "6.1"
    seen = files(version="Linux version 6.13.2-amd64")
    made = adopted(seen)
    assert made.kernel.release.name == "6.12"
    (note,) = made.notes
    assert note.startswith("no record of 6.13; that of 6.12 is used: 6.13 has virtio-mem")


def test_a_distributions_kernel_has_the_record_of_the_files_that_it_has():
    made = adopted(files(version="Linux version 4.18.0-553.el8_10.x86_64"))
    assert made.kernel.release.name == "5.13"
    assert "memmap_on_memory exists, as since 5.13" in made.notes[-1]
    named = adopted(files(version="Linux version 4.18.0-553.el8_10.x86_64"), release="4.20")
    assert named.kernel.release.name == "4.20"


@pytest.mark.parametrize("name", ["4.18.0", "3.10", "2.6.32"])
def test_a_release_before_the_first_record_is_taken_for_it_with_a_note(name):
    number = ".".join(name.split(".")[:2])
    made = adopted(files(version=f"Linux version {name}"))
    assert made.kernel.release.name == "4.20"
    assert made.notes == [
        f"no record of {number}; that of 4.20 is used: it is older than every record"
    ]


@pytest.mark.parametrize(
    ("shown", "words"),
    [(None, "proc/version is missing, and no other file names"), ("Linux", "need 'Linux")],
)
def test_a_release_that_is_not_shown_is_an_error(shown, words):
    with pytest.raises(InputError, match=f"^sysroot: .*{re.escape(words)}"):
        adopted(files(version=shown))


def test_the_scenario_cannot_change_the_block_size():
    assert adopted(block_size=Size(128 * MIB)).kernel.block_nr_pages == 32768
    with pytest.raises(InputError, match=r"^machine.block_size 0x10000000: .* of 0x8000000$"):
        adopted(block_size=Size(256 * MIB))


def test_a_block_size_that_no_kernel_has_is_an_error():
    seen = files(memory=MemoryFolder(96 * MIB, None, files().memory.blocks))
    with pytest.raises(InputError, match=r"^sysroot: block_size_bytes 0x6000000: need a power"):
        adopted(seen)


TUNABLES = [
    ("memmap_on_memory", "N", "off", "on"),
    ("memmap_on_memory", "Y", "on", "off"),
    ("memmap_on_memory", "force", "force", "off"),
    ("online_policy", "auto-movable", "auto-movable", "contig-zones"),
    ("online_policy", "contig-zones", "contig-zones", "auto-movable"),
    ("auto_movable_numa_aware", "N", False, True),
    ("auto_movable_numa_aware", "Y", True, False),
    ("auto_movable_ratio", "77", 77, 5),
]


@pytest.mark.parametrize(("name", "text", "value", "other"), TUNABLES)
def test_a_parameter_is_the_scenarios_or_that_of_its_file(name, text, value, other):
    seen = files(parameters={name: text})
    assert getattr(adopted(seen).kernel.tunables, name) == value
    assert getattr(adopted(seen, **{name: other}).kernel.tunables, name) == other


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memmap_on_memory", "maybe"),
        ("online_policy", "Y"),
        ("auto_movable_numa_aware", "force"),
        ("auto_movable_ratio", "-1"),
        ("auto_movable_ratio", "12345678901"),
    ],
)
def test_a_word_that_the_kernel_does_not_write_is_ignored_with_a_note(name, text):
    made = adopted(files(parameters={name: text}))
    (note,) = made.notes
    assert note.startswith(f"sysroot: {name} '{text}': need ")
    plain = adopted(files(parameters={}))
    assert getattr(made.kernel.tunables, name) == getattr(plain.kernel.tunables, name)


@pytest.mark.parametrize(
    ("word", "name"),
    [("movable_node", "movable_node"), ("hugetlb_free_vmemmap=on", "hugetlb_free_vmemmap")],
)
def test_a_word_of_the_command_line_is_a_parameter(word, name):
    seen = files(cmdline=f"quiet {word} panic=1")
    assert getattr(adopted(seen).kernel.tunables, name)
    assert not getattr(adopted(seen, **{name: False}).kernel.tunables, name)
    assert not getattr(adopted(files(cmdline=f"no{word}")).kernel.tunables, name)
    assert not getattr(adopted(files(cmdline=None)).kernel.tunables, name)


@pytest.mark.parametrize("word", ["offline", "online", "online_kernel", "online_movable"])
def test_the_default_online_type_is_the_scenarios_or_that_of_its_file(word):
    seen = files(memory=MemoryFolder(128 * MIB, word, files().memory.blocks))
    assert adopted(seen).kernel.tunables.auto_online_blocks == word
    assert adopted(seen, auto_online_blocks="online").kernel.tunables.auto_online_blocks == "online"


def test_another_default_online_type_is_ignored_with_a_note():
    (note,) = adopted(
        files(memory=MemoryFolder(128 * MIB, "going-offline", files().memory.blocks))
    ).notes
    assert note.startswith("sysroot: auto_online_blocks 'going-offline': need one of offline")


def test_the_direct_map_has_leaves_of_the_sizes_that_meminfo_shows():
    def sizes(meminfo, balloon=None):
        tunables = adopted(files(meminfo=meminfo, balloon=balloon)).kernel.tunables
        return tunables.direct_map_1g, tunables.direct_map_2m

    balloon = BalloonFolder(1 << 20, 1 << 20, 0)
    assert sizes({"DirectMap1G": 0, "DirectMap2M": 0}) == (True, True)
    assert sizes({"DirectMap2M": 0}) == (False, True)
    assert sizes(None) == (True, True)
    assert sizes({"DirectMap1G": 0, "DirectMap2M": 0}, balloon) == (True, False)
    assert sizes({"DirectMap1G": 0, "DirectMap2M": 4096}, balloon) == (True, True)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"memory": Size(1 << 30)}, "machine.memory and machine.nodes"),
        ({"nodes": [Node(memory=Size(1 << 30))]}, "machine.memory and machine.nodes"),
        ({"cpus": 2}, "machine.cpus and machine.platform"),
        ({"platform": "q35"}, "machine.cpus and machine.platform"),
    ],
)
def test_what_the_files_decide_is_ignored_with_a_note(changes, keys):
    (note,) = adopted(**changes).notes
    assert note.startswith(f"{keys} are ignored")


def test_nodes_are_those_of_sysfs_else_of_zoneinfo():
    kernel = adopted().kernel
    assert (kernel.boot_nodes, kernel.cpu_nodes) == ({0}, {0})
    lists = {"online": (0, 1), "possible": (0, 1, 2), "has_cpu": (1,)}
    kernel = adopted(files(nodes=replace(NODES, lists=lists))).kernel
    assert (kernel.boot_nodes, kernel.cpu_nodes) == ({0, 1}, {1})
    assert {node for node, _ in kernel.zones} == {0, 1, 2}
    kernel = adopted(files(nodes=None)).kernel
    assert (kernel.boot_nodes, kernel.cpu_nodes) == ({0}, {0})
    assert {name for _, name in kernel.zones} == {"DMA", "DMA32", "Normal", "Movable"}


def test_a_release_that_is_inferred_is_said_with_its_ground_unless_the_scenario_names_one():
    ground = "the name of the archive"
    for inferred, release in ((True, None), (True, "6.12"), (False, None)):
        evidence = Evidence(releases=(Indication("6.12", ground, inferred=inferred),))
        made = adopted(files(evidence=evidence), release=release)
        told = f"the release is 6.12 by {ground}"
        assert (told in made.notes) == (inferred and release is None)


def test_an_architecture_that_is_inferred_is_said_with_the_strongest_ground():
    found = (Indication("x86_64", "proc/cpuinfo", inferred=True), Indication("x86_64", "another"))
    made = adopted(files(evidence=Evidence(machines=found)))
    assert "the architecture is x86_64 by proc/cpuinfo" in made.notes


def test_what_the_scenario_says_of_the_machine_is_given():
    given = given_of(Machine(arch="aarch64", page_size=Size(16384), release="6.12"))
    assert given == Given("aarch64", 16384, "6.12")
    assert given_of(Machine(page_size=Size(4096))) == Given(None, 4096, None)
