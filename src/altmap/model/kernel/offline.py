"""Offline: a memory block's pages are isolated, migrated, and leave their zone.

Source: ``drivers/base/memory.c: memory_block_offline``; ``mm/memory_hotplug.c: offline_pages``.
A refused step changes nothing, except that pages which could be migrated have moved.
"""

from __future__ import annotations

import errno

from altmap.model.kernel.addition import adjust_present_page_count
from altmap.model.kernel.endless import does_not_end, release_lock
from altmap.model.kernel.isolation import scan_movable_pages, start_isolate_page_range
from altmap.model.kernel.migrate import do_migrate_range
from altmap.model.kernel.notify import memory_notify, vetoed
from altmap.model.kernel.online import present_part
from altmap.model.kernel.options import cannot_offline
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.structpages import read_struct_pages
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import Zone, shrink_span
from altmap.model.kernel.zonelists import build_all_zonelists
from altmap.pfn import Pages, PfnRange, PfnSet
from altmap.trace import OK, Outcome

__all__ = ("check_hosts_no_memmap", "go_on_offlining", "memory_block_offline")


def memory_block_offline(kernel: Kernel, pfns: PfnRange, *, worker: str = "") -> Outcome:
    """Offline one memory block: migrate its pages in use, or refuse.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
    worker : str
        The kernel worker that does it, which no signal reaches; empty if a process does.
    """
    if not kernel.nr_online(pfns):
        return Outcome.refused(errno.EINVAL, "state_store", f"{pfns} is offline already")
    zones = kernel.zones_of(pfns)
    refusal = _check(kernel, pfns, zones)
    if refusal is not None:
        return refusal
    (zone,) = zones
    refusal = start_isolate_page_range(kernel, pfns, zone)
    if refusal is not None:
        return refusal
    last_of_node = not kernel.has_pages(zone.node, beyond=pfns)
    read_struct_pages(kernel, pfns)
    refusal = _going_offline(kernel, zone, pfns, last_of_node)
    if refusal is None:
        return _migrate_and_isolate(kernel, zone, pfns, worker)
    return _cancelled(kernel, zone, pfns, refusal)


def go_on_offlining(kernel: Kernel, worker: str) -> Outcome:
    """Let a worker whose offlining did not end try again: memory or references may be free now."""
    pfns = release_lock(kernel)
    (zone,) = kernel.zones_of(pfns)
    return _migrate_and_isolate(kernel, zone, pfns, worker)


def _migrate_and_isolate(kernel: Kernel, zone: Zone, pfns: PfnRange, worker: str) -> Outcome:
    last_of_node = not kernel.has_pages(zone.node, beyond=pfns)
    refusal = _offline_pages(kernel, zone, pfns)
    if refusal is not None and refusal.errno == "EINTR" and worker:
        return does_not_end(kernel, pfns, refusal, worker)
    if refusal is not None:
        return _cancelled(kernel, zone, pfns, refusal)
    _went_offline(kernel, zone, pfns, last_of_node)
    return OK


def _cancelled(kernel: Kernel, zone: Zone, pfns: PfnRange, refusal: Outcome) -> Outcome:
    memory_notify(kernel, "MEM_CANCEL_OFFLINE", pfns, zone.node)
    if not kernel.has_pages(zone.node, beyond=pfns):
        memory_notify(kernel, "NODE_CANCEL_REMOVING_LAST_MEMORY", pfns, zone.node)
    return refusal


def _check(kernel: Kernel, pfns: PfnRange, zones: list[Zone]) -> Outcome | None:
    refusal = cannot_offline(kernel)
    if refusal is not None:
        return refusal
    if len(zones) != 1:
        return Outcome.refused(errno.EINVAL, "memory_block_offline", f"{pfns} has no single zone")
    if kernel.boot_ram.count(pfns) not in (0, len(pfns)):
        return Outcome.refused(errno.EINVAL, "offline_pages", f"{pfns} has memory holes")
    return check_hosts_no_memmap(kernel, pfns)


def check_hosts_no_memmap(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Refuse while the frames hold the memmap of memory that was added by another request."""
    for other in kernel.additions:
        if other.memmap.host is not None and other.memmap.host.overlaps(pfns):
            return Outcome.refused(
                errno.EBUSY, "memory_block_offline", f"{pfns} holds the memmap of {other.pfns}"
            )
    return None


def _going_offline(
    kernel: Kernel, zone: Zone, pfns: PfnRange, last_of_node: bool
) -> Outcome | None:
    """Notify the listeners once the block's free pages are isolated."""
    actions = ["NODE_REMOVING_LAST_MEMORY"] if last_of_node else []
    for action in (*actions, "MEM_GOING_OFFLINE"):
        veto = memory_notify(kernel, action, pfns, zone.node)
        if veto is not None:
            return vetoed(veto, action)
    return None


def _found_before(kernel: Kernel, pfns: PfnRange, refused: Pages | None) -> bool:
    """Tell whether a scan finds a page in use below those for which it refuses.

    Then all pages of the block move first; a pinned one is found in every further scan.
    """
    in_use = PfnSet.of(kernel.movable, *(pool.in_use for pool in kernel.pools())) & pfns
    return bool(in_use and refused and in_use.min() < PfnSet.of(refused).min())


def _offline_pages(kernel: Kernel, zone: Zone, pfns: PfnRange) -> Outcome | None:
    """Migrate the pages in use and take the block's pages out of their zone, or refuse."""
    refusal = scan_movable_pages(kernel, pfns)
    if refusal is not None and not _found_before(kernel, pfns, refusal.pfns):
        return refusal
    moving = (kernel.movable & pfns) - kernel.pinned
    kernel.touch("read", moving, "migrate_pages", "pages in use")
    zone.present -= pfns
    kernel.online_blocks -= kernel.blocks(pfns)
    stuck = do_migrate_range(kernel, zone, pfns, ends=refusal is None)
    refusal = refusal if stuck is None else stuck
    if refusal is not None:
        zone.present |= present_part(kernel, pfns)
        kernel.online_blocks |= kernel.blocks(pfns)
        return refusal
    kernel.onlined = tuple(
        left for part in kernel.onlined for left in (PfnSet([part]) - pfns).ranges()
    )
    kernel.used -= pfns  # the rest are HWPoison pages, and those on per-CPU lists
    kernel.fake_offline -= pfns
    kernel.never_onlined -= pfns
    kernel.left_reserved -= pfns
    kernel.unreferenced -= pfns
    kernel.expected_unmovable -= pfns
    kernel.expected_movable -= pfns
    kernel.pcp -= pfns
    return None


def _went_offline(kernel: Kernel, zone: Zone, pfns: PfnRange, last_of_node: bool) -> None:
    """Set watermarks and zonelists anew, tell the listeners, and shrink the zone's span."""
    kernel.changed.blocks |= kernel.blocks(pfns)
    init_per_zone_wmark_min(kernel)
    names = kernel.block_names(pfns)
    kernel.log.note("offlined", f"{names} offline", pfns, "offline_pages")
    if not zone.present:
        build_all_zonelists(kernel)
    if last_of_node:
        memory_notify(kernel, "NODE_REMOVED_LAST_MEMORY", pfns, zone.node)
    memory_notify(kernel, "MEM_OFFLINE", pfns, zone.node)
    shrink_span(zone, pfns, kernel.arch.subsection_nr_pages)
    adjust_present_page_count(kernel.addition_of(pfns.start), zone, -len(pfns))
    memory_notify(kernel, "MEM_FINISH_OFFLINE", pfns, zone.node)
