"""A definition with a guest's kernel as a scenario's machine, devices at boot placed as QEMU does.

What the model has no map for is modelled by the nearest one, with a note that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from altmap.errors import InputError
from altmap.model.arch import Arch, arch_with_pages
from altmap.model.boot.costs import costs_of
from altmap.model.drivers.virtio_mem_device import DEFAULT_BLOCK_BYTES
from altmap.model.machine import ModelMachine
from altmap.model.platform.qemu import DimmSpace, dimm_space, place_dimm
from altmap.scenario import Address, Device, Machine, Node, Size
from altmap.units import format_size
from altmap.vm.definition import DefinedDevice, Definition
from altmap.vm.kernel import GuestKernel

__all__ = ("GuestMachine", "dimm_align_bytes", "guest_machine", "virtio_mem_block_bytes")

_MIB, _GIB = 1 << 20, 1 << 30
#: Boot memory is modelled in such units (:mod:`altmap.model.boot.layout`).
_UNIT_BYTES = 2 * _MIB
#: Hypervisors whose firmware lists addresses for memory devices.
_TELL_ROOM = ("qemu", "vmware", "hyper-v")
#: Platforms of hypervisors whose guests are not QEMU's machines.
_PLATFORMS = {"xen": "xen-hvm"}


@dataclass(frozen=True, slots=True)
class GuestMachine:
    """A guest as a scenario's machine.

    Attributes
    ----------
    machine : Machine
        With the devices that are there at boot.
    arch : Arch
    boot_bytes : int
        Boot memory without devices.
    device_bytes : int
        What the host gives by devices at boot: sizes of DIMMs, requested sizes of virtio-mem.
    space : DimmSpace
        Where devices may lie.
    taken : tuple of (int, int)
        Address ranges of the devices at boot, NVDIMMs among them.
    notes : tuple of str
    """

    machine: Machine
    arch: Arch
    boot_bytes: int
    device_bytes: int
    space: DimmSpace
    taken: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]

    @property
    def start_bytes(self) -> int:
        """The guest's size when it has booted."""
        return self.boot_bytes + self.device_bytes


def guest_machine(definition: Definition, kernel: GuestKernel) -> GuestMachine:
    """Return the machine of a definition.

    Raises
    ------
    InputError
        If no machine has these sizes, this architecture or these nodes.
    """
    arch = arch_with_pages(definition.arch, kernel.settings.get("page_size"))
    notes = list(_map_notes(definition, arch))
    memory = definition.memory_bytes - definition.memory_bytes % _UNIT_BYTES
    if memory != definition.memory_bytes:
        notes.append(
            f"boot memory of {definition.memory_bytes:#x} bytes is modelled as "
            f"{format_size(memory)}, a multiple of {format_size(_UNIT_BYTES)}"
        )
    if not memory:
        raise InputError(f"{definition.format}: gives no boot memory; --memory says how much")
    if memory < 128 * _MIB:
        raise InputError(
            f"{definition.format}: boot memory of {definition.memory_bytes} bytes: the model needs "
            "128 MiB at least"
        )
    nodes, of_nodes = _nodes(definition, arch, memory)
    notes += of_nodes
    firmware = _firmware_bytes(definition, arch)
    keys: dict[str, Any] = {
        **kernel.settings,
        "arch": arch.name,
        "release": kernel.release,
        "memory": Size(memory + firmware),
        "max_memory": Size(_most_bytes(definition, memory) + firmware),
        "platform": _platform(definition, arch),
        "cpus": min(definition.cpus, 8192) if definition.cpus else None,
        "nodes": () if firmware else nodes,
    }
    keys.pop("page_size", None)
    if "hyperv" in definition.growth and "hyperv" not in kernel.missing:
        keys["balloon"] = "hyperv"
    bare = Machine(**keys)
    started = ModelMachine.start(bare, pages=False).kernel
    space = _device_space(arch, bare.platform, started.boot_end_address)
    devices, taken, of_devices = _placed(definition, kernel, arch, space, len(nodes))
    notes += of_devices
    size = sum(int(d.requested or 0) if d.driver == "virtio-mem" else int(d.size) for d in devices)
    if firmware:
        notes.append(f"{arch.name}: the firmware lists DIMMs that are there at boot as boot memory")
    return GuestMachine(
        bare.replace(devices=tuple(devices)),
        arch,
        memory,
        size + firmware,
        space,
        tuple(taken),
        tuple(notes),
    )


def _device_space(arch: Arch, platform: str | None, boot_end_address: int) -> DimmSpace:
    """Return where the devices that are there at boot lie."""
    other = arch.board.maps.get(platform or "")
    if other is None:
        return dimm_space(arch.board, boot_end_address)
    base = max(other.device_floor_address, boot_end_address)
    align = other.device_align_bytes
    return DimmSpace(-(-base // align) * align, arch.board.dimm_align_bytes)


def _most_bytes(definition: Definition, memory_bytes: int) -> int:
    """Return how far the firmware tells the kernel that memory may reach (ACPI's SRAT).

    cloud-hypervisor and Firecracker have no SRAT without nodes, and Xen has none of room for
    devices.
    """
    if definition.hypervisor not in _TELL_ROOM:
        return memory_bytes
    most = max(memory_bytes, definition.max_memory_bytes or 0)
    return max(most, memory_bytes + _GIB) if definition.growth_bytes else most


def virtio_mem_block_bytes(device: DefinedDevice | None) -> int:
    """Return the block size of a virtio-mem device: the file's, else QEMU's default.

    The default is the size of a transparent huge page, or of the backend's huge pages
    (``hw/virtio/virtio-mem.c: virtio_mem_default_block_size``).
    """
    if device is None:
        return DEFAULT_BLOCK_BYTES
    return device.block_bytes or max(DEFAULT_BLOCK_BYTES, device.backing.hugepage_bytes or 0)


def dimm_align_bytes(space: DimmSpace, device: DefinedDevice) -> int:
    """Return the alignment of a device's size and address: at least the backend's huge pages."""
    return max(space.align, device.backing.hugepage_bytes or 0)


def _platform(definition: Definition, arch: Arch) -> str | None:
    """Return the machine as a scenario names it: the hypervisor's, else by the machine type.

    Of several matches the last counts. Xen is left out: it stands for the first domain, which no
    definition is of.
    """
    other = _PLATFORMS.get(definition.hypervisor, definition.hypervisor)
    if other in arch.board.maps:
        return other
    named = [
        platform
        for platform in arch.board.platforms
        if platform in (definition.machine or "").lower() and platform != "xen"
    ]
    return named[-1] if named else None


def _map_notes(definition: Definition, arch: Arch) -> Iterator[str]:
    other = _PLATFORMS.get(definition.hypervisor, definition.hypervisor)
    if other != "qemu" and other not in arch.board.maps:
        yield (
            f"the memory map is QEMU's ({arch.board.platforms[0]}): that of {other} on "
            f"{arch.family} is not known"
        )
    if not costs_of(arch).measured:
        yield f"{arch.name}: what is kept at boot is estimated: no such kernel was measured"
    if definition.uefi:
        yield (
            "UEFI firmware keeps more, and is not modelled: with Debian's for QEMU (2022.11) "
            "MemTotal is 5.3 MiB lower on x86_64, 9 MiB on arm64"
        )
    if definition.pci_hole_bytes is not None:
        yield (
            f"a hole of {format_size(definition.pci_hole_bytes)} below 4 GiB is not modelled: "
            "that of the machine type is assumed"
        )


def _nodes(
    definition: Definition, arch: Arch, memory: int
) -> tuple[tuple[Node, ...], Iterator[str]]:
    """Return the NUMA nodes; none where the kernel shows none, or where there is only one."""
    if len(definition.nodes) < 2 or not arch.has_nodes:
        return (), iter(())
    sizes = [node.memory_bytes for node in sorted(definition.nodes, key=lambda each: each.number)]
    if sum(sizes) == memory and not any(size % _MIB for size in sizes):
        return tuple(Node(memory=Size(size)) for size in sizes), iter(())
    return (), iter(
        [
            f"nodes of {', '.join(map(format_size, sizes))} are not the boot memory in whole MiB: "
            "one node is modelled"
        ]
    )


def _firmware_bytes(definition: Definition, arch: Arch) -> int:
    """Return the DIMMs that the firmware lists as boot memory (ppc64: the device tree)."""
    if "dlpar" not in arch.mechanisms:
        return 0
    return sum(each.size_bytes for each in definition.devices if each.kind == "dimm")


def _placed(
    definition: Definition, kernel: GuestKernel, arch: Arch, space: DimmSpace, nr_nodes: int
) -> tuple[list[Device], list[tuple[int, int]], list[str]]:
    """Place the devices that are there at boot, in the order of the file.

    What the hypervisor refuses is left out, with a note.
    """
    made: list[Device] = []
    taken: list[tuple[int, int]] = []
    notes: list[str] = []
    for device in definition.devices:
        if device.kind in ("other", "virtio-pmem"):
            continue
        align, size = dimm_align_bytes(space, device), device.size_bytes
        if device.kind == "virtio-mem":
            align = max(align, virtio_mem_block_bytes(device))
        refused = _refused(definition, device, align)
        if refused:
            notes.append(f"{device.name}: {refused}: the hypervisor refuses it, and it is left out")
            continue
        try:
            address = place_dimm(space.aligned(align), taken, size, device.address)
        except InputError as error:
            why = str(error).removeprefix("DIMM ")
            notes.append(f"{device.name}: {why}: the hypervisor refuses it, and it is left out")
            continue
        taken.append((address, address + size))
        driver = "virtio-mem" if device.kind == "virtio-mem" else "dimm"
        if device.kind == "nvdimm":
            notes.append(
                f"{device.name}: an NVDIMM is no RAM of the guest until its driver is told to add "
                "it (daxctl reconfigure-device --mode=system-ram)"
            )
        elif driver in kernel.missing:
            notes.append(f"{device.name}: no memory of the guest: {kernel.missing[driver]}")
        elif driver == "virtio-mem" or "dlpar" not in arch.mechanisms:
            made.append(_device(device, driver, address, nr_nodes))
    return made, taken, notes


def _refused(definition: Definition, device: DefinedDevice, align: int) -> str:
    """Return why the hypervisor refuses a device, empty if it does not."""
    requested = device.requested_bytes or 0
    if device.size_bytes % align:
        return f"{format_size(device.size_bytes)} is no multiple of {format_size(align)}"
    if requested % virtio_mem_block_bytes(device):
        block = format_size(virtio_mem_block_bytes(device))
        return f"{format_size(requested)} requested are no multiple of {block}"
    if requested > device.size_bytes:
        return f"{format_size(requested)} requested are more than its size"
    known = {node.number for node in definition.nodes} or {0}
    if device.node is not None and device.node not in known:
        return f"node {device.node} does not exist"
    return ""


def _device(device: DefinedDevice, driver: str, address: int, nr_nodes: int) -> Device:
    sized = driver == "virtio-mem"
    return Device(
        id=device.name,
        driver=driver,
        address=Address(address),
        size=Size(device.size_bytes),
        node=device.node if nr_nodes and device.node is not None else 0,
        requested=Size(device.requested_bytes or 0) if sized else None,
        block=Size(virtio_mem_block_bytes(device)) if sized else None,
    )
