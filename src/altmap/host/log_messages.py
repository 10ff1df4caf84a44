"""Messages of the kernel about memory hotplug: a pattern for each, and what it says.

Named groups hold what a message names: ``start`` and ``end`` (inclusive), ``past`` (exclusive) or
``size`` of a range of bytes, ``pfn``, ``block``, ``device``, ``error`` (an errno's number) and
``detail``. A message of a refusal names the rule of :mod:`altmap.host.errnos` by errno, operation
and function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

__all__ = ("MESSAGES", "LogMessage", "message_in")

_HEX = r"(?:0x)?[0-9a-fA-F]{1,16}"
_MEM = rf"\[mem (?P<start>{_HEX})-(?P<end>{_HEX})(?: [^\]]{{0,40}})?\]"
_RANGE = rf"(?P<start>{_HEX}) ?- ?(?P<end>{_HEX})"
_ERROR = r"(?P<error>-?\d{1,5})"
_DAX = r"(?P<device>dax\d{1,6}\.\d{1,6})"
_VIRTIO = r"virtio_mem (?P<device>virtio\d{1,6}): "
_ACPI = r"acpi (?P<device>[A-Z0-9]{7,8}:[0-9a-fA-F]{2,4}): "
_DLPAR = r"pseries-hotplug-mem: "


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message of the kernel.

    Attributes
    ----------
    name : str
        Unique.
    part : str
        Text that each such line has; only then the pattern is tried.
    pattern : str
        A regular expression, searched for in a line without what stands before the message.
    source : str
        The kernel's file and function.
    since, until : str
        The first release that has it in this form, and the last; empty: 4.9 or before, 7.3.
    rule : str
        Name of the rule behind a refusal (:data:`altmap.host.errnos.REASONS`); empty if there is
        none.
    operation : str
        ``add``, ``remove``: of a message with an errno, which selects the rules.
    says : str
        What the message says, where no rule does; what is added to the rule otherwise.
    debug : bool
        Only shown with dynamic debug (``dyndbg="file mm/memory_hotplug.c +p"``).
    """

    name: str
    part: str
    pattern: str
    source: str
    rule: str = ""
    operation: str = ""
    says: str = ""
    since: str = ""
    until: str = ""
    debug: bool = False


_HOTPLUG, _ISOLATION = "mm/memory_hotplug.c", "mm/page_isolation.c"


def _failed(name: str, reason: str, rule: str, says: str = "", since: str = "4.20") -> LogMessage:
    """Return the message of a refused offline, with its reason."""
    return LogMessage(
        f"offline-{name}",
        "memory offlining",
        rf"memory offlining {_MEM} failed{reason}",
        f"{_HOTPLUG}: offline_pages",
        rule,
        says=says,
        since=since,
        until="" if since else "4.19",
        debug=True,
    )


#: By operation. Most formats are the same from 4.9 to 7.3; ``since`` and ``until`` say where one is
#: not.
MESSAGES = (
    # --- offline ---------------------------------------------------------------------------
    _failed(
        "isolation",
        " due to failure to isolate range",
        "unmovable-pages",
    ),
    _failed("holes", " due to memory holes", "memory-hole"),
    _failed("zones", " due to multizone range", "several-zones"),
    _failed("notifier", " due to notifier failure", "offline-vetoed"),
    _failed("signal", " due to signal backoff", "retries-until-signal"),
    _failed("unmovable", " due to unmovable page", "referenced-fake-offline"),
    _failed(
        "hugetlb",
        " due to failure to dissolve huge pages",
        "promised-huge-page",
    ),
    _failed("no-reason", "$", "unmovable-pages", "no reason is logged", ""),
    LogMessage(
        "dump-unmovable",
        "page dumped because",
        r"page dumped because: (?P<detail>unmovable page)",
        f"{_ISOLATION}: set_migratetype_isolate",
        rule="unmovable-pages",
        since="4.20",
    ),
    LogMessage(
        "dump-migration",
        "page dumped because",
        r"page dumped because: (?P<detail>migration failure)",
        f"{_HOTPLUG}: do_migrate_range",
        rule="retries-until-signal",
        says="this page was not migrated in one pass; the kernel tries again",
        since="5.0",
    ),
    LogMessage(
        "dump-isolation",
        "page dumped because",
        r"page dumped because: (?P<detail>isolation failed)",
        f"{_HOTPLUG}: do_migrate_range",
        rule="retries-until-signal",
        says="this page was not taken off its LRU list in one pass; the kernel tries again",
    ),
    LogMessage(
        "migrating-failed",
        "migrating pfn",
        rf"migrating pfn (?P<pfn>{_HEX}) failed ret:{_ERROR}",
        f"{_HOTPLUG}: do_migrate_range",
        rule="retries-until-signal",
        says="this page was not migrated in one pass; the kernel tries again",
        since="5.0",
    ),
    LogMessage(
        "isolate-failed",
        "failed to isolate pfn",
        rf"failed to isolate pfn (?P<pfn>{_HEX})",
        f"{_HOTPLUG}: do_migrate_range",
        rule="retries-until-signal",
        says="this page was not taken off its LRU list in one pass; the kernel tries again",
    ),
    LogMessage(
        "offlined",
        "Offlined Pages",
        r"Offlined Pages (?P<detail>\d{1,19})",
        f"{_HOTPLUG}: offline_pages",
        says="a memory block went offline; the message gives its pages, not its number",
    ),
    LogMessage(
        "boot-memory-offline",
        "] offlining attempted",
        rf"Boot memory \[(?P<start>{_HEX}) (?P<past>{_HEX})\] offlining attempted",
        "arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier",
        rule="arm64-boot-memory",
        since="5.11",
    ),
    LogMessage(
        "leaf-split",
        "splits a leaf entry in",
        rf"\[(?P<start>{_HEX}) (?P<past>{_HEX})\] splits a leaf entry in "
        r"(?P<detail>linear map|vmemmap)",
        "arch/arm64/mm/mmu.c: can_unmap_without_split",
        rule="arm64-leaf-split",
        says="the range begins behind the block's own memmap",
        since="7.1",
    ),
    # --- online ----------------------------------------------------------------------------
    LogMessage(
        "online-failed",
        "online_pages [mem",
        rf"online_pages {_MEM} failed",
        f"{_HOTPLUG}: online_pages",
        rule="online-without-memory",
        debug=True,
    ),
    LogMessage(
        "virtio-mem-denied",
        "memory block onlining denied",
        rf"{_VIRTIO}memory block onlining denied",
        "drivers/virtio/virtio_mem.c: virtio_mem_sbm_notify_going_online",
        rule="virtio-mem-onlining",
        since="5.8",
    ),
    LogMessage(
        "zonelists",
        ", mobility grouping o",
        r"Built \d{1,5} zonelists(?: in (?:Node|Zone) order)?, mobility grouping (?:on|off)\. +"
        r"Total pages: (?P<detail>\d{1,19})",
        "mm/page_alloc.c: build_all_zonelists",
        says="a zone got its first pages or lost its last ones (at boot: the first zonelists)",
    ),
    # --- add -------------------------------------------------------------------------------
    LogMessage(
        "unaligned",
        "unaligned hotplug range: start",
        rf"(?:Block size \[{_HEX}\] |Section-)unaligned hotplug range: "
        rf"start (?P<start>{_HEX}), size (?P<size>{_HEX})",
        f"{_HOTPLUG}: check_hotplug_memory_range",
        rule="unaligned-range",
        says="up to 4.16 ranges must be multiples of a section",
    ),
    LogMessage(
        "exceeds",
        "exceeds maximum addressable",
        r"Hotplug(?:ged)? memory (?:exceeds maximum addressable address, range=|\[)"
        rf"(?P<start>{_HEX})-(?P<end>{_HEX})(?:\] exceeds maximum addressable range|, maximum=)",
        f"{_HOTPLUG}: mhp_range_allowed",
        rule="beyond-addresses",
        says="up to 5.11 by check_hotplug_memory_addressable",
        since="5.6",
    ),
    LogMessage(
        "not-reserved",
        "Unable to reserve System RAM region",
        rf"Unable to reserve System RAM region: (?P<start>{_HEX})->(?P<past>{_HEX})",
        f"{_HOTPLUG}: register_memory_resource",
        rule="addresses-taken",
        since="5.2",
        debug=True,
    ),
    LogMessage(
        "resource-taken",
        "System RAM resource [mem",
        rf"System RAM resource {_MEM} cannot be added",
        f"{_HOTPLUG}: register_memory_resource",
        rule="addresses-taken",
        until="5.1",
        debug=True,
    ),
    LogMessage(
        "node-absent",
        "was absent from the node_possible_map",
        r"node (?P<detail>-?\d{1,10}) was absent from the node_possible_map",
        f"{_HOTPLUG}: add_memory_resource",
        rule="impossible-node",
        since="5.9",
    ),
    LogMessage(
        "vmemmap",
        "vmemmap alloc failure: order",
        r"vmemmap alloc failure: order:(?P<detail>\d{1,3})",
        "mm/sparse-vmemmap.c: vmemmap_alloc_block",
        rule="no-memory-for-memmap",
        since="4.14",
    ),
    LogMessage(
        "invalid-altmap",
        "memory add fail, invalid altmap",
        r"memory add fail, invalid altmap",
        f"{_HOTPLUG}: __add_pages",
        rule="unaligned-memmap",
    ),
    LogMessage(
        "linear-mapping",
        "Unable to create",
        r"Unable to create (?:linear )?mapping for (?:hot added memory )?"
        rf"(?P<start>{_HEX})\.\.(?P<past>{_HEX}): {_ERROR}",
        "arch/powerpc/mm/mem.c: arch_create_linear_mapping",
        rule="no-linear-mapping",
    ),
    LogMessage(
        "acpi-add",
        "add_memory failed",
        rf"{_ACPI}add_memory failed",
        "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device",
        says="a range of the DIMM was not added: the line before says why; the firmware is "
        "answered success in any case",
    ),
    LogMessage(
        "acpi-enable",
        "acpi_memory_enable_device() error",
        rf"{_ACPI}acpi_memory_enable_device\(\) error",
        "drivers/acpi/acpi_memhotplug.c: acpi_memory_device_add",
        says="the driver is not bound to the DIMM: an eject removes it at once",
    ),
    LogMessage(
        "acpi-empty",
        "device is empty",
        rf"{_ACPI}device is empty",
        "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device",
        says="the firmware reports the device without any memory (_CRS)",
    ),
    LogMessage(
        "kmem-node",
        "rejecting DAX region",
        rf"kmem {_DAX}: rejecting DAX region (?:{_MEM} )?with invalid node: "
        r"(?P<detail>-?\d{1,10})",
        "drivers/dax/kmem.c: dev_dax_kmem_probe",
        rule="dax-without-node",
        since="5.1",
    ),
    LogMessage(
        "kmem-nothing-left",
        "rejecting DAX region without any memory after alignment",
        rf"kmem {_DAX}: rejecting DAX region without any memory after alignment",
        "drivers/dax/kmem.c: dev_dax_kmem_probe",
        rule="dax-too-small",
        since="5.10",
    ),
    LogMessage(
        "kmem-too-small",
        "too small after alignment",
        rf"kmem {_DAX}: mapping\d{{1,6}}: {_RANGE} too small after alignment",
        "drivers/dax/kmem.c: dev_dax_kmem_probe",
        says="this range of the device holds no whole memory block and is left out",
        since="5.10",
    ),
    LogMessage(
        "kmem-reserve",
        "could not reserve region",
        rf"kmem {_DAX}: (?:mapping\d{{1,6}}: {_RANGE} )?could not reserve region",
        "drivers/dax/kmem.c: dev_dax_kmem_probe",
        rule="region-taken",
        since="5.1",
    ),
    LogMessage(
        "kmem-add",
        "memory add failed",
        rf"kmem {_DAX}: mapping\d{{1,6}}: {_RANGE} memory add failed",
        "drivers/dax/kmem.c: dev_dax_kmem_probe",
        rule="addresses-taken",
        says="other refusals of an add end here too: the lines before say which",
        since="5.10",
    ),
    LogMessage(
        "kmem-probe",
        "failed with error",
        rf"kmem(?::| {_DAX}:) probe (?:of (?P<other>dax\d{{1,6}}\.\d{{1,6}}) |with driver kmem )"
        rf"failed with error {_ERROR}",
        "drivers/base/dd.c: really_probe",
        operation="add",
        since="5.1",
    ),
    LogMessage(
        "virtio-mem-add",
        "adding memory failed",
        rf"{_VIRTIO}adding memory failed: {_ERROR}",
        "drivers/virtio/virtio_mem.c: virtio_mem_add_memory",
        operation="add",
        since="5.8",
    ),
    LogMessage(
        "virtio-mem-alignment",
        "address can make some memory unusable",
        rf"{_VIRTIO}The alignment of the physical (?P<detail>start|end) address can make some "
        "memory unusable",
        "drivers/virtio/virtio_mem.c: virtio_mem_init",
        says="the part of the device's region before its first or behind its last whole memory "
        "block is never used: align the region to memory blocks",
        since="5.8",
    ),
    LogMessage(
        "virtio-mem-unpluggable",
        "memory is not addressable",
        rf"{_VIRTIO}Some (?:device )?memory is not addressable(?:/pluggable)?",
        "drivers/virtio/virtio_mem.c: virtio_mem_init",
        rule="beyond-addresses",
        since="5.8",
    ),
    LogMessage(
        "virtio-mem-broken",
        "unknown error, marking device broken",
        rf"{_VIRTIO}unknown error, marking device broken: {_ERROR}",
        "drivers/virtio/virtio_mem.c: virtio_mem_run_wq",
        says="the driver stops: no request of the hypervisor is followed until a reboot",
        since="5.8",
    ),
    LogMessage(
        "virtio-mem-region",
        "could not reserve device region",
        rf"{_VIRTIO}could not reserve device region",
        "drivers/virtio/virtio_mem.c: virtio_mem_create_resource",
        rule="region-taken",
        since="5.8",
    ),
    LogMessage(
        "virtio-mem-request",
        "size",
        rf"{_VIRTIO}(?P<detail>(?:requested|plugged) size: {_HEX})",
        "drivers/virtio/virtio_mem.c: virtio_mem_refresh_config",
        says="the hypervisor's request, and what is plugged",
        since="5.8",
    ),
    LogMessage(
        "hyperv-add",
        "hv_balloon: hot_add memory failed error is",
        rf"hv_balloon: hot_add memory failed error is {_ERROR}",
        "drivers/hv/hv_balloon.c: hv_mem_hot_add",
        operation="add",
    ),
    LogMessage(
        "hyperv-none-added",
        "hv_balloon: Memory hot add failed",
        r"hv_balloon: Memory hot add failed",
        "drivers/hv/hv_balloon.c: hot_add_req",
        says="the host is answered that no page was added: the line before says why; up to 5.x "
        "also if user space does not online a block within five seconds",
    ),
    LogMessage(
        "hyperv-partial-balloon",
        "hv_balloon: Balloon request will be partially fulfilled.",
        r"hv_balloon: Balloon request will be partially fulfilled\. "
        r"(?P<detail>Not enough memory|Balloon floor reached)",
        "drivers/hv/hv_balloon.c: balloon_up",
        says="the guest keeps the memory that it needs: the host gets less than it requested",
    ),
    LogMessage(
        "hyperv-ignored",
        "hv_balloon: Ignore",
        r"hv_balloon: Ignore (?P<detail>hot-add|balloon-up|balloon-down) request!",
        "drivers/hv/hv_balloon.c: balloon_onchannelcallback",
        says="ballooning or hot-add is switched off, such as after hibernation was enabled",
        since="5.6",
    ),
    LogMessage(
        "hyperv-off",
        "disabled",
        r"hv_balloon: (?P<detail>Ballooning disabled because page size is not 4096 bytes"
        r"|Memory hot add disabled on ARM64)",
        "drivers/hv/hv_balloon.c: ballooning_enabled, hot_add_enabled",
        says="the host cannot change this guest's memory while it runs",
        since="6.2",
    ),
    LogMessage(
        "xen-add",
        "balloon: Cannot add additional memory (",
        rf"xen[:_]balloon: Cannot add additional memory \({_ERROR}\)",
        "drivers/xen/balloon.c: reserve_additional_memory",
        operation="add",
    ),
    LogMessage(
        "xen-resource",
        "balloon: Cannot allocate new System RAM resource",
        r"xen[:_]balloon: Cannot allocate new System RAM resource",
        "drivers/xen/balloon.c: additional_memory_resource",
        says="no free addresses for more memory of the domain: the balloon keeps its size",
    ),
    LogMessage(
        "xen-initial",
        "balloon: Initial ballooning failed,",
        r"xen[:_]balloon: Initial ballooning failed, (?P<detail>\d{1,19}) pages need to be freed",
        "drivers/xen/balloon.c: balloon_wait_finish",
        says="the domain starts with less memory than its maximum, and had no pages to free for it",
        since="5.16",
    ),
    LogMessage(
        "dlpar-add-failed",
        "-add failed, removing any added LMBs",
        rf"{_DLPAR}Memory (?:hot|indexed-count)-add failed, removing any added LMBs",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory_add_by_count",
        rule="dlpar-add",
    ),
    LogMessage(
        "dlpar-lmb-not-added",
        "pseries-hotplug-mem: Failed to",
        rf"{_DLPAR}Failed to (?:hot-add memory, drc index|configure LMB|add LMB|online LMB) "
        rf"(?P<detail>{_HEX})",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_add_lmb",
        rule="dlpar-add",
    ),
    LogMessage(
        "dlpar-moved",
        "pseries-hotplug-mem: Memory at",
        rf"{_DLPAR}Memory at (?P<start>{_HEX})(?: \(drc index {_HEX}\))? was "
        r"(?P<detail>hot-(?:added|removed))",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory",
        says="an LMB was added and onlined, or offlined and removed",
    ),
    LogMessage(
        "standby",
        "Standby memory at",
        r"Standby memory at (?P<start>0x[0-9a-f]{1,16}) "
        r"\((?P<detail>\d{1,12}M of \d{1,12}M usable)\)",
        "drivers/s390/char/sclp_cmd.c: sclp_add_standby_memory",
        says="standby memory of the LPAR or guest, which is used once it is online",
    ),
    LogMessage(
        "standby-assign",
        "assign storage failed",
        r"assign storage failed \(cmd=0x(?P<detail>[0-9a-f]{8}, response=0x[0-9a-f]{4})",
        "drivers/s390/char/sclp_cmd.c: do_assign_storage",
        rule="standby-refused",
    ),
    LogMessage(
        "hotplug-region",
        "SRAT: Node",
        rf"SRAT: Node \d{{1,6}} PXM \d{{1,6}} {_MEM} hotplug",
        "drivers/acpi/numa/srat.c: acpi_parse_memory_affinity",
        says="the firmware keeps these addresses for memory that is hot-plugged",
    ),
    LogMessage(
        "crash-kernel",
        "crashkernel reserved",
        rf"crashkernel reserved: (?P<start>{_HEX}) - (?P<past>{_HEX})",
        "kernel/crash_reserve.c: reserve_crashkernel_generic",
        says="memory of the crash kernel is reserved: the blocks that hold it do not go offline "
        "(EBUSY by has_unmovable_pages); a smaller crashkernel= frees some at the next boot",
    ),
    LogMessage(
        "crash-kernel-old",
        "MB for crashkernel",
        r"Reserving (?P<mib>\d{1,12}) ?MB of (?:low )?memory at (?P<at_mib>\d{1,12}) ?MB for "
        "crashkernel",
        "arch/x86/kernel/setup.c, arch/s390/kernel/setup.c: reserve_crashkernel",
        says="memory of the crash kernel is reserved: the blocks that hold it do not go offline "
        "(EBUSY by has_unmovable_pages); a smaller crashkernel= frees some at the next boot",
    ),
    LogMessage(
        "crash-hotplug",
        "crash hp",
        r"crash hp: (?P<detail>.{1,80})",
        "kernel/crash_core.c: crash_handle_hotplug_event",
        says="the crash kernel's list of memory may be older than the memory: load it again "
        "(kdumpctl reload, systemctl restart kdump-tools)",
        since="6.6",
    ),
    # --- remove ----------------------------------------------------------------------------
    LogMessage(
        "remove-online",
        "removing memory fails, because memory [",
        rf"removing memory fails, because memory \[(?P<start>{_HEX})-(?P<end>{_HEX})\] is onlined",
        f"{_HOTPLUG}: check_memblock_offlined_cb",
        rule="block-still-online",
    ),
    LogMessage(
        "acpi-offline",
        "Offline failed.",
        r"memory (?P<block>memory\d{1,9}): Offline failed\.",
        "drivers/acpi/scan.c: acpi_scan_try_to_offline",
        rule="dimm-block-refused",
    ),
    LogMessage(
        "acpi-offline-disabled",
        "Offline disabled.",
        rf"(?:{_ACPI}|memory (?P<block>memory\d{{1,9}}): )Offline disabled\.",
        "drivers/acpi/scan.c: acpi_scan_try_to_offline",
        rule="eject-disabled",
    ),
    LogMessage(
        "acpi-eject-disabled",
        "Eject disabled",
        rf"{_ACPI}Eject disabled",
        "drivers/acpi/scan.c: acpi_generic_hotplug_event",
        rule="eject-disabled",
    ),
    LogMessage(
        "acpi-eject-incomplete",
        "ject",
        r"(?:Eject incomplete - status|Status check after eject failed) \(?(?P<detail>0x[0-9a-f]+)",
        "drivers/acpi/scan.c: acpi_scan_hot_remove",
        says="the kernel has removed the memory and called _EJ0, but the firmware still reports "
        "the device: the hypervisor did not take the DIMM",
    ),
    LogMessage(
        "kmem-stays",
        "cannot be hotremoved",
        rf"kmem {_DAX}: (?:(?:mapping\d{{1,6}}: )?{_RANGE}|DAX region {_MEM.replace('<', '<m_')}) "
        "cannot be hotremoved until the next reboot",
        "drivers/dax/kmem.c: dev_dax_kmem_remove",
        rule="kmem-block-online",
        since="5.3",
    ),
    LogMessage(
        "virtio-mem-remove",
        "removing memory failed",
        rf"{_VIRTIO}(?:offlining and )?removing memory failed: {_ERROR}",
        "drivers/virtio/virtio_mem.c: virtio_mem_offline_and_remove_memory",
        operation="remove",
        since="5.8",
        debug=True,
    ),
    LogMessage(
        "virtio-mem-stays",
        "device still has system memory added",
        rf"{_VIRTIO}device still has system memory added",
        "drivers/virtio/virtio_mem.c: virtio_mem_remove",
        rule="virtio-mem-in-use",
        since="5.8",
    ),
    LogMessage(
        "not-onlined-again",
        "Failed to re-online memory",
        rf"Failed to re-online memory: {_ERROR}",
        f"{_HOTPLUG}: try_reonline_memory_block",
        says="a block that went offline for a removal that was refused did not come online again",
        since="5.14",
    ),
    LogMessage(
        "dlpar-remove-failed",
        "pseries-hotplug-mem: Memory",
        rf"{_DLPAR}Memory (?:hot|indexed-count)-remove failed, "
        "adding (?:LMB's back|any removed LMBs)",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory_remove_by_count",
        rule="dlpar-remove",
    ),
    LogMessage(
        "dlpar-not-enough",
        "pseries-hotplug-mem: Not enough LMBs available (",
        rf"{_DLPAR}Not enough LMBs available \((?P<detail>\d{{1,9}} of \d{{1,9}})\)",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory_remove_by_count",
        rule="dlpar-remove",
    ),
    LogMessage(
        "dlpar-lmb-stays",
        "pseries-hotplug-mem: Failed to hot-remove memory at",
        rf"{_DLPAR}Failed to hot-remove memory at (?P<start>{_HEX})",
        "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory_remove_by_index",
        rule="dlpar-remove",
        debug=True,
    ),
    # --- single pages ----------------------------------------------------------------------
    LogMessage(
        "poison-recovered",
        "recovery action for",
        rf"(?:Memory failure: |MCE )(?P<pfn>{_HEX}): recovery action for (?P<detail>.{{1,80}})",
        "mm/memory-failure.c: action_result",
        says="the page is a HWPoison page from now on; its block can go offline; whether it can be "
        "onlined again depends on the release (EHWPOISON)",
    ),
    LogMessage(
        "poison-outside",
        "memory outside kernel control",
        rf"Memory failure: (?P<pfn>{_HEX}): memory outside kernel control",
        "mm/memory-failure.c: memory_failure",
        says="the address is in no online memory block: nothing to take out of use (ENXIO)",
    ),
    LogMessage(
        "poison-unhandled",
        "unhandlable page",
        rf"Memory failure: (?P<pfn>{_HEX}): unhandlable page",
        "mm/memory-failure.c: get_hwpoison_page",
        says="a kernel page that cannot be taken out of use: it stays, marked as HWPoison",
        since="5.12",
    ),
    LogMessage(
        "soft-offline",
        "offline",
        rf"[Ss]oft[ _]offline: (?P<pfn>{_HEX}): (?P<detail>.{{1,120}})",
        "mm/memory-failure.c: soft_offline_page",
        says="the page stays in use, unless the message says otherwise",
    ),
)


@cache
def _compiled(name: str) -> re.Pattern[str]:
    (message,) = (each for each in MESSAGES if each.name == name)
    return re.compile(rf"(?<!\w){message.pattern}")


def message_in(text: str) -> tuple[LogMessage, dict[str, str]] | None:
    """Return the message in a line and what it names, ``None`` if there is none."""
    for message in MESSAGES:
        if message.part in text and (match := _compiled(message.name).search(text)) is not None:
            return message, {
                name.removeprefix("m_"): value for name, value in match.groupdict().items() if value
            }
    return None
