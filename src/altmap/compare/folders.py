"""Extractors of resources, memory blocks, parameters and the Xen balloon's counters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from altmap.compare.side import Key, Side, Values

__all__ = (
    "auto_online_blocks",
    "balloon_counter",
    "balloon_line",
    "block_attribute",
    "block_size_bytes",
    "parameters",
    "ram_resources",
)

_Pairs = Iterator[tuple[Key, Any]]
#: System RAM, and the region of a virtio-mem device, which may hold some.
_RAM = re.compile(r"System RAM|^virtio\d+$")


def ram_resources(side: Side) -> _Pairs:
    """Yield the names of each address range that has System RAM, from the outermost inwards."""
    names: dict[tuple[int, int], list[str]] = {}
    for resource in side.seen.iomem or ():
        if _RAM.search(resource.name):
            names.setdefault((resource.start, resource.end), []).append(resource.name)
    for (start, end), nested in names.items():
        yield (f"{start:#x}-{end - 1:#x}",), " / ".join(nested)


def block_size_bytes(side: Side) -> _Pairs:
    """Yield the size of a memory block in bytes."""
    if side.seen.memory is not None:
        yield (), side.seen.memory.block_size_bytes


def auto_online_blocks(side: Side) -> _Pairs:
    """Yield the policy for added memory blocks, ``None`` where the file is missing."""
    if side.seen.memory is not None:
        yield (), side.seen.memory.auto_online_blocks


def block_attribute(name: str) -> Values:
    """Return the extractor of one attribute of each memory block, by the block's number."""

    def values(side: Side) -> _Pairs:
        if side.seen.memory is not None:
            for id_, block in side.seen.memory.blocks.items():
                yield (id_,), getattr(block, name)

    return values


def parameters(side: Side) -> _Pairs:
    """Yield each parameter of the module ``memory_hotplug``."""
    for name, text in side.seen.parameters.items():
        yield (name,), text


def balloon_counter(name: str) -> Values:
    """Return the extractor of one counter of the Xen balloon driver, in KiB."""

    def values(side: Side) -> _Pairs:
        if side.seen.balloon is not None:
            yield (), getattr(side.seen.balloon, name)

    return values


def balloon_line(file: str, name: str) -> Values:
    """Return the extractor of a Xen domain's line in ``meminfo`` or ``vmstat``."""

    def values(side: Side) -> _Pairs:
        table: dict[str, int] = getattr(side.seen, file) or {}
        if side.seen.balloon is not None and name in table:
            yield (), table[name]

    return values
