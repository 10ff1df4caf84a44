"""The architecture's own listener of the memory notifier chain, which only arm64 has.

It is registered by an early initcall, so that it is called before every listener of a driver.
Source: ``arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier`` (up to 7.0),
``prevent_memory_remove_notifier`` (7.1).
"""

from __future__ import annotations

import errno

from altmap.model.arch import Arch
from altmap.model.kernel.notifier import Notification, NotifierVeto
from altmap.model.kernel.state import Kernel
from altmap.model.releases import Release
from altmap.pfn import PfnRange
from altmap.units import format_size

__all__ = ("LEAF_SPLIT", "leaf_offset_bytes", "prevent_memory_remove", "splits_leaf")

#: The listener since it also vetoes what would split a leaf of the kernel's page tables.
LEAF_SPLIT = "prevent_memory_remove_notifier"
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


def splits_leaf(arch: Arch, release: Release, pfns: PfnRange) -> bool:
    """Tell whether arm64's listener finds a leaf of the vmemmap that *pfns* begin or end in.

    *pfns* are what ``memory_notify`` names: a memory block without the pages that hold its memmap
    (``mm/memory_hotplug.c: offline_pages``; ``drivers/base/memory.c: memory_block_offline``).
    The linear map is taken to be mapped by pages, as ``rodata=full`` makes it on a CPU without
    BBML2 (``arch/arm64/mm/mmu.c: force_pte_mapping``), so that its leaves end nowhere inside.
    """
    if arch.family not in release.rejects_leaf_split or arch.vmemmap_leaf_bytes is None:
        return False
    return any(leaf_offset_bytes(arch, pfn) for pfn in (pfns.start, pfns.end))


def leaf_offset_bytes(arch: Arch, pfn: int) -> int:
    """Return how many bytes inside a leaf of the vmemmap the struct page of *pfn* lies, 0 at one.

    The vmemmap describes pfns from ``memstart_addr`` on, which is a multiple of 1 GiB (512 MiB
    with 64 KiB pages); the struct pages of that many pages fill whole leaves.
    Source: ``arch/arm64/mm/mmu.c: addr_splits_kernel_leaf``; ``arch/arm64/include/asm/memory.h:
    VMEMMAP_START``, ``ARM64_MEMSTART_ALIGN``.
    """
    assert arch.vmemmap_leaf_bytes is not None
    return arch.memmap_bytes(pfn) % arch.vmemmap_leaf_bytes
