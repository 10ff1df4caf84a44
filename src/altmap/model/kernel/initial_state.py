"""The state that a kernel starts with, where it is adopted from files instead of computed.

The files say which pages, blocks and zones there are; these operations put them into the kernel.
"""

from __future__ import annotations

from altmap.model.kernel.addition import Addition, adjust_present_page_count
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "adopt_addition",
    "adopt_blocks",
    "adopt_boot_ram",
    "adopt_counters",
    "adopt_huge_pages",
    "adopt_metadata",
    "adopt_pages",
    "adopt_present",
    "adopt_reclaim",
    "adopt_zone",
)


def adopt_blocks(kernel: Kernel, added: PfnSet, online: PfnSet) -> None:
    """Set the ids of memory blocks that exist, and of those that are online."""
    kernel.added_blocks |= added
    kernel.online_blocks |= online


def adopt_addition(kernel: Kernel, addition: Addition) -> None:
    """Record a range that was added before the start, with its self-hosted memmap."""
    kernel.additions.append(addition)
    kernel.self_hosted |= addition.memmap.hosted()


def adopt_boot_ram(kernel: Kernel, ram: PfnSet) -> None:
    """Set the RAM of boot: all that no recorded addition has brought."""
    kernel.boot_ram = ram.copy()
    for addition in kernel.additions:
        kernel.boot_ram -= addition.pfns


def adopt_zone(zone: Zone, span: PfnRange, cma_nr_pages: int) -> None:
    """Set a zone's span and its CMA pages."""
    zone.span = span
    zone.cma_nr_pages = cma_nr_pages


def adopt_present(zone: Zone, pages: PfnSet) -> None:
    """Add present pages to a zone."""
    zone.present |= pages


def adopt_counters(kernel: Kernel) -> None:
    """Count the boot pages of nodes and zones, and the online pages of groups."""
    for zone in kernel.zones.values():
        early = zone.present & kernel.boot_ram
        so_far = kernel.boot_node_pages.get(zone.node, PfnSet())
        kernel.boot_node_pages[zone.node] = so_far | early
        zone.early_nr_pages = len(early)
        for addition in kernel.additions:
            adjust_present_page_count(addition, zone, zone.present.count(addition.pfns))


def adopt_pages(
    kernel: Kernel,
    *,
    reserved: PfnSet | None = None,
    used: PfnSet | None = None,
    movable: PfnSet | None = None,
    pinned: PfnSet | None = None,
    poisoned: PfnSet | None = None,
    fake_offline: PfnSet | None = None,
    never_onlined: PfnSet | None = None,
    pcp: PfnSet | None = None,
    maybe_pcp: PfnSet | None = None,
    clean_cache: PfnSet | None = None,
    swappable: PfnSet | None = None,
) -> None:
    """Add pages to the sets of a kernel: see the attributes of ``Kernel`` for each."""
    none = PfnSet()
    kernel.reserved |= reserved or none
    kernel.used |= used or none
    kernel.movable |= movable or none
    kernel.pinned |= pinned or none
    kernel.poisoned |= poisoned or none
    kernel.fake_offline |= fake_offline or none
    kernel.never_onlined |= never_onlined or none
    kernel.pcp |= pcp or none
    kernel.maybe_pcp |= maybe_pcp or none
    kernel.clean_cache |= clean_cache or none
    kernel.swappable |= swappable or none


def adopt_reclaim(kernel: Kernel, swap_free_nr_pages: int, maybe_nr_pages: int | None) -> None:
    """Set the room in swap, and the pages that may be reclaimed or not (``None``: unknown)."""
    kernel.swap_free_nr_pages = swap_free_nr_pages
    kernel.maybe_reclaimable_nr_pages = maybe_nr_pages


def adopt_huge_pages(kernel: Kernel, nr_pages: int, pages: PfnSet, *, in_use: bool) -> None:
    """Put huge pages of a size into their pool."""
    pool = kernel.hugetlb.setdefault(nr_pages, HugePool(nr_pages))
    if in_use:
        pool.in_use |= pages
    else:
        pool.put(pages)


def adopt_metadata(kernel: Kernel) -> None:
    """Choose which pages in use are page tables of added memory, and which hold its memmap.

    No file shows them; the highest unmovable pages stand for them. They are freed when their
    block is removed.
    """
    fixed = kernel.unmovable()
    kernel.page_tables = fixed.highest(page_table_nr_pages(kernel, kernel.additions))
    fixed -= kernel.page_tables
    fixed &= kernel.boot_ram
    for addition in kernel.additions:
        if not addition.memmap.self_hosted:
            nr_pages = kernel.arch.memmap_nr_pages(len(addition.pfns))
            addition.host_pages = fixed.highest(nr_pages)
            fixed -= addition.host_pages
