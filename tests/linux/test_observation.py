import dataclasses
import re
import time

import pytest

from altmap.errors import InputError
from altmap.linux import zoneinfo
from altmap.linux.observation import Block, MemoryFolder, NodeFolder, Observation, PageRun
from altmap.linux.pagewords import PageWords
from altmap.linux.sysroot import Sysroot

MEMORY = "sys/devices/system/memory"
NODE = "sys/devices/system/node"
ZONE = """Node 0, zone      DMA
  pages free     0
        min      0
        low      0
        high     0
        spanned  0
        present  0
        managed  0
        protection: (0)
"""


def test_a_zone_has_as_many_cpus_as_a_kernel_can_have():
    """NR_CPUS is 8192 at most; a file of nothing but CPUs is refused early."""
    cpus = "".join(f"    cpu: {number}\n" for number in range(8193))
    most, one_more = (
        f"{ZONE}  pagesets\n{cpus.rpartition('    cpu')[0]}",
        f"{ZONE}  pagesets\n{cpus}",
    )
    assert len(zoneinfo.parse(most)[0].pagesets) == 8192
    with pytest.raises(InputError, match="a zone has at most 8192 CPUs"):
        zoneinfo.parse(one_more)


def test_a_machine_without_files_has_all_of_them_missing():
    assert Observation.read(Sysroot()) == Observation()
    assert Observation().missing == (
        "proc/version",
        "proc/cmdline",
        "proc/meminfo",
        "proc/vmstat",
        "proc/zoneinfo",
        "proc/buddyinfo",
        "proc/iomem",
        "proc/kpageflags",
        MEMORY,
        NODE,
        "sys/module/memory_hotplug/parameters",
    )


def test_rendered_over_its_own_base_nothing_changes(recorded):
    made = Observation.read(recorded).render(recorded)
    assert (made.contents(), made.links) == (recorded.contents(), recorded.links)


def test_an_empty_observation_leaves_the_base_alone(recorded):
    assert Observation().render(recorded) == recorded


def test_blocks_that_are_gone_leave_no_trace(recording):
    base = recording("linux-6.12-dimm")
    base.files |= {f"{MEMORY}/memory{nr}/unknown": b"" for nr in (33, 34)}
    seen = Observation.read(base)
    blocks = {nr: block for nr, block in seen.memory.blocks.items() if nr != 33}
    blocks[34] = dataclasses.replace(
        blocks[34], state="online", valid_zones=("Movable",), firmware_node=None
    )
    blocks[40] = Block("offline", 0, True, ("Normal", "Movable"), (1,))
    memory = dataclasses.replace(seen.memory, blocks=blocks)
    made = dataclasses.replace(seen, memory=memory).render(base)

    changed = {
        path
        for path in {*base.files, *base.links, *made.files, *made.links}
        if (base.files.get(path), base.links.get(path))
        != (made.files.get(path), made.links.get(path))
    }
    files = ("online", "phys_device", "phys_index", "removable", "state", "valid_zones")
    assert changed == {
        *(f"{MEMORY}/memory33/{name}" for name in (*files, "unknown", "node0", "firmware_node")),
        f"{NODE}/node0/memory33",
        *(f"{MEMORY}/memory34/{name}" for name in ("online", "state", "valid_zones")),
        f"{MEMORY}/memory34/firmware_node",
        *(f"{MEMORY}/memory40/{name}" for name in (*files, "node1")),
        f"{NODE}/node1/memory40",
    }
    assert made.files[f"{MEMORY}/memory34/online"] == b"1\n"
    assert made.links[f"{MEMORY}/memory40/node1"] == "../../node/node1"
    assert made.links[f"{NODE}/node1/memory40"] == "../../memory/memory40"
    assert made.files[f"{MEMORY}/crash_hotplug"] == base.files[f"{MEMORY}/crash_hotplug"]


def test_raw_page_flags_of_a_base_give_way_to_runs():
    base = Sysroot({"proc/kpageflags": b"\0" * 16}, {}, ("proc/iomem",))
    assert list(Observation.read(base).kpageflags) == [PageRun(0, 2, 0)]
    made = Observation(kpageflags=PageWords.of([(0, 2, 0x400)]), iomem=()).render(base)
    assert made == Sysroot(
        {
            "proc/kpageflags.runs": b"# start_pfn nr_pages flags\n0x0 2 0x400\n",
            "proc/iomem": b"",
        }
    )


def test_a_block_that_spans_nodes_has_links_to_and_from_both():
    memory = MemoryFolder(128 << 20, None, {3: Block("online", nodes=(0, 1))})
    made = Observation(memory=memory).render()
    assert made.links == {
        f"{MEMORY}/memory3/node0": "../../node/node0",
        f"{MEMORY}/memory3/node1": "../../node/node1",
        f"{NODE}/node0/memory3": "../../memory/memory3",
        f"{NODE}/node1/memory3": "../../memory/memory3",
    }
    assert Observation.read(made).memory == memory


@pytest.mark.parametrize(
    ("state", "online"), [("online", b"1\n"), ("going-offline", b"1\n"), ("offline", b"0\n")]
)
def test_a_block_counts_as_online_until_it_is_offline(state, online):
    made = Observation(memory=MemoryFolder(128 << 20, None, {10: Block(state)})).render()
    # online_show() and phys_index_show() in drivers/base/memory.c.
    assert made.files == {
        f"{MEMORY}/block_size_bytes": b"8000000\n",
        f"{MEMORY}/memory10/online": online,
        f"{MEMORY}/memory10/phys_index": b"0000000a\n",
        f"{MEMORY}/memory10/state": f"{state}\n".encode(),
    }


def test_links_of_one_side_are_enough():
    files = {f"{MEMORY}/block_size_bytes": b"8000000\n", f"{MEMORY}/memory3/state": b"online\n"}
    sysroot = Sysroot(files, {f"{NODE}/node2/memory3": "../../memory/memory3"})
    assert Observation.read(sysroot).memory.blocks == {3: Block("online", nodes=(2,))}


def test_8192_blocks_are_rendered_and_read_in_seconds_of_the_processor():
    block = Block("online", 0, True, ("Movable",), (0,))
    memory = MemoryFolder(128 << 20, "online", dict.fromkeys(range(8192), block))
    seen = Observation(memory=memory, nodes=NodeFolder({"online": (0,)}))
    began = time.process_time()
    made = seen.render()
    again = seen.render(made)
    assert time.process_time() - began < 5
    assert again == made
    began = time.process_time()
    assert Observation.read(made) == seen
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("proc/meminfo", "MemTotal: 1 kB\nMemFree 2\n", "line 2: 'MemFree 2': need 'Name: numb"),
        ("proc/meminfo", "MemTotal: 1\n", "line 1: 'MemTotal: 1': need the unit kB, and none f"),
        ("proc/meminfo", "HugePages_Free: 1 kB\n", "line 1: .*: need the unit kB, and none for"),
        ("proc/meminfo", "A: 1 kB\nA: 1 kB\n", "line 2: 'A: 1 kB': 'A' is given twice"),
        ("proc/meminfo", f"A: {2**64} kB\n", "line 1: .*: need a number below 2\\*\\*64 in pl"),
        ("proc/meminfo", f"A: {'9' * 5000} kB\n", "line 1: 'A: 9{77}…': need a number below"),
        ("proc/meminfo", "MemTotal: \u0661 kB\n", "line 1: .*: need 'Name: number kB'"),
        ("proc/vmstat", "nr_free_pages\n", "line 1: 'nr_free_pages': need 'name number'"),
        ("proc/vmstat", "nr_free_pages -1\n", "line 1: .*: need 'name number'"),
        ("proc/buddyinfo", "Node 0, zone DMA 1 x\n", "line 1: .*: need 'Node N, zone NAME' and"),
        (
            "proc/buddyinfo",
            "Node 0, zone DMA 1\nNode 0, zone DMA 2\n",
            "line 2: .*: zone DMA of node 0 is given twice",
        ),
        ("proc/iomem", "0000-0fff\n", "line 1: '0000-0fff': need 'start-end : name' in hex"),
        ("proc/iomem", "  00000000-00000fff : x\n", "line 1: .*: need a line one level up before"),
        ("proc/iomem", "00001000-00000fff : x\n", "line 1: .*: need start <= end"),
        ("proc/kpageflags.runs", "0x1 1 0x0\n", "line 1: .*: need a run of at least one page"),
        ("proc/kpageflags", "1234567", "7 bytes: need a multiple of 8"),
        ("proc/zoneinfo", "  pages free 1\n", "line 1: .*: need a line 'Node N, zone NAME' first"),
        ("proc/zoneinfo", "Node x\n", "line 1: 'Node x': need 'Node N, zone NAME'"),
        ("proc/zoneinfo", f"{ZONE}  pages\n", "line 10: .*: need a name and a number"),
        ("proc/zoneinfo", "Node 0, zone DMA\n", "line 1: .*: the zone has no line 'free'; is the"),
        (
            "proc/zoneinfo",
            f"{ZONE}        protection: (1 2)\n",
            r"line 10: .*: need 'protection: \(number, ...\)'",
        ),
        (f"{MEMORY}/block_size_bytes", "0x8000000\n", "'0x8000000': need a power of two in hex"),
        (f"{MEMORY}/block_size_bytes", "3\n", "'3': need a power of two in hex"),
        (f"{NODE}/online", "0-\n", "'0-': need ascending ids such as '0-1,3'"),
        (f"{NODE}/online", "0-9999999999\n", "'0-9999999999': need ascending ids"),
        (f"{NODE}/online", "1,0\n", "'1,0': need ascending ids"),
        (f"{NODE}/node1/meminfo", "Node 0 MemTotal: 1 kB\n", "line 1: .*: need 'Node 1 Name:"),
        (f"{NODE}/node0/meminfo", "Node 0 MemTotal:\n", "line 1: .*: need 'Name: number kB'"),
    ],
)
def test_what_is_malformed_is_noted_by_name_line_and_rule(path, content, message):
    (note,) = Observation.read(Sysroot({path: content.encode()})).problems.values()
    assert re.match(f"{path}: {message}", note)
    assert "\n" not in note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state", b"on\n", "'on': need one of online, offline, going-offline"),
        ("state", b"\xff\n", r"'\\\\xff': need one of online, offline, going-offline"),
        ("removable", b"yes\n", "'yes': need 0 or 1"),
        ("phys_index", b"00000002\n", "'00000002': need 00000001, as the folder's name says"),
        ("phys_device", b"-1\n", "line 1: '-1': need a number below"),
    ],
)
def test_a_malformed_file_of_a_block_is_noted_by_name_and_rule(name, content, message):
    files = {"block_size_bytes": b"8000000\n", "memory1/state": b"online\n"}
    sysroot = Sysroot({f"{MEMORY}/{path}": raw for path, raw in files.items()})
    sysroot.files[f"{MEMORY}/memory1/{name}"] = content
    seen = Observation.read(sysroot)
    (note,) = seen.problems.values()
    assert re.match(f"{MEMORY}/memory1/{name}: {message}", note)
    assert seen.memory.blocks == ({} if name == "state" else {1: Block("online")})


def test_a_block_without_a_state_is_left_out():
    files = {"block_size_bytes": b"8000000\n", "memory1/removable": b"1\n"}
    seen = Observation.read(Sysroot({f"{MEMORY}/{path}": raw for path, raw in files.items()}))
    assert seen.memory.blocks == {}
    assert [*seen.problems] == [f"{MEMORY}/memory1/state"]


def test_blocks_without_their_size_are_no_memory_folder():
    seen = Observation.read(Sysroot({f"{MEMORY}/memory1/state": b"online\n"}))
    assert seen.memory is None
    with pytest.raises(
        InputError,
        match=rf"^plan: needs {MEMORY}: {MEMORY}/block_size_bytes: need this file beside",
    ):
        seen.require("plan", "memory")


def test_files_that_differ_in_numbers_make_one_note():
    files = {f"memory{nr}/removable": b"?\n" for nr in range(3)}
    files |= {f"memory{nr}/state": b"online\n" for nr in range(3)}
    files["block_size_bytes"] = b"8000000\n"
    seen = Observation.read(Sysroot({f"{MEMORY}/{path}": raw for path, raw in files.items()}))
    assert seen.problems == {
        f"{MEMORY}/memory0/removable": (
            f"{MEMORY}/memory0/removable: '?': need 0 or 1 (and 2 more files of this kind)"
        )
    }


def test_lines_that_are_not_understood_are_left_out_with_their_own_numbers():
    text = "nr_a 1\nodd\nnr_b 2\n\nnr_c 3\n"
    seen = Observation.read(Sysroot({"proc/vmstat": text.encode()}))
    assert seen.vmstat == {"nr_a": 1, "nr_b": 2, "nr_c": 3}
    assert seen.problems == {
        "proc/vmstat": (
            "proc/vmstat: line 2: 'odd': need 'name number': left out (and 1 more lines)"
        )
    }


def test_a_resource_without_a_parent_is_left_out_with_what_is_inside():
    text = "00000000-00000fff : a\n    00000000-0000000f : b\n      00000000-00000001 : c\n"
    text += "    00000010-0000001f : d\n  00000020-0000002f : e\n"
    seen = Observation.read(Sysroot({"proc/iomem": text.encode()}))
    assert [line.name for line in seen.iomem] == ["a", "e"]


@pytest.mark.parametrize(("nr_odd", "kept"), [(16, True), (17, False)])
def test_a_file_of_more_than_16_odd_lines_is_not_understood_at_all(nr_odd, kept):
    text = "nr_a 1\n" + "odd\n" * nr_odd
    seen = Observation.read(Sysroot({"proc/vmstat": text.encode()}))
    assert seen.vmstat == ({"nr_a": 1} if kept else None)
    assert [*seen.problems] == ["proc/vmstat"]


def test_a_counter_without_a_name_is_read_and_written():
    # mm/vmstat.c: vmstat_text of 4.17 to 4.19 has "" for nr_indirectly_reclaimable.
    text = (
        f"Node 0, zone      DMA\n  per-node stats\n      {'':<12} 5120\n" + ZONE.partition("\n")[2]
    )
    seen = Observation.read(Sysroot({"proc/zoneinfo": text.encode()}))
    assert seen.zoneinfo[0].node_stats == {"": 5120}
    assert not seen.problems
    assert zoneinfo.render(seen.zoneinfo) == text


def test_a_zone_that_is_cut_off_is_left_out_with_a_note(recording):
    text = recording("linux-7.3-start").text("proc/zoneinfo")
    last = text.rindex("start_pfn")
    begin = text.rindex("Node", 0, last)
    for end in range(text.index("\n", begin) + 1, last, 17):
        seen = Observation.read(Sysroot({"proc/zoneinfo": text[:end].encode()}))
        names = re.findall("zone +([A-Za-z0-9]+)", text[:begin])
        assert [zone.name for zone in seen.zoneinfo] == names
        assert seen.problems["proc/zoneinfo"].startswith("proc/zoneinfo: line ")


def test_a_command_line_may_hold_any_byte():
    assert Observation.read(Sysroot({"proc/cmdline": b"a=\xff b\n"})).cmdline == "a=\\xff b"
