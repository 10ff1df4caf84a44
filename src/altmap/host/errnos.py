"""What an errno of a memory hotplug operation means: which rule of which kernel function."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.errors import InputError

__all__ = ("REASONS", "Reason", "reasons_of")


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that ends in an errno.

    Attributes
    ----------
    errno : str
    operation : str
        ``online``, ``offline`` (writes to a block's ``state``), ``add`` or ``remove`` (a driver's).
    function : str
        The kernel function that refuses.
    rule, cure : str
    """

    errno: str
    operation: str
    function: str
    rule: str
    cure: str


_NOTHING = "nothing: the firmware's memory map makes it so"

#: In the order in which the kernel comes to them. Sources: ``mm/memory_hotplug.c``,
#: ``drivers/base/memory.c``, ``mm/page_isolation.c``, ``drivers/acpi/scan.c``,
#: ``drivers/dax/kmem.c`` (6.1, 6.12, 7.3).
REASONS = (
    Reason(
        "EINVAL",
        "online",
        "state_store",
        "the block is online already, or the word is none of online, online_kernel, "
        "online_movable, offline",
        "read the block's state first",
    ),
    Reason(
        "EHWPOISON",
        "online",
        "memory_block_online",
        "a page of the block has a hardware memory error",
        "leave the block offline",
    ),
    Reason(
        "ENOMEM",
        "online",
        "memory_notify",
        "a listener to MEM_GOING_ONLINE found no memory for its own tables (page_ext, kasan)",
        "free memory in kernel zones, then try again",
    ),
    Reason(
        "EINVAL",
        "offline",
        "state_store",
        "the block is offline already",
        "read the block's state first",
    ),
    Reason(
        "EINVAL",
        "offline",
        "memory_block_offline",
        "the block's pages belong to more than one zone (valid_zones says none)",
        _NOTHING,
    ),
    Reason(
        "EINVAL",
        "offline",
        "offline_pages",
        "the block has a memory hole: part of it is no System RAM in /proc/iomem",
        _NOTHING,
    ),
    Reason(
        "EBUSY",
        "offline",
        "start_isolate_page_range",
        "a page of the block cannot move: reserved, slab, page table, kernel stack, driver, memmap "
        "(has_unmovable_pages); or another one is isolating the same pageblocks now",
        "altmap explain BLOCK names the pages; online blocks that must come back with "
        "online_movable",
    ),
    Reason(
        "EPERM",
        "offline",
        "prevent_bootmem_remove_notifier",
        "arm64 never offlines memory that was there at boot",
        "nothing until the next boot",
    ),
    Reason(
        "EBUSY",
        "offline",
        "scan_movable_pages",
        "a fake-offline page (PageOffline) still has a reference, such as one in a balloon",
        "deflate the balloon",
    ),
    Reason(
        "EINTR",
        "offline",
        "offline_pages",
        "a signal came while pages were migrated; without one the kernel retries for ever, if "
        "pages are pinned or find no room elsewhere",
        "free memory on other blocks, or end who pins the pages (VFIO, RDMA, O_DIRECT); use a "
        "time limit",
    ),
    Reason(
        "EBUSY",
        "offline",
        "dissolve_free_hugetlb_folios",
        "a free hugetlb page of the block is reserved or the last one that is promised",
        "lower nr_hugepages, or end who reserved them",
    ),
    Reason(
        "E2BIG",
        "add",
        "mhp_range_allowed",
        "the range ends above what the architecture can address or map",
        "place the device lower",
    ),
    Reason(
        "EEXIST",
        "add",
        "register_memory_resource",
        "something else is at these addresses in /proc/iomem",
        "choose other addresses; memory that failed to leave keeps its place until reboot",
    ),
    Reason(
        "EINVAL",
        "add",
        "check_hotplug_memory_range",
        "start or size are not multiples of the memory block size (block_size_bytes)",
        "align the device to memory blocks; large machines use blocks of up to 2 GiB",
    ),
    Reason(
        "EINVAL",
        "add",
        "dev_dax_kmem_probe",
        "of the dax device nothing is left after its ends are cut to whole memory blocks",
        "make the device larger than two memory blocks, or align it to them (block_size_bytes)",
    ),
    Reason(
        "EINVAL",
        "add",
        "add_memory_resource",
        "the node is not a possible one; or up to 6.5, memmap_on_memory was asked for more than "
        "one memory block",
        "name a node from /sys/devices/system/node/possible; update the kernel",
    ),
    Reason(
        "ENOMEM",
        "add",
        "vmemmap_populate",
        "existing memory has no room for the memmap: 64 bytes for each page, 1.6 % of the added "
        "range, in kernel zones; what was taken before the failure is lost",
        "add less at once, free memory in kernel zones, or boot with "
        "memory_hotplug.memmap_on_memory=1",
    ),
    Reason(
        "EBUSY",
        "remove",
        "try_remove_memory",
        "a memory block of the range is still online",
        "offline its blocks first: altmap plan remove DEVICE",
    ),
    Reason(
        "EBUSY",
        "remove",
        "acpi_scan_try_to_offline",
        "one block of the DIMM refused to go offline, twice; the others were onlined again, "
        "perhaps in another zone",
        "altmap explain BLOCK for each of its blocks",
    ),
    Reason(
        "ENODEV",
        "offline",
        "state_store",
        "the block went away while its file was open",
        "list the blocks again",
    ),
)


def reasons_of(errno: str) -> list[Reason]:
    """Return every rule that ends in an errno, by name.

    Raises
    ------
    InputError
        If none does.
    """
    found = [reason for reason in REASONS if reason.errno == errno.upper()]
    if not found:
        known = ", ".join(dict.fromkeys(reason.errno for reason in REASONS))
        raise InputError(f"errno {errno!r}: need one that memory hotplug gives: {known}")
    return found
