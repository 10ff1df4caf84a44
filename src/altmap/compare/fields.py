"""The table of fields: what is compared, how exactly, and which kernel function decides it.

No other field is compared. ``docs/fidelity.md`` shows the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from altmap.compare import counters, folders, messages, pages, steps
from altmap.compare.side import Key, Side, Values
from altmap.compare.tolerance import (
    FILES_KIB,
    FIRMWARE_PAGES,
    FLOOR_PAGES,
    FREE_KIB,
    FREE_PAGES,
    ROUNDED_PAGES,
    SHARE_PAGES,
    SHARED_FREE_PAGES,
    ZONE_FREE_PAGES,
    Tolerance,
)

__all__ = ("BLOCKS", "FIELDS", "LAYOUT", "ComparedFile", "Field")


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """A file or folder of Linux, or what a step did.

    Attributes
    ----------
    path : str
        As shown; that of a file is relative to the root of the machine's files.
    shows : str
        The attribute of :class:`~altmap.linux.observation.Observation` that is ``None`` where a
        machine does not show the file: it is then not compared. Empty where a side without the file
        lacks its values, and differs from one that has them.
    of : str
        ``boot`` for the layout of a synthetic boot state, ``step`` for what a step did, ``machine``
        for what the machine shows after it.
    optional : bool
        It has no verdict where neither side has a field of it.
    """

    path: str
    shows: str = ""
    of: Literal["boot", "step", "machine"] = "machine"
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field that is compared, or one for each node, zone, memory block or the like.

    A value that one side has and the other has not differs, whatever the tolerance. One that
    a side says it cannot tell is not compared.

    Attributes
    ----------
    file : ComparedFile
    name : str
        With a placeholder such as ``<node>`` for each part of a value's key.
    source : str
        The kernel file and the functions that decide the value.
    values : callable
        Takes a side and yields its values by key.
    tolerance : Tolerance or None
        ``None`` where the values must be equal.
    nested : bool
        Sets of page frames, one of which contains the other: how far a kernel gets before its
        machine check is chance.
    subset : bool
        The values are sets of page frames, and the predicted frames must be among the observed.
    """

    file: ComparedFile
    name: str
    source: str
    values: Values
    tolerance: Tolerance | None = None
    subset: bool = False
    nested: bool = False

    def label(self, key: Key) -> str:
        """Return the name with the parts of the key in place of the placeholders."""
        parts = iter(key)
        return re.sub(r"<\w+>", lambda _: str(next(parts)), self.name)

    def agrees(self, predicted: Any, observed: Any) -> bool:
        """Tell whether the prediction is right without any tolerance."""
        if self.nested and predicted is not None and observed is not None:
            return bool(predicted.issubset(observed) or observed.issubset(predicted))
        if self.subset and predicted is not None and observed is not None:
            return bool(predicted.issubset(observed))
        return bool(predicted == observed)


RESULT = ComparedFile("result", of="step")
REQUESTS = ComparedFile("requests of the driver", of="step", optional=True)
MESSAGES = ComparedFile("messages of the driver", of="step", optional=True)
TOUCHED = ComparedFile("touched frames", of="step", optional=True)
MEMINFO = ComparedFile("proc/meminfo", "meminfo")
VMSTAT = ComparedFile("proc/vmstat", "vmstat")
ZONEINFO = ComparedFile("proc/zoneinfo", "zoneinfo")
BUDDYINFO = ComparedFile("proc/buddyinfo", "buddyinfo")
NODES = ComparedFile("sys/devices/system/node", "nodes")
KPAGEFLAGS = ComparedFile("proc/kpageflags", "kpageflags")
IOMEM = ComparedFile("proc/iomem", "iomem")
BLOCKS = ComparedFile("sys/devices/system/memory", "memory")
PARAMETERS = ComparedFile("sys/module/memory_hotplug/parameters")
BALLOON = ComparedFile("sys/devices/system/xen_memory", optional=True)
LAYOUT = ComparedFile("proc/zoneinfo (layout)", "zoneinfo", of="boot")

_ASKED = "the kernel function that the prediction names"
_STRUCT_PAGES = (
    "mm/mm_init.c: memmap_init_range; mm/memory_hotplug.c: offline_pages; "
    "mm/page_isolation.c: has_unmovable_pages"
)
_TOTAL = "mm/memory_hotplug.c: online_pages; drivers/base/memory.c: memory_block_online"
_FREE = "mm/page_alloc.c: __free_pages_core; arch/x86/mm/init_64.c (tables, memmap)"
_HUGETLB = "mm/hugetlb.c: set_max_huge_pages, dissolve_free_hugetlb_folios"
_POISON = "mm/memory-failure.c: page_handle_poison"
_BOOT = "mm/mm_init.c: calculate_node_totalpages"
_SPANNED = "mm/memory_hotplug.c: resize_zone_range, shrink_zone_span"
_FLAGS = "fs/proc/page.c: stable_page_flags"
_BLOCK = "drivers/base/memory.c: memory_block_change_state"
_BALLOON = "drivers/xen/balloon.c: balloon_stats"
_MANAGED = "mm/memory_hotplug.c: online_pages_range, offline_pages"
_SHARED = "mm/page_alloc.c: get_page_from_freelist; drivers/hv/hv_balloon.c: alloc_balloon_pages"
_ZONE_MANAGED = counters.zone_pages("managed")

_POOL = ("HugePages_Total", "HugePages_Free", "HugePages_Surp")
_ZONE = "node <node> <zone>"


def _unless_floor(
    file: ComparedFile,
    name: str,
    source: str,
    values: Values,
    tolerance: Tolerance,
    unit: Callable[[Side], int],
) -> tuple[Field, Field]:
    """Return the fields of free memory, and of it with a balloon at the guest's floor."""
    return (
        Field(file, name, source, counters.unless_at_floor(values), tolerance),
        Field(
            file,
            f"{name}, and pages of a balloon at the floor",
            _SHARED,
            counters.with_balloon(values, unit),
            tolerance,
        ),
    )


_OF_BOOT = tuple(
    Field(LAYOUT, f"{_ZONE} {name}", _BOOT, counters.of_spanning_zones(values), tolerance)
    for name, values, tolerance in (
        ("spanned", counters.zone_pages("spanned"), FIRMWARE_PAGES),
        ("present", counters.zone_pages("present"), FIRMWARE_PAGES),
        ("start_pfn", counters.zone_start, None),
    )
)
_OF_STEPS = (
    Field(RESULT, "status", _ASKED, steps.status),
    Field(RESULT, "errno", _ASKED, steps.errno),
    Field(
        REQUESTS,
        "request <number>",
        "drivers/virtio/virtio_mem.c: virtio_mem_send_request",
        steps.requests,
    ),
    Field(MESSAGES, "message <number>", "drivers/hv/hv_balloon.c", messages.hyperv_messages),
    Field(
        MESSAGES,
        "pages given down to the floor",
        "drivers/hv/hv_balloon.c: balloon_up; mm/show_mem.c: si_mem_available",
        messages.given_at_the_floor,
        FLOOR_PAGES,
    ),
    Field(TOUCHED, "first frame not backed: <access>", _ASKED, steps.first_unbacked_frame),
    Field(
        TOUCHED, "frames that end the kernel: <access>", _ASKED, steps.frames_of_fault, nested=True
    ),
    Field(TOUCHED, "frames: <access>", _STRUCT_PAGES, steps.touched_frames, subset=True),
    Field(
        TOUCHED,
        "frames in no online block: <access>",
        _STRUCT_PAGES,
        steps.frames_beside_online_blocks,
    ),
)
_OF_COUNTERS = (
    *(
        Field(MEMINFO, name, source, counters.unless_at_floor(counters.meminfo(name)))
        for name, source in (
            ("MemTotal", _TOTAL),
            ("CommitLimit", "mm/util.c: vm_commit_limit"),
        )
    ),
    Field(
        MEMINFO,
        "MemTotal and pages of a balloon at the floor",
        _TOTAL,
        counters.with_balloon(counters.meminfo("MemTotal"), lambda side: side.page_kib),
    ),
    *(
        Field(MEMINFO, name, source, counters.meminfo(name))
        for name, source in (
            ("DirectMap1G", "arch/x86/mm/init_64.c: phys_pud_init"),
            *((name, _HUGETLB) for name in (*_POOL, "Hugetlb")),
            ("HardwareCorrupted", _POISON),
        )
    ),
    *(
        Field(
            MEMINFO,
            name,
            "mm/shmem.c: shmem_add_to_page_cache",
            counters.meminfo(name),
            FILES_KIB,
        )
        for name in ("Shmem", "Cached")
    ),
    *(
        field
        for name, source in (
            ("MemFree", _FREE),
            ("MemAvailable", "mm/show_mem.c: si_mem_available; calculate_totalreserve_pages"),
        )
        for field in _unless_floor(
            MEMINFO,
            f"{name} and per-CPU lists",
            source,
            counters.meminfo_free(name),
            FREE_KIB,
            lambda side: side.page_kib,
        )
    ),
    Field(
        VMSTAT,
        "nr_memmap_pages",
        "mm/sparse-vmemmap.c: __populate_section_memmap",
        counters.vmstat("nr_memmap_pages"),
    ),
    Field(
        VMSTAT,
        "nr_memmap_boot_pages",
        "mm/hugetlb_vmemmap.c: free_vmemmap_page",
        counters.vmstat("nr_memmap_boot_pages"),
    ),
    *_unless_floor(
        VMSTAT,
        "nr_free_pages and per-CPU lists",
        _FREE,
        counters.vmstat_free,
        FREE_PAGES,
        lambda _: 1,
    ),
    *(
        Field(ZONEINFO, f"{_ZONE} {name}", source, counters.zone_pages(name))
        for name, source in (
            ("spanned", _SPANNED),
            ("present", "mm/memory_hotplug.c: adjust_present_page_count"),
        )
    ),
    Field(ZONEINFO, f"{_ZONE} managed", _MANAGED, counters.unless_shared(_ZONE_MANAGED)),
    Field(
        ZONEINFO,
        f"{_ZONE} managed beside a balloon",
        _SHARED,
        counters.if_shared(_ZONE_MANAGED),
        SHARE_PAGES,
    ),
    Field(
        ZONEINFO,
        "managed of all zones beside a balloon",
        _MANAGED,
        counters.unless_at_floor(counters.shared_managed),
    ),
    Field(
        ZONEINFO,
        "managed of all zones and pages of a balloon at the floor",
        _MANAGED,
        counters.with_balloon(counters.shared_managed, lambda _: 1),
    ),
    *(
        Field(
            ZONEINFO,
            f"{_ZONE} {name} without boost",
            "mm/page_alloc.c: __setup_per_zone_wmarks",
            counters.unless_shared_before(counters.zone_watermark(name)),
        )
        for name in ("min", "low", "high", "promo")
    ),
    Field(
        ZONEINFO,
        "<watermark> of all zones beside a balloon",
        "mm/page_alloc.c: __setup_per_zone_wmarks",
        counters.shared_watermarks,
        ROUNDED_PAGES,
    ),
    Field(ZONEINFO, f"{_ZONE} start_pfn", _SPANNED, counters.zone_start),
    Field(
        ZONEINFO,
        f"{_ZONE} protection",
        "mm/page_alloc.c: setup_per_zone_lowmem_reserve",
        counters.unless_shared_before(counters.zone_protection),
    ),
    Field(
        ZONEINFO,
        f"{_ZONE} free and per-CPU lists",
        _FREE,
        counters.unless_shared(counters.zone_free),
        ZONE_FREE_PAGES,
    ),
    Field(
        ZONEINFO,
        f"{_ZONE} free and per-CPU lists beside a balloon",
        _SHARED,
        counters.if_shared(counters.zone_free),
        SHARED_FREE_PAGES,
    ),
    Field(
        BUDDYINFO,
        f"{_ZONE} pages in chunks and per-CPU lists",
        _FREE,
        counters.unless_shared(counters.buddy_free),
        ZONE_FREE_PAGES,
    ),
    Field(
        BUDDYINFO,
        f"{_ZONE} pages in chunks and per-CPU lists beside a balloon",
        _SHARED,
        counters.if_shared(counters.buddy_free),
        SHARED_FREE_PAGES,
    ),
    Field(NODES, "<list>", "mm/memory_hotplug.c: node_states_set_node", counters.node_lists),
    Field(
        NODES,
        "node<node> MemTotal",
        _TOTAL,
        counters.unless_at_floor(counters.node_meminfo("MemTotal")),
    ),
    Field(
        NODES,
        "MemTotal of all nodes and pages of a balloon at the floor",
        _TOTAL,
        counters.with_balloon(counters.node_meminfo("MemTotal"), lambda side: side.page_kib),
    ),
    *(Field(NODES, f"node<node> {name}", _HUGETLB, counters.node_meminfo(name)) for name in _POOL),
    Field(NODES, "node<node>/hugepages/<file>", _HUGETLB, counters.node_huge_pages),
    Field(
        NODES,
        "node<node> MemFree and per-CPU lists",
        _FREE,
        counters.unless_at_floor(counters.node_free),
        FREE_KIB,
    ),
)
_OF_PAGES = (
    Field(
        KPAGEFLAGS,
        "memmap pages and their flags",
        "mm/memory_hotplug.c: mhp_init_memmap_on_memory",
        pages.memmap_pages,
    ),
    Field(KPAGEFLAGS, "pages without an online memmap", _FLAGS, pages.pages_without_memmap),
    Field(KPAGEFLAGS, "HWPoison pages", _POISON, pages.hwpoison_pages),
    Field(KPAGEFLAGS, "number of pages in huge pages", _HUGETLB, pages.huge_pages),
    Field(KPAGEFLAGS, "PageOffline pages and their flags", _FLAGS, pages.offline_pages),
    Field(
        KPAGEFLAGS,
        "number of PageOffline pages",
        "drivers/xen/balloon.c: decrease_reservation; drivers/hv/hv_balloon.c: alloc_balloon_pages",
        counters.unless_at_floor(pages.nr_offline_pages),
    ),
    Field(
        KPAGEFLAGS,
        "number of PageOffline pages without those of a balloon at the floor",
        "drivers/hv/hv_balloon.c: alloc_balloon_pages",
        counters.with_balloon(pages.nr_offline_pages, lambda _: -1),
    ),
    Field(
        KPAGEFLAGS,
        "PageOffline pages that are predictable",
        _FLAGS,
        pages.predictable_offline_pages,
        subset=True,
    ),
)
_OF_FOLDERS = (
    Field(IOMEM, "<range>", "mm/memory_hotplug.c: register_memory_resource", folders.ram_resources),
    Field(
        BLOCKS,
        "block_size_bytes",
        "drivers/base/memory.c: block_size_bytes_show",
        folders.block_size_bytes,
    ),
    Field(
        BLOCKS,
        "auto_online_blocks",
        "drivers/base/memory.c: auto_online_blocks_show",
        folders.auto_online_blocks,
    ),
    Field(BLOCKS, "memory<block>/state", _BLOCK, folders.block_attribute("state")),
    Field(
        BLOCKS,
        "memory<block>/valid_zones",
        "drivers/base/memory.c: valid_zones_show",
        folders.block_attribute("valid_zones"),
    ),
    Field(BLOCKS, "memory<block> nodes", _BLOCK, folders.block_attribute("nodes")),
    Field(
        PARAMETERS,
        "<parameter>",
        "mm/memory_hotplug.c: module parameters",
        folders.parameters,
    ),
    *(
        Field(BALLOON, name, _BALLOON, folders.balloon_counter(name))
        for name in ("target_kb", "current_kb", "low_kb", "high_kb")
    ),
    Field(BALLOON, "proc/meminfo Balloon", _BALLOON, folders.balloon_line("meminfo", "Balloon")),
    Field(
        BALLOON,
        "proc/vmstat nr_balloon_pages",
        _BALLOON,
        folders.balloon_line("vmstat", "nr_balloon_pages"),
    ),
)
#: In the order in which verdicts are listed.
FIELDS: tuple[Field, ...] = (*_OF_BOOT, *_OF_STEPS, *_OF_COUNTERS, *_OF_PAGES, *_OF_FOLDERS)
