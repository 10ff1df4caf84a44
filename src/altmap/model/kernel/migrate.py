"""Migration: pages in use move to free pages elsewhere, so that a range becomes free.

Source: ``mm/migrate.c``; ``mm/memory_hotplug.c: do_migrate_range, offline_pages``.
"""

from __future__ import annotations

from altmap.model.kernel.files import migrate_pages
from altmap.model.kernel.hugetlb import dissolve_free_hugetlb_folios, migrate_hugetlb
from altmap.model.kernel.isolation import retries_until_signal
from altmap.model.kernel.reclaim import reclaim
from altmap.model.kernel.single_pages import find_movable_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.kernel.zonelists import zones_of_nodes
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = ("do_migrate_range",)


def do_migrate_range(
    kernel: Kernel, zone: Zone, pfns: PfnRange, *, ends: bool = True
) -> Outcome | None:
    """Migrate the pages in use of a range that has left its zone; return the refusal, if any.

    Free huge pages are dissolved at the end, which is not reached if *ends* is false. On a refusal,
    pages that could be migrated have moved, and stay where they are.
    """
    pinned = kernel.pinned & pfns
    nodes = _target_nodes(kernel, zone)
    zones = zones_of_nodes(kernel, nodes, below_movable=zone.name != MOVABLE)
    _make_room(kernel, zones, zone, pfns)
    moving = (kernel.movable & pfns) - pinned
    targets = find_movable_pages(kernel, zones, len(moving))
    moved = moving.lowest(len(targets))
    migrate_pages(kernel, moved, targets)
    if moved:
        text = f"{len(moved)} pages migrated"
        kernel.log.note("migrated", text, moved, "do_migrate_range")
    stuck, kind = moving - moved, "movable"
    if not stuck:
        rotating = _rotating_huge_pages(kernel, zone.node, nodes, pfns)
        if rotating is not None:
            return rotating
        stuck, kind = migrate_hugetlb(kernel, pfns, zone.node, nodes), "hugetlb"
    if pinned:
        why = f"{len(pinned)} pages are pinned, the first is pfn {pinned.min():#x}"
        return retries_until_signal(why, pinned, "pinned")
    if stuck:
        why = f"{len(stuck)} pages find no free page elsewhere"
        return _with_doubt(kernel, retries_until_signal(why, stuck, kind), len(stuck))
    if not ends:
        return None
    stuck, in_use = dissolve_free_hugetlb_folios(kernel, pfns)
    if in_use:
        return Outcome.refused(
            "EBUSY",
            "dissolve_free_hugetlb_folios",
            f"the huge page in use at pfn {in_use.min():#x} cannot be isolated: it was migrated "
            "before",
            pfns=in_use,
            kind="hugetlb",
        )
    if stuck:
        return Outcome.refused(
            "ENOMEM",
            "dissolve_free_hugetlb_folios",
            f"no memory for the memmap of the huge page at pfn {stuck.min():#x}",
            pfns=stuck,
            kind="hugetlb",
        )
    lost = kernel.hvo.lost & pfns
    if lost:
        why = f"{len(lost)} pages of freed huge pages are in no list, since HVO restored them"
        return retries_until_signal(why, lost, "lost")
    return None


def _make_room(kernel: Kernel, zones: list[Zone], zone: Zone, pfns: PfnRange) -> None:
    """Reclaim what the range's movable pages need elsewhere, and log what that was."""
    needed = kernel.movable.count(pfns) - kernel.pinned.count(pfns)
    taken = reclaim(kernel, zones, zone, pfns, needed)
    for kind, pages, what in (
        ("dropped", taken.dropped, "pages of clean page cache dropped"),
        ("swapped", taken.swapped, "pages swapped out"),
    ):
        if pages:
            kernel.log.note(kind, f"{len(pages)} {what}", pages, "shrink_folio_list")


def _with_doubt(kernel: Kernel, outcome: Outcome, nr_stuck: int) -> Outcome:
    """Say what no set of pages tells: whether more could be reclaimed than is known."""
    most = kernel.maybe_reclaimable_nr_pages
    if outcome.kind != "movable" or (most is not None and nr_stuck > most):
        return outcome
    if most is None:
        return outcome.doubted("unknown", "no file says how much memory could be reclaimed")
    return outcome.doubted(
        "unknown", f"{most} pages of dirty page cache and slab may be reclaimed in time"
    )


def _rotating_huge_pages(
    kernel: Kernel, node: int, nodes: list[int], pfns: PfnRange
) -> Outcome | None:
    """Return the refusal if huge pages in use take each other's place until a signal arrives.

    Each moves to the huge page of the pool that became free last, which is the one that moved
    before it; and a pass begins at the first page in use that the pass before it found. So three
    never leave the range, nor do two whose first target lies behind the first of them.
    Source: ``mm/hugetlb.c: dequeue_hugetlb_folio_node_exact``; ``mm/memory_hotplug.c:
    offline_pages``.
    """
    if not kernel.release.hugetlb_dequeues_isolated or node not in nodes:
        return None
    allowed = PfnSet.of(kernel.node_pages(node), pfns)
    ascending = kernel.release.hugetlb_first_in_first_out
    for pool in kernel.pools():
        moving = (pool.in_use & pfns) - pool.not_migratable
        target = pool.head(allowed, ascending=ascending)
        if not moving or not target:
            continue
        nr_moving = -(-len(moving) // pool.nr_pages)
        behind = PfnRange(moving.min(), pfns.end)
        if nr_moving < 2 or (nr_moving == 2 and not target & behind):
            continue
        outcome = retries_until_signal("huge pages take each other's place", moving, "hugetlb")
        if nr_moving > 2 or not (pool.free_pages & allowed) - behind:
            return outcome
        return outcome.doubted("likely", "the order of the pool's free huge pages is inferred")
    return None


def _target_nodes(kernel: Kernel, zone: Zone) -> list[int]:
    """Return the nodes that pages of a zone move to: other nodes with memory, else its own.

    Source: ``mm/memory_hotplug.c: do_migrate_range``.
    """
    return sorted(kernel.nodes_with_memory() - {zone.node}) or [zone.node]
