"""The devices plugged at the start: those of the scenario, or those that sysfs and iomem show."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from altmap.linux.iomem import driver_memory
from altmap.linux.observation import MemoryFolder, Observation, Resource
from altmap.scenario import Address, Device, Machine, Size

__all__ = ("plugged_devices",)


def plugged_devices(seen: Observation, machine: Machine, notes: list[str]) -> list[Device]:
    """Return the devices plugged already: those of the scenario, or all that the files show."""
    if machine.devices or seen.memory is None:
        return list(machine.devices)
    lines = seen.iomem or ()
    shown = [*_kmem_devices(lines, seen.memory), *_virtio_mem_devices(lines, seen.memory)]
    managed = [each.ram for each in driver_memory(lines)]
    if not all(_is_within(line, shown) for line in managed):
        notes.append("driver-managed System RAM counts as boot memory: no file names its device")
    return [*shown, *_acpi_devices(seen.memory)]


def _is_within(line: Resource, devices: list[Device]) -> bool:
    return any(
        device.address <= line.start and line.end <= device.address + device.size
        for device in devices
    )


def _kmem_devices(lines: Sequence[Resource], memory: MemoryFolder) -> Iterator[Device]:
    """Yield the dax devices of kmem, one for each range that it has added."""
    ranges = Counter[str]()
    for each in driver_memory(lines):
        if each.driver == "kmem":
            nth = ranges[each.device]
            ranges[each.device] += 1
            id_ = f"{each.device}:{nth}" if nth else each.device
            yield _device(id_, "kmem", each.ram, memory)


def _virtio_mem_devices(lines: Sequence[Resource], memory: MemoryFolder) -> Iterator[Device]:
    """Yield the virtio-mem devices whose regions ``/proc/iomem`` shows (``virtio0``)."""
    for line in lines:
        if re.fullmatch(r"virtio[0-9]+", line.name):
            yield _device(line.name, "virtio-mem", line, memory)


def _device(
    id_: str, driver: Literal["kmem", "virtio-mem"], line: Resource, memory: MemoryFolder
) -> Device:
    """Return the device of a resource, on the first node that one of its blocks belongs to."""
    size = memory.block_size_bytes
    ids = range(line.start // size, -(-line.end // size))
    nodes = (node for id_ in ids if id_ in memory.blocks for node in memory.blocks[id_].nodes)
    return Device(
        id=id_,
        driver=driver,
        address=Address(line.start),
        size=Size(line.end - line.start),
        node=next(nodes, 0),
    )


def _acpi_devices(memory: MemoryFolder) -> Iterator[Device]:
    """Yield the DIMMs that own memory blocks: the blocks' firmware nodes name them."""
    owned: dict[str, list[int]] = defaultdict(list)
    for id_, block in memory.blocks.items():
        if block.firmware_node:
            owned[block.firmware_node.rsplit("/", 1)[-1]].append(id_)
    size = memory.block_size_bytes
    for name, ids in owned.items():
        yield Device(
            id=name,
            address=Address(min(ids) * size),
            size=Size(len(ids) * size),
            node=next(iter(memory.blocks[ids[0]].nodes), 0),
        )
