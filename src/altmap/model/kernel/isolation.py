"""What keeps a memory block from going offline: ``mm/page_isolation.c`` and what is like it."""

from __future__ import annotations

import errno

from altmap.model.kernel.hugetlb import gigantic_across
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = ("endless_retry", "scan_movable_pages", "start_isolate_page_range")


def start_isolate_page_range(kernel: Kernel, pfns: PfnRange, zone: Zone) -> Outcome | None:
    """Return the refusal if a page of the block cannot be moved and is nobody's to give.

    PageOffline and HWPoison pages pass, huge pages too. In ZONE_MOVABLE only reserved pages do not:
    the kernel takes for granted that the rest can be moved.
    """
    reserved = kernel.reserved & pfns
    unmovable = kernel.unmovable(pfns)
    stuck = reserved | unmovable
    if stuck:
        refusal = Outcome.refused(
            errno.EBUSY,
            "has_unmovable_pages",
            f"{len(stuck)} unmovable pages, the first is pfn {stuck.min():#x}",
            pfns=stuck,
            kind=kernel.kind_of(stuck.min()),
        )
        return _doubt_settled(kernel, refusal, stuck)
    if zone.name == MOVABLE and not kernel.hugetlb:
        return None
    across = gigantic_across(kernel, pfns) if kernel.release.isolation_splits_gigantic else None
    if across is not None and kernel.nr_online(kernel.block_pfns(pfns.end // len(pfns))):
        return Outcome.refused(
            errno.EBUSY,
            "isolate_single_pageblock",
            f"the huge page at pfn {across.start:#x} reaches beyond the block's end",
            pfns=across,
            kind="hugetlb",
        )
    return None


def _doubt_settled(kernel: Kernel, refusal: Outcome, stuck: PfnSet) -> Outcome:
    if stuck.issubset(kernel.doubtful):
        return refusal.doubted(
            "likely", "they may be free pages on per-CPU lists, which offlining empties first"
        )
    if not stuck.issubset(kernel.settled):
        return refusal
    return refusal.doubted(
        "likely", "that the kernel has put a page here to stay is usual, but chance"
    )


def scan_movable_pages(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Return the refusal for PageOffline pages to which a driver still holds a reference.

    A pinned page before them is found first, again and again, so that they are never reached.
    Source: ``mm/memory_hotplug.c: scan_movable_pages``.
    """
    held = (kernel.fake_offline & pfns) - kernel.unreferenced
    pinned = kernel.pinned & pfns
    if not held or (pinned and pinned.min() < held.min()):
        return None
    return Outcome.refused(
        errno.EBUSY,
        "scan_movable_pages",
        f"{len(held)} fake-offline pages hold a reference, the first is pfn {held.min():#x}",
        pfns=held,
        kind="fake-offline",
    )


def endless_retry(why: str, pfns: PfnSet, kind: str) -> Outcome:
    """Return what an offline without end comes to: a signal ends it.

    Source: ``mm/memory_hotplug.c: offline_pages``, "fatal migration failures should bail out".
    """
    return Outcome.refused(
        errno.EINTR,
        "offline_pages",
        f"{why}; the kernel retries without end until a signal arrives",
        pfns=pfns,
        kind=kind,
    )
