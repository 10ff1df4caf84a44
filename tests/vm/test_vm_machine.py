"""Definitions as scenarios' machines: sizes, machine types, nodes, devices at boot."""

from dataclasses import replace

import pytest
from definitions import GIB, MIB, qemu, with_virtio_mem

from altmap.errors import InputError
from altmap.vm.answers import boot_state, started
from altmap.vm.definition import DefinedDevice, DefinedNode, HostBacking
from altmap.vm.machine import virtio_mem_block_bytes


def at_boot(definition, **keys):
    return started(definition, **keys).machine


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("pc-q35-8.2", "q35"),
        ("q35", "q35"),
        ("pc-i440fx-7.2", "pc"),
        ("pc", "pc"),
        (None, None),
        ("pc-q35-rhel9.2.0", "q35"),
    ],
)
def test_the_machine_type_decides_the_memory_map(machine, platform):
    assert at_boot(qemu(machine=machine)).machine.platform == platform


@pytest.mark.parametrize(("machine", "low"), [("pc", 3 * GIB), ("q35", 2 * GIB)])
def test_memory_of_4_gib_is_split_below_4_gib(machine, low):
    zones = boot_state(started(qemu(machine=machine))).zones
    normal = sum(zone.present_bytes for zone in zones if zone.name == "Normal")
    assert normal == 4 * GIB - low


@pytest.mark.parametrize(
    ("memory", "block"), [(61 * GIB, 128 * MIB), (62 * GIB, 2 * GIB), (63 * GIB, GIB)]
)
def test_memory_blocks_follow_the_end_of_boot_memory(memory, block):
    """arch/x86/mm/init_64.c: probe_memory_block_size; Q35's memory ends 2 GiB above its size."""
    assert started(qemu(memory, max_memory_bytes=256 * GIB)).block_bytes == block


def test_devices_at_boot_are_placed_one_after_the_other_from_the_first_gib_on():
    devices = (
        DefinedDevice("dimm", 512 * MIB, "d0"),
        DefinedDevice("dimm", GIB, "d1"),
        DefinedDevice("virtio-mem", 4 * GIB, "vm0", requested_bytes=GIB, block_bytes=GIB),
    )
    made = at_boot(qemu(devices=devices))
    first = 6 * GIB  # Q35 splits 4 GiB at 2 GiB
    assert [int(each.address) for each in made.machine.devices] == [
        first,
        first + 512 * MIB,
        first + 2 * GIB,
    ]
    assert made.start_bytes == 4 * GIB + 512 * MIB + GIB + GIB


def test_an_nvdimm_takes_addresses_and_is_no_ram():
    devices = (DefinedDevice("nvdimm", GIB, "nv0"), DefinedDevice("dimm", GIB, "d0"))
    made = at_boot(qemu(devices=devices))
    (dimm,) = made.machine.devices
    assert int(dimm.address) == 7 * GIB
    assert made.start_bytes == 5 * GIB
    assert any("NVDIMM is no RAM" in note for note in made.notes)


def test_a_device_in_large_pages_is_aligned_to_them():
    backing = HostBacking(hugepage_bytes=GIB)
    devices = (
        DefinedDevice("dimm", 512 * MIB, "d0"),
        DefinedDevice("dimm", GIB, "d1", backing=backing),
        DefinedDevice("dimm", 512 * MIB, "d2", backing=backing),
    )
    made = at_boot(qemu(devices=devices))
    assert [int(each.address) for each in made.machine.devices] == [6 * GIB, 7 * GIB]
    assert any(note.startswith("d2: 512 MiB is no multiple of 1 GiB") for note in made.notes)


def test_a_virtio_mem_block_is_at_least_a_huge_page_of_the_host():
    plain = DefinedDevice("virtio-mem", GIB, "vm0")
    huge = replace(plain, backing=HostBacking(hugepage_bytes=GIB))
    sizes = [virtio_mem_block_bytes(each) for each in (None, plain, huge)]
    assert sizes == [2 * MIB, 2 * MIB, GIB]


def test_nodes_have_their_memory():
    nodes = (DefinedNode(0, GIB), DefinedNode(1, 3 * GIB), DefinedNode(2, 0))
    state = boot_state(started(qemu(nodes=nodes)))
    of_node = {
        node: sum(zone.present_bytes for zone in state.zones if zone.node == node)
        for node in state.nodes
    }
    assert of_node[2] == 0
    assert 3 * GIB - MIB < of_node[1] <= 3 * GIB


def test_firmware_lists_dimms_of_ppc64_as_boot_memory():
    device = DefinedDevice("dimm", GIB, "d0")
    made = at_boot(qemu(arch="ppc64le", machine="pseries", devices=(device,)))
    assert made.machine.devices == ()
    assert made.machine.memory == 5 * GIB
    assert made.start_bytes == 5 * GIB


def test_a_page_size_of_the_configuration_chooses_the_architecture():
    config = "CONFIG_MEMORY_HOTPLUG=y\nCONFIG_ARM64_64K_PAGES=y\nCONFIG_VIRTIO_MEM=m\n"
    made = at_boot(qemu(arch="aarch64", machine="virt"), config=config)
    assert made.arch.name == "aarch64-64k"


def of_another(hypervisor, memory=8 * GIB, **keys):
    return replace(qemu(memory, machine=None, **keys), hypervisor=hypervisor, manager=hypervisor)


@pytest.mark.parametrize(
    ("hypervisor", "normal"),
    [
        ("cloud-hypervisor", 5 * GIB),
        ("firecracker", 5 * GIB),
        ("vmware", 5 * GIB),
        ("hyper-v", 8 * GIB - 3968 * MIB),
        ("xen", 8 * GIB - 3840 * MIB),
    ],
)
def test_the_map_of_another_hypervisor_decides_zones(hypervisor, normal):
    made = started(of_another(hypervisor))
    assert not made.machine.notes
    zones = {zone.name: zone.present_bytes for zone in boot_state(made).zones}
    assert zones["Normal"] == normal


@pytest.mark.parametrize(
    ("hypervisor", "ram"),
    [
        ("cloud-hypervisor", [(GIB, 0xFC000000), (4 * GIB, 9 * GIB + 64 * MIB)]),
        ("firecracker", [(2 * GIB + 2 * MIB, 10 * GIB)]),
    ],
)
def test_on_arm64_ram_starts_where_the_hypervisor_puts_it(hypervisor, ram):
    made = started(of_another(hypervisor, arch="aarch64"))
    lines = [(each.start, each.end) for each in made.booted.observe().iomem]
    assert lines == ram


@pytest.mark.parametrize(
    ("hypervisor", "address"), [("cloud-hypervisor", 4 * GIB), ("firecracker", 512 * GIB)]
)
def test_devices_lie_where_the_hypervisor_adds_memory(hypervisor, address):
    device = DefinedDevice("virtio-mem", GIB, "vm0", requested_bytes=0)
    made = at_boot(of_another(hypervisor, 2 * GIB, devices=(device,)))
    assert int(made.machine.devices[0].address) == address


def test_a_map_that_is_not_known_is_said_to_be_assumed():
    assert (
        "that of vmware on aarch64 is not known"
        in at_boot(of_another("vmware", arch="aarch64")).notes[0]
    )
    assert not at_boot(qemu()).notes


def test_an_estimate_is_said_to_be_one():
    config = "CONFIG_ARM64_64K_PAGES=y\nCONFIG_MEMORY_HOTPLUG=y\n"
    assert "no such kernel was measured" in at_boot(qemu(arch="aarch64"), config=config).notes[0]


def test_free_memory_that_no_memmap_gets_is_named():
    (note,) = at_boot(qemu(arch="aarch64")).notes
    assert note.startswith("64 MiB of the free memory are CMA")


def test_boot_memory_below_128_mib_is_refused():
    with pytest.raises(InputError, match="128 MiB at least"):
        started(qemu(64 * MIB))


def test_a_balloon_below_the_memory_is_a_loss_of_it():
    from altmap.vm.definition import DefinedBalloon

    full = boot_state(started(qemu(balloon=DefinedBalloon(True, 4 * GIB))))
    half = boot_state(started(qemu(balloon=DefinedBalloon(True, 3 * GIB))))
    none = boot_state(started(qemu(balloon=DefinedBalloon(False, 3 * GIB))))
    assert (GIB, "in the balloon, once it is inflated") in half.losses
    assert full.losses == none.losses
    assert len(half.losses) == len(full.losses) + 1


def test_what_is_not_in_mem_total_has_causes_that_add_up():
    state = boot_state(started(with_virtio_mem(qemu(), requested=GIB), release="6.12"))
    assert state.set_bytes == 5 * GIB
    assert state.mem_total_bytes + sum(size for size, _ in state.losses) == state.set_bytes


@pytest.mark.parametrize(
    ("keys", "most"),
    [
        ({}, GIB),
        ({"max_memory_bytes": 8 * GIB}, 8 * GIB),
        ({"max_memory_bytes": 8 * GIB, "hypervisor": "cloud-hypervisor"}, GIB),
        ({"max_memory_bytes": 8 * GIB, "hypervisor": "firecracker"}, GIB),
    ],
)
def test_room_for_devices_is_what_the_firmware_lists(keys, most):
    """ACPI's SRAT: the kernel has bounce buffers if it lists addresses above 4 GiB."""
    given = {"max_memory_bytes": None, **keys}
    made = at_boot(replace(qemu(GIB), **given))
    assert made.machine.max_memory == most


def test_what_boot_keeps_is_said_by_cause():
    state = boot_state(started(qemu(GIB, max_memory_bytes=8 * GIB, cmdline="crashkernel=64M")))
    losses = {cause: size for size, cause in state.losses}
    assert losses["crashkernel="] == 64 * MIB
    assert losses["bounce buffers (swiotlb)"] == 64 * MIB + (768 << 10)
    assert state.set_bytes - sum(losses.values()) == state.mem_total_bytes


def test_a_device_that_has_no_place_is_left_out_with_a_note():
    device = DefinedDevice("dimm", GIB, "d0", address=GIB)
    (note,) = at_boot(qemu(devices=(device,))).notes
    assert note.startswith("d0: address 0x40000000: device memory starts at")


def test_a_machine_of_s390x_has_no_dimms():
    assert "no DIMMs" in started(qemu(arch="s390x", acpi=False)).kernel.missing["dimm"]


def test_what_uefi_firmware_keeps_is_named():
    (note,) = at_boot(qemu(uefi=True)).notes
    assert note.startswith("UEFI firmware keeps more")
