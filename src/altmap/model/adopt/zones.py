"""The zones of an adopted kernel: nodes, RAM, online blocks, present pages and watermarks."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.linux.observation import Block, Observation, ZoneInfo
from altmap.model.arch import Arch
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import MOVABLE, Watermarks, Zone
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
    for line in seen.iomem or ():
        if line.name.startswith("System RAM"):
            start, end = -(-line.start // page), line.end // page
            if end > _MOST_BYTES // page:
                raise InputError(
                    f"sysroot: proc/iomem: System RAM ends at {line.end:#x}, above 4 PiB"
                )
            ram |= PfnRange(start, max(start, end))
    if not ram:
        raise InputError("sysroot: proc/iomem has no line 'System RAM'")
    return ram


def take_blocks(kernel: Kernel, seen: Observation) -> None:
    """Set which memory blocks exist and which of them are online."""
    for id_, block in (seen.memory.blocks if seen.memory else {}).items():
        kernel.added_blocks |= PfnRange(id_, id_ + 1)
        if block.state != "offline":
            kernel.online_blocks |= PfnRange(id_, id_ + 1)


def take_zones(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    """Set the spans and present pages of zones, the boot pages of nodes, and groups' counters."""
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None:
            continue
        if info.pages.get("spanned") and info.start_pfn is not None:
            zone.span = PfnRange(info.start_pfn, info.start_pfn + info.pages["spanned"])
        zone.cma_nr_pages = info.pages.get("cma", 0)
    _share_out(kernel, seen, ram)
    for node in {zone.node for zone in kernel.zones.values()}:
        pages = PfnSet()
        for zone in kernel.node_zones(node):
            pages |= zone.present & kernel.boot_ram
        kernel.boot_node_pages[node] = pages
    for zone in kernel.zones.values():
        zone.early_nr_pages = len(zone.present & kernel.boot_ram)
        for addition in kernel.additions:
            if addition.group is not None:
                part = zone.present.count(addition.pfns)
                if zone.name == MOVABLE:
                    addition.group.present_movable_nr_pages += part
                else:
                    addition.group.present_kernel_nr_pages += part


def _share_out(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    """Assign each online block's RAM to a zone: the one its file names, else by the spans."""
    blocks = seen.memory.blocks if seen.memory else {}
    left = ram & kernel.pages_of(kernel.online_blocks)
    for id_, block in blocks.items():
        zone = _named_zone(kernel, block)
        if zone is not None:
            pfns = kernel.block_pfns(id_)
            zone.present |= left & pfns
            left -= pfns
    for zone in kernel.zones.values():
        if zone.span:
            mine = left & zone.span
            zone.present |= mine
            left -= mine


def _named_zone(kernel: Kernel, block: Block) -> Zone | None:
    if block.state == "offline" or not block.valid_zones or len(block.nodes) > 1:
        return None
    node = block.nodes[0] if block.nodes else 0
    return kernel.zones.get((node, block.valid_zones[0]))


def take_watermarks(kernel: Kernel, seen: Observation) -> None:
    """Set the zones' managed counters and watermarks, and the rule that computes watermarks.

    With or without khugepaged, the rule must give the ``min_free_kbytes`` in force. Zones' shares
    may differ: they were set before the kernel freed the last of its boot memory. If neither
    agrees, ``min_free_kbytes`` was set by hand, and watermarks stay as they are.
    """
    infos = [(kernel.zones[i.key], i) for i in seen.zoneinfo or () if i.key in kernel.zones]
    for zone, info in infos:
        zone.managed_offset = info.pages["managed"] - kernel.nr_managed(zone)
    kernel.computes_watermarks = any(
        _rule_holds(kernel, infos, khugepaged) for khugepaged in (True, False)
    )
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks()
    for zone, info in infos:
        zone.watermarks = _watermarks_shown(info)


def _rule_holds(kernel: Kernel, infos: list[tuple[Zone, ZoneInfo]], khugepaged: bool) -> bool:
    for zone, info in infos:
        zone.watermarks = _watermarks_shown(info)
    kernel.tunables.khugepaged = khugepaged
    in_force = _min_free_nr_pages(kernel)
    init_per_zone_wmark_min(kernel)
    computed = _min_free_nr_pages(kernel)
    return abs(in_force - computed) <= computed // 50 + len(infos)


def _min_free_nr_pages(kernel: Kernel) -> int:
    return sum(z.watermarks.min for z in kernel.zones.values() if z.name != MOVABLE)


def _watermarks_shown(info: ZoneInfo) -> Watermarks:
    lowest, low, high, promo = (info.pages.get(n, 0) for n in ("min", "low", "high", "promo"))
    return Watermarks(lowest, low, high, promo, info.protection)
