"""Added ranges and memory groups: what each call of ``add_memory_resource`` left behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import PfnRange, PfnSet

__all__ = ("Addition", "MemoryGroup", "adjust_present_page_count")


@dataclass(slots=True, eq=False)
class MemoryGroup:
    """A memory group: the blocks of one device (``drivers/base/memory.c``).

    Attributes
    ----------
    max_nr_pages : int
        Of a static group: the most pages that the device ever adds.
    unit_nr_pages : int
        Of a dynamic group: pages that are added and removed at a time; 0 makes the group static.
    node : int
    present_kernel_nr_pages, present_movable_nr_pages : int
        Pages that are online, by kind of zone.
    """

    max_nr_pages: int = 0
    unit_nr_pages: int = 0
    node: int = 0
    present_kernel_nr_pages: int = 0
    present_movable_nr_pages: int = 0

    def adjust(self, nr_pages: int, *, movable: bool) -> None:
        """Count pages that went online, or offline if negative."""
        if movable:
            self.present_movable_nr_pages += nr_pages
        else:
            self.present_kernel_nr_pages += nr_pages


@dataclass(slots=True, eq=False)
class Addition:
    """One successful call of ``add_memory_resource``.

    Attributes
    ----------
    pfns : PfnRange
    node : int
    memmap : Memmap
    group : MemoryGroup or None
    resource_name : str
        As shown in ``/proc/iomem``.
    merges : bool
        MHP_MERGE_RESOURCE: its line joins an equal neighbour's.
    host_pages : PfnSet
        Pages of existing memory that hold the memmap; empty when self-hosted.
    inaccessible : bool
        MHP_OFFLINE_INACCESSIBLE: nothing of the range may be touched while it is offline.
    """

    pfns: PfnRange
    node: int
    memmap: Memmap
    group: MemoryGroup | None = None
    resource_name: str = "System RAM"
    merges: bool = False
    host_pages: PfnSet = field(default_factory=PfnSet)
    inaccessible: bool = False


def adjust_present_page_count(addition: Addition | None, zone: Zone, nr_pages: int) -> None:
    """Count pages that went online (offline if negative), as early ones or in their group.

    Source: ``mm/memory_hotplug.c: adjust_present_page_count``.
    """
    if addition is None:
        zone.early_nr_pages += nr_pages
    elif addition.group is not None:
        addition.group.adjust(nr_pages, movable=zone.name == MOVABLE)
