"""Zones: what they span, and which one a memory block is onlined to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "MOVABLE",
    "Watermarks",
    "Zone",
    "default_kernel_zone",
    "extend_span",
    "shrink_span",
    "zone_for_policy",
)

MOVABLE = "Movable"


@dataclass(frozen=True, slots=True)
class Watermarks:
    """A zone's watermarks in pages, and its reserve against each zone of the node.

    *managed* is how many pages the zone had when the reserves were last summed up.
    """

    min: int = 0
    low: int = 0
    high: int = 0
    promo: int = 0
    protection: tuple[int, ...] = ()
    managed: int | None = field(default=None, compare=False)


@dataclass(slots=True, eq=False)
class Zone:
    """One zone of one node.

    Attributes
    ----------
    node, name : int, str
    span : PfnRange
        ``zone_start_pfn`` and ``spanned_pages``; ``[0, 0)`` when nothing is spanned.
    present : PfnSet
        Page frames of the zone, memmap pages of online blocks among them.
    early_nr_pages : int
        ``present_early_pages``: what booted in the zone, less what of it went offline.
    cma_nr_pages : int
    managed_offset : int
        What the machine shows as managed beyond what the page sets explain.
    watermarks : Watermarks
    """

    node: int
    name: str
    span: PfnRange = PfnRange(0, 0)  # noqa: RUF009 (frozen)
    present: PfnSet = field(default_factory=PfnSet)
    early_nr_pages: int = 0
    cma_nr_pages: int = 0
    managed_offset: int = 0
    watermarks: Watermarks = Watermarks()

    @property
    def key(self) -> tuple[int, str]:
        """The zone's identity: node and name."""
        return self.node, self.name

    def intersects(self, pfns: PfnRange) -> bool:
        """Tell whether the zone's span, not its present pages, overlaps the range."""
        return bool(self.span) and self.span.overlaps(pfns)


def extend_span(zone: Zone, pfns: PfnRange) -> None:
    """Grow the span to cover the range (``mm/memory_hotplug.c: resize_zone_range``)."""
    span = zone.span
    zone.span = PfnRange(min(span.start, pfns.start), max(span.end, pfns.end)) if span else pfns


def shrink_span(zone: Zone, removed: PfnRange, subsection_nr_pages: int) -> None:
    """Recompute the span after *removed* has left the zone's present pages.

    Source: ``mm/memory_hotplug.c: shrink_zone_span``. Only a range at an edge moves the edge, to
    the next online page as the kernel finds it: in steps of a subsection, so an edge inside a
    subsection is rounded outwards.
    """
    span, left = zone.span, zone.present
    if removed.start == span.start:
        start = left.min() // subsection_nr_pages * subsection_nr_pages if left else span.end
        zone.span = PfnRange(start, span.end) if left else PfnRange(0, 0)
    elif removed.end == span.end:
        near = left & PfnRange(max(0, removed.start - subsection_nr_pages), removed.start)
        last = (near or left).max() if left else -1
        end = -(-(last + 1) // subsection_nr_pages) * subsection_nr_pages
        zone.span = PfnRange(span.start, end) if left else PfnRange(0, 0)


def default_kernel_zone(zones: Iterable[Zone], pfns: PfnRange) -> Zone:
    """Return the node's lowest zone below Normal that the range intersects, else Normal.

    *zones* are the node's kernel zones in ascending order.
    Source: ``mm/memory_hotplug.c: default_kernel_zone_for_pfn``.
    """
    *low, normal = zones
    return next((zone for zone in low if zone.intersects(pfns)), normal)


def zone_for_policy(kernel: Zone, movable: Zone, pfns: PfnRange, movable_node: bool) -> Zone:
    """Return the zone for a plain ``online`` under the policy ``contig-zones``.

    Source: ``mm/memory_hotplug.c: default_zone_for_pfn``.
    """
    in_kernel, in_movable = kernel.intersects(pfns), movable.intersects(pfns)
    if in_kernel != in_movable:
        return kernel if in_kernel else movable
    return movable if movable_node else kernel
