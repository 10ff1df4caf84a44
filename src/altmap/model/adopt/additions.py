"""What plugged devices have added: memory blocks, their group, and where their memmap is."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.linux.kpageflags import is_memmap
from altmap.linux.observation import Observation
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.initial_state import adopt_addition
from altmap.model.kernel.memmap import AddRequest, Memmap, memmap_on_memory_nr_pages
from altmap.model.kernel.registration import memory_group_register_dynamic, request_mem_region
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.scenario import Device, Size

__all__ = ("device_pfns", "take_device", "take_region", "with_requested_size")

#: What drivers call the memory that they manage themselves.
_RESOURCES = {"kmem": "System RAM (kmem)", "virtio-mem": "System RAM (virtio_mem)"}
#: Drivers that register their memory as one static group.
_GROUPED = ("dimm", "kmem")


def device_pfns(kernel: Kernel, device: Device) -> PfnRange:
    """Return the page frames of a device's memory or region."""
    page = kernel.arch.page_size_bytes
    return PfnRange(device.address // page, (device.address + device.size) // page)


def take_device(kernel: Kernel, seen: Observation, device: Device) -> Addition:
    """Record the memory of a device as one add, and return it.

    Raises
    ------
    InputError
        Unless it consists of whole memory blocks that exist.
    """
    pfns = device_pfns(kernel, device)
    block = kernel.block_nr_pages * kernel.arch.page_size_bytes
    where = f"[{device.address:#x}, {device.address + device.size:#x})"
    if device.address % block or device.size % block:
        raise InputError(
            f"machine.devices {device.id!r}: {where}: need whole memory blocks of {block:#x} bytes"
        )
    if not kernel.added_blocks.covers(kernel.blocks(pfns)):
        raise InputError(
            f"machine.devices {device.id!r}: {where} has no memory blocks in the sysroot"
        )
    memmap = _memmap_of(kernel, seen, device, pfns)
    addition = Addition(
        pfns,
        device.node,
        memmap,
        MemoryGroup(max_nr_pages=len(pfns)) if device.driver in _GROUPED else None,
        _RESOURCES.get(device.driver, "System RAM"),
        merges=device.driver == "hyperv",
    )
    adopt_addition(kernel, addition)
    if any(line.name == device.id for line in seen.iomem or ()):
        request_mem_region(kernel, pfns, device.id)
    return addition


def _memmap_of(kernel: Kernel, seen: Observation, device: Device, pfns: PfnRange) -> Memmap:
    """Return where a device's memmap is: as the scenario or page flags say, else as the rule."""
    block = kernel.block_nr_pages
    mode = kernel.memmap_mode()
    self_hosted = device.self_hosted
    if self_hosted is None and seen.kpageflags and kernel.nr_online(pfns):
        self_hosted = bool(seen.kpageflags.select(is_memmap, pfns))
    if self_hosted is None:
        request = AddRequest(pfns, True, block, mode)
        placed = kernel.policy.placement.place(kernel.arch, kernel.release, request)
        return placed if isinstance(placed, Memmap) else Memmap(kernel.arch, pfns)
    hosted = memmap_on_memory_nr_pages(kernel.arch, kernel.release, block, mode)
    if self_hosted and hosted:
        return Memmap(kernel.arch, pfns, block, hosted)
    return Memmap(kernel.arch, pfns)


def take_region(kernel: Kernel, device: Device) -> None:
    """Record the memory blocks in a virtio-mem device's region, each as an add of its own."""
    group = memory_group_register_dynamic(kernel, device.node, kernel.block_nr_pages)
    for block in kernel.added_blocks & kernel.blocks(device_pfns(kernel, device)):
        pfns = kernel.block_pfns(block)
        memmap = Memmap(kernel.arch, pfns)
        name = _RESOURCES[device.driver]
        adopt_addition(kernel, Addition(pfns, device.node, memmap, group, name, merges=True))


def with_requested_size(kernel: Kernel, device: Device, notes: list[str]) -> Device:
    """Return a virtio-mem device with its requested size: what is plugged, if none is given."""
    blocks = kernel.added_blocks & kernel.blocks(device_pfns(kernel, device))
    if blocks - kernel.online_blocks:
        notes.append(
            f"device {device.id!r}: memory blocks that are offline are assumed to be plugged "
            "as a whole, which no file shows"
        )
    if device.requested is not None:
        return device
    notes.append(f"device {device.id!r}: it is assumed to have its requested size")
    plugged = kernel.pages_of(blocks) - kernel.fake_offline
    return device.replace(requested=Size(len(plugged) * kernel.arch.page_size_bytes))
