"""Pages that a driver takes out of online memory, and gives back: fake-offline.

Source: ``mm/page_alloc.c: alloc_contig_range``; ``drivers/virtio/virtio_mem.c:
virtio_mem_fake_offline, virtio_mem_fake_online``. Neither sets watermarks anew, and only some
releases the reserves.
"""

from __future__ import annotations

import errno

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import adjust_managed_page_count
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome

__all__ = ("fake_offline", "fake_online")


def fake_offline(kernel: Kernel, pfns: PfnRange) -> Outcome:
    """Take a range of one zone from the buddy: what is in use moves, and the pages are PageOffline.

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
    moving = kernel.used & pfns
    stuck = moving - kernel.movable if moving else PfnSet()
    for kept in (kernel.reserved, kernel.self_hosted, kernel.pinned, kernel.fake_offline):
        if kept.count(pfns):
            stuck |= kept & pfns
    if stuck:
        return Outcome.refused(
            errno.EBUSY,
            "alloc_contig_range",
            f"{len(stuck)} pages of {pfns} cannot move, the first is pfn {stuck.min():#x}",
        )
    kernel.touch("read", moving, "migrate_pages", "pages in use")
    kernel.fake_offline |= pfns
    if moving:
        (zone,) = kernel.zones_of(pfns)
        targets = kernel.find_free(_targets(kernel, zone), len(moving))
        if targets is None:
            kernel.fake_offline -= pfns
            return Outcome.refused(
                errno.ENOMEM,
                "alloc_contig_range",
                f"{len(moving)} pages of {pfns} find no free page elsewhere",
            )
        kernel.migrate(moving, targets)
    kernel.changed_blocks |= kernel.blocks(pfns)
    adjust_managed_page_count(kernel)
    if moving:
        kernel.note("migrated", f"{len(moving)} pages migrated", moving, "alloc_contig_range")
    kernel.note(
        "fake-offline",
        f"{len(pfns)} pages taken from the buddy",
        pfns,
        "virtio_mem_set_fake_offline",
    )
    return OK


def fake_online(kernel: Kernel, pfns: PfnRange) -> None:
    """Give fake-offline pages to the buddy, whether they were taken from it or withheld."""
    released = kernel.fake_offline & pfns
    kernel.fake_offline -= pfns
    kernel.never_onlined -= pfns
    kernel.changed_blocks |= kernel.blocks(pfns)
    adjust_managed_page_count(kernel)
    kernel.note(
        "onlined",
        f"{len(released)} pages that were fake-offline given to the buddy",
        released,
        "virtio_mem_fake_online",
    )


def _targets(kernel: Kernel, zone: Zone) -> list[Zone]:
    """Return the zones that pages move to: of their own node first, movable only from movable.

    Source: ``mm/migrate.c: alloc_migration_target``.
    """
    others = {each.node for each in kernel.zones.values()} - {zone.node}
    return [
        target
        for node in (zone.node, *sorted(others))
        for target in reversed(kernel.node_zones(node))
        if zone.name == MOVABLE or target.name != MOVABLE
    ]
