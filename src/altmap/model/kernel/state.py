"""The state of one kernel: its page frames as sets, its zones, its added ranges.

Facts that can be derived are methods. Counters are cardinalities of sets, so they always agree with
the pages. What changes the state is in the other modules of this package, by the kernel's names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from altmap.model.arch import Arch
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.changes import ChangedMemory
from altmap.model.kernel.events import EventLog
from altmap.model.kernel.failures import InjectedFailures
from altmap.model.kernel.notifier import Chain
from altmap.model.kernel.params import Tunables
from altmap.model.kernel.pool import HugePool, HvoPages, whole_chunks
from altmap.model.kernel.touch import AccessCheck, KernelFault, Touch
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.releases import Release
from altmap.pfn import Pages, PfnRange, PfnSet
from altmap.trace import Access, Fault

__all__ = ("Kernel", "OnlineCallback", "Rfc2018State")

#: Returns those of the pages going online that are freed; the others stay fake-offline.
OnlineCallback = Callable[[PfnSet], PfnSet]

_NOWHERE = PfnRange(0, 0)


@dataclass(slots=True, eq=False)
class Rfc2018State:
    """State that only the defects of the patches of 2018 have; see :mod:`.rfc2018`.

    Attributes
    ----------
    stale_marks : PfnSet
        Pages of removed memory that are still marked as memmap.
    """

    stale_marks: PfnSet = field(default_factory=PfnSet)


@dataclass(slots=True, eq=False)
class Kernel:
    """The state of one kernel.

    Attributes
    ----------
    arch, release, policy, tunables
        The rules in force.
    block_nr_pages : int
        Pages of one memory block.
    check_access : AccessCheck
        Returns a fault for an access to page frames that are not backed.
    zones : dict
        ``(node, name)`` to zone, every zone of every node, in the kernel's order.
    added_blocks, online_blocks : PfnSet
        Ids of the memory blocks that exist, and of those that are online.
    onlined : tuple of PfnRange
        Memory that went online since the start, in that order; ranges that follow each other are
        joined.
    boot_ram : PfnSet
        RAM that is present at boot (System RAM of the firmware's map).
    reserved : PfnSet
        Present at boot, never freed to the buddy allocator.
    self_hosted : PfnSet
        Memmap pages (and their padding) inside added ranges, online or not.
    fake_offline : PfnSet
        PageOffline: present in an online block, but not managed: a driver keeps them.
    ballooned : PfnSet
        Pages that a balloon allocated for its host; fake-offline, or used on releases that do not
        lower a zone's managed pages for them.
    never_onlined : PfnSet
        Fake-offline pages that virtio-mem kept when their block went online (PageDirty too).
    left_reserved : PfnSet
        Those of them that are PageReserved as well, since Hyper-V's driver has never freed them.
    unreferenced : PfnSet
        Fake-offline pages whose driver has dropped its reference, so that their block can go
        offline.
    used, movable : PfnSet
        Managed pages that are allocated; those of them that can be migrated.
    files : dict of str to PfnSet
        Used pages that hold files in memory, by file; they can be migrated.
    kernel_allocations : dict of str to PfnSet
        Used pages that kernel code has allocated for a named purpose; they cannot be migrated.
    hugetlb : dict of int to HugePool
        Pools of huge pages, by the pages of one; their pages are used pages.
    huge_files : dict of str to (int, PfnSet)
        Files on hugetlbfs: pages of one huge page, and the page frames.
    pinned : PfnSet
        Movable pages with references that migration cannot account for.
    clean_cache, swappable : PfnSet
        Movable pages that reclaim can free: of files, clean; anonymous ones and those of tmpfs, as
        far as swap has room.
    swap_free_nr_pages : int
        Room in swap.
    maybe_reclaimable_nr_pages : int or None
        Pages that reclaim may free or not, in no set: dirty page cache, slab that says that it is
        reclaimable. ``None`` if no file tells what is reclaimable.
    isolated : PfnSet
        Pages of a block whose offlining does not end; free ones among them are not counted.
    hotplug_lock_holder : str
        What keeps ``device_hotplug_lock`` indefinitely; empty if nothing does.
    poisoned : PfnSet
        HWPoison pages, of offline blocks too.
    nr_unmarked_poison : int
        HWPoison pages that are still counted but have lost their flag.
    expected_unmovable : PfnSet
        Used pages that stand for unmovable allocations expected in a new zone; which ones is
        chance.
    expected_movable : PfnSet
        Free pages that processes are expected to use in a new ZONE_MOVABLE; one of them stands for
        all of its pageblock.
    pcp : PfnSet
        Used pages that are free on per-CPU lists; offlining empties these lists first.
    maybe_pcp : PfnSet
        Unmovable pages that may be free on per-CPU lists instead.
    page_tables : PfnSet
        Used pages that map added memory (direct map and vmemmap).
    additions : list of Addition
        In the order of their adds.
    failed_additions : list of Addition
        Adds that ran out of memory: their direct map and part of their memmap stay.
    memmap_drift_nr_pages : int
        By how much ``nr_memmap_pages`` differs from the memmap that exists.
    max_pfn : int
        End of the highest page frame ever added; never shrinks.
    firmware_end_address : int
        End of the firmware's RAM, of which ``mem=`` may leave some unused; 0 where files do not
        show it.
    boot_node_pages : dict
        Node to the RAM that it had at boot.
    online_page_callback : OnlineCallback or None
        A driver's ``set_online_page_callback``; ``None`` is ``generic_online_page``.
    groups : list of MemoryGroup
        Dynamic memory groups (``memory_group_register_dynamic``).
    regions : list of (PfnRange, str)
        Resources that drivers reserved as parents of what they add, with their names.
    boot_nodes, cpu_nodes : frozenset of int
        Nodes that were online at boot, and those that have CPUs.
    notifier : Chain
        The memory notifier chain.
    node_zonelists : dict of int to list of int
        For each node the nodes with memory that serve it, as its zonelist was last built.
    computes_watermarks : bool
        Watermarks follow the rule; off for a machine whose start shows others.
    log : EventLog
    changed : ChangedMemory
    failures : InjectedFailures
    rfc2018 : Rfc2018State
    hvo : HvoPages
    """

    arch: Arch
    release: Release
    policy: Policy
    tunables: Tunables
    block_nr_pages: int
    check_access: AccessCheck
    zones: dict[tuple[int, str], Zone]
    added_blocks: PfnSet = field(default_factory=PfnSet)
    online_blocks: PfnSet = field(default_factory=PfnSet)
    onlined: tuple[PfnRange, ...] = ()
    boot_ram: PfnSet = field(default_factory=PfnSet)
    reserved: PfnSet = field(default_factory=PfnSet)
    self_hosted: PfnSet = field(default_factory=PfnSet)
    fake_offline: PfnSet = field(default_factory=PfnSet)
    ballooned: PfnSet = field(default_factory=PfnSet)
    never_onlined: PfnSet = field(default_factory=PfnSet)
    left_reserved: PfnSet = field(default_factory=PfnSet)
    unreferenced: PfnSet = field(default_factory=PfnSet)
    used: PfnSet = field(default_factory=PfnSet)
    movable: PfnSet = field(default_factory=PfnSet)
    files: dict[str, PfnSet] = field(default_factory=dict)
    kernel_allocations: dict[str, PfnSet] = field(default_factory=dict)
    hugetlb: dict[int, HugePool] = field(default_factory=dict)
    huge_files: dict[str, tuple[int, PfnSet]] = field(default_factory=dict)
    pinned: PfnSet = field(default_factory=PfnSet)
    clean_cache: PfnSet = field(default_factory=PfnSet)
    swappable: PfnSet = field(default_factory=PfnSet)
    swap_free_nr_pages: int = 0
    maybe_reclaimable_nr_pages: int | None = 0
    isolated: PfnSet = field(default_factory=PfnSet)
    hotplug_lock_holder: str = ""
    poisoned: PfnSet = field(default_factory=PfnSet)
    nr_unmarked_poison: int = 0
    expected_unmovable: PfnSet = field(default_factory=PfnSet)
    expected_movable: PfnSet = field(default_factory=PfnSet)
    pcp: PfnSet = field(default_factory=PfnSet)
    maybe_pcp: PfnSet = field(default_factory=PfnSet)
    page_tables: PfnSet = field(default_factory=PfnSet)
    additions: list[Addition] = field(default_factory=list)
    failed_additions: list[Addition] = field(default_factory=list)
    memmap_drift_nr_pages: int = 0
    max_pfn: int = 0
    firmware_end_address: int = 0
    boot_node_pages: dict[int, PfnSet] = field(default_factory=dict)
    online_page_callback: OnlineCallback | None = None
    groups: list[MemoryGroup] = field(default_factory=list)
    regions: list[tuple[PfnRange, str]] = field(default_factory=list)
    boot_nodes: frozenset[int] = frozenset()
    cpu_nodes: frozenset[int] = frozenset({0})
    notifier: Chain = field(default_factory=Chain)
    node_zonelists: dict[int, list[int]] = field(default_factory=dict)
    computes_watermarks: bool = True
    log: EventLog = field(default_factory=EventLog)
    changed: ChangedMemory = field(default_factory=ChangedMemory)
    failures: InjectedFailures = field(default_factory=InjectedFailures)
    rfc2018: Rfc2018State = field(default_factory=Rfc2018State)
    hvo: HvoPages = field(default_factory=HvoPages)

    # --- derived facts ---------------------------------------------------------------------

    def managed(self, zone: Zone) -> PfnSet:
        """Return the zone's managed pages: free ones, and those that are allocated."""
        pages = zone.present - self.reserved
        pages -= self.self_hosted
        pages -= self.fake_offline
        return pages

    def free(self, zone: Zone) -> PfnSet:
        """Return the zone's pages that are free."""
        pages = self.managed(zone)
        pages -= self.used
        pages -= self.isolated
        return pages

    def memmap_mode(self) -> str:
        """Return ``memmap_on_memory`` in force: HVO switched it off up to v5.19.

        Source: ``mm/memory_hotplug.c: mhp_supports_memmap_on_memory``.
        """
        if self.tunables.hugetlb_free_vmemmap and self.release.hvo_excludes_memmap_on_memory:
            return "off"
        return self.tunables.memmap_on_memory

    def pools(self) -> list[HugePool]:
        """Return the pools of huge pages, by size."""
        return [self.hugetlb[size] for size in sorted(self.hugetlb)]

    def hugetlb_pages(self) -> PfnSet:
        """Return the page frames of all huge pages, free ones of the pools included."""
        return PfnSet.of(*(pool.pages for pool in self.hugetlb.values()))

    def unmovable(self, pfns: PfnRange | None = None) -> PfnSet:
        """Return the used pages, of a range or all, that cannot be migrated.

        They are neither movable, nor huge, nor HWPoison. Those that are free on per-CPU lists
        have no reference, and the lists are emptied first; nor have those that HVO lost.
        Source: ``mm/memory_hotplug.c: offline_pages`` (``zone_pcp_disable``),
        ``mm/page_isolation.c: has_unmovable_pages``.
        """
        used = self.used if pfns is None else self.used & pfns
        free = self.pcp | self.hvo.lost if self.hvo.lost else self.pcp
        return used - self.movable - self.hugetlb_pages() - self.poisoned - free

    def kind_of(self, pfn: int) -> str:
        """Return the name of what a page frame is used for."""
        kinds = (
            ("poisoned", self.poisoned),
            ("self-hosted memmap", self.self_hosted),
            ("reserved", self.reserved),
            ("fake-offline", self.fake_offline),
            ("hugetlb", self.hugetlb_pages()),
            ("pinned", self.pinned),
            ("movable", self.movable),
            ("lost", self.hvo.lost),
            ("page tables", self.page_tables),
            ("memmap", PfnSet.of(*(add.host_pages for add in self.additions))),
            ("unmovable", self.used),
        )
        return next((name for name, pages in kinds if pfn in pages), "free")

    @property
    def boot_end_address(self) -> int:
        """The address behind the highest RAM that was there at boot, if it is in use or not."""
        in_use = (self.boot_ram.max() + 1) * self.arch.page_size_bytes
        return max(in_use, self.firmware_end_address)

    def node_pages(self, node: int) -> PfnSet:
        """Return the present page frames of a node."""
        return PfnSet.of(*(zone.present for zone in self.node_zones(node)))

    def has_pages(self, node: int, *, beyond: PfnRange = _NOWHERE) -> bool:
        """Tell whether a node has present page frames, beyond those of a range."""
        zones = self.node_zones(node)
        return any(zone.present.count(beyond) < len(zone.present) for zone in zones)

    def nr_poisoned(self) -> int:
        """Return HardwareCorrupted in pages (``mm/memory-failure.c: num_poisoned_pages``)."""
        return len(self.poisoned) + self.nr_unmarked_poison

    def nr_managed(self, zone: Zone) -> int:
        """Return ``managed_pages`` of the zone."""
        present = zone.present
        if not present:
            return zone.managed_offset
        hosted = self.self_hosted.count(present)
        unmanaged = self.reserved.count(present) + self.fake_offline.count(present) + hosted
        extra = hosted if self.policy.accounting.total else 0
        return zone.managed_offset + len(present) - unmanaged + extra

    def nr_present(self, zone: Zone) -> int:
        """Return ``present_pages`` of the zone."""
        if self.policy.accounting.present:
            return len(zone.present)
        return len(zone.present) - self.self_hosted.count(zone.present)

    def nr_free(self, zone: Zone) -> int:
        """Return ``NR_FREE_PAGES`` of the zone."""
        if not zone.present:
            return 0
        hidden = self.self_hosted.count(zone.present) if self.policy.accounting.total else 0
        managed = self.nr_managed(zone) - zone.managed_offset
        isolated = len((self.managed(zone) & self.isolated) - self.used) if self.isolated else 0
        return managed - hidden - self.used.count(zone.present) - isolated

    def total_ram_nr_pages(self) -> int:
        """Return MemTotal in pages: the sum of all managed pages."""
        return sum(self.nr_managed(zone) for zone in self.zones.values())

    def free_nr_pages(self) -> int:
        """Return MemFree in pages."""
        return sum(self.nr_free(zone) for zone in self.zones.values())

    def memmap_nr_pages(self) -> int:
        """Return the part of ``nr_memmap_pages`` that describes added memory, or replaces memmap.

        Source: ``mm/sparse-vmemmap.c: __populate_section_memmap``: rounded up per section.
        """
        section = self.arch.section_nr_pages
        per_section = self.arch.memmap_nr_pages(section)
        added = sum(len(add.pfns) // section for add in self.additions)
        # Of an add that ran out of memory, the sections before that stay.
        left = sum(len(add.host_pages) // per_section for add in self.failed_additions)
        counted = (added + left) * per_section + self.memmap_drift_nr_pages
        return counted + len(self.hvo.pages) - self.hvo.saved_nr_pages

    def boot_memmap_nr_pages(self) -> int:
        """Return ``nr_memmap_boot_pages``: memmap of boot memory in pages reserved for it.

        Source: ``mm/sparse.c: sparse_init_nid``: rounded up per section.
        """
        section = self.arch.section_nr_pages
        nr_sections = len(whole_chunks(self.boot_ram, section)) // section
        return nr_sections * self.arch.memmap_nr_pages(section) + self.hvo.boot_nr_pages

    def has_defect(self, id_: str) -> bool:
        """Tell whether the policy has a defect of the patches of 2018 switched on."""
        return id_ in self.policy.defects

    def online_nodes(self) -> frozenset[int]:
        """Return the nodes that are online: from boot, or because memory was added to them."""
        return self.boot_nodes | {add.node for add in self.additions}

    def nodes_with_memory(self) -> set[int]:
        """Return the nodes that have present pages."""
        return {zone.node for zone in self.zones.values() if zone.present}

    def node_zones(self, node: int) -> list[Zone]:
        """Return the node's zones, lowest first."""
        return [zone for zone in self.zones.values() if zone.node == node]

    def kernel_zones(self, node: int) -> list[Zone]:
        """Return the node's zones below ZONE_MOVABLE, lowest first."""
        return [zone for zone in self.node_zones(node) if zone.name != MOVABLE]

    def movable_zone(self, node: int) -> Zone:
        """Return the node's ZONE_MOVABLE."""
        return self.zones[node, MOVABLE]

    def block_ids(self, pfns: PfnRange) -> range:
        """Return the ids of the memory blocks that the range touches."""
        return range(pfns.start // self.block_nr_pages, -(-pfns.end // self.block_nr_pages))

    def blocks(self, pfns: PfnRange) -> PfnRange:
        """Return the same ids as a range that sets of ids take."""
        ids = self.block_ids(pfns)
        return PfnRange(ids.start, max(ids.start, ids.stop))

    def addresses(self, pfns: PfnRange) -> str:
        """Return a range as bytes, for messages: ``[0x100000000, 0x108000000)``."""
        page = self.arch.page_size_bytes
        return f"[{pfns.start * page:#x}, {pfns.end * page:#x})"

    def block_names(self, pfns: PfnRange) -> str:
        """Return the names of the range's memory blocks: ``memory40``, ``memory40-47``."""
        ids = self.block_ids(pfns)
        return f"memory{ids.start}" if len(ids) == 1 else f"memory{ids.start}-{ids.stop - 1}"

    def pages_of(self, blocks: PfnSet) -> PfnSet:
        """Return the page frames of memory blocks."""
        size = self.block_nr_pages
        return PfnSet(PfnRange(run.start * size, run.end * size) for run in blocks.ranges())

    def nr_online(self, pfns: PfnRange) -> int:
        """Return how many memory blocks of the range are online."""
        return self.online_blocks.count(self.blocks(pfns))

    def block_pfns(self, block_id: int) -> PfnRange:
        """Return the page frames of a memory block."""
        return PfnRange(block_id * self.block_nr_pages, (block_id + 1) * self.block_nr_pages)

    def addition_of(self, pfn: int) -> Addition | None:
        """Return the add that brought the page frame, ``None`` for boot memory."""
        for add in reversed(self.additions):  # the newest is asked for most
            if add.pfns.start <= pfn < add.pfns.end:
                return add
        return None

    def overlaps_addition(self, pfns: PfnRange) -> bool:
        """Tell whether an add brought some of the page frames."""
        start, end = pfns.start, pfns.end
        for add in self.additions:
            mine = add.pfns
            if mine.start < end and start < mine.end:
                return True
        return False

    def node_of(self, pfn: int) -> int | None:
        """Return the node that a page frame of an existing block belongs to."""
        addition = self.addition_of(pfn)
        if addition is not None:
            return addition.node
        block = self.block_pfns(pfn // self.block_nr_pages)
        for node, pages in self.boot_node_pages.items():
            if pages.count(block):
                return node
        return None

    def zones_of(self, pfns: PfnRange) -> list[Zone]:
        """Return the zones that have present pages in the range."""
        return [zone for zone in self.zones.values() if zone.present.count(pfns)]

    def touch(self, access: Access, pfns: Pages, function: str, what: str) -> None:
        """Access page frames.

        Raises
        ------
        KernelFault
            If the platform does not back all of them.
        """
        if not len(pfns):
            return
        fault: Fault | None = self.check_access(Touch(access, pfns, function, what))
        if self.log.enabled:
            self.log.note(access, f"{function} {access}s {what}", pfns, function)
        if fault is not None:
            raise KernelFault(fault)
