"""Persistent memory of guests, and dax devices made of it and bound to kmem."""

import errno
import re
import struct
from dataclasses import replace

import pytest

from altmap.errors import InputError, LabError
from altmap.lab import kmem
from altmap.lab.blocks import GuestBlocks
from altmap.lab.cxl import with_dax_memory
from altmap.lab.device_tree import cells_of, with_node
from altmap.lab.devices import GuestDevices
from altmap.lab.kmem import PMEM_MODULES, DaxDevices
from altmap.lab.pmem import pmem_cmdline, tells_by_tree, with_pmem
from altmap.lab.qemu import CxlMemory, Hardware, Payload, Pmem, qemu_arguments
from altmap.lab.requirements import check_steps, modules_of
from altmap.lab.shell import CommandResult
from altmap.scenario import Address, Machine, Plug, Range, Scenario, Size, Unplug, Write

MIB, GIB = 1 << 20, 1 << 30
AT = 0x108000000


def plug(address=AT, size=512 * MIB, id_="dax0.0", **keys):
    where = {} if address is None else {"address": Address(address)}
    keys = {"dax": "pmem", **keys}
    return Plug(id=id_, driver="kmem", size=Size(size), **where, **keys)


# --- hardware --------------------------------------------------------------------------------


def test_a_pc_backs_the_range_by_a_dimm_and_tells_its_kernel_by_a_parameter():
    hardware = with_pmem(Hardware(memory_bytes=GIB), [plug()])
    assert hardware.pmem == (Pmem("dax0.0", AT - 2 * MIB, 514 * MIB, 0),)
    assert hardware.memory_bytes == GIB
    assert hardware.node_bytes == (GIB,)  # so that the firmware names a node of the range
    words = pmem_cmdline(hardware, GIB).split()
    assert words == ["acpi_no_memhotplug", f"memmap={514 * MIB}!{AT - 2 * MIB:#x}"]
    line = " ".join(arguments(hardware))
    assert f"memory-backend-ram,id=dax0.0-memory,size={514 * MIB}" in line
    assert f"pc-dimm,id=dax0.0,memdev=dax0.0-memory,addr={AT - 2 * MIB:#x},node=0" in line
    assert "-dtb" not in line


def test_the_machine_virt_has_it_at_the_end_of_its_ram_and_a_device_tree():
    hardware = with_pmem(Hardware(memory_bytes=GIB, arch="aarch64"), [plug()])
    end = AT + 512 * MIB
    assert hardware.memory_bytes == end - GIB  # its RAM begins at 1 GiB
    assert hardware.node_bytes == (end - GIB,)
    assert tells_by_tree(hardware)
    assert pmem_cmdline(hardware, GIB) == f"mem={GIB}"
    line = " ".join(arguments(hardware, tree_fd=7))
    assert "-dtb /dev/fd/7" in line
    assert "pc-dimm" not in line


def test_without_a_node_in_the_firmware_a_guest_is_told_of_none():
    assert with_pmem(Hardware(memory_bytes=GIB), [plug(node=-1)]).node_bytes == ()


def test_a_guest_without_such_devices_is_as_it_was():
    assert with_pmem(Hardware(), []) == Hardware()
    assert pmem_cmdline(Hardware(), GIB) == ""
    assert not tells_by_tree(Hardware(arch="aarch64"))


def arguments(hardware, **payload):
    return qemu_arguments(hardware, "tcg", Payload("vmlinuz", "", 3, **payload), 4, 5, 6)


ONE = Hardware(memory_bytes=GIB)
TWO = Hardware(memory_bytes=2 * GIB, node_bytes=(GIB, GIB))
ARM = Hardware(memory_bytes=GIB, arch="aarch64")


@pytest.mark.parametrize(
    ("hardware", "plugs", "rule"),
    [
        (ONE, [plug(address=None)], "address: persistent memory is there at boot"),
        (ONE, [plug(address=4 * GIB)], "need 0x100200000 at least"),
        (ARM, [plug(address=2 * GIB)], "need 0x80200000 at least"),
        (ONE, [plug(address=AT + MIB)], "address .*: need a multiple of 0x200000"),
        (ONE, [plug(size=513 * MIB)], "size .*: need a multiple of 0x200000"),
        (ONE, [plug(more_ranges=[Range(address=Address(8 * GIB), size=Size(GIB))])], "one range"),
        (ONE, [plug(node=1)], "node 1: need 0 or -1"),
        (TWO, [plug(node=0)], "node 0: need 1:"),
        (ONE, [plug(), plug(8 * GIB, id_="b", node=-1)], "need -1 for every device or for none"),
        (Hardware(arch="s390x"), [plug()], "s390x has no persistent memory"),
        (
            Hardware(memory_bytes=2 * GIB, node_bytes=(GIB, GIB), arch="aarch64"),
            [plug()],
            "needs a machine of one node",
        ),
    ],
)
def test_what_a_guest_cannot_have_is_refused_before_the_boot(hardware, plugs, rule):
    with pytest.raises(InputError, match=rule):
        with_pmem(hardware, plugs)


CXL = {"address": 0x110000000, "node": 1}
Q35 = Hardware(memory_bytes=GIB, node_bytes=(GIB, 0), machine="q35")


def test_cxl_memory_has_a_window_and_the_node_without_memory():
    hardware = with_dax_memory(Q35, [plug(dax=None, **CXL)])
    assert hardware.node_bytes == (GIB,)
    assert hardware.cxl == (CxlMemory("dax0.0", 0x110000000, 512 * MIB),)
    line = " ".join(arguments(hardware))
    assert "-cpu max,-hypervisor" in line
    assert f"cxl-fmw.0.size={512 * MIB}" in line


def test_cxl_devices_are_ordered_by_address_as_their_nodes_are():
    two = replace(Q35, node_bytes=(GIB, 0, 0))
    plugs = [
        plug(id_="b", dax="cxl", address=0x130000000, node=2),
        plug(id_="a", dax="cxl", **CXL),
        plug(id_="b", dax="cxl", address=0x130000000, node=2),
    ]
    hardware = with_dax_memory(two, plugs)
    assert [(each.name, each.address) for each in hardware.cxl] == [
        ("a", 0x110000000),
        ("b", 0x130000000),
    ]
    assert "cxl-fmw.1.size=" in " ".join(arguments(hardware))


def test_a_device_of_persistent_memory_that_is_bound_twice_has_one_range():
    twice = [plug(), plug(memmap_on_memory=True)]
    hardware = with_dax_memory(Hardware(memory_bytes=GIB), twice)
    assert [each.name for each in hardware.pmem] == [twice[0].id]


@pytest.mark.parametrize(
    ("hardware", "plugs", "rule"),
    [
        (Q35, [plug(dax="hmem")], "dax 'hmem': need 'pmem' or 'cxl'"),
        (Q35, [plug(), plug(id_="b", dax="cxl")], "CXL memory or PMEM"),
        (Q35, [plug(dax="cxl", address=0x110000000)], "node 0: need 1"),
        (Q35, [plug(dax="cxl", size=128 * MIB, **CXL)], "need a multiple of 0x10000000"),
        (Hardware(memory_bytes=GIB), [plug(dax="cxl", **CXL)], "platform 'q35'"),
        (Q35, [plug(dax="cxl", **CXL), plug(id_="b", dax="cxl", **CXL)], "node 1: need 2"),
        (Q35, [plug(dax="cxl", **CXL), plug(dax="cxl", address=GIB, node=1)], "first plug"),
        (replace(Q35, node_bytes=(GIB, 0, 0)), [plug(dax="cxl", **CXL)], "the last 1, not 2"),
    ],
)
def test_cxl_memory_that_a_guest_cannot_have_is_refused(hardware, plugs, rule):
    with pytest.raises(InputError, match=rule):
        with_dax_memory(hardware, plugs)


def test_dimms_and_persistent_memory_exclude_each_other_where_dimms_back_it():
    dimm = Plug(id="d", size=Size(GIB))
    scenario = Scenario(name="both", machine=Machine(), steps=(plug(), dimm))
    with pytest.raises(InputError, match="kmem beside dimm"):
        check_steps(scenario, with_pmem(Hardware(memory_bytes=GIB), [plug()]))


def test_a_guest_has_the_modules_at_hand():
    scenario = Scenario(name="one", machine=Machine(), steps=(plug(),))
    assert modules_of(scenario) == PMEM_MODULES


# --- the device tree -------------------------------------------------------------------------


def tree(*tokens, strings=b"a\0"):
    """Return a tree whose strings lie before its structure, with one memory reservation."""
    reserved = struct.pack(">4Q", 0x1000, 0x2000, 0, 0)
    structure = b"".join(tokens)
    at_strings = 40 + len(reserved)
    at_structure = at_strings + len(strings) + -len(strings) % 4
    total = at_structure + len(structure)
    head = (0xD00DFEED, total, at_structure, at_strings, 40, 17, 16, 0)
    header = struct.pack(">10I", *head, len(strings), len(structure))
    return header + reserved + strings + bytes(-len(strings) % 4) + structure


ROOT = struct.pack(">2I", 1, 0)
END = struct.pack(">2I", 2, 9)
A = struct.pack(">3I", 3, 4, 0) + b"wxyz"


def walked(blob):
    """Return reservations and nodes of a tree, read as the specification has it."""
    _, total, at, at_strings, at_reserved, *_ = struct.unpack_from(">10I", blob)
    assert total == len(blob)
    reserved = []
    while any(pair := struct.unpack_from(">2Q", blob, at_reserved)):
        reserved.append(pair)
        at_reserved += 16
    path, nodes = [], {}
    while (token := struct.unpack_from(">I", blob, at)[0]) != 9:
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            nodes["/".join(path)] = {}
            at = end + 1 + -(end + 1) % 4
        elif token == 2:
            path.pop()
        else:
            assert token == 3
            size, name = struct.unpack_from(">2I", blob, at)
            key = blob[at_strings + name : blob.index(b"\0", at_strings + name)].decode()
            nodes["/".join(path)][key] = blob[at + 8 : at + 8 + size]
            at += 8 + size + -size % 4
    assert not path
    return reserved, nodes


def test_a_node_is_added_at_the_end_of_the_root():
    before = tree(ROOT, A, END)
    reg = cells_of(0xD0000000, 0x28000000)
    after = with_node(
        before, "pmem@d0000000", {"compatible": b"pmem-region\0", "reg": reg, "v": b""}
    )
    reserved, nodes = walked(after)
    assert reserved == [(0x1000, 0x2000)]
    assert nodes == {
        "": {"a": b"wxyz"},
        "/pmem@d0000000": {"compatible": b"pmem-region\0", "reg": reg, "v": b""},
    }
    assert struct.unpack(">4I", reg) == (0, 0xD0000000, 0, 0x28000000)
    assert list(walked(with_node(after, "pmem@e", {}))[1]) == ["", "/pmem@d0000000", "/pmem@e"]


@pytest.mark.parametrize("blob", [b"", b"\0" * 40, tree(ROOT, A), tree(ROOT, A, END)[:-4]])
def test_what_is_no_device_tree_is_an_error(blob):
    with pytest.raises(LabError, match="device tree"):
        with_node(blob, "x", {})


# --- dax devices -----------------------------------------------------------------------------

KMEM = "/sys/bus/dax/drivers/kmem"
DEVICE = "/sys/bus/dax/devices/dax0.0"
WORDS = {errno.EPERM: "Operation not permitted", errno.EBUSY: "Device or resource busy"}


class Guest:
    """A guest that has some files, refuses some writes, and binds what it is told to."""

    hypervisor = None
    hardware = Hardware()

    def __init__(self, *files, refused=None, binds=True, keeps=()):
        self.files, self.refused, self.binds = set(files), refused or {}, binds
        self.blocks, self.wrote = {*keeps}, []

    def run(self, command, limit_seconds=None):
        if command.startswith("cat ") and "block_size" in command:
            return CommandResult(0, b"8000000\n")
        if test := re.fullmatch(r"test -[de] (\S+)", command):
            there = test[1] in self.files or test[1].rpartition("memory")[2] in self.blocks
            return CommandResult(0 if there else 1, b"")
        if write := re.fullmatch(r"timeout .* sh -c 'echo (\S+) >(\S+)'", command):
            return self.write(write[2], write[1])
        return CommandResult(0, b"")

    def write(self, path, word):
        self.wrote.append((path.rpartition("/")[2], word))
        if number := self.refused.get(path):
            return CommandResult(1, f"sh: write error: {WORDS[number]}\n".encode())
        if path in (f"{KMEM}/new_id", f"{KMEM}/bind") and self.binds:
            self.files.add(f"{KMEM}/{word}")
        if path == f"{KMEM}/unbind":
            self.files.discard(f"{KMEM}/{word}")
        return CommandResult(0, b"")


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    monkeypatch.setattr(kmem, "load_module", lambda *_: None)


def devices(guest):
    dax = DaxDevices(guest, {"mine": "dax0.0"})
    return GuestDevices(guest, GuestBlocks(guest), None, dax)


def test_a_plug_sets_the_flag_and_binds():
    guest = Guest(f"{DEVICE}/memmap_on_memory")
    of = devices(guest)
    assert of.plug(plug(id_="mine", memmap_on_memory=True))
    assert guest.wrote == [("memmap_on_memory", "1"), ("new_id", "dax0.0")]
    assert of.blocks_of("mine") == [33, 34, 35, 36]


def test_the_blocks_of_a_device_are_the_whole_ones():
    of = devices(Guest())
    assert of.plug(plug(address=AT + 2 * MIB, id_="mine"))
    assert of.blocks_of("mine") == [34, 35, 36]


def test_a_kernel_without_the_file_has_no_flag():
    outcome = devices(Guest()).plug(plug(id_="mine", memmap_on_memory=True))
    assert outcome.errno == "ENOENT"


def test_a_device_that_the_driver_refuses_has_the_errno_of_bind():
    guest = Guest(binds=False, refused={f"{KMEM}/bind": errno.EBUSY})
    assert devices(guest).plug(plug(id_="mine")).errno == "EBUSY"


def test_a_device_is_taken_back_by_its_state_and_then_unbound():
    guest = Guest(f"{DEVICE}/state")
    of = devices(guest)
    of.plug(plug(id_="mine"))
    assert of.unplug(Unplug(id="mine"))
    assert guest.wrote[1:] == [("state", "unplugged"), ("unbind", "dax0.0")]
    with pytest.raises(InputError, match="no such device"):
        of.unplug(Unplug(id="mine"))


def test_a_state_that_the_kernel_refuses_leaves_the_device_bound():
    guest = Guest(f"{DEVICE}/state", refused={f"{DEVICE}/state": errno.EPERM})
    of = devices(guest)
    of.plug(plug(id_="mine"))
    assert of.unplug(Unplug(id="mine")).errno == "EPERM"
    assert ("unbind", "dax0.0") not in guest.wrote
    assert of.blocks_of("mine")


def test_memory_that_stays_after_unbinding_is_a_refusal():
    of = devices(Guest(keeps={"36"}))
    of.plug(plug(id_="mine"))
    assert of.unplug(Unplug(id="mine")).errno == "EBUSY"


def test_the_state_takes_the_blocks_and_gives_them_back():
    of = devices(Guest(f"{DEVICE}/state"))
    of.plug(plug(id_="mine"))
    assert of.write_dax_state("mine", "unplugged")
    with pytest.raises(InputError, match="no such device"):
        of.blocks_of("mine")
    assert of.write_dax_state("mine", "online_movable")
    assert of.blocks_of("mine") == [33, 34, 35, 36]
    assert of.write_dax_state("other", "online").errno == "ENOENT"


def test_a_device_in_state_unplugged_is_bound_anew_by_a_plug():
    guest = Guest(f"{DEVICE}/state")
    of = devices(guest)
    of.plug(plug(id_="mine"))
    of.write_dax_state("mine", "unplugged")
    assert of.plug(plug(id_="mine"))
    assert guest.wrote[-2:] == [("unbind", "dax0.0"), ("new_id", "dax0.0")]


@pytest.mark.parametrize(
    ("file", "device"),
    [
        ("/sys/bus/dax/devices/dax0.0/state", "dax0.0"),
        ("/sys/devices/system/memory/memory1/state", None),
    ],
)
def test_a_write_tells_whose_state_it_is(file, device):
    assert Write(file=file, word="online").dax_device == device
