"""What the kernel counts at one moment, file by file; two of them give what was gained between."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.state import Kernel
from altmap.model.observe.buddyinfo import zone_chunks
from altmap.model.observe.meminfo import meminfo_numbers
from altmap.model.observe.node import node_numbers
from altmap.model.observe.vmstat import vmstat_numbers
from altmap.model.observe.zoneinfo import zone_numbers
from altmap.pfn import PfnRange

__all__ = ("Snapshot", "snapshot")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The kernel's own numbers; a number that is missing is 0.

    Attributes
    ----------
    meminfo, vmstat : dict of str to int
        By the names of their lines, KiB and pages.
    zones : dict of (int, str) to dict of str to int
        Pages of each zone: ``present``, ``managed``, ``free``.
    nodes : dict of int to dict of str to int
        Each node's meminfo, in KiB and huge pages.
    chunks : dict of (int, str) to list of int
        Free chunks of each zone, by order; empty without per-page files.
    additions : tuple of Addition
    regions : tuple of (PfnRange, str)
        Resources reserved by drivers.
    """

    meminfo: dict[str, int] = field(default_factory=dict)
    vmstat: dict[str, int] = field(default_factory=dict)
    zones: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    nodes: dict[int, dict[str, int]] = field(default_factory=dict)
    chunks: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    additions: tuple[Addition, ...] = ()
    regions: tuple[tuple[PfnRange, str], ...] = ()


def snapshot(kernel: Kernel, *, pages: bool) -> Snapshot:
    """Return the kernel's numbers now, those of per-page files only with *pages*."""
    zones = {zone.key: zone_numbers(kernel, zone) for zone in kernel.zones.values()}
    return Snapshot(
        meminfo_numbers(kernel, zones),
        vmstat_numbers(kernel, zones),
        zones,
        {node: node_numbers(kernel, zones, node) for node in kernel.online_nodes()},
        {zone.key: zone_chunks(kernel, zone) for zone in kernel.zones.values()} if pages else {},
        tuple(kernel.additions),
        tuple(kernel.regions),
    )
