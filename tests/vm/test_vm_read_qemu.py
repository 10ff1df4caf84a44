"""QEMU's command lines as shells, scripts, ps, libvirt and files write them.

Expected values follow QEMU's documentation of its options (qemu-options.hx, docs/system).
"""

import json

import pytest

from altmap.errors import InputError
from altmap.vm.readers import read_definition, read_definitions

MIB, GIB = 1 << 20, 1 << 30


def read(text, machine=None):
    return read_definition(text.encode(), "guest.sh", machine)


def devices(made):
    return [(each.kind, each.name, each.size_bytes, each.node) for each in made.devices]


def test_a_shell_line_with_slots_grows_by_dimms():
    made = read("sudo /usr/bin/qemu-system-x86_64 -M q35 -m 4096,slots=8,maxmem=64G -smp 4 -S\n")
    assert (made.memory_bytes, made.max_memory_bytes, made.slots) == (4 * GIB, 64 * GIB, 8)
    assert (made.arch, made.arch_given, made.machine, made.cpus) == ("x86_64", True, "q35", 4)
    assert made.growth == ("dimm", "virtio-mem")
    assert made.balloon.present is False


def test_a_script_continues_lines_quotes_and_sets_variables():
    made = read(
        "#!/bin/sh\nMEM=2G\nOPTS='-smp 2 -nographic'\nexec qemu-system-aarch64 \\\n"
        "  -machine virt,acpi=on \\\n  -m size=${MEM},slots=2,maxmem=${MAX:-8G} \\\n"
        '  -kernel Image -append "console=ttyAMA0 memhp_default_state=online_movable" $OPTS\n'
    )
    assert (made.memory_bytes, made.max_memory_bytes, made.cpus) == (2 * GIB, 8 * GIB, 2)
    assert (made.arch, made.machine, made.acpi) == ("aarch64", "virt", True)
    assert made.cmdline == "console=ttyAMA0 memhp_default_state=online_movable"
    assert made.kernel == "Image"
    assert made.written["memory_bytes"].line == 6


def test_what_ps_prints_has_json_without_quotes_and_parameters_without_any():
    made = read(
        "root  4711  1.0 /usr/bin/qemu-system-x86_64 -name guest=web1,debug-threads=on -machine "
        "pc,memory-backend=ram -m size=4194304k,maxmem=16777216k -object "
        '{"qom-type":"memory-backend-ram","id":"ram","size":4294967296} -object '
        '{"qom-type":"memory-backend-memfd","id":"vm","size":8589934592,"share":true} -device '
        '{"driver":"virtio-mem-pci","memdev":"vm","id":"vm0","requested-size":1073741824,'
        '"block-size":2097152,"memaddr":5368709120,"node":0} -append console=ttyS0 quiet '
        "-device virtio-balloon-pci,free-page-reporting=on\n"
    )
    assert (made.name, made.memory_bytes, made.cmdline) == ("web1", 4 * GIB, "console=ttyS0 quiet")
    assert devices(made) == [("virtio-mem", "vm0", 8 * GIB, 0)]
    (device,) = made.devices
    assert (device.requested_bytes, device.block_bytes, device.address) == (GIB, 2 * MIB, 5 * GIB)
    assert (device.backing.source, device.backing.shared) == ("memfd", True)
    assert (made.balloon.present, made.balloon.free_page_reporting) == (True, True)
    assert made.growth == ("virtio-mem",)


def test_arguments_between_zero_bytes_are_a_command():
    words = ["qemu-system-x86_64", "-m", "1G", "-append", "a b 'c'", "-kernel", "k"]
    made = read_definition("\0".join(words).encode() + b"\0", "cmdline")
    assert (made.memory_bytes, made.cmdline) == (GIB, "a b 'c'")


def test_options_alone_are_a_definition():
    made = read("# web\n-machine q35\n-m 2G\n-smp sockets=2,cores=3,threads=2\n")
    assert (made.memory_bytes, made.cpus, made.arch_given) == (2 * GIB, 12, False)


def test_nodes_have_their_backends_or_their_sizes():
    made = read(
        "qemu-system-x86_64 -m 3G -object memory-backend-ram,id=a,size=2G,prealloc=on "
        "-object memory-backend-ram,id=b,size=1G -numa node,nodeid=1,memdev=b,cpus=2 "
        "-numa node,nodeid=0,cpus=0-1,cpus=3,memdev=a -cpu host,host-phys-bits-limit=40"
    )
    assert [(each.number, each.memory_bytes, each.cpus) for each in made.nodes] == [
        (0, 2 * GIB, 3),
        (1, GIB, 1),
    ]
    assert made.max_phys_bits == 40
    old = read("qemu-system-x86_64 -m 1G -numa node,mem=768 -numa node,mem=256M")
    assert [each.memory_bytes for each in old.nodes] == [768 * MIB, 256 * MIB]


def test_dimms_nvdimms_and_globals():
    made = read(
        "qemu-system-x86_64 -M q35,nvdimm=on,max-ram-below-4g=2G -m 1G,slots=4,maxmem=8G "
        "-object memory-backend-file,id=n,size=1G,mem-path=/n,share -object "
        "memory-backend-file,id=d,size=512M,mem-path=/dev/hugepages,prealloc "
        "-object memory-backend-ram,id=v,size=1G -global virtio-mem-pci.block-size=4M "
        "-global driver=virtio-mem,property=requested-size,value=512M -overcommit mem-lock=on "
        "-device nvdimm,id=nv,memdev=n,label-size=128k "
        "-device pc-dimm,memdev=d,id=dd,addr=0x100000000 "
        "-device virtio-mem-pci,memdev=v,id=vv -device cxl-type3,id=c"
    )
    nvdimm, dimm, mem = made.devices
    assert (nvdimm.kind, nvdimm.label_bytes, nvdimm.backing.shared) == ("nvdimm", 128 << 10, True)
    assert (dimm.address, dimm.backing.prealloc) == (4 * GIB, True)
    assert (dimm.backing.source, dimm.backing.hugepage_bytes) == ("hugetlbfs", 0)
    assert (mem.block_bytes, mem.requested_bytes) == (4 * MIB, 512 * MIB)
    assert (made.pci_hole_bytes, made.backing.locked) == (2 * GIB, True)
    assert [each.value for each in made.unread] == ["-device cxl-type3"]


def test_a_file_for_readconfig_is_read_and_one_that_is_referred_to_is_named():
    made = read(
        '# guest\n[machine]\n  type = "q35"\n[memory]\n  size = "2G"  # CHANGE ME\n  slots = "2"\n'
        '  maxmem = "4G"\n[object "m"]\n  qom-type = "memory-backend-ram"\n  size = "1G"\n'
        '[device "d"]\n  driver = "pc-dimm"\n  memdev = "m"\n[smp-opts]\n  cpus = "2"\n'
    )
    assert (made.memory_bytes, made.max_memory_bytes, made.cpus) == (2 * GIB, 4 * GIB, 2)
    assert devices(made) == [("dimm", "d", GIB, None)]
    named = read("qemu-system-x86_64 -m 1G -readconfig more.cfg")
    assert [each.value for each in named.unread] == ["-readconfig more.cfg"]


def test_without_a_size_qemu_takes_its_default_and_a_note_says_so():
    made = read("qemu-system-ppc64 -machine pseries -nographic")
    assert (made.memory_bytes, made.arch) == (512 * MIB, "ppc64le")
    assert [each.value for each in made.unread] == ["-m"]
    assert read("qemu-system-x86_64 -nographic").memory_bytes == 128 * MIB


def test_one_of_several_machines_is_chosen_by_its_name():
    text = "qemu-system-x86_64 -name a -m 1G\nqemu-system-x86_64 -name guest=b -m 2G\n"
    assert read(text, "b").memory_bytes == 2 * GIB
    with pytest.raises(InputError, match=r"defines 2 machines: need the name of one, of a, b"):
        read(text)
    with pytest.raises(InputError, match=r"machine 'c': need one of the file's: a, b"):
        read(text, "c")


@pytest.mark.parametrize(
    ("size", "nr_bytes"),
    [("1.5G", 1536 * MIB), ("1024", GIB), ("0x10", 16 * MIB), ("1g", GIB), ("1048576k", GIB)],
)
def test_sizes_are_qemus(size, nr_bytes):
    assert read(f"qemu-system-x86_64 -m {size}").memory_bytes == nr_bytes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("qemu-system-x86_64 -m 4GB", "line 1: -m: '4GB'"),
        ("qemu-system-x86_64 -m -4", "'-4': need a size"),
        ("qemu-system-x86_64 -m 16E", "need 4 PiB at most"),
        (
            "\nqemu-system-x86_64 -m 1G -device pc-dimm,memdev=m",
            "line 2: -device pc-dimm: memdev=m",
        ),
        ("qemu-system-x86_64 -m 1G -object '{\"id\":'", "is no JSON object"),
        ("install qemu-system-x86 and read its manual", "is of no format that is read"),
    ],
)
def test_what_qemu_would_not_take_is_refused_in_one_line(text, says):
    with pytest.raises(InputError) as refused:
        read(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


# --- query-memory-devices --------------------------------------------------------------------


def answer(kind, **data):
    return {"type": kind, "data": {"hotpluggable": True, "memdev": "/objects/m", **data}}


DIMM = answer("dimm", id="d1", addr=4 * GIB, slot=0, node=0, size=GIB, hotplugged=True)
MEM = answer(
    "virtio-mem",
    **{"id": "vm0", "memaddr": 8 * GIB, "node": 1, "size": GIB, "max-size": 8 * GIB},
    **{"requested-size": 2 * GIB, "block-size": 2 * MIB},
)
NVDIMM = answer("nvdimm", addr=GIB, slot=1, node=0, size=2 * GIB, hotplugged=False)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (json.dumps({"return": [DIMM, MEM], "id": "libvirt-9"}), ["dimm", "virtio-mem"]),
        (json.dumps([NVDIMM]), ["nvdimm"]),
        (json.dumps({"return": [DIMM, NVDIMM]}, indent=2), ["dimm", "nvdimm"]),
        (json.dumps([MEM]), ["virtio-mem"]),
        (json.dumps([answer("virtio-pmem", memaddr=GIB, size=GIB, id="p")]), ["virtio-pmem"]),
    ],
)
def test_answers_to_query_memory_devices_are_read(text, kinds):
    made = read(text)
    assert [each.kind for each in made.devices] == kinds
    assert (made.memory_bytes, len(made.unread)) == (0, 1)


def test_what_a_device_has_is_what_the_answer_says_and_a_summary_gives_the_boot_memory():
    summary = {"return": {"base-memory": 4 * GIB, "plugged-memory": 3 * GIB}}
    made = read(json.dumps({"return": [DIMM, MEM]}) + "\n" + json.dumps(summary) + "\n")
    dimm, mem = made.devices
    assert (dimm.name, dimm.address, dimm.size_bytes, dimm.hotplugged) == ("d1", 4 * GIB, GIB, True)
    assert (mem.size_bytes, mem.requested_bytes, mem.plugged_bytes) == (8 * GIB, 2 * GIB, GIB)
    assert (mem.node, mem.address, mem.block_bytes) == (1, 8 * GIB, 2 * MIB)
    assert (made.memory_bytes, made.growth, made.unread) == (4 * GIB, ("virtio-mem",), ())


def test_devices_of_a_file_may_be_many_but_not_without_bound():
    made = "qemu-system-x86_64 -m 1G -object memory-backend-ram,id=m,size=1G"
    assert len(read(made + " -device pc-dimm,memdev=m" * 300).devices) == 300
    with pytest.raises(InputError, match="need at most 10000"):
        read_definitions((made + " -device pc-dimm,memdev=m" * 10_001).encode(), "many")


def test_two_commas_are_one_and_exported_variables_are_known():
    made = read("export MEM=2G\nqemu-system-x86_64 -name guest=a,,b -m $MEM\n")
    assert (made.name, made.memory_bytes) == ("a,b", 2 * GIB)


@pytest.mark.parametrize(
    "after", ["> log 2>&1 &", ">>log", "3<>/dev/tap0", "2> /dev/null; echo -m 9G", "&> log"]
)
def test_a_redirection_is_no_word_of_a_command(after):
    made = read(f"qemu-system-x86_64 -smp 2 -m 2G {after}\n")
    assert (made.memory_bytes, made.cpus) == (2 * GIB, 2)
    assert not made.unread
