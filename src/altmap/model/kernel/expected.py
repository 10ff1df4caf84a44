"""Allocations that a new zone is expected to serve, as far as a prediction depends on them."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.model.kernel.allocator import in_list_order
from altmap.model.kernel.pool import aligned_chunks
from altmap.model.kernel.single_pages import unmovable_pageblocks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import Pages, PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = (
    "doubted_if_expected",
    "expect_boot_allocation",
    "expect_movable_allocation",
    "expect_unmovable_allocation",
    "forget_expected_movable",
    "settle_kernel_pages",
)

_CHANCE = (
    "that the kernel keeps a page here is usual, but chance: it may keep none, or one of unmovable "
    "and one of reclaimable memory"
)


def expect_unmovable_allocation(kernel: Kernel, zone: Zone) -> None:
    """Put one page in use that stands for the kernel's allocations from a new zone.

    The highest kernel zone of a node with CPUs comes first in its zonelist for GFP_KERNEL. A new
    one has no unmovable pageblock yet, so the next unmovable allocation claims the largest chunk
    at the head of the movable list: the first such chunk that was onlined. How many pages follow
    is not predicted. That one stays is likely, not certain: page tables go with their process, and
    slab may not be needed for a while. Reclaimable slab claims a chunk of its own.
    Source: ``mm/page_alloc.c: __rmqueue_claim`` (``__rmqueue_fallback`` in 6.1),
    ``build_zonelists``.
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
        "__rmqueue_claim",
        doubt="whether one of them stays is chance, and whether a reclaimable one does besides",
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


def expect_movable_allocation(kernel: Kernel, zone: Zone, first: Pages) -> None:
    """Note which page of a new zone processes use at once; it stays free in the counters.

    The highest zone of a node with CPUs comes first in its zonelist for the pages of processes, and
    the smallest free chunk comes first: the pageblock behind a memmap, or the first that was
    onlined and that no unmovable allocation has claimed. It makes no huge page any more.
    Source: ``mm/page_alloc.c: __rmqueue_smallest``, ``build_zonelists``.

    Parameters
    ----------
    kernel : Kernel
    zone : Zone
    first : Pages
        The zone's first memory block.
    """
    free = (kernel.free(zone) & first) - unmovable_pageblocks(kernel, zone)
    size, largest = kernel.arch.pageblock_nr_pages, 1 << kernel.arch.max_page_order
    while free and (chunks := aligned_chunks(free, size)):
        of_size = chunks if size >= largest else chunks - aligned_chunks(chunks, 2 * size)
        if of_size:
            pfn = of_size.min()
            kernel.expected_movable |= PfnRange(pfn, pfn + 1)
            return
        size *= 2


def forget_expected_movable(kernel: Kernel) -> bool:
    """Forget which pages processes are expected to use; return whether there were any."""
    found = bool(kernel.expected_movable)
    kernel.expected_movable = PfnSet()
    return found


def settle_kernel_pages(kernel: Kernel, shown: PfnSet, settled: PfnSet) -> PfnSet:
    """Put the kernel's own pages in new zones where a real kernel has them; return which they are.

    Parameters
    ----------
    kernel : Kernel
    shown : PfnSet
        Pages that are the real kernel's own, of any zone.
    settled : PfnSet
        What the last call returned.
    """
    zones = [zone for zone in kernel.zones.values() if _serves_the_kernel(kernel, zone)]
    stood = (settled | kernel.expected_unmovable) & kernel.unmovable()
    own = PfnSet()
    for zone in zones:
        kernel.used -= stood & zone.present
        kernel.expected_unmovable -= zone.present
        for addition in kernel.additions:
            addition.host_pages = _moved(kernel, zone, addition.host_pages, shown)
        own |= shown & kernel.free(zone)
    kernel.used |= own
    return own


def _serves_the_kernel(kernel: Kernel, zone: Zone) -> bool:
    return (
        bool(zone.present)
        and zone.name != MOVABLE
        and zone.node in kernel.cpu_nodes
        and zone is kernel.kernel_zones(zone.node)[-1]
        and not zone.present & kernel.boot_ram
    )


def _moved(kernel: Kernel, zone: Zone, hosts: PfnSet, shown: PfnSet) -> PfnSet:
    """Return pages that hold a memmap; those that are the kernel's own make room for it."""
    leaving = hosts & shown & zone.present
    if not leaving:
        return hosts
    targets = PfnSet.of(*in_list_order(kernel, kernel.free(zone) - shown, len(leaving)))
    if len(targets) < len(leaving):
        return hosts
    kernel.used = (kernel.used - leaving) | targets
    return (hosts - leaving) | targets


def doubted_if_expected(kernel: Kernel, refusal: Outcome, stuck: PfnSet) -> Outcome:
    """Return a refusal because of pages: it is likely only if all of them are expected ones."""
    if not stuck or not stuck.issubset(kernel.expected_unmovable):
        return refusal
    return refusal.doubted("likely", _CHANCE)


def _aligned_starts(pages: PfnSet, chunk: int) -> Iterator[int]:
    """Yield, for each run that holds a whole aligned chunk, where its first one starts."""
    for run in pages.ranges():
        start = -(-run.start // chunk) * chunk
        if start + chunk <= run.end:
            yield start
