"""``/sys/devices/system/memory`` as the modelled kernel shows it: the memory blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from altmap.linux.observation import Block, MemoryFolder, Observation
from altmap.model.kernel.online import zone_for_pfn_range
from altmap.model.kernel.options import lacks
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange

__all__ = ("block_shown", "memory_shown")


def memory_shown(base: Observation, kernel: Kernel) -> MemoryFolder | None:
    """Return the folder with a block for each that exists; blocks link to nodes if any do."""
    folder = base.memory
    if folder is None:
        return None
    has_nodes = base.nodes is not None
    blocks: dict[int, Block] = {}
    for ids in _alike(kernel, folder.blocks):
        block = block_shown(kernel, ids[0], folder.blocks.get(ids[0]), has_nodes=has_nodes)
        blocks |= dict.fromkeys(ids, block)
    return MemoryFolder(
        folder.block_size_bytes,
        folder.auto_online_blocks and kernel.tunables.auto_online_blocks,
        blocks,
    )


def _alike(kernel: Kernel, known: dict[int, Block]) -> Iterator[range]:
    """Yield the ids of blocks in runs in which no block differs from the first.

    Blocks differ where one is online, changed, isolated or of another add, node or zone, and where
    a zone's span or pages begin or end. A block that was shown before is alone.
    """
    size = kernel.block_nr_pages
    pfns = [edge for zone in kernel.zones.values() for edge in zone.present.edges()]
    pfns += [edge for pages in kernel.boot_node_pages.values() for edge in pages.edges()]
    pfns += kernel.isolated.edges()
    spans = [zone.span for zone in kernel.zones.values()]
    spans += [addition.pfns for addition in kernel.additions]
    pfns += [edge for span in spans for edge in (span.start, span.end)]
    cuts = {pfn // size for pfn in pfns} | {-(-pfn // size) for pfn in pfns}
    cuts |= set(kernel.online_blocks.edges()) | set(kernel.changed.blocks.edges())
    cuts |= {cut for nr in known for cut in (nr, nr + 1)}
    for run in kernel.added_blocks.ranges():
        inner = sorted(cut for cut in cuts if run.start < cut < run.end)
        for start, end in pairwise((run.start, *inner, run.end)):
            yield range(start, end)


def block_shown(kernel: Kernel, id_: int, before: Block | None, *, has_nodes: bool) -> Block:
    """Return one memory block; *before* is what the base shows of it."""
    pfns = kernel.block_pfns(id_)
    online = id_ in kernel.online_blocks
    state = "online" if online else "offline"
    if online and pfns.start in kernel.isolated:
        # memory.c: memory_block_change_state; valid_zones_show then says what an offline one has.
        state, online = "going-offline", False
    if before is None:
        node = kernel.node_of(pfns.start) if has_nodes else None
        return Block(
            state,
            phys_device=0,
            removable=not lacks(kernel, "MEMORY_HOTREMOVE"),
            valid_zones=_valid_zones(kernel, pfns, online),
            nodes=() if node is None else (node,),
        )
    same = before.state == state and id_ not in kernel.changed.blocks
    if same and (online or before.valid_zones is None):
        return before
    return replace(before, state=state, valid_zones=_valid_zones(kernel, pfns, online))


def _valid_zones(kernel: Kernel, pfns: PfnRange, online: bool) -> tuple[str, ...] | None:
    """Source: ``drivers/base/memory.c: valid_zones_show``, built with MEMORY_HOTREMOVE."""
    if lacks(kernel, "MEMORY_HOTREMOVE"):
        return None
    if online:
        zones = kernel.zones_of(pfns)
        return (zones[0].name,) if len(zones) == 1 else ("none",)
    node = kernel.node_of(pfns.start) or 0
    names = [
        zone_for_pfn_range(kernel, pfns, node, kind).name
        for kind in ("online", "online_kernel", "online_movable")
    ]
    return tuple(dict.fromkeys(names))
