"""What an errno of a memory hotplug operation means: which rule of which kernel function."""

from __future__ import annotations

import errno as errno_module
from dataclasses import dataclass

from altmap.errors import InputError, one_of

__all__ = ("REASONS", "Reason", "reason_named", "reasons_of", "reasons_of_number")


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that ends in an errno.

    Attributes
    ----------
    name : str
        Unique; messages of the kernel's log refer to it.
    errno : str
    operation : str
        ``online``, ``offline`` (writes to a block's ``state``), ``add`` or ``remove`` (a driver's),
        ``write`` (to any of the files).
    function : str
        The kernel function that refuses.
    rule, cure : str
    """

    name: str
    errno: str
    operation: str
    function: str
    rule: str
    cure: str


_NOTHING = "nothing: the firmware's memory map makes it so"

#: In the order in which the kernel comes to them. Sources: ``mm/memory_hotplug.c``,
#: ``drivers/base/memory.c``, ``mm/page_isolation.c``, ``drivers/acpi/scan.c``,
#: ``drivers/dax/kmem.c`` (6.1, 6.12, 7.3); for drivers' own rules the files that they name.
REASONS = (
    Reason(
        "already-online",
        "EINVAL",
        "online",
        "state_store",
        "the block is online already, or the word is none of online, online_kernel, "
        "online_movable, offline",
        "read the block's state first",
    ),
    Reason(
        "poisoned-page",
        "EHWPOISON",
        "online",
        "memory_block_online",
        "a page of the block has a hardware memory error",
        "leave the block offline",
    ),
    Reason(
        "online-without-memory",
        "ENOMEM",
        "online",
        "memory_notify",
        "a listener to MEM_GOING_ONLINE found no memory for its own tables (page_ext, kasan)",
        "free memory in kernel zones, then try again",
    ),
    Reason(
        "already-offline",
        "EINVAL",
        "offline",
        "state_store",
        "the block is offline already",
        "read the block's state first",
    ),
    Reason(
        "several-zones",
        "EINVAL",
        "offline",
        "memory_block_offline",
        "the block's pages belong to more than one zone (valid_zones says none)",
        _NOTHING,
    ),
    Reason(
        "memory-hole",
        "EINVAL",
        "offline",
        "offline_pages",
        "the block has a memory hole: part of it is no System RAM in /proc/iomem",
        _NOTHING,
    ),
    Reason(
        "unmovable-pages",
        "EBUSY",
        "offline",
        "start_isolate_page_range",
        "a page of the block cannot move: reserved, slab, page table, kernel stack, driver, memmap "
        "(has_unmovable_pages); or another one is isolating the same pageblocks now",
        "altmap explain BLOCK names the pages; online blocks that must come back with "
        "online_movable",
    ),
    Reason(
        "arm64-boot-memory",
        "EPERM",
        "offline",
        "prevent_bootmem_remove_notifier",
        "arm64 never offlines memory that was there at boot",
        "nothing until the next boot",
    ),
    Reason(
        "arm64-leaf-split",
        "EPERM",
        "offline",
        "prevent_memory_remove_notifier",
        "arm64 since 7.1 offlines no pages whose struct pages begin or end inside a leaf of the "
        "vmemmap: with 4 KiB pages no block that hosts its own memmap goes offline",
        "boot with memory_hotplug.memmap_on_memory=0; for a dax device write 0 to its file "
        "memmap_on_memory before its memory is added",
    ),
    Reason(
        "referenced-fake-offline",
        "EBUSY",
        "offline",
        "scan_movable_pages",
        "a fake-offline page (PageOffline) still has a reference, such as one in a balloon",
        "deflate the balloon",
    ),
    Reason(
        "retries-until-signal",
        "EINTR",
        "offline",
        "offline_pages",
        "a signal came while pages were migrated; without one the kernel retries indefinitely, if "
        "pages are pinned or find no room elsewhere",
        "free memory on other blocks, or end who pins the pages (VFIO, RDMA, O_DIRECT); use a "
        "time limit",
    ),
    Reason(
        "promised-huge-page",
        "EBUSY",
        "offline",
        "dissolve_free_hugetlb_folios",
        "a free hugetlb page of the block is reserved or the last one that is promised",
        "lower nr_hugepages, or end who reserved them",
    ),
    Reason(
        "migrated-huge-page",
        "EBUSY",
        "offline",
        "dissolve_free_hugetlb_folios",
        "a hugetlb page in use was migrated within its node before, and some kernels of 2025 and "
        "2026 (6.18) cannot isolate it again",
        "end who uses the huge page, and try again; or a kernel with the fix of July 2026",
    ),
    Reason(
        "beyond-addresses",
        "E2BIG",
        "add",
        "mhp_range_allowed",
        "the range ends above what the architecture can address or map",
        "place the device lower",
    ),
    Reason(
        "addresses-taken",
        "EEXIST",
        "add",
        "register_memory_resource",
        "something else is at these addresses in /proc/iomem",
        "choose other addresses; memory that failed to leave keeps its place until reboot",
    ),
    Reason(
        "unaligned-range",
        "EINVAL",
        "add",
        "check_hotplug_memory_range",
        "start or size are not multiples of the memory block size (block_size_bytes)",
        "align the device to memory blocks; large machines use blocks of up to 2 GiB",
    ),
    Reason(
        "dax-too-small",
        "EINVAL",
        "add",
        "dev_dax_kmem_probe",
        "of the dax device nothing is left after its ends are cut to whole memory blocks",
        "make the device larger than two memory blocks, or align it to them (block_size_bytes)",
    ),
    Reason(
        "impossible-node",
        "EINVAL",
        "add",
        "add_memory_resource",
        "the node is not a possible one; or up to 6.5, memmap_on_memory was asked for more than "
        "one memory block",
        "name a node from /sys/devices/system/node/possible; update the kernel",
    ),
    Reason(
        "no-memory-for-memmap",
        "ENOMEM",
        "add",
        "vmemmap_populate",
        "existing memory has no room for the memmap: 64 bytes for each page, 1.6 % of the added "
        "range, in kernel zones; what was taken before the failure is lost",
        "add less at once, free memory in kernel zones, or boot with "
        "memory_hotplug.memmap_on_memory=1",
    ),
    Reason(
        "block-still-online",
        "EBUSY",
        "remove",
        "try_remove_memory",
        "a memory block of the range is still online",
        "offline its blocks first: altmap plan remove DEVICE",
    ),
    Reason(
        "dimm-block-refused",
        "EBUSY",
        "remove",
        "acpi_scan_try_to_offline",
        "one block of the DIMM refused to go offline, twice; the others were onlined again, "
        "perhaps in another zone",
        "altmap explain BLOCK for each of its blocks",
    ),
    Reason(
        "block-went-away",
        "ENODEV",
        "offline",
        "state_store",
        "the block went away while its file was open",
        "list the blocks again",
    ),
    Reason(
        "no-hot-remove",
        "EINVAL",
        "offline",
        "offline_pages",
        "the kernel is built without CONFIG_MEMORY_HOTREMOVE: offline_pages() refuses every block "
        "(since 5.8 the file removable of every block is 0; valid_zones does not exist)",
        "a kernel that is built with CONFIG_MEMORY_HOTREMOVE",
    ),
    Reason(
        "offline-vetoed",
        "EBUSY",
        "offline",
        "memory_notify",
        "a listener to MEM_GOING_OFFLINE vetoes, with an errno of its choice: virtio-mem for its "
        "big blocks, arm64 (EPERM) for boot memory and, since 7.1, for self-hosted blocks, "
        "an error-injection module",
        "the lines before name the listener; let the driver remove its memory: altmap plan remove "
        "DEVICE",
    ),
    Reason(
        "virtio-mem-onlining",
        "EPERM",
        "online",
        "virtio_mem_sbm_notify_going_online",
        "virtio-mem is about to remove this block, or has not added it completely",
        "wait until the driver has done what the hypervisor requested, then list the blocks again",
    ),
    Reason(
        "standby-refused",
        "EIO",
        "online",
        "do_assign_storage",
        "the hypervisor of s390x does not assign the storage element: its memory is in use by "
        "another LPAR, or the guest's limit is reached",
        "let the LPAR or z/VM guest have more standby memory",
    ),
    Reason(
        "unaligned-memmap",
        "EINVAL",
        "add",
        "__add_pages",
        "a memmap in the added memory itself does not match the range that is added",
        "boot with memory_hotplug.memmap_on_memory=0; report it as a defect of the kernel",
    ),
    Reason(
        "no-linear-mapping",
        "EFAULT",
        "add",
        "arch_create_linear_mapping",
        "POWER's hash page table has no room for the kernel's mapping of the range",
        "boot with a larger maximum memory, from which the hypervisor sizes the table; add less",
    ),
    Reason(
        "dax-without-node",
        "EINVAL",
        "add",
        "dev_dax_kmem_probe",
        "the dax device has no target node (target_node is -1): rejecting DAX region with invalid "
        "node",
        "firmware with an entry for the range in SRAT or HMAT; a kernel with the fallback "
        "phys_to_target_node (since 5.15, 5.10.71)",
    ),
    Reason(
        "region-taken",
        "EBUSY",
        "add",
        "dev_dax_kmem_probe, virtio_mem_create_resource",
        "the device's addresses are reserved in /proc/iomem: by another device, or by memory of "
        "the same device that was not removed",
        "release the other device; memory that failed to leave keeps its place until reboot",
    ),
    Reason(
        "dlpar-add",
        "EINVAL",
        "add",
        "dlpar_memory_add_by_count, dlpar_add_lmb",
        "an LMB was not acquired from the hypervisor, or not added or onlined; those added before "
        "are removed again, and every cause ends in EINVAL",
        "check the partition's maximum memory; the lines before name the LMB and the cause",
    ),
    Reason(
        "kmem-block-online",
        "EBUSY",
        "remove",
        "dev_dax_kmem_remove",
        "a memory block of the range is online, and kmem does not offline it: the device is "
        "unbound, its memory stays",
        "daxctl offline-memory DEVICE before the device is unbound; now only a reboot helps",
    ),
    Reason(
        "virtio-mem-in-use",
        "EBUSY",
        "remove",
        "virtio_mem_remove",
        "the driver is unloaded while memory of its device is in use",
        "request size 0 of the hypervisor first: altmap plan remove DEVICE",
    ),
    Reason(
        "dlpar-remove",
        "EINVAL",
        "remove",
        "dlpar_memory_remove_by_count, dlpar_remove_lmb",
        "too few LMBs go offline: those that did are added again, and every cause ends in EINVAL",
        "altmap explain BLOCK for each block; remove fewer LMBs",
    ),
    Reason(
        "eject-disabled",
        "EPERM",
        "remove",
        "acpi_generic_hotplug_event",
        "eject is disabled in /sys/firmware/acpi/hotplug/memory/enabled",
        "echo 1 >/sys/firmware/acpi/hotplug/memory/enabled",
    ),
    Reason(
        "read-only-file",
        "EACCES",
        "write",
        "kernfs_fop_open",
        "the file is read-only, for root too, such as memory_hotplug's memmap_on_memory; or a new "
        "file is made in sysfs, as a shell does whose file is not there (probe)",
        "parameters that are read-only are set on the kernel's command line",
    ),
    Reason(
        "no-such-file",
        "ENOENT",
        "write",
        "open",
        "there is no memory block of that number",
        "list the blocks again: altmap ls",
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
        known = dict.fromkeys(reason.errno for reason in REASONS)
        raise InputError(f"errno {errno!r}: {one_of(errno, known)}")
    return found


def reason_named(name: str) -> Reason:
    """Return the rule of a name."""
    return next(reason for reason in REASONS if reason.name == name)


def reasons_of_number(number: int, operation: str) -> list[Reason]:
    """Return the rules of an operation behind an errno that a message gives as a number."""
    errno = errno_module.errorcode.get(abs(number), "")
    return [each for each in REASONS if (each.errno, each.operation) == (errno, operation)]
