"""Unmovable allocations that a new kernel zone is expected to serve."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import PfnRange, PfnSet

__all__ = ("expect_boot_allocation", "expect_unmovable_allocation")


def expect_unmovable_allocation(kernel: Kernel, zone: Zone) -> None:
    """Put one page in use that stands for the kernel's allocations from a new zone.

    The highest kernel zone of a node with CPUs comes first in its zonelist for GFP_KERNEL. A new
    one has no unmovable pageblock yet, so the next unmovable allocation steals the largest chunk
    at the head of the movable list: the first such chunk that was onlined. How many pages follow
    is not predicted. That one stays is likely, not certain: page tables go with their process, and
    slab may not be needed for a while.
    Source: ``mm/page_alloc.c: __rmqueue_fallback``, ``build_zonelists``.
    """
    free = kernel.free(zone)
    if not free:
        return
    chunk = 1 << kernel.arch.max_page_order
    pfn = next(_aligned_starts(free, chunk), free.min())
    page = PfnRange(pfn, pfn + 1)
    kernel.used |= page
    kernel.expected_unmovable |= page
    kernel.log.note(
        "settled",
        f"zone {zone.name} of node {zone.node} is new: the kernel's next unmovable allocations "
        f"come from memory{pfn // kernel.block_nr_pages}",
        page,
        "__rmqueue_fallback",
        doubt="whether one of them stays is chance",
    )


def expect_boot_allocation(kernel: Kernel, pfns: PfnRange) -> bool:
    """Put one page of added memory in use that is online while the kernel and user space start.

    They allocate from the kernel zones of nodes with CPUs. Where the range made such a zone, it has
    such a page already. Returns whether there is one.
    """
    if kernel.expected_unmovable.count(pfns):
        return True
    for zone in kernel.zones.values():
        pages = kernel.free(zone) & pfns
        if not pages or zone.name == MOVABLE or zone.node not in kernel.cpu_nodes:
            continue
        pfn = next(_aligned_starts(pages, 1 << kernel.arch.max_page_order), pages.min())
        page = PfnRange(pfn, pfn + 1)
        kernel.used |= page
        kernel.expected_unmovable |= page
        return True
    return False


def _aligned_starts(pages: PfnSet, chunk: int) -> Iterator[int]:
    """Yield, for each run that holds a whole aligned chunk, where its first one starts."""
    for run in pages.ranges():
        start = -(-run.start // chunk) * chunk
        if start + chunk <= run.end:
            yield start
