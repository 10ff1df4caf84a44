"""The online policy ``auto-movable``: ZONE_MOVABLE while a ratio to kernel memory allows it.

Source: ``mm/memory_hotplug.c: auto_movable_zone_for_pfn, auto_movable_can_online_movable``.
"""

from __future__ import annotations

from altmap.model.kernel.addition import MemoryGroup
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone, default_kernel_zone
from altmap.pfn import PfnRange

__all__ = ("auto_movable_zone_for_pfn",)


def auto_movable_zone_for_pfn(kernel: Kernel, pfns: PfnRange, node: int) -> Zone:
    """Return ZONE_MOVABLE if its pages stay below the ratio with the whole group online.

    A static group is checked with all pages that it has not onlined yet, a unit of a dynamic group
    with the rest of the unit. Once one of them has kernel memory, the rest is kernel memory too.
    """
    kernel_zones = kernel.kernel_zones(node)
    addition = kernel.addition_of(pfns.start)
    group = addition.group if addition is not None else None
    checked = pfns
    if not kernel.tunables.auto_movable_ratio:
        return default_kernel_zone(kernel_zones, pfns)
    if group is not None and not group.unit_nr_pages:
        if group.present_kernel_nr_pages:
            return default_kernel_zone(kernel_zones, pfns)
        nr_pages = group.max_nr_pages - group.present_movable_nr_pages
        checked = PfnRange(pfns.start, pfns.start + nr_pages)
    elif group is not None and group.unit_nr_pages != len(pfns):
        unit = _unit_of(group, pfns)
        kernel_part = _first_kernel_section(kernel, unit)
        if kernel_part is not None:
            return default_kernel_zone(kernel_zones, PfnRange(kernel_part, kernel_part + len(pfns)))
        # The kernel goes on with the end of the unit; only after a refusal in it, earlier.
        nr_pages = len(unit) - kernel.pages_of(kernel.online_blocks).count(unit)
        checked = PfnRange(unit.end, unit.end + nr_pages)
    if _can_online_movable(kernel, node, group, len(checked)):
        return kernel.movable_zone(node)
    # The kernel looks for the zone with the range that it checked, not with the block.
    return default_kernel_zone(kernel_zones, checked)


def _unit_of(group: MemoryGroup, pfns: PfnRange) -> PfnRange:
    start = pfns.start // group.unit_nr_pages * group.unit_nr_pages
    return PfnRange(start, start + group.unit_nr_pages)


def _first_kernel_section(kernel: Kernel, unit: PfnRange) -> int | None:
    """Return the first pfn of a unit that is online in a kernel zone, ``None`` if there is none."""
    starts = [
        (zone.present & unit).min()
        for zone in kernel.zones.values()
        if zone.name != MOVABLE and zone.present.count(unit)
    ]
    return min(starts, default=None)


def _can_online_movable(
    kernel: Kernel, node: int, group: MemoryGroup | None, nr_pages: int
) -> bool:
    """Tell whether the ratio holds with so many more movable pages, on the machine and the node."""
    if not _ratio_allows(kernel, list(kernel.zones.values()), None, group, nr_pages):
        return False
    if not kernel.tunables.auto_movable_numa_aware:
        return True
    return _ratio_allows(kernel, kernel.node_zones(node), node, group, nr_pages)


def _ratio_allows(
    kernel: Kernel, zones: list[Zone], node: int | None, group: MemoryGroup | None, nr_pages: int
) -> bool:
    """Source: ``mm/memory_hotplug.c: auto_movable_can_online_movable``."""
    early = movable = 0
    for zone in zones:
        if zone.name == MOVABLE:
            movable += kernel.nr_present(zone)
        else:
            early += zone.early_nr_pages - zone.cma_nr_pages
            movable += zone.cma_nr_pages
    ratio, needed = kernel.tunables.auto_movable_ratio, 0
    for other in kernel.groups:
        # auto_movable_stats_account_group: what other devices balance within themselves.
        if other is not group and node in (None, other.node):
            share = other.present_movable_nr_pages * 100 // ratio - other.present_kernel_nr_pages
            needed += max(0, share)
            movable -= other.present_movable_nr_pages
    if early <= needed:
        return False
    early -= needed
    if group is not None and group.unit_nr_pages:
        early += group.present_kernel_nr_pages
    return movable + nr_pages <= ratio * early // 100
