"""PageOffline: pages of online blocks that a driver keeps from the page allocator.

They are present but not managed. Freeing or taking them sets no watermarks, and lowmem reserves on
some releases only (:func:`~altmap.model.kernel.watermarks.adjust_managed_page_count`).
"""

from __future__ import annotations

from altmap.model.kernel.allocator import find_aligned_units, free_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import adjust_managed_page_count
from altmap.pfn import Pages, PfnRange, PfnSet

__all__ = (
    "alloc_balloon_pages",
    "clear_fake_offline",
    "drop_references",
    "free_balloon_pages",
    "leave_as_initialized",
    "mark_left_reserved",
    "mark_never_onlined",
    "set_fake_offline",
    "take_references",
)


def set_fake_offline(kernel: Kernel, pages: PfnSet | PfnRange) -> None:
    """Make free pages PageOffline: they leave their zone's managed pages."""
    kernel.fake_offline |= pages
    kernel.changed.pages |= pages
    adjust_managed_page_count(kernel)


def clear_fake_offline(kernel: Kernel, pages: PfnSet | PfnRange) -> PfnSet:
    """Free PageOffline pages to the buddy allocator; return those of *pages* that were.

    Ballooned pages among them, which only a host in error names, leave the balloon.
    """
    freed = kernel.fake_offline & pages
    kernel.fake_offline -= pages
    kernel.ballooned -= freed
    kernel.never_onlined -= pages
    kernel.left_reserved -= pages
    kernel.changed.pages |= pages
    adjust_managed_page_count(kernel)
    return freed


def mark_never_onlined(kernel: Kernel, pages: PfnSet) -> None:
    """Mark pages that stay PageOffline as never onlined (PageDirty, by virtio-mem)."""
    kernel.never_onlined |= pages


def mark_left_reserved(kernel: Kernel, pages: PfnSet) -> None:
    """Mark pages that go online as PageOffline and stay PageReserved, on releases where they do."""
    if kernel.release.hyperv_leaves_reserved:
        kernel.left_reserved |= pages


def leave_as_initialized(kernel: Kernel, pages: PfnSet) -> None:
    """Leave pages that go online as their memmap was initialised, since no driver looks at them.

    That is PageOffline or, on releases where such pages stay PageReserved, PageReserved alone.
    Source: ``mm/memory_hotplug.c: move_pfn_range_to_zone``.
    """
    if kernel.release.hyperv_leaves_reserved:
        kernel.reserved |= pages
        kernel.changed.pages |= pages


def drop_references(kernel: Kernel, pages: Pages) -> None:
    """Drop the driver's reference to PageOffline pages, so that their block can go offline."""
    kernel.unreferenced |= pages


def take_references(kernel: Kernel, pages: Pages) -> None:
    """Take the driver's reference again, after an offline was cancelled."""
    kernel.unreferenced -= pages


def alloc_balloon_pages(kernel: Kernel, unit_nr_pages: int, nr_units: int) -> PfnSet:
    """Allocate aligned units for a balloon, as many as can be allocated up to a number."""
    pages = find_aligned_units(kernel, unit_nr_pages, nr_units)
    kernel.ballooned |= pages
    kernel.changed.pages |= pages
    if kernel.release.balloon_lowers_managed:
        kernel.fake_offline |= pages
        adjust_managed_page_count(kernel)
    else:
        kernel.used |= pages
    return pages


def free_balloon_pages(kernel: Kernel, pages: PfnSet) -> None:
    """Free pages of a balloon to the buddy allocator."""
    kernel.ballooned -= pages
    kernel.fake_offline -= pages
    kernel.changed.pages |= pages
    free_pages(kernel, pages)
    if kernel.release.balloon_lowers_managed:
        adjust_managed_page_count(kernel)
