"""HWPoison pages, as ``soft_offline_page`` makes them.

Source: ``mm/memory-failure.c: soft_offline_page, get_any_page, page_handle_poison``.
"""

from __future__ import annotations

import errno

from altmap.model.kernel.files import migrate_pages
from altmap.model.kernel.hugetlb import dissolve_free_hugetlb_folios, migrate_hugetlb
from altmap.model.kernel.single_pages import find_movable_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zonelists import zones_of_nodes
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome

__all__ = ("soft_offline_page",)


def soft_offline_page(kernel: Kernel, pfn: int) -> Outcome:
    """Migrate the contents of a page and mark it HWPoison, so that it is never used again."""
    page = PfnSet([PfnRange(pfn, pfn + 1)])
    block = pfn // kernel.block_nr_pages
    if block not in kernel.added_blocks:
        return Outcome.refused(
            errno.ENXIO, "soft_offline_page", f"pfn {pfn:#x} has no struct page", pfns=page
        )
    if block not in kernel.online_blocks:
        return Outcome.refused(
            errno.EIO, "soft_offline_page", f"pfn {pfn:#x} is offline", pfns=page, kind="offline"
        )
    if pfn in kernel.poisoned:
        return OK
    refusal = _free_page(kernel, pfn, page)
    if refusal is not None:
        return refusal
    kernel.used |= page
    kernel.poisoned |= page
    kernel.changed.pages |= page
    kernel.log.note("poison", f"pfn {pfn:#x} is HWPoison", page, "page_handle_poison")
    return OK


def _free_page(kernel: Kernel, pfn: int, page: PfnSet) -> Outcome | None:
    """Make the page free, or return the refusal."""
    at = PfnRange(pfn, pfn + 1)
    nodes = sorted(kernel.nodes_with_memory())
    if pfn in kernel.hugetlb_pages():
        fixed = PfnSet.of(*(each.not_migratable for each in kernel.pools())) & at
        stuck = fixed or migrate_hugetlb(kernel, at, kernel.zones_of(at)[0].node, nodes)
        if stuck:
            return Outcome.refused(
                errno.EBUSY,
                "soft_offline_in_use_page",
                f"the huge page of pfn {pfn:#x} cannot move",
                pfns=stuck,
                kind="hugetlb",
            )
        stuck, _ = dissolve_free_hugetlb_folios(kernel, at)
        if not stuck:
            return None
        return Outcome.refused(
            errno.EBUSY,
            "page_handle_poison",
            f"no memory for the memmap of the huge page of pfn {pfn:#x}",
            pfns=stuck,
            kind="hugetlb",
        )
    if pfn in kernel.pinned:
        return Outcome.refused(
            errno.EBUSY,
            "soft_offline_in_use_page",
            f"pfn {pfn:#x} is pinned",
            pfns=page,
            kind="pinned",
        )
    if pfn in kernel.movable:
        zones = zones_of_nodes(kernel, nodes, below_movable=False)
        targets = find_movable_pages(kernel, zones, 1)
        if not targets:
            return Outcome.refused(
                errno.EBUSY, "soft_offline_in_use_page", "no free page to move to"
            )
        migrate_pages(kernel, page, targets)
        return None
    if any(pfn in kernel.free(zone) for zone in kernel.zones_of(at)):
        return None
    return Outcome.refused(
        errno.EIO,
        "get_any_page",
        f"pfn {pfn:#x} is neither free nor movable: an unhandlable page",
        pfns=page,
        kind=kernel.kind_of(pfn),
    )
