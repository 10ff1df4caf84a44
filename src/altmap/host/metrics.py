"""Numbers for monitoring: blocks by state, memmap by placement, what was asked for and is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from altmap.host.blockers import Blocks
from altmap.linux.observation import Observation

__all__ = ("METRICS", "Sample", "samples")

_STRUCT_PAGE_BYTES = 64

#: Gauge to its labels and what it says. Names of node_exporter (``node_memory_*``) are not used.
METRICS: dict[str, tuple[tuple[str, ...], str]] = {
    "altmap_memory_block_size_bytes": ((), "Size of a memory block."),
    "altmap_memory_blocks": (
        ("state", "zone", "node"),
        "Memory blocks by state, current zone (empty unless online) and node.",
    ),
    "altmap_memmap_bytes": (
        ("placement",),
        "Bytes of struct pages of the memory blocks by where they lie: self, existing, unknown.",
    ),
    "altmap_device_region_bytes": (
        ("driver", "device"),
        "What a device may fill at most, by /proc/iomem.",
    ),
    "altmap_device_current_bytes": (("driver", "device"), "What a device has brought."),
    "altmap_requested_bytes": (
        ("driver",),
        "What the hypervisor wants the machine to have (Xen's target).",
    ),
    "altmap_current_bytes": (("driver",), "What the machine has of it (Xen's current)."),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of one gauge; labels in the order that :data:`METRICS` gives."""

    name: str
    labels: tuple[str, ...]
    value: int


def samples(seen: Observation) -> Iterator[Sample]:
    """Yield every number that the files give.

    Raises
    ------
    InputError
        If there are no memory blocks.
    """
    seen.require("export", "memory")
    assert seen.memory is not None
    blocks = Blocks(seen)
    size = seen.memory.block_size_bytes
    yield Sample("altmap_memory_block_size_bytes", (), size)
    counts = Counter(
        (
            block.state,
            block.valid_zones[0] if block.state == "online" and block.valid_zones else "",
            str(block.nodes[0]) if block.nodes else "",
        )
        for block in seen.memory.blocks.values()
    )
    for labels, count in sorted(counts.items()):
        yield Sample("altmap_memory_blocks", labels, count)
    if blocks.page_size_bytes is not None:
        per_block = size // blocks.page_size_bytes * _STRUCT_PAGE_BYTES
        places = Counter(blocks.memmap(nr) or "unknown" for nr in seen.memory.blocks)
        for place, count in sorted(places.items()):
            yield Sample("altmap_memmap_bytes", (place,), count * per_block)
    for device in blocks.devices:
        named = (device.driver, device.name)
        yield Sample("altmap_device_region_bytes", named, device.region_bytes)
        yield Sample("altmap_device_current_bytes", named, device.ram_bytes)
    if seen.balloon is not None:
        yield Sample("altmap_requested_bytes", ("xen",), seen.balloon.target_kb << 10)
        yield Sample("altmap_current_bytes", ("xen",), seen.balloon.current_kb << 10)
