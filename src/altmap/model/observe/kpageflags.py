"""``/proc/kpageflags`` as the modelled kernel shows it: the base's runs, changed pages anew."""

from __future__ import annotations

from altmap.linux.kpageflags import PageFlag
from altmap.linux.pagewords import PageWords
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnSet, PfnStride

__all__ = ("kpageflags_shown",)


def kpageflags_shown(base: PageWords | None, kernel: Kernel) -> PageWords | None:
    """Return the flags of every page frame up to the end of the last section."""
    if base is None:
        return None
    section = kernel.arch.section_nr_pages
    end = -(-kernel.max_pfn // section) * section
    changed = kernel.pages_of(kernel.changed.blocks) | kernel.changed.pages
    return base.changed(changed, _layers(kernel, changed), end, kernel.release.nopage_flags)


def _layers(kernel: Kernel, changed: PfnSet) -> list[tuple[PfnSet, int]]:
    """Return the changed pages that are present and online, by their flags, without overlap."""
    shown = changed & kernel.pages_of(kernel.online_blocks)
    left = PfnSet()
    for zone in kernel.zones.values():
        left |= zone.present & shown
    layers = []
    for pages, flags in (
        (kernel.self_hosted, kernel.release.memmap_page_flags),
        (kernel.never_onlined, PageFlag.OFFLINE | PageFlag.DIRTY),
        (kernel.left_reserved, PageFlag.OFFLINE | PageFlag.RESERVED),
        (kernel.fake_offline, PageFlag.OFFLINE),
        (kernel.reserved, PageFlag.RESERVED),
        (kernel.poisoned, PageFlag.HWPOISON),
        (_heads(kernel), PageFlag.COMPOUND_HEAD | PageFlag.HUGE),
        (kernel.hugetlb_pages(), PageFlag.COMPOUND_TAIL | PageFlag.HUGE),
        (kernel.hvo.copied_heads, PageFlag.COMPOUND_HEAD | PageFlag.HUGE),
        (kernel.movable, PageFlag.LRU),
        (kernel.used, 0),
        (left, PageFlag.BUDDY),
    ):
        layers.append((pages & left, int(flags)))
        left = left - pages
    return layers


def _heads(kernel: Kernel) -> PfnSet:
    """Return the first page of each huge page."""
    heads = PfnSet()
    for pool in kernel.hugetlb.values():
        for run in pool.pages.ranges():
            heads |= PfnStride(run.start, run.end, pool.nr_pages, 1)
    return heads
