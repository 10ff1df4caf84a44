"""A virtual machine as its definition says it: memory, nodes, devices, and how it may grow.

A definition is what a file of a hypervisor says, in one form for all of them. Nothing here knows a
guest kernel, and nothing is filled in: what a file does not say is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = (
    "DefinedBalloon",
    "DefinedDevice",
    "DefinedNode",
    "Definition",
    "DeviceKind",
    "Growth",
    "HostBacking",
    "Hypervisor",
    "Manager",
    "Unread",
    "Written",
)

Hypervisor = Literal["qemu", "cloud-hypervisor", "firecracker", "vmware", "hyper-v", "xen"]
#: What manages the machine, so by whose commands it is changed.
Manager = Literal[
    "libvirt",
    "qemu",
    "proxmox",
    "kubevirt",
    "cloud-hypervisor",
    "firecracker",
    "vmware",
    "hyper-v",
    "xen",
]
DeviceKind = Literal["dimm", "nvdimm", "virtio-mem", "virtio-pmem", "other"]
#: How a definition lets memory be added; ``memory`` is what VMware adds.
Growth = Literal["dimm", "virtio-mem", "hyperv", "balloon", "memory"]


@dataclass(frozen=True, slots=True)
class Written:
    """Where a file says something: its words, and the line that they stand in (the first is 1)."""

    text: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """What a file says that matters for memory and is not understood, with the reason."""

    value: str
    reason: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class HostBacking:
    """What a host does for memory of a guest; ``None`` is what a file does not say.

    Attributes
    ----------
    prealloc : bool or None
        All host memory is allocated at the start.
    discard : bool or None
        Host memory is dropped without being saved when the guest ends.
    hugepage_bytes : int or None
        The size of the host's huge pages; 0 where a file asks for them and names no size.
    shared : bool or None
        Other processes share the memory (vhost-user, migration by file).
    source : str or None
        The kind of the backend: ``ram``, ``file``, ``memfd``, ``hugetlbfs``.
    locked : bool or None
        The memory is locked in the host: nothing a guest gives back is freed.
    """

    prealloc: bool | None = None
    discard: bool | None = None
    hugepage_bytes: int | None = None
    shared: bool | None = None
    source: str | None = None
    locked: bool | None = None


@dataclass(frozen=True, slots=True)
class DefinedBalloon:
    """A memory balloon: present or not, and what it is set to.

    Attributes
    ----------
    present : bool or None
        ``None`` where the file does not say so (libvirt adds one by itself).
    current_bytes : int or None
        The guest's memory less what is in the balloon, at the start.
    """

    present: bool | None = None
    current_bytes: int | None = None
    free_page_reporting: bool | None = None
    deflate_on_oom: bool | None = None


@dataclass(frozen=True, slots=True)
class DefinedDevice:
    """A memory device of a definition.

    Attributes
    ----------
    name : str
        The identifier in the hypervisor (QEMU's ``id``, libvirt's alias), made up as ``dimm0``,
        ``virtiomem0`` where the file has none.
    size_bytes : int
        A DIMM's size; the most that a virtio-mem device can have.
    requested_bytes : int or None
        What a virtio-mem device is asked to have.
    plugged_bytes : int or None
        What a virtio-mem device has, where the file tells (``query-memory-devices``).
    block_bytes : int or None
        The block size of a virtio-mem device.
    address : int or None
        The guest physical address, where the file fixes it.
    zone_bytes : int or None
        Boot memory that the manager counts to the device's size (a zone of cloud-hypervisor).
    label_bytes : int or None
        The label area of an NVDIMM, no part of what the guest can use.
    hotplugged : bool or None
        Added while the guest ran (``query-memory-devices``: ``hotplugged``).
    """

    kind: DeviceKind
    size_bytes: int
    name: str
    node: int | None = None
    requested_bytes: int | None = None
    plugged_bytes: int | None = None
    block_bytes: int | None = None
    address: int | None = None
    zone_bytes: int | None = None
    label_bytes: int | None = None
    dynamic_memslots: bool | None = None
    memmap_on_memory: bool | None = None
    hotplugged: bool | None = None
    backing: HostBacking = HostBacking()
    line: int | None = None


@dataclass(frozen=True, slots=True)
class DefinedNode:
    """A NUMA node of the boot memory; ``memory_bytes`` is 0 of a node without memory."""

    number: int
    memory_bytes: int
    cpus: int | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """A virtual machine's definition.

    Attributes
    ----------
    format : str
        What the file is: ``libvirt domain XML``, ``QEMU command line``, ``Proxmox configuration``.
    name : str
        The machine's name, or the file's.
    id : str or None
        By which the manager's commands call it, where that is not its name (Proxmox: a number).
    arch : str
        The architecture as ``uname -m`` has it: ``x86_64``, ``aarch64``, ``ppc64le``, ``s390x``.
    arch_given : bool
        Whether the file says the architecture; else it is the usual one.
    machine : str or None
        The machine type as the file has it: ``pc-q35-8.2``, ``pc``, ``virt``.
    memory_bytes : int
        Boot memory, without devices and before any balloon.
    max_memory_bytes : int or None
        Boot memory and all devices at most: libvirt's ``maxMemory``, QEMU's ``maxmem``. ``None``:
        the definition sets no room for devices.
    slots : int or None
        Slots of DIMMs and NVDIMMs, used ones counted.
    slots_shared : bool
        Whether virtio-mem devices need a slot as well.
    growth : tuple of Growth
        How the definition lets memory be added while the guest runs, the way that is set up for it
        first; empty: none. A reader adds ``dimm`` where there are free slots, ``virtio-mem`` where
        a device is not at its size yet or the hypervisor adds one.
    growth_bytes : int or None
        How much may be added in all, where the file says it apart from ``max_memory_bytes``.
    by_demand : bool
        The hypervisor adds and reclaims memory by itself (Hyper-V's dynamic memory).
    minimum_bytes : int or None
        How far the hypervisor may take memory back by itself (Hyper-V's minimum, Proxmox's
        ``balloon``).
    max_phys_bits : int or None
        The width of physical addresses of the guest's processor, where the file limits it.
    pci_hole_bytes : int or None
        Below 4 GiB, where the file changes it (``max-ram-below-4g`` as 4 GiB less its value).
    uefi : bool
        The file names UEFI firmware.
    kernel : str or None
        The guest's kernel, where the file boots it directly.
    cmdline : str or None
        The kernel's command line, where the file boots it directly.
    written : mapping of str to Written
        Where the file says a field of this class, for the line to change: ``memory_bytes``,
        ``max_memory_bytes``, ``slots``, ``cmdline``, ``machine``, ``balloon``.
    unread : tuple of Unread
        What matters for memory and is not understood.
    """

    format: str
    name: str
    manager: Manager
    hypervisor: Hypervisor
    arch: str
    memory_bytes: int
    id: str | None = None
    arch_given: bool = True
    machine: str | None = None
    max_memory_bytes: int | None = None
    slots: int | None = None
    slots_shared: bool = False
    growth: tuple[Growth, ...] = ()
    growth_bytes: int | None = None
    by_demand: bool = False
    minimum_bytes: int | None = None
    max_phys_bits: int | None = None
    pci_hole_bytes: int | None = None
    cpus: int | None = None
    nodes: tuple[DefinedNode, ...] = ()
    devices: tuple[DefinedDevice, ...] = ()
    balloon: DefinedBalloon = DefinedBalloon()
    backing: HostBacking = HostBacking()
    acpi: bool | None = None
    uefi: bool = False
    kernel: str | None = None
    cmdline: str | None = None
    written: Mapping[str, Written] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()
