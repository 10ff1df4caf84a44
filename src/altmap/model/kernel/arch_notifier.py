"""The architecture's own listener of the memory notifier chain, which only arm64 has.

It is registered by an early initcall, so that it is called before every listener of a driver.
Source: ``arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier`` (up to 7.0),
``prevent_memory_remove_notifier`` (7.1).
"""

from __future__ import annotations

import errno

from altmap.model.kernel.notifier import Notification, NotifierVeto
from altmap.model.kernel.state import Kernel
from altmap.model.leaves import LEAF_SPLIT, leaf_offset_bytes, splits_leaf
from altmap.pfn import PfnRange
from altmap.units import format_size

__all__ = ("prevent_memory_remove",)

_BOOT_MEMORY = "prevent_bootmem_remove_notifier"


def prevent_memory_remove(kernel: Kernel, notification: Notification) -> NotifierVeto | None:
    """Return arm64's veto of MEM_GOING_OFFLINE: boot memory, or a leaf that would be split."""
    if notification.action != "MEM_GOING_OFFLINE":
        return None
    arch, release, pfns = kernel.arch, kernel.release, notification.pfns
    splits = arch.family in release.rejects_leaf_split
    if not arch.offlines_boot_memory and kernel.boot_ram.count(pfns):
        why = f"{pfns} is boot memory, which arm64 never offlines"
        return NotifierVeto(errno.EPERM, LEAF_SPLIT if splits else _BOOT_MEMORY, why)
    rest = PfnRange(pfns.start + notification.altmap_nr_pages, pfns.end)
    if not splits_leaf(arch, release, rest):
        return None
    pfn = rest.start if leaf_offset_bytes(arch, rest.start) else rest.end
    return NotifierVeto(
        errno.EPERM,
        LEAF_SPLIT,
        f"{rest} splits a leaf of the vmemmap: the struct page of pfn {pfn:#x} lies "
        f"{format_size(leaf_offset_bytes(arch, pfn))} inside one",
    )
