"""The zones of an adopted kernel: nodes, RAM, online blocks, present pages and watermarks."""

from __future__ import annotations

from collections.abc import Iterable

from altmap.errors import InputError
from altmap.linux import iomem
from altmap.linux.observation import Block, Observation, ZoneInfo
from altmap.model.arch import Arch
from altmap.model.kernel.initial_state import (
    adopt_blocks,
    adopt_counters,
    adopt_present,
    adopt_zone,
)
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import adopt_watermarks
from altmap.model.kernel.zone import Watermarks, Zone
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine

__all__ = (
    "cpu_nodes",
    "empty_zones",
    "online_nodes",
    "system_ram",
    "take_blocks",
    "take_watermarks",
    "take_zones",
)

_MOST_BYTES = 1 << 52


def empty_zones(seen: Observation, machine: Machine) -> dict[tuple[int, str], Zone]:
    """Return the zones of every possible node, without pages."""
    infos = seen.zoneinfo or ()
    first = infos[0].node
    names = [info.name for info in infos if info.node == first and info.name != "Device"]
    possible = set(seen.nodes.lists.get("possible", ()) if seen.nodes else ())
    possible |= {info.node for info in infos} | {device.node for device in machine.devices}
    return {(node, name): Zone(node, name) for node in sorted(possible) for name in names}


def online_nodes(seen: Observation) -> frozenset[int]:
    """Return the nodes that are online, from sysfs or else from zoneinfo."""
    if seen.nodes is not None and "online" in seen.nodes.lists:
        return frozenset(seen.nodes.lists["online"])
    return frozenset(info.node for info in seen.zoneinfo or ())


def cpu_nodes(seen: Observation) -> frozenset[int]:
    """Return the nodes that have CPUs; node 0 where no file lists them."""
    listed = seen.nodes.lists.get("has_cpu") if seen.nodes is not None else None
    return frozenset(listed) if listed else frozenset({0})


def system_ram(seen: Observation, arch: Arch) -> PfnSet:
    """Return the whole page frames of all System RAM, from boot or added later.

    Raises
    ------
    InputError
        If there is none, or it ends above 4 PiB.
    """
    page, ram = arch.page_size_bytes, PfnSet()
    for line in iomem.system_ram(seen.iomem or ()):
        start, end = -(-line.start // page), line.end // page
        if end > _MOST_BYTES // page:
            raise InputError(f"sysroot: proc/iomem: System RAM ends at {line.end:#x}, above 4 PiB")
        ram |= PfnRange(start, max(start, end))
    if not ram or not any(line.name.startswith("System RAM") for line in seen.iomem or ()):
        raise InputError("sysroot: proc/iomem has no line 'System RAM'")
    return ram


def take_blocks(kernel: Kernel, seen: Observation) -> None:
    """Set which memory blocks exist and which of them are online."""
    blocks = seen.memory.blocks if seen.memory else {}
    online = (id_ for id_, block in blocks.items() if block.state != "offline")
    adopt_blocks(kernel, _set_of(blocks), _set_of(online))


def _set_of(ids: Iterable[int]) -> PfnSet:
    return PfnSet(PfnRange(id_, id_ + 1) for id_ in ids)


def take_zones(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    """Set the spans and present pages of zones, the boot pages of nodes, and groups' counters."""
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None:
            continue
        span = zone.span
        if info.pages.get("spanned") and info.start_pfn is not None:
            span = PfnRange(info.start_pfn, info.start_pfn + info.pages["spanned"])
        adopt_zone(zone, span, info.pages.get("cma", 0))
    _share_out(kernel, seen, ram)
    adopt_counters(kernel)


def _share_out(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    """Assign each online block's RAM to a zone: the one its file names, else by the spans."""
    blocks = seen.memory.blocks if seen.memory else {}
    left = ram & kernel.pages_of(kernel.online_blocks)
    for id_, block in blocks.items():
        zone = _named_zone(kernel, block)
        if zone is not None:
            pfns = kernel.block_pfns(id_)
            adopt_present(zone, left & pfns)
            left -= pfns
    for zone in kernel.zones.values():
        if zone.span:
            mine = left & zone.span
            adopt_present(zone, mine)
            left -= mine


def _named_zone(kernel: Kernel, block: Block) -> Zone | None:
    if block.state == "offline" or not block.valid_zones or len(block.nodes) > 1:
        return None
    node = block.nodes[0] if block.nodes else 0
    return kernel.zones.get((node, block.valid_zones[0]))


def take_watermarks(kernel: Kernel, seen: Observation) -> None:
    """Set the zones' managed counters and watermarks, and the rule that computes watermarks."""
    infos = [info for info in seen.zoneinfo or () if info.key in kernel.zones]
    shown = {info.key: (info.pages["managed"], _watermarks_shown(info)) for info in infos}
    adopt_watermarks(kernel, shown)


def _watermarks_shown(info: ZoneInfo) -> Watermarks:
    lowest, low, high, promo = (info.pages.get(n, 0) for n in ("min", "low", "high", "promo"))
    return Watermarks(lowest, low, high, promo, info.protection, info.pages["managed"])
