"""Reasons why a memory block cannot go offline.

Source: ``mm/page_isolation.c``; ``mm/memory_hotplug.c: scan_movable_pages, offline_pages``.
"""

from __future__ import annotations

import errno

from altmap.model.kernel.expected import doubted_if_expected
from altmap.model.kernel.hugetlb import gigantic_across
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.pageblocks import first_dumped_pfn
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = (
    "UNTIL_SIGNAL",
    "retries_until_signal",
    "scan_movable_pages",
    "start_isolate_page_range",
)

#: How the sentence ends that says why offlining retries.
UNTIL_SIGNAL = "; the kernel retries indefinitely until a signal arrives"


def start_isolate_page_range(kernel: Kernel, pfns: PfnRange, zone: Zone) -> Outcome | None:
    """Return the refusal if the block has unmovable pages.

    PageOffline and HWPoison pages are no reason, nor are huge pages.
    Source: ``mm/page_isolation.c: has_unmovable_pages, isolate_single_pageblock``.
    """
    reserved = kernel.reserved & pfns
    unmovable = kernel.unmovable(pfns)
    stuck = reserved | unmovable
    if stuck:
        memmap_nr_pages = kernel.self_hosted.count(pfns)
        named = first_dumped_pfn(
            stuck,
            PfnRange(pfns.start + memmap_nr_pages, pfns.end),
            kernel.arch.pageblock_nr_pages,
            ends_first=kernel.release.isolates_ends_first,
        )
        refusal = Outcome.refused(
            errno.EBUSY,
            "has_unmovable_pages",
            f"{len(stuck)} unmovable pages, the kernel's log names pfn {named:#x}",
            pfns=stuck,
            kind=kernel.kind_of(stuck.min()),
        )
        return _with_doubt(kernel, refusal, stuck)
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


def _with_doubt(kernel: Kernel, refusal: Outcome, stuck: PfnSet) -> Outcome:
    if stuck.issubset(kernel.maybe_pcp):
        return refusal.doubted(
            "likely", "they may be free pages on per-CPU lists, which offlining empties first"
        )
    return doubted_if_expected(kernel, refusal, stuck)


def scan_movable_pages(kernel: Kernel, pfns: PfnRange) -> Outcome | None:
    """Return the refusal for PageOffline pages to which a driver still holds a reference.

    Source: ``mm/memory_hotplug.c: scan_movable_pages``.
    """
    referenced = (kernel.fake_offline & pfns) - kernel.unreferenced
    if not referenced:
        return None
    return Outcome.refused(
        errno.EBUSY,
        "scan_movable_pages",
        f"{len(referenced)} fake-offline pages have a reference, "
        f"the first is pfn {referenced.min():#x}",
        pfns=referenced,
        kind="fake-offline",
    )


def retries_until_signal(why: str, pfns: PfnSet, kind: str) -> Outcome:
    """Return the outcome of an offline that retries indefinitely: a signal ends it.

    What retries in a kernel worker gets no signal: see :mod:`altmap.model.kernel.endless`.
    Source: ``mm/memory_hotplug.c: offline_pages``, "fatal migration failures should bail out".
    """
    return Outcome.refused(
        errno.EINTR,
        "offline_pages",
        f"{why}{UNTIL_SIGNAL}",
        pfns=pfns,
        kind=kind,
    )
