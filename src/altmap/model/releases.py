"""Kernel releases as data: what each one does differently, and where that is written.

A rule asks for a behaviour by name and never compares versions; a distribution's kernel that
differs is another record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from altmap.errors import InputError
from altmap.linux.kpageflags import PageFlag
from altmap.model.neighbours import distribution_of, stand_in

__all__ = (
    "RELEASES",
    "STABLE_FIXES",
    "Release",
    "StableFix",
    "name_of",
    "release_for",
    "release_notes",
    "release_shown",
    "release_with_files",
)


@dataclass(frozen=True, slots=True)
class Release:
    """One kernel release as a record of named behaviours.

    Attributes
    ----------
    name : str
        ``major.minor``.
    memmap_scope : str
        What one altmap may serve: ``none`` (no memmap_on_memory), ``one_block`` (the whole request
        must be exactly one memory block), ``per_block`` (any request, an altmap for each block).
    self_hosting : tuple of str
        Architectures that select ARCH_MHP_MEMMAP_ON_MEMORY_ENABLE, by ``uname -m``.
    refuses_unsupported_memmap : bool
        A driver that asks for a self-hosted memmap where it is not supported gets EINVAL; else the
        memmap silently comes from existing memory.
    memmap_force : bool
        ``memmap_on_memory=force`` pads a memmap to whole pageblocks.
    memmap_page_flags : int
        ``/proc/kpageflags`` of a self-hosted memmap page in an online block.
    nopage_flags : int
        ``/proc/kpageflags`` of a pfn without an online memmap.
    lowmem_includes_movable : bool
        ZONE_MOVABLE takes its share of ``min_free_kbytes`` like a kernel zone.
    reserves_follow_managed : bool
        The lowmem reserves are set anew at every change of managed pages, such as by drivers that
        take pages out of online memory; else only with the watermarks.
    acpi_asks_only_if_supported : bool
        The ACPI driver passes MHP_MEMMAP_ON_MEMORY only for a size that supports it; else always.
    dlpar_asks : bool
        ppc64 DLPAR passes MHP_MEMMAP_ON_MEMORY for each logical memory block.
    hyperv_chunk : str
        Unit of Hyper-V's hot-add: ``128MiB`` or ``block``.
    prepare_notifier : bool
        MEM_PREPARE_ONLINE before the memmap is initialised, MEM_FINISH_OFFLINE at the very end.
    standby_added : str
        When s390x adds its standby memory: at ``boot``, or when a block is ``configured``.
    standby_asks : bool
        The s390x driver passes MHP_MEMMAP_ON_MEMORY for standby memory that it adds at boot.
    kmem_memmap_file : bool
        A dax device says by its own file whether its memory hosts its memmap.
    dax_falls_back : tuple of str
        Architectures, by ``uname -m``, on which a dax device whose firmware names no node gets
        node 0; elsewhere kmem refuses it.
    kmem_state_file : bool
        A dax device's file ``state`` offlines and removes all of its memory, or nothing.
    hyperv_versions : tuple of str
        Versions of the dynamic memory protocol that hv_balloon asks for, one after the other.
    balloon_lowers_managed : bool
        Pages that a balloon takes are marked PageOffline and leave their zone's managed pages and
        MemTotal; else they stay in both, in use.
    hyperv_foreign_pages : str
        What hv_balloon's callback does with a page of no region: ``dropped`` or ``generic``.
    hyperv_leaves_reserved : bool
        A page that hv_balloon keeps offline when its block goes online stays PageReserved.
    hyperv_onlines_offline_tail : bool
        hv_balloon brings late pages online although their block is offline, its memmap unwritten.
    frees_altmap_of_failed_add : bool
        An add that cannot create its memory blocks forgets where its memmap lies, and frees it.
    uncounts_failed_memmap : bool
        ``nr_memmap_pages`` loses a section's memmap that could not be had.
    node_notifier : bool
        A chain of its own tells of a node's first memory and of its last.
    keeps_poison_offline : bool
        A block with HWPoison pages is not onlined again; else it is, and they are used.
    hugetlb_first_in_first_out : bool
        Huge pages that one write added to a pool are handed out in the order of their allocation;
        else the last one first.
    hugetlb_dequeues_isolated : bool
        A huge page that leaves a block may be moved to a free one of the pool in the same block.
    contig_replaces_huge_pages : int
        How often free huge pages of a range that virtio-mem takes are replaced: never; once,
        before those in use are migrated; or a second time after that.
    hugetlb_migrates_once : bool
        A huge page in use that was migrated to a new one of its node cannot be isolated again: its
        block is refused with EBUSY.
    isolation_splits_gigantic : bool
        A gigantic page that reaches beyond the end of a memory block keeps it from going offline.
    rejects_leaf_split : tuple of str
        Architectures, by ``uname -m``, whose notifier vetoes to offline pages if their first or
        last struct page lies inside a leaf of the vmemmap.
    node_threads_on_node : bool
        The threads of a node, kswapd and kcompactd, are created in its own memory when its first
        memory goes online; else where the caller runs.
    updates_normal_memory : bool
        has_normal_memory of the nodes follows what goes online and offline; else it stays as at
        boot.
    acpi_rescans_bus : bool
        A DIMM that is plugged lets ACPI add others again whose add failed.
    onlined_first : bool
        Where a chunk of the maximum order has more than two pageblocks, the kernel's next
        allocations come from the memory that went online last; else from boot memory.
    isolates_ends_first : bool
        The first and the last pageblock of a range are isolated before those between, so that the
        log names an unmovable page of theirs first; a chunk that reaches into the first is searched
        from its start.
    hvo_excludes_memmap_on_memory : bool
        With hugetlb_free_vmemmap=on no memmap is self-hosted.
    hvo_kept_nr_pages : int
        Memmap pages of a huge page that stay with hugetlb_free_vmemmap=on; 0 without that feature.
    hvo_replaces_first : bool
        Those that stay are new pages, and all old ones are freed.
    hvo_loses_restored : bool
        A huge page whose memmap HVO restored is in no list when it is freed.
    virtio_mem : tuple of str
        Architectures with the driver virtio-mem, by ``uname -m``.
    virtio_mem_sub_block : str
        Least size of a sub-block: a ``pageblock``, or the largest chunk of the buddy
        (``max_order``).
    virtio_mem_prefers_movable : bool
        virtio-mem unplugs from ZONE_MOVABLE before kernel zones.
    virtio_mem_bbm_safe_unplug : bool
        The parameter ``bbm_safe_unplug`` exists and can be switched off; else big blocks are always
        fake-offlined first.
    virtio_mem_retries_removal : bool
        virtio-mem tries again to remove an unplugged memory block that refused to go, and stops
        unplugging at once when the host changes its mind.
    xen_extra_memory : str
        Where RAM of a Xen domain without backing is at boot: ``ballooned`` (on the balloon's list)
        or ``unpopulated`` (set aside for other drivers).
    xen_keeps_ibft : bool
        A Xen domain's RAM leaves out 512 KiB to 1 MiB, where an iBFT may lie.
    shows_arch : bool
        ``/proc/sys/kernel/arch`` names the architecture.
    has_auto_movable : bool
        ``memory_hotplug.online_policy=auto-movable`` and memory groups.
    cxl_advises_block_size : bool
        Memory blocks of an x86 machine of 64 GiB or more are no larger than what its CXL windows
        are aligned to.
    has_movable_gigantic : bool
        ``vm.movable_gigantic_pages``: gigantic pages may be allocated from ZONE_MOVABLE.
    shape : str
        The release whose files' shape stands for this one's in a synthetic boot state.
    confirmed : bool
        Predictions were compared with a real kernel of this release. Else the record rests on the
        kernel's history alone.
    bounces_kmalloc : bool
        arm64 has bounce buffers for small allocations that are not aligned for DMA.
    boot_used_bytes : int
        What is in use when Debian's kernel has come up with nothing but a shell. Measured on a
        1 GiB guest; an estimate elsewhere.
    section_size_bytes : dict of str to int
        Size of a section by architecture family, where it is not the usual one.
    debian_default_online : dict of str to str
        ``auto_online_blocks`` after boot of Debian's kernel, by architecture family.
    sources : dict of str to str
        Where each behaviour is written: attribute to kernel file and function, or commit.
    """

    name: str
    memmap_scope: str
    memmap_force: bool
    memmap_page_flags: int
    shape: str
    self_hosting: tuple[str, ...] = ()
    confirmed: bool = True
    refuses_unsupported_memmap: bool = False
    nopage_flags: int = PageFlag.NOPAGE
    lowmem_includes_movable: bool = True
    reserves_follow_managed: bool = False
    acpi_asks_only_if_supported: bool = True
    dlpar_asks: bool = False
    hyperv_chunk: str = "128MiB"
    hyperv_foreign_pages: str = "dropped"
    hyperv_leaves_reserved: bool = True
    hyperv_onlines_offline_tail: bool = False
    frees_altmap_of_failed_add: bool = False
    uncounts_failed_memmap: bool = False
    prepare_notifier: bool = False
    node_notifier: bool = False
    keeps_poison_offline: bool = False
    hugetlb_first_in_first_out: bool = False
    hugetlb_dequeues_isolated: bool = True
    contig_replaces_huge_pages: int = 1
    hugetlb_migrates_once: bool = False
    isolation_splits_gigantic: bool = True
    rejects_leaf_split: tuple[str, ...] = ()
    node_threads_on_node: bool = False
    updates_normal_memory: bool = True
    acpi_rescans_bus: bool = False
    onlined_first: bool = False
    isolates_ends_first: bool = True
    hvo_excludes_memmap_on_memory: bool = False
    hvo_kept_nr_pages: int = 1
    hvo_replaces_first: bool = True
    hvo_loses_restored: bool = False
    hyperv_versions: tuple[str, ...] = ("2.0", "1.0", "0.3")
    balloon_lowers_managed: bool = True
    standby_added: str = "boot"
    standby_asks: bool = False
    kmem_memmap_file: bool = False
    kmem_state_file: bool = False
    dax_falls_back: tuple[str, ...] = ()
    virtio_mem: tuple[str, ...] = ()
    virtio_mem_sub_block: str = "pageblock"
    virtio_mem_prefers_movable: bool = True
    virtio_mem_bbm_safe_unplug: bool = True
    virtio_mem_retries_removal: bool = False
    xen_extra_memory: str = "ballooned"
    xen_keeps_ibft: bool = False
    shows_arch: bool = True
    has_auto_movable: bool = True
    bounces_kmalloc: bool = False
    cxl_advises_block_size: bool = False
    has_movable_gigantic: bool = False
    boot_used_bytes: int = 38240 << 10
    section_size_bytes: dict[str, int] = field(default_factory=dict)
    debian_default_online: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


_6_1 = Release(
    name="6.1",
    memmap_scope="one_block",
    memmap_force=False,
    self_hosting=("x86_64", "aarch64"),
    refuses_unsupported_memmap=True,
    memmap_page_flags=PageFlag.RESERVED | PageFlag.OWNER_PRIVATE,
    shape="6.1",
    debian_default_online={"x86_64": "offline"},
    virtio_mem=("x86_64", "aarch64"),
    dax_falls_back=("aarch64",),
    hvo_replaces_first=False,
    sources={
        "memmap_scope": "mm/memory_hotplug.c: mhp_supports_memmap_on_memory (v6.1)",
        "hvo_kept_nr_pages": "mm/hugetlb_vmemmap.c: HUGETLB_VMEMMAP_RESERVE_SIZE (v6.1)",
        "hvo_replaces_first": "mm/hugetlb_vmemmap.c: vmemmap_remap_pte (v6.1)",
        "hvo_loses_restored": "mm/hugetlb_vmemmap.c: vmemmap_restore_pte (v6.1)",
        "self_hosting": "arch/*/Kconfig (v6.1)",
        "refuses_unsupported_memmap": "mm/memory_hotplug.c: add_memory_resource (v6.1)",
        "memmap_force": "mm/memory_hotplug.c: memmap_on_memory is a bool (v6.1)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.1)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.1)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.1)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.1)"
        ),
        "dlpar_asks": "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_add_lmb (v6.1)",
        "hyperv_chunk": "drivers/hv/hv_balloon.c: HA_CHUNK (v6.1)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.1)",
        "hyperv_leaves_reserved": "drivers/hv/hv_balloon.c: hv_page_online_one (v6.1)",
        "hyperv_onlines_offline_tail": "drivers/hv/hv_balloon.c: handle_pg_range (v6.1)",
        "frees_altmap_of_failed_add": "mm/memory_hotplug.c: add_memory_resource (v6.1.192)",
        "uncounts_failed_memmap": "no such counter (v6.1)",
        "prepare_notifier": "include/linux/memory.h (v6.1)",
        "node_notifier": "include/linux/node.h (v6.1)",
        "keeps_poison_offline": "drivers/base/memory.c: memory_block_online (v6.1)",
        "hugetlb_first_in_first_out": "mm/hugetlb.c: alloc_pool_huge_page (v6.1)",
        "hugetlb_dequeues_isolated": "mm/hugetlb.c: dequeue_huge_page_node_exact (v6.1)",
        "contig_replaces_huge_pages": "mm/hugetlb.c: isolate_or_dissolve_huge_page (v6.1)",
        "hugetlb_migrates_once": "mm/migrate.c: unmap_and_move_huge_page (v6.1)",
        "isolation_splits_gigantic": "mm/page_isolation.c: isolate_single_pageblock (v6.1)",
        "rejects_leaf_split": "arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier (v6.1)",
        "node_threads_on_node": "mm/vmscan.c: kswapd_run; mm/compaction.c: kcompactd_run (v6.1)",
        "updates_normal_memory": "mm/memory_hotplug.c: node_states_set_node (v6.1)",
        "acpi_rescans_bus": "drivers/acpi/scan.c: acpi_scan_device_check (v6.1)",
        "onlined_first": "mm/page_isolation.c: unset_migratetype_isolate (v6.1)",
        "isolates_ends_first": "mm/page_isolation.c: start_isolate_page_range (v6.1)",
        "hvo_excludes_memmap_on_memory": (
            "mm/memory_hotplug.c: mhp_supports_memmap_on_memory (v6.1)"
        ),
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.1)",
        "cxl_advises_block_size": "arch/x86/mm/init_64.c: probe_memory_block_size (v6.1)",
        "has_movable_gigantic": "include/linux/hugetlb.h: hugepage_movable_supported (v6.1)",
        "debian_default_online": "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE in Debian's kernel package",
        "section_size_bytes": "arch/s390/include/asm/sparsemem.h: SECTION_SIZE_BITS (v6.1)",
        "hyperv_versions": "drivers/hv/hv_balloon.c: balloon_connect_vsp, version_resp (v6.1)",
        "balloon_lowers_managed": "drivers/hv/hv_balloon.c: alloc_balloon_pages (v6.1)",
        "standby_added": "drivers/s390/char/sclp_cmd.c: add_memory_merged (v6.1)",
        "standby_asks": "drivers/s390/char/sclp_cmd.c: add_memory_merged (v6.1)",
        "kmem_memmap_file": "drivers/dax/kmem.c: dev_dax_kmem_probe (v6.1)",
        "kmem_state_file": "drivers/dax/kmem.c: dev_dax_kmem_remove (v6.1)",
        "dax_falls_back": "include/linux/numa.h: phys_to_target_node (v6.1)",
        "reserves_follow_managed": "mm/page_alloc.c: adjust_managed_page_count (v6.1)",
        "virtio_mem": "drivers/virtio/Kconfig (v6.1)",
        "virtio_mem_sub_block": "drivers/virtio/virtio_mem.c: virtio_mem_init_hotplug (v6.1)",
        "virtio_mem_prefers_movable": (
            "drivers/virtio/virtio_mem.c: virtio_mem_sbm_unplug_request (v6.1)"
        ),
        "virtio_mem_bbm_safe_unplug": "drivers/virtio/virtio_mem.c: bbm_safe_unplug (v6.1)",
        "virtio_mem_retries_removal": (
            "drivers/virtio/virtio_mem.c: virtio_mem_sbm_unplug_any_sb_online (v6.1)"
        ),
        "xen_extra_memory": "drivers/xen/balloon.c: balloon_add_regions (v6.1)",
        "xen_keeps_ibft": "arch/x86/xen/setup.c: xen_memory_setup (v6.1)",
        "shows_arch": "kernel/utsname_sysctl.c: uts_kern_table (v6.1)",
        "bounces_kmalloc": "arch/arm64/mm/init.c: mem_init (v6.1)",
    },
)

_6_12 = replace(
    _6_1,
    name="6.12",
    memmap_scope="per_block",
    self_hosting=("x86_64", "aarch64", "ppc64le", "s390x", "riscv64"),
    refuses_unsupported_memmap=False,
    memmap_force=True,
    memmap_page_flags=PageFlag.OWNER_PRIVATE,
    shape="6.12",
    lowmem_includes_movable=False,
    acpi_asks_only_if_supported=False,
    dlpar_asks=True,
    hyperv_chunk="block",
    prepare_notifier=True,
    keeps_poison_offline=True,
    dax_falls_back=(),
    hugetlb_first_in_first_out=True,
    isolation_splits_gigantic=False,
    acpi_rescans_bus=True,
    onlined_first=True,
    bounces_kmalloc=True,
    boot_used_bytes=33600 << 10,
    debian_default_online={"x86_64": "online", "aarch64": "online"},
    standby_asks=True,
    kmem_memmap_file=True,
    virtio_mem=("x86_64", "aarch64", "riscv64"),
    virtio_mem_bbm_safe_unplug=False,
    virtio_mem_retries_removal=True,
    xen_extra_memory="unpopulated",
    xen_keeps_ibft=True,
    hyperv_leaves_reserved=False,
    hvo_replaces_first=True,
    hvo_loses_restored=True,
    contig_replaces_huge_pages=2,
    hugetlb_dequeues_isolated=False,
    sources={
        "hvo_loses_restored": "mm/hugetlb_vmemmap.c: vmemmap_restore_pte (v6.12.117)",
        "hvo_kept_nr_pages": "mm/hugetlb_vmemmap.c: HUGETLB_VMEMMAP_RESERVE_SIZE (v6.12)",
        "bounces_kmalloc": "arch/arm64/mm/init.c: mem_init (v6.12)",
        "hvo_replaces_first": "mm/hugetlb_vmemmap.c: __hugetlb_vmemmap_optimize_folio (v6.12)",
        "hyperv_leaves_reserved": "mm/memory_hotplug.c: move_pfn_range_to_zone (v6.12)",
        "section_size_bytes": "arch/s390/include/asm/sparsemem.h: SECTION_SIZE_BITS (v6.12)",
        "memmap_scope": "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v6.12)",
        "self_hosting": "arch/*/Kconfig (v6.12)",
        "refuses_unsupported_memmap": "mm/memory_hotplug.c: add_memory_resource (v6.12)",
        "memmap_force": "mm/memory_hotplug.c: memory_block_memmap_on_memory_pages (v6.12)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.12)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.12)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.12)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.12)"
        ),
        "dlpar_asks": "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_add_lmb (v6.12)",
        "hyperv_chunk": "drivers/hv/hv_balloon.c: ha_pages_in_chunk (v6.12)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.12)",
        "hyperv_onlines_offline_tail": "drivers/hv/hv_balloon.c: handle_pg_range (v6.12)",
        "frees_altmap_of_failed_add": (
            "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v6.12.117)"
        ),
        "uncounts_failed_memmap": "mm/sparse-vmemmap.c: populate_section_memmap (v6.12.117)",
        "prepare_notifier": "drivers/base/memory.c: memory_block_online (v6.12)",
        "node_notifier": "include/linux/node.h (v6.12)",
        "keeps_poison_offline": "drivers/base/memory.c: memory_block_online (v6.12)",
        "hugetlb_first_in_first_out": "mm/hugetlb.c: prep_and_add_allocated_folios (v6.12)",
        "hugetlb_dequeues_isolated": '"replace free hugepage folios after migration" (v6.12.118)',
        "contig_replaces_huge_pages": '"replace free hugepage folios after migration" (v6.12.118)',
        "hugetlb_migrates_once": "mm/migrate.c: unmap_and_move_huge_page (v6.12)",
        "isolation_splits_gigantic": "mm/page_isolation.c: isolate_single_pageblock (v6.12)",
        "rejects_leaf_split": "arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier (v6.12.117)",
        "node_threads_on_node": "mm/vmscan.c: kswapd_run; mm/compaction.c: kcompactd_run (v6.12)",
        "updates_normal_memory": "mm/memory_hotplug.c: node_states_set_node (v6.12)",
        "acpi_rescans_bus": "drivers/acpi/scan.c: acpi_scan_rescan_bus (v6.12)",
        "onlined_first": "mm/page_alloc.c: move_freepages_block_isolate (v6.12.117)",
        "isolates_ends_first": "mm/page_isolation.c: start_isolate_page_range (v6.12)",
        "hvo_excludes_memmap_on_memory": (
            "mm/memory_hotplug.c: mhp_supports_memmap_on_memory (v6.12)"
        ),
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.12)",
        "cxl_advises_block_size": "arch/x86/mm/init_64.c: probe_memory_block_size (v6.12)",
        "has_movable_gigantic": "include/linux/hugetlb.h: hugepage_movable_supported (v6.12)",
        "debian_default_online": (
            "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE or, once backported, "
            "CONFIG_MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO in Debian's kernel package"
        ),
        "hyperv_versions": "drivers/hv/hv_balloon.c: balloon_connect_vsp, version_resp (v6.12)",
        "balloon_lowers_managed": "drivers/hv/hv_balloon.c: alloc_balloon_pages (v6.12)",
        "standby_added": "drivers/s390/char/sclp_cmd.c: add_memory_merged (v6.12)",
        "standby_asks": "drivers/s390/char/sclp_cmd.c: add_memory_merged (v6.12)",
        "kmem_memmap_file": "drivers/dax/bus.c: memmap_on_memory_store (v6.12)",
        "kmem_state_file": "drivers/dax/kmem.c: dev_dax_kmem_remove (v6.12)",
        "dax_falls_back": "mm/numa_memblks.c: phys_to_target_node (v6.12)",
        "reserves_follow_managed": "mm/page_alloc.c: adjust_managed_page_count (v6.12)",
        "virtio_mem": "drivers/virtio/Kconfig (v6.12)",
        "virtio_mem_sub_block": "drivers/virtio/virtio_mem.c: virtio_mem_init_hotplug (v6.12)",
        "virtio_mem_prefers_movable": (
            "drivers/virtio/virtio_mem.c: virtio_mem_sbm_unplug_request (v6.12)"
        ),
        "virtio_mem_bbm_safe_unplug": (
            "drivers/virtio/virtio_mem.c: virtio_mem_bbm_offline_remove_and_unplug_bb (v6.12)"
        ),
        "virtio_mem_retries_removal": (
            "drivers/virtio/virtio_mem.c: virtio_mem_cleanup_pending_mb (v6.12)"
        ),
        "xen_extra_memory": "arch/x86/xen/enlighten.c: arch_xen_unpopulated_init (v6.12)",
        "xen_keeps_ibft": "arch/x86/xen/setup.c: xen_memory_setup (v6.12)",
        "shows_arch": "kernel/utsname_sysctl.c: uts_kern_table (v6.12)",
    },
)

_4_20 = replace(
    _6_1,
    name="4.20",
    memmap_scope="none",
    self_hosting=(),
    refuses_unsupported_memmap=False,
    memmap_page_flags=0,
    confirmed=False,
    has_auto_movable=False,
    contig_replaces_huge_pages=0,
    hyperv_onlines_offline_tail=True,
    isolation_splits_gigantic=False,
    isolates_ends_first=False,
    dax_falls_back=(),
    balloon_lowers_managed=False,
    shows_arch=False,
    virtio_mem=(),
    hvo_kept_nr_pages=0,
    sources={
        **_6_1.sources,
        "hvo_kept_nr_pages": "the feature came with v5.14",
        "memmap_scope": "the feature came with v5.13: a08a2ae34613",
        "contig_replaces_huge_pages": "isolate_or_dissolve_huge_page came with v5.13",
        "hyperv_onlines_offline_tail": (
            '"hv_balloon: avoid touching uninitialized struct page during tail '
            'onlining", after v4.20'
        ),
        "isolation_splits_gigantic": "isolate_single_pageblock came with v5.19: b2c9e2fbba32",
        "dax_falls_back": "the fallback in acpi_nfit_register_region came with v5.15",
        "isolates_ends_first": "isolate_single_pageblock came with v5.19: b2c9e2fbba32",
        "balloon_lowers_managed": "d1df458cbfdb (v5.11)",
        "shows_arch": "the file came with v6.1",
        "virtio_mem": "the driver came with v5.8",
    },
)

_5_10 = replace(
    _4_20,
    name="5.10",
    hyperv_onlines_offline_tail=False,
    virtio_mem=("x86_64",),
    virtio_mem_sub_block="max_order",
    virtio_mem_prefers_movable=False,
    sources={
        **_4_20.sources,
        "hyperv_onlines_offline_tail": (
            '"hv_balloon: avoid touching uninitialized struct page during tail onlining" (v5.0)'
        ),
        "virtio_mem": "the driver came with v5.8; arm64 between v5.15 and v6.1",
        "virtio_mem_sub_block": '"use pageblock size as the minimum virtio_mem size", v5.19',
        "virtio_mem_prefers_movable": '"prioritize unplug from ZONE_MOVABLE", v5.14',
    },
)

_5_13 = replace(
    _6_1,
    name="5.13",
    memmap_page_flags=PageFlag.RESERVED,
    confirmed=False,
    has_auto_movable=False,
    frees_altmap_of_failed_add=True,
    isolation_splits_gigantic=False,
    shows_arch=False,
    isolates_ends_first=False,
    dax_falls_back=(),
    virtio_mem=("x86_64",),
    virtio_mem_sub_block="max_order",
    virtio_mem_prefers_movable=False,
    hvo_kept_nr_pages=0,
    sources={
        **_6_1.sources,
        "hvo_kept_nr_pages": "the feature came with v5.14",
        "frees_altmap_of_failed_add": '"fix error handling in add_memory_resource()", after v6.6',
        "memmap_scope": "a08a2ae34613 (v5.13)",
        "isolation_splits_gigantic": "isolate_single_pageblock came with v5.19: b2c9e2fbba32",
        "dax_falls_back": "the fallback in acpi_nfit_register_region came with v5.15",
        "isolates_ends_first": "isolate_single_pageblock came with v5.19: b2c9e2fbba32",
        "memmap_page_flags": "PageVmemmapSelfHosted came with v6.0: 66361095129b",
        "has_auto_movable": "memory groups came with v5.15",
        "shows_arch": "the file came with v6.1",
        "virtio_mem": "arm64 came between v5.15 and v6.1",
        "virtio_mem_sub_block": '"use pageblock size as the minimum virtio_mem size", v5.19',
        "virtio_mem_prefers_movable": '"prioritize unplug from ZONE_MOVABLE", v5.14',
    },
)

_5_15 = replace(
    _5_13,
    name="5.15",
    has_auto_movable=True,
    dax_falls_back=("aarch64",),
    hvo_excludes_memmap_on_memory=True,
    virtio_mem_prefers_movable=True,
    hvo_kept_nr_pages=2,
    sources={
        **_5_13.sources,
        "hvo_kept_nr_pages": '"free the 2nd vmemmap page associated with each HugeTLB page", v5.18',
        "dax_falls_back": "drivers/acpi/nfit/core.c: acpi_nfit_register_region (v5.15)",
        "hvo_excludes_memmap_on_memory": "v5.14, until 66361095129b (v6.0)",
    },
)

_6_6 = replace(
    _6_1,
    name="6.6",
    dlpar_asks=True,
    self_hosting=("x86_64", "aarch64", "ppc64le"),
    refuses_unsupported_memmap=False,
    memmap_force=True,
    acpi_asks_only_if_supported=False,
    lowmem_includes_movable=False,
    keeps_poison_offline=True,
    confirmed=False,
    frees_altmap_of_failed_add=True,
    bounces_kmalloc=True,
    debian_default_online={"x86_64": "online"},
    virtio_mem_bbm_safe_unplug=False,
    virtio_mem_retries_removal=True,
    hvo_replaces_first=True,
    sources={
        **_6_1.sources,
        "hvo_replaces_first": '"remap head page to newly allocated page": 11aad2631bf7 (v6.2)',
        "self_hosting": "603fd64dfa45 (v6.6)",
        "bounces_kmalloc": '"arm64: enable ARCH_WANT_KMALLOC_DMA_BOUNCE" (v6.5)',
        "dlpar_asks": "603fd64dfa45 (v6.6)",
        "frees_altmap_of_failed_add": '"fix error handling in add_memory_resource()", after v6.6',
        "refuses_unsupported_memmap": "e3c2bfdd33a3 (v6.6)",
        "memmap_force": "2d1f649c7c08 (v6.6)",
        "acpi_asks_only_if_supported": "e3c2bfdd33a3 (v6.6)",
        "keeps_poison_offline": "5033091de814 (v6.2)",
        "lowmem_includes_movable": '"cap zone movable\'s min wmark", between v6.1 and v6.12',
        "debian_default_online": "changelog of Debian's kernel package, 6.5",
        "virtio_mem_bbm_safe_unplug": '"remove unsafe unplug in Big Block Mode", v6.6',
        "virtio_mem_retries_removal": '"keep retrying on offline_and_remove_memory()", v6.6',
    },
)

_6_8 = replace(
    _6_6,
    name="6.8",
    memmap_scope="per_block",
    self_hosting=("x86_64", "aarch64", "ppc64le", "s390x"),
    prepare_notifier=True,
    hugetlb_first_in_first_out=True,
    standby_asks=True,
    kmem_memmap_file=True,
    sources={
        **_6_6.sources,
        "prepare_notifier": "c5f1e2d18909 (v6.8)",
        "hugetlb_first_in_first_out": "d67e32f26713 (v6.7)",
        "memmap_scope": "6b8f0798b85a (v6.8)",
        "self_hosting": "c5f1e2d18909 (v6.8)",
        "frees_altmap_of_failed_add": '"fix incorrect altmap passing in error path", of 2026',
        "standby_asks": '"s390: enable MHP_MEMMAP_ON_MEMORY" (v6.8)',
        "kmem_memmap_file": "73954d379efd (v6.8)",
    },
)

_6_18 = replace(
    _6_12,
    name="6.18",
    section_size_bytes={"s390x": 128 << 20},
    nopage_flags=0,
    node_notifier=True,
    hugetlb_migrates_once=True,
    node_threads_on_node=True,
    updates_normal_memory=False,
    hvo_loses_restored=False,
    cxl_advises_block_size=True,
    hyperv_foreign_pages="generic",
    frees_altmap_of_failed_add=True,
    uncounts_failed_memmap=True,
    virtio_mem=("x86_64", "aarch64", "riscv64", "s390x"),
    sources={
        **_6_12.sources,
        "nopage_flags": "fs/proc/page.c: stable_page_flags of a snapshot (v6.17)",
        "cxl_advises_block_size": (
            '"acpi,srat: give memory block size advice based on CFMWS alignment" of 2025, '
            "after v6.12"
        ),
        "has_movable_gigantic": "9e80e66ddaf7, of December 2025, is younger",
        "section_size_bytes": "arch/s390/include/asm/sparsemem.h: SECTION_SIZE_BITS (v6.13)",
        "contig_replaces_huge_pages": "replace_free_hugepage_folios came with v6.15: 04f13d241b8b",
        "node_notifier": '"mm,memory_hotplug: implement numa node notifier" (v6.17)',
        "hugetlb_dequeues_isolated": (
            "mm/hugetlb.c: dequeue_hugetlb_folio_node_exact asks is_migrate_isolate_page "
            "(before v6.15)"
        ),
        "hvo_loses_restored": '"incorrect vmemmap restore in rollback", a fix of 2026',
        "hugetlb_migrates_once": (
            "mm/hugetlb.c: move_hugetlb_state returns early, since ba23f58de896 of 2025; "
            '"fix missing migratable flag on same-node hugetlb migration" of July 2026'
        ),
        "updates_normal_memory": (
            '"mm,memory_hotplug: remove status_change_nid_normal" (v6.17); 6.18.15, measured'
        ),
        "node_threads_on_node": (
            '"mm: Create/affine kswapd to its preferred node" and the same for kcompactd (v6.14)'
        ),
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.14)",
        "frees_altmap_of_failed_add": '"fix incorrect altmap passing in error path", of 2026',
        "uncounts_failed_memmap": (
            '"fix accounting of memmap pages" of 2025, c3576889d87b; "fix vmemmap '
            'accounting underflow" of 2026'
        ),
        "virtio_mem": '"s390/kconfig: enable virtio-mem", 38968bcdcc1d (v6.13)',
    },
)

_7_2 = replace(
    _6_12,
    name="7.2",
    section_size_bytes={"s390x": 128 << 20},
    nopage_flags=0,
    hyperv_foreign_pages="generic",
    prepare_notifier=False,
    node_notifier=True,
    contig_replaces_huge_pages=2,
    hugetlb_dequeues_isolated=False,
    rejects_leaf_split=("aarch64",),
    node_threads_on_node=True,
    shape="7.3",
    boot_used_bytes=37740 << 10,
    standby_added="configured",
    standby_asks=False,
    reserves_follow_managed=True,
    hvo_loses_restored=False,
    cxl_advises_block_size=True,
    has_movable_gigantic=True,
    virtio_mem=("x86_64", "aarch64", "riscv64", "s390x"),
    sources={
        **{name: text.replace("(v6.12)", "(v7.2)") for name, text in _6_12.sources.items()},
        "frees_altmap_of_failed_add": (
            "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v7.2.13)"
        ),
        "uncounts_failed_memmap": "mm/sparse-vmemmap.c: populate_section_memmap (v7.2.13)",
        "hyperv_chunk": "drivers/hv/hv_balloon.c: ha_pages_in_chunk (v7.2)",
        "updates_normal_memory": "mm/memory_hotplug.c: online_pages, after a fix of 2026 (v7.2)",
        "contig_replaces_huge_pages": "mm/hugetlb.c: replace_free_hugepage_folios (v7.2)",
        "hugetlb_migrates_once": "mm/hugetlb.c: move_hugetlb_state (v7.2.12)",
        "hvo_loses_restored": "mm/hugetlb_vmemmap.c: vmemmap_restore_pte (v7.2.12)",
        "node_notifier": "mm/memory_hotplug.c: online_pages (v7.2)",
        "rejects_leaf_split": (
            "arch/arm64/mm/mmu.c: prevent_memory_remove_notifier, 95a58852b0e5 (v7.1)"
        ),
        "debian_default_online": (
            "CONFIG_MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO in Debian's kernel package"
        ),
        "standby_added": "drivers/s390/char/sclp_mem.c: sclp_config_mem_store (v7.2)",
        "standby_asks": "drivers/s390/char/sclp_mem.c: nothing is added at boot (v7.2)",
        "kmem_state_file": "drivers/dax/kmem.c: dev_dax_kmem_remove (v7.2)",
    },
)

_7_0 = replace(
    _7_2,
    name="7.0",
    rejects_leaf_split=(),
    confirmed=False,
    uncounts_failed_memmap=True,
    frees_altmap_of_failed_add=True,
    hugetlb_migrates_once=True,
    sources={
        **_7_2.sources,
        "hugetlb_migrates_once": (
            '"fix missing migratable flag on same-node hugetlb migration" of July 2026, after v7.1'
        ),
        "rejects_leaf_split": "95a58852b0e5 came with v7.1",
        "uncounts_failed_memmap": '"fix vmemmap accounting underflow", of 2026, after v7.0',
        "frees_altmap_of_failed_add": '"fix incorrect altmap passing in error path", of 2026',
        "reserves_follow_managed": "mm/page_alloc.c: adjust_managed_page_count (v7.2)",
        "has_movable_gigantic": "9e80e66ddaf7, of December 2025, after v6.19-rc1",
    },
)

_7_3 = replace(
    _7_2,
    name="7.3",
    hyperv_versions=("2.0",),
    kmem_state_file=True,
    sources={
        **{name: text.replace("(v7.2", "(v7.3") for name, text in _7_2.sources.items()},
        "frees_altmap_of_failed_add": (
            "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v7.3.4)"
        ),
        "uncounts_failed_memmap": "mm/sparse-vmemmap.c: populate_section_memmap (v7.3.4)",
        "kmem_state_file": "drivers/dax/kmem.c: state_store, dax_kmem_do_hotremove (v7.3)",
    },
)

#: Every release with a record, by name, oldest first.
RELEASES: dict[str, Release] = {
    release.name: release
    for release in (
        *(_4_20, _5_10, _5_13, _5_15, _6_1, _6_6, _6_8, _6_12, _6_18, _7_0, _7_2, _7_3),
    )
}


@dataclass(frozen=True, slots=True)
class StableFix:
    """A behaviour that a point release of a stable kernel changed.

    Attributes
    ----------
    release : str
        Name of the record, which has the behaviour of the newest point release.
    point : int
        The first point release with that behaviour: 118 of 6.12.118.
    behaviour : str
    before : bool or int
        Its value in the point releases before.
    source : str
        The change, as the release's log names it.
    """

    release: str
    point: int
    behaviour: str
    before: bool | int
    source: str


_FREE_HUGE_PAGES = '"mm: replace free hugepage folios after migration"'
#: Oldest first.
STABLE_FIXES = (
    StableFix(
        "6.12",
        97,
        "frees_altmap_of_failed_add",
        True,
        '"mm/memory_hotplug: fix incorrect altmap passing in error path"',
    ),
    StableFix(
        "6.12",
        101,
        "uncounts_failed_memmap",
        True,
        '"mm/sparse-vmemmap: fix vmemmap accounting underflow"',
    ),
    StableFix(
        "6.12",
        114,
        "hvo_loses_restored",
        False,
        '"mm/hugetlb_vmemmap: fix incorrect vmemmap restore in rollback"',
    ),
    StableFix("6.12", 118, "hugetlb_dequeues_isolated", True, _FREE_HUGE_PAGES),
    StableFix("6.12", 118, "contig_replaces_huge_pages", 1, _FREE_HUGE_PAGES),
)


def _version(name: str) -> tuple[int, int]:
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9A-Za-z_])", name)
    if match is None:
        raise InputError(f"release {name!r}: need 'major.minor', such as '6.12'")
    return int(match[1]), int(match[2])


def release_for(name: str, shown: str | None = None) -> Release:
    """Return the record of a release, or the one that stands in for it.

    ``6.12.95+deb12-amd64`` is 6.12 without what its later point releases changed
    (:data:`STABLE_FIXES`). Without a point release, or with 0 as distributions write, it is that of
    *shown*, the kernel's own name, if that is one of the release, else the newest. Without a record
    of its own, the nearest one stands in (:mod:`altmap.model.neighbours`), else the newest that is
    not newer, and before the first record the first: :func:`release_notes` says so.

    Raises
    ------
    InputError
        If the text is no release.
    """
    wanted = _version(name)
    if name_of(wanted) in RELEASES:
        point = _point(name)
        if not point and shown is not None and _version(shown) == wanted:
            point = _point(shown)
        return _at_point(name_of(wanted), point)
    near = stand_in(wanted)
    if near is not None:
        return _at_point(near.record, 1)  # whose fixes came years later
    older = [release for release in RELEASES.values() if _version(release.name) <= wanted]
    return max(older or [next(iter(RELEASES.values()))], key=lambda each: _version(each.name))


@cache
def _at_point(name: str, point: int) -> Release:
    """Return the record of one of a stable kernel's point releases, 0 if it is not known."""
    before: dict[str, Any] = {
        fix.behaviour: fix.before
        for fix in STABLE_FIXES
        if fix.release == name and point and point < fix.point
    }
    return replace(RELEASES[name], **before) if before else RELEASES[name]


def _point(name: str) -> int:
    """Return the point release that a name has: 95 of ``6.12.95+deb12-amd64``; 0 without one."""
    match = re.match(r"[0-9]+\.[0-9]+\.([0-9]{1,4})", name)
    return int(match[1]) if match else 0


def name_of(version: tuple[int, int]) -> str:
    """Return the name of a release's record: ``6.12``."""
    return ".".join(map(str, version))


def release_notes(name: str) -> list[str]:
    """Return what is to be said of a release without a record, and of a distribution's kernel."""
    release, wanted = release_for(name), _version(name)
    near = stand_in(wanted)
    notes = []
    if release.name != name_of(wanted):
        why = f": {near.why}" if near is not None else ""
        if not near and _version(release.name) > wanted:
            why = ": it is older than every record"
        notes.append(f"no record of {name_of(wanted)}; that of {release.name} is used{why}")
    vendor = distribution_of(name)
    if vendor is not None:
        notes.append(
            f"{name} is a kernel of {vendor.name}: backports may have changed what the record of "
            f"{release.name} says"
        )
    return notes


#: Files of ``/sys/module/memory_hotplug/parameters``, newest first, the word that is written in
#: them since a release (any word if empty), and that release's record.
_FILES_SINCE = (
    ("memmap_on_memory", "force", "6.6"),
    ("auto_movable_ratio", "", "5.15"),
    ("memmap_on_memory", "", "5.13"),
)


def release_with_files(name: str, parameters: Mapping[str, str]) -> tuple[Release, str]:
    """Return the record of a kernel that has these parameters, and a note if they decided.

    Distributions backport memory hotplug and keep the number of the release that they began with;
    a parameter that a later one brought tells it.
    """
    release = release_for(name)
    if distribution_of(name) is None:
        return release, ""
    for file, word, since in _FILES_SINCE:
        if file not in parameters or (word and parameters[file] != word):
            continue
        newer = RELEASES[since]
        if _version(newer.name) <= _version(release.name):
            break
        what = f"says {word!r}" if word else "exists"
        return newer, (
            f"memory_hotplug's parameter {file} {what}, as since {since}: the record of {since} is "
            f"used instead of that of {release.name}"
        )
    return release, ""


def release_shown(name: str) -> str:
    """Return the numbers of a release as ``uname -r`` begins: ``6.12.0`` of ``6.12``."""
    major, minor = _version(name)
    return f"{major}.{minor}.{_point(name)}"
