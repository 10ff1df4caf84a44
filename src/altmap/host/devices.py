"""The devices that brought memory, as sysfs and ``/proc/iomem`` name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.iomem import driver_memory
from altmap.linux.memory import Block
from altmap.linux.observation import Observation, Resource

__all__ = ("BlockDevice", "devices_of")


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """What brought some memory blocks.

    Attributes
    ----------
    name : str
        ``PNP0C80:00``, ``virtio0``, ``dax0.0``.
    driver : str
        ``acpi``, or as ``/proc/iomem`` shows it: ``virtio_mem``, ``kmem``.
    blocks : tuple of int
        Ids of its memory blocks, ascending.
    region_bytes : int
        What the device may fill, by ``/proc/iomem``; of an ACPI device what it filled.
    ram_bytes : int
        What of it is System RAM.
    """

    name: str
    driver: str
    blocks: tuple[int, ...]
    region_bytes: int
    ram_bytes: int


def devices_of(seen: Observation) -> list[BlockDevice]:
    """Return the devices that the files name, by their first block.

    Memory of hv_balloon and of ppc64's DLPAR carries no name in any file.
    """
    if seen.memory is None:
        return []
    made = [*_acpi(seen), *_driver_managed(seen)]
    return sorted(made, key=lambda device: (device.blocks[:1], device.name))


def _acpi(seen: Observation) -> Iterator[BlockDevice]:
    assert seen.memory is not None
    by_name: dict[str, list[int]] = {}
    blocks = seen.memory.blocks
    for nr in blocks:
        block = blocks[nr]
        if block.firmware_node and _has_state(block):
            by_name.setdefault(block.firmware_node.rsplit("/", 1)[-1], []).append(nr)
    for name, ids in by_name.items():
        size = len(ids) * seen.memory.block_size_bytes
        yield BlockDevice(name, "acpi", tuple(ids), size, size)


def _has_state(block: Block) -> bool:
    """Tell whether a block's state is understood; its file is read for this."""
    try:
        return bool(block.state)
    except InputError:
        return False


def _driver_managed(seen: Observation) -> Iterator[BlockDevice]:
    assert seen.memory is not None
    found: dict[tuple[str, str], tuple[int, list[Resource]]] = {}
    for each in driver_memory(seen.iomem or ()):
        region_bytes = each.region.end - each.region.start
        found.setdefault((each.device, each.driver), (region_bytes, []))[1].append(each.ram)
    size = seen.memory.block_size_bytes
    for (name, driver), (region_bytes, parts) in found.items():
        ids = {nr for part in parts for nr in range(part.start // size, -(-part.end // size))}
        ram = sum(part.end - part.start for part in parts)
        blocks = tuple(sorted(ids & seen.memory.blocks.keys()))
        yield BlockDevice(name, driver, blocks, region_bytes, ram)
