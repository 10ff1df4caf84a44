"""Leaves of the vmemmap: memory whose memmap ends inside one may not go offline (arm64)."""

from __future__ import annotations

from altmap.model.arch import Arch
from altmap.model.releases import Release
from altmap.pfn import PfnRange

__all__ = ("LEAF_SPLIT", "leaf_offset_bytes", "splits_leaf")

#: arm64's listener of the memory notifier chain, since it vetoes what would split a leaf.
LEAF_SPLIT = "prevent_memory_remove_notifier"


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
