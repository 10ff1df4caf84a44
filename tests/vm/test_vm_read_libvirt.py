"""Domains as libvirt defines them: units, what is boot memory, what libvirt rounds and adds.

Expected sizes follow libvirt's documentation of the domain format and its own command lines for
QEMU of such domains.
"""

import pytest

from altmap.errors import InputError
from altmap.vm.readers import read_definition, read_definitions

MIB, GIB = 1 << 20, 1 << 30


def domain(body, kind="kvm", machine="pc-q35-8.2", arch="x86_64"):
    return (
        f"<domain type='{kind}'>\n<name>guest</name>\n"
        f"<os><type arch='{arch}' machine='{machine}'>hvm</type></os>\n{body}\n</domain>"
    )


def read(body, **words):
    return read_definition(domain(body, **words).encode(), "guest.xml")


DIMM = "<memory model='dimm'><target><size unit='MiB'>{}</size><node>0</node></target></memory>"


def test_a_plain_guest_has_its_memory_at_boot():
    made = read("<memory>4194304</memory><currentMemory>2097152</currentMemory><vcpu>4</vcpu>")
    assert (made.memory_bytes, made.cpus, made.machine) == (4 * GIB, 4, "pc-q35-8.2")
    assert (made.name, made.manager, made.hypervisor) == ("guest", "libvirt", "qemu")
    assert (made.max_memory_bytes, made.nodes, made.devices) == (None, (), ())
    assert (made.balloon.present, made.balloon.current_bytes) == (None, 2 * GIB)
    assert made.growth == ("balloon",)
    assert made.written["memory_bytes"].line == 4


@pytest.mark.parametrize(
    ("unit", "nr_bytes"),
    [
        ("KiB", 1 << 30),
        ("k", 1 << 30),
        ("kB", -(-(1 << 20) * 1000 // MIB) * MIB),
        ("KB", -(-(1 << 20) * 1000 // MIB) * MIB),
        ("bytes", MIB),
        ("b", MIB),
    ],
)
def test_units_are_libvirts(unit, nr_bytes):
    assert read(f"<memory unit='{unit}'>{1 << 20}</memory>").memory_bytes == nr_bytes


def test_boot_memory_is_the_sum_of_the_cells_and_devices_come_on_top():
    made = read(
        "<maxMemory slots='16' unit='GiB'>64</maxMemory><memory unit='GiB'>99</memory>"
        "<vcpu current='2'>8</vcpu><cpu><numa><cell id='1' cpus='4-7' memory='1' unit='GiB'/>"
        "<cell id='0' cpus='0-3' memory='3' unit='GiB'/></numa></cpu>"
        f"<devices>{DIMM.format(1024)}{DIMM.format(1023)}<memballoon model='none'/></devices>"
    )
    assert (made.memory_bytes, made.max_memory_bytes, made.slots) == (4 * GIB, 64 * GIB, 16)
    assert [(each.number, each.memory_bytes, each.cpus) for each in made.nodes] == [
        (0, 3 * GIB, 4),
        (1, GIB, 4),
    ]
    # Modules are rounded up to 2 MiB.
    assert [each.size_bytes for each in made.devices] == [GIB, 1024 * MIB]
    assert [each.name for each in made.devices] == ["dimm0", "dimm1"]
    assert (made.cpus, made.balloon.present) == (2, False)
    assert made.growth == ("dimm", "virtio-mem")


def test_without_cells_devices_are_part_of_the_memory_and_one_node_is_added():
    made = read(
        "<maxMemory slots='1' unit='GiB'>8</maxMemory><memory unit='GiB'>3</memory><vcpu>2</vcpu>"
        "<devices><memory model='dimm'><target><size unit='GiB'>1</size></target></memory>"
        "</devices>"
    )
    assert made.memory_bytes == 2 * GIB
    assert [(each.memory_bytes, each.cpus) for each in made.nodes] == [(2 * GIB, 2)]
    assert made.devices[0].node == 0
    assert made.growth == ("virtio-mem",)  # the only slot is taken


def test_a_virtio_mem_device_has_what_it_is_asked_to_have():
    made = read(
        "<maxMemory unit='GiB'>20</maxMemory><memory unit='GiB'>20</memory>\n"
        "<cpu><numa><cell memory='4' unit='GiB'/></numa><maxphysaddr mode='emulate' bits='42'/>"
        "</cpu><memoryBacking><source type='memfd'/><discard/></memoryBacking><devices>\n"
        "<memory model='virtio-mem'><source><pagesize unit='KiB'>2048</pagesize></source>"
        "<target dynamicMemslots='yes'><size unit='GiB'>16</size><node>0</node>"
        "<block unit='MiB'>2</block><requested unit='GiB'>2</requested>"
        "<current unit='GiB'>1</current><address base='0x150000000'/></target>"
        "<alias name='ua-vm'/></memory></devices>"
    )
    (device,) = made.devices
    assert (device.kind, device.name, device.node, device.line) == ("virtio-mem", "ua-vm", 0, 6)
    assert (device.size_bytes, device.requested_bytes, device.plugged_bytes) == (
        16 * GIB,
        2 * GIB,
        GIB,
    )
    assert (device.block_bytes, device.address) == (2 * MIB, 0x150000000)
    assert device.dynamic_memslots is True
    assert (device.backing.prealloc, device.backing.hugepage_bytes) == (True, 2 * MIB)
    assert (made.backing.source, made.backing.discard, made.max_phys_bits) == ("memfd", True, 42)
    assert made.growth == ("virtio-mem",)


def test_the_balloon_is_in_boot_memory_and_dimms_only():
    mem = (
        "<memory model='virtio-mem'><target><size unit='GiB'>8</size><node>0</node>"
        "<requested unit='GiB'>2</requested></target></memory>"
    )
    sizes = "<maxMemory slots='4' unit='GiB'>32</maxMemory><memory unit='GiB'>13</memory>"
    devices = f"<devices>{mem}{DIMM.format(1024)}</devices>"
    full = read(f"{sizes}<currentMemory unit='GiB'>13</currentMemory>{devices}")
    assert (full.memory_bytes, full.balloon.current_bytes) == (4 * GIB, 7 * GIB)
    assert "balloon" not in full.growth
    held = read(f"{sizes}<currentMemory unit='GiB'>3</currentMemory>{devices}")
    assert (held.balloon.current_bytes, "balloon" in held.growth) == (5 * GIB, True)


def test_an_nvdimm_of_ppc64_is_rounded_down_without_its_label():
    made = read(
        "<maxMemory slots='4' unit='GiB'>8</maxMemory><memory unit='MiB'>1000</memory>"
        "<cpu><numa><cell memory='1000' unit='MiB'/></numa></cpu><devices>"
        "<memory model='nvdimm'><source><path>/n</path></source><target>"
        "<size unit='KiB'>550000</size><node>0</node><label><size unit='KiB'>128</size></label>"
        "</target></memory></devices>",
        machine="pseries",
        arch="ppc64",
    )
    assert made.memory_bytes == GIB
    assert made.devices[0].size_bytes == 512 * MIB + (128 << 10)
    assert made.devices[0].label_bytes == 128 << 10


def test_a_domain_is_read_out_of_status_files_and_snapshots_once():
    inner = domain("<memory unit='GiB'>1</memory>")
    status = f"<?xml version='1.0'?>\n<domstatus state='running'><taint/>{inner}</domstatus>"
    both = f"<domainsnapshot><name>s</name>{inner}</domainsnapshot>"
    for text in (status, both):
        assert [each.memory_bytes for each in read_definitions(text.encode(), "s.xml")] == [GIB]


def test_arguments_for_qemu_add_devices_and_are_named_where_they_are_not_understood():
    made = read_definition(
        domain(
            "<memory unit='GiB'>1</memory><qemu:commandline xmlns:qemu='urn:q'>"
            "<qemu:arg value='-object'/><qemu:arg value='memory-backend-ram,id=m,size=1G'/>"
            "<qemu:arg value='-device'/><qemu:arg value='virtio-mem-pci,id=vm,memdev=m'/>"
            "<qemu:arg value='-m'/><qemu:arg value='2G'/></qemu:commandline>"
        ).encode(),
        "guest.xml",
    )
    assert [(each.name, each.size_bytes) for each in made.devices] == [("vm", GIB)]
    assert made.growth == ("virtio-mem",)
    assert [each.value for each in made.unread] == ["-m 2G"]


def test_a_xen_guest_grows_by_its_balloon():
    made = read(
        "<memory unit='MiB'>579</memory><currentMemory unit='MiB'>394</currentMemory>", kind="xen"
    )
    assert (made.memory_bytes, made.balloon.current_bytes) == (579 * MIB, 394 * MIB)
    assert (made.manager, made.hypervisor) == ("libvirt", "xen")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<network><name>default</name></network>", "its root is <network>"),
        ("<domain type='lxc'><name>c</name></domain>", "domain type 'lxc' is not supported"),
        (domain(""), "need more than the 0 bytes"),
        (domain("<memory unit='parsecs'>4</memory>"), "line 4: <memory>: unit 'parsecs'"),
        (domain("<memory>-4</memory>"), "line 4: <memory>: '-4': need a whole number"),
        (domain("<memory unit='EiB'>16</memory>"), "need 4 PiB at most"),
        (
            domain(f"<memory unit='GiB'>1</memory><devices>{DIMM.format(1024)}</devices>"),
            "need more",
        ),
        ("<domain type='kvm'", "is no XML"),
    ],
)
def test_what_is_no_domain_is_refused_in_one_line(text, says):
    with pytest.raises(InputError) as refused:
        read_definition(text.encode(), "guest.xml")
    assert says in str(refused.value)
    assert str(refused.value).startswith("guest.xml: ")
    assert "\n" not in str(refused.value)


def test_boot_memory_is_rounded_up_to_mib_and_the_first_node_has_the_other_cpus():
    assert read("<memory>1048577</memory>").memory_bytes == GIB + MIB
    made = read(
        "<vcpu>8</vcpu><cpu><numa><cell cpus='0' memory='1048576'/>"
        "<cell cpus='1-4' memory='1048576'/></numa></cpu>"
    )
    assert [each.cpus for each in made.nodes] == [4, 4]


def test_a_device_of_a_file_is_not_in_the_guests_huge_pages():
    made = read(
        "<memory unit='GiB'>4</memory>"
        "<memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>"
        "<devices><memory model='nvdimm'><source><path>/n</path></source><target>"
        "<size unit='MiB'>512</size><node>0</node></target></memory></devices>"
    )
    assert made.backing.hugepage_bytes == GIB
    assert made.devices[0].backing.hugepage_bytes is None
