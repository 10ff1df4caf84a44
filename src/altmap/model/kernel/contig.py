"""virtio-mem takes ranges out of online memory, and frees them again.

Source: ``mm/page_alloc.c: alloc_contig_range``; ``drivers/virtio/virtio_mem.c:
virtio_mem_fake_offline, virtio_mem_fake_online``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from altmap.model.kernel.expected import doubted_if_expected
from altmap.model.kernel.files import migrate_pages
from altmap.model.kernel.hugetlb import migrate_hugetlb, replace_free_huge_pages
from altmap.model.kernel.page_offline import clear_fake_offline, set_fake_offline
from altmap.model.kernel.single_pages import find_movable_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.kernel.zonelists import zones_of_nodes
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome

__all__ = ("fake_offline", "fake_online")

#: drivers/virtio/virtio_mem.c: virtio_mem_fake_offline.
_NR_TRIES = 5


def fake_offline(kernel: Kernel, pfns: PfnRange) -> Outcome:
    """Allocate a range of one zone, migrate its pages in use, and make it PageOffline.

    In ZONE_MOVABLE the driver tries several times: huge pages that became free in the range when
    others were migrated are replaced by the next try.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
        Whole pageblocks of online memory.

    Returns
    -------
    Outcome
        A refusal with ``EBUSY`` if a page cannot move, ``ENOMEM`` if there is no page to move to.
    """
    (zone,) = kernel.zones_of(pfns)
    for _ in range(_NR_TRIES if zone.name == MOVABLE else 1):
        _empty_huge_pages(kernel, zone, pfns)
        moving = kernel.used & pfns
        stuck = _unmovable(kernel, moving, pfns) | (kernel.pinned & pfns)
        if not stuck:
            break
    if stuck:
        refusal = Outcome.refused(
            errno.EBUSY,
            "alloc_contig_range",
            f"{len(stuck)} pages of {pfns} cannot move, the first is pfn {stuck.min():#x}",
        )
        return doubted_if_expected(kernel, refusal, stuck)
    kernel.touch("read", moving, "migrate_pages", "pages in use")
    if moving:
        with _isolated(kernel, pfns):
            targets = find_movable_pages(kernel, _target_zones(kernel, zone), len(moving))
        if len(targets) < len(moving):
            return Outcome.refused(
                errno.ENOMEM,
                "alloc_contig_range",
                f"{len(moving)} pages of {pfns} find no free page elsewhere",
            )
        migrate_pages(kernel, moving, targets)
    kernel.changed.blocks |= kernel.blocks(pfns)
    set_fake_offline(kernel, pfns)
    if moving:
        text = f"{len(moving)} pages migrated"
        kernel.log.note("migrated", text, moving, "alloc_contig_range")
    kernel.log.note(
        "fake-offline",
        f"{len(pfns)} pages taken from the buddy allocator",
        pfns,
        "virtio_mem_set_fake_offline",
    )
    return OK


def fake_online(kernel: Kernel, pfns: PfnRange) -> None:
    """Free fake-offline pages to the buddy allocator, whether they were ever onlined or not."""
    kernel.changed.blocks |= kernel.blocks(pfns)
    freed = clear_fake_offline(kernel, pfns)
    kernel.log.note(
        "onlined",
        f"{len(freed)} pages that were fake-offline freed to the buddy allocator",
        freed,
        "virtio_mem_fake_online",
    )


def _unmovable(kernel: Kernel, in_use: PfnSet, pfns: PfnRange) -> PfnSet:
    """Return the pages of a range that keep it from being isolated, of those in use."""
    stuck = in_use - kernel.movable if in_use else PfnSet()
    for kept in (kernel.reserved, kernel.self_hosted, kernel.fake_offline):
        if kept.count(pfns):
            stuck |= kept & pfns
    return stuck


def _empty_huge_pages(kernel: Kernel, zone: Zone, pfns: PfnRange) -> None:
    """Replace the free huge pages of a range that can be isolated, and migrate those in use.

    They have left the range then, even if it cannot be allocated in the end.
    A target of the pool leaves the old page to the pool: it is free then, in the range.
    Source: ``mm/compaction.c: isolate_migratepages_block`` of a contiguous allocation;
    ``mm/page_alloc.c: alloc_contig_range`` (``replace_free_hugepage_folios``).
    """
    huge = PfnSet.of(*(pool.pages & pfns for pool in kernel.pools()))
    if not huge or _unmovable(kernel, (kernel.used & pfns) - huge, pfns):
        return
    with _isolated(kernel, pfns):
        for _ in range(kernel.release.contig_replaces_huge_pages):
            replace_free_huge_pages(kernel, pfns, zone.node)
            migrate_hugetlb(kernel, pfns, zone.node, _nodes(kernel, zone))


@contextmanager
def _isolated(kernel: Kernel, pfns: PfnRange) -> Iterator[None]:
    """Keep a range from being allocated."""
    before = kernel.fake_offline & pfns
    kernel.fake_offline |= pfns
    try:
        yield
    finally:
        kernel.fake_offline = (kernel.fake_offline - pfns) | before


def _target_zones(kernel: Kernel, zone: Zone) -> list[Zone]:
    """Return the zones that pages move to: of their own node first, movable only from movable.

    Source: ``mm/migrate.c: alloc_migration_target``.
    """
    return zones_of_nodes(kernel, _nodes(kernel, zone), below_movable=zone.name != MOVABLE)


def _nodes(kernel: Kernel, zone: Zone) -> list[int]:
    """Return the nodes that pages of a zone move to, their own first."""
    others = {each.node for each in kernel.zones.values()} - {zone.node}
    return [zone.node, *sorted(others)]
