"""What the kernel believes: its page frames as sets, its zones, its added ranges.

Facts that can be derived are methods. Counters are cardinalities of sets, so the books cannot
disagree with the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from altmap.model.arch import Arch
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.notifier import Chain, Notification, NotifierVeto
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.touch import Judge, KernelFault, Touch
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.releases import Release
from altmap.pfn import Pages, PfnRange, PfnSet
from altmap.trace import Certainty, Event, Fault

__all__ = (
    "Addition",
    "Kernel",
    "MemoryGroup",
    "OnlineCallback",
    "Tunables",
    "VirtioMemTunables",
    "zonelists",
)

#: Of pages that go online, says which reach the buddy; the rest stay fake-offline.
OnlineCallback = Callable[[PfnSet], PfnSet]


@dataclass(frozen=True, slots=True)
class VirtioMemTunables:
    """Parameters of the module ``virtio_mem``.

    Attributes
    ----------
    unplug_online : bool
        Memory of online blocks may be unplugged.
    force_bbm : bool
        Big Block Mode whatever the sizes are.
    bbm_block_size_bytes : int
        Size of a big block; 0 for the smallest that will do.
    bbm_safe_unplug : bool
        Fake-offline a big block before it is offlined; releases that always do ignore it.
    """

    unplug_online: bool = True
    force_bbm: bool = False
    bbm_block_size_bytes: int = 0
    bbm_safe_unplug: bool = True


@dataclass(slots=True)
class Tunables:
    """Parameters of the running kernel.

    Attributes
    ----------
    memmap_on_memory : str
        ``off``, ``on`` or ``force``.
    online_policy : str
        ``contig-zones`` or ``auto-movable``.
    auto_movable_ratio : int
        Percent of movable to kernel memory under ``auto-movable``.
    auto_movable_numa_aware : bool
    movable_node : bool
        ``movable_node`` on the command line.
    auto_online_blocks : str
        ``offline``, ``online``, ``online_kernel`` or ``online_movable``.
    direct_map_1g : bool
        The CPU maps 1 GiB leaves (``pdpe1gb``).
    direct_map_2m : bool
        The CPU maps 2 MiB leaves (``pse``); not in a paravirtual Xen domain.
    debug_vm : bool
        CONFIG_DEBUG_VM, with poisoning of new struct pages on: a memmap is written at add.
    khugepaged : bool
        Transparent huge pages are enabled, so khugepaged raises ``min_free_kbytes``.
    hugetlb_free_vmemmap : bool
        ``hugetlb_free_vmemmap=on``: most of a huge page's struct pages are given back (HVO).
    acpi_memory_hotplug : bool
        ``/sys/firmware/acpi/hotplug/memory/enabled``: DIMMs may be ejected.
    virtio_mem : VirtioMemTunables
    """

    memmap_on_memory: str = "off"
    online_policy: str = "contig-zones"
    auto_movable_ratio: int = 301
    auto_movable_numa_aware: bool = True
    movable_node: bool = False
    auto_online_blocks: str = "offline"
    direct_map_1g: bool = True
    direct_map_2m: bool = True
    debug_vm: bool = False
    khugepaged: bool = True
    hugetlb_free_vmemmap: bool = False
    acpi_memory_hotplug: bool = True
    virtio_mem: VirtioMemTunables = VirtioMemTunables()


_NOWHERE = PfnRange(0, 0)


@dataclass(slots=True, eq=False)
class MemoryGroup:
    """A memory group: the blocks of one device (``drivers/base/memory.c``).

    Attributes
    ----------
    max_nr_pages : int
        Of a static group: all that the device will ever bring.
    unit_nr_pages : int
        Of a dynamic group: what comes and goes at a time; 0 makes the group a static one.
    node : int
    present_kernel_nr_pages, present_movable_nr_pages : int
        What is online, by kind of zone.
    """

    max_nr_pages: int = 0
    unit_nr_pages: int = 0
    node: int = 0
    present_kernel_nr_pages: int = 0
    present_movable_nr_pages: int = 0


@dataclass(slots=True, eq=False)
class Addition:
    """One successful call of ``add_memory_resource``.

    Attributes
    ----------
    pfns : PfnRange
    node : int
    memmap : Memmap
    group : MemoryGroup or None
    resource_name : str
        As shown in ``/proc/iomem``.
    merges : bool
        MHP_MERGE_RESOURCE: its line joins an equal neighbour's.
    host_pages : PfnSet
        Pages of existing memory that hold the memmap; empty when self-hosted.
    inaccessible : bool
        MHP_OFFLINE_INACCESSIBLE: nothing of the range may be touched while it is offline.
    """

    pfns: PfnRange
    node: int
    memmap: Memmap
    group: MemoryGroup | None = None
    resource_name: str = "System RAM"
    merges: bool = False
    host_pages: PfnSet = field(default_factory=PfnSet)
    inaccessible: bool = False


@dataclass(slots=True, eq=False)
class Kernel:
    """The state of one kernel.

    Attributes
    ----------
    arch, release, policy, tunables
        The rules in force.
    block_nr_pages : int
        Pages of one memory block.
    judge : Judge
        Answers each touch.
    zones : dict
        ``(node, name)`` to zone, every zone of every node, in the kernel's order.
    added_blocks, online_blocks : PfnSet
        Ids of the memory blocks that exist, and of those that are online.
    boot_ram : PfnSet
        RAM that was there at boot (System RAM of the firmware's map).
    reserved : PfnSet
        Present at boot, never given to the buddy.
    self_hosted : PfnSet
        Memmap pages (and their padding) inside added ranges, online or not.
    fake_offline : PfnSet
        PageOffline: present in an online block, withheld from the buddy by a driver.
    ballooned : PfnSet
        Pages that a balloon took from the buddy for its host; fake-offline, or used on releases
        that do not lower a zone's managed pages for it.
    never_onlined : PfnSet
        Those of them that virtio-mem withheld when their block went online (PageDirty too).
    unreferenced : PfnSet
        Those of them whose driver has dropped its reference, so that their block can go offline.
    used, movable : PfnSet
        Managed pages that are allocated; those of them that can be migrated.
    files : dict of str to PfnSet
        Used pages that hold files in memory, by file; they can be migrated.
    kernel_uses : dict of str to PfnSet
        Used pages that the kernel holds for somebody, by name; nothing moves them.
    hugetlb : dict of int to HugePool
        Pools of huge pages, by the pages of one; theirs are used pages.
    huge_files : dict of str to (int, PfnSet)
        Files on hugetlbfs: pages of one huge page, and the page frames.
    pinned : PfnSet
        Movable pages with references that migration cannot account for.
    poisoned : PfnSet
        HWPoison: withdrawn pages, of offline blocks too.
    nr_forgotten_poison : int
        Withdrawn pages that the kernel still counts but no longer marks.
    settled : PfnSet
        Used pages that stand for what the kernel allocates by chance.
    percpu : PfnSet
        Used pages that are free, on per-CPU lists: offlining empties these first.
    doubtful : PfnSet
        Unmovable pages that may lie there instead.
    shown_pages : PfnSet
        Pages outside of changed blocks whose flags have changed.
    page_tables : PfnSet
        Used pages that map added memory (direct map and vmemmap).
    additions : list of Addition
        In the order of their adds.
    leftovers : list of Addition
        Adds that failed half-way: their direct map and part of their memmap stay.
    stale_marks : PfnSet
        Pages of removed memory that are still marked as memmap (a defect of ``rfc-2018``).
    memmap_drift_nr_pages : int
        What ``nr_memmap_pages`` has gained or lost without reason.
    fails_block_devices : bool
        The next add cannot create its memory blocks: an injected failure.
    fails_allocation : int
        Which allocation of the next add finds no page, counted from 1; 0 for none. Another
        injected failure.
    max_pfn : int
        End of the highest page frame ever added; never shrinks.
    boot_node_pages : dict
        Node to the RAM that it had at boot.
    online_callback : OnlineCallback or None
        A driver's ``set_online_page_callback``; ``None`` is ``generic_online_page``.
    groups : list of MemoryGroup
        Dynamic memory groups (``memory_group_register_dynamic``).
    regions : list of (PfnRange, str)
        Resources that drivers reserved as parents of what they add, with their names.
    boot_nodes, cpu_nodes : frozenset of int
        Nodes that were online at boot, and those that have CPUs.
    notifier : Chain
        Who is told of changes and may veto them.
    fallback : dict of int to list of int
        For each node the nodes with memory that serve it, as its zonelist was last built.
    changed_blocks : PfnSet
        Ids of blocks that were onlined, offlined, added or removed since the start.
    computes_watermarks : bool
        Watermarks follow the rule; off for a machine whose own start shows that it has others.
    events : list of Event
        What happened since the list was last taken.
    tells : bool
        Events are recorded; off where only the end counts.
    """

    arch: Arch
    release: Release
    policy: Policy
    tunables: Tunables
    block_nr_pages: int
    judge: Judge
    zones: dict[tuple[int, str], Zone]
    added_blocks: PfnSet = field(default_factory=PfnSet)
    online_blocks: PfnSet = field(default_factory=PfnSet)
    boot_ram: PfnSet = field(default_factory=PfnSet)
    reserved: PfnSet = field(default_factory=PfnSet)
    self_hosted: PfnSet = field(default_factory=PfnSet)
    fake_offline: PfnSet = field(default_factory=PfnSet)
    ballooned: PfnSet = field(default_factory=PfnSet)
    never_onlined: PfnSet = field(default_factory=PfnSet)
    unreferenced: PfnSet = field(default_factory=PfnSet)
    used: PfnSet = field(default_factory=PfnSet)
    movable: PfnSet = field(default_factory=PfnSet)
    files: dict[str, PfnSet] = field(default_factory=dict)
    kernel_uses: dict[str, PfnSet] = field(default_factory=dict)
    hugetlb: dict[int, HugePool] = field(default_factory=dict)
    huge_files: dict[str, tuple[int, PfnSet]] = field(default_factory=dict)
    pinned: PfnSet = field(default_factory=PfnSet)
    poisoned: PfnSet = field(default_factory=PfnSet)
    nr_forgotten_poison: int = 0
    settled: PfnSet = field(default_factory=PfnSet)
    percpu: PfnSet = field(default_factory=PfnSet)
    doubtful: PfnSet = field(default_factory=PfnSet)
    shown_pages: PfnSet = field(default_factory=PfnSet)
    notifier: Chain = field(default_factory=Chain)
    page_tables: PfnSet = field(default_factory=PfnSet)
    additions: list[Addition] = field(default_factory=list)
    leftovers: list[Addition] = field(default_factory=list)
    stale_marks: PfnSet = field(default_factory=PfnSet)
    memmap_drift_nr_pages: int = 0
    fails_block_devices: bool = False
    fails_allocation: int = 0
    max_pfn: int = 0
    online_callback: OnlineCallback | None = None
    groups: list[MemoryGroup] = field(default_factory=list)
    regions: list[tuple[PfnRange, str]] = field(default_factory=list)
    boot_node_pages: dict[int, PfnSet] = field(default_factory=dict)
    boot_nodes: frozenset[int] = frozenset()
    cpu_nodes: frozenset[int] = frozenset({0})
    fallback: dict[int, list[int]] = field(default_factory=dict)
    changed_blocks: PfnSet = field(default_factory=PfnSet)
    computes_watermarks: bool = True
    events: list[Event] = field(default_factory=list)
    tells: bool = True

    # --- what is derived -------------------------------------------------------------------

    def managed(self, zone: Zone) -> PfnSet:
        """Return the zone's pages that the buddy owns or has handed out."""
        pages = zone.present - self.reserved
        pages -= self.self_hosted
        pages -= self.fake_offline
        return pages

    def free(self, zone: Zone) -> PfnSet:
        """Return the zone's pages that nobody uses."""
        pages = self.managed(zone)
        pages -= self.used
        return pages

    def memmap_mode(self) -> str:
        """Return ``memmap_on_memory`` as it counts: HVO switched it off up to v5.19.

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
        """Return the used pages, of a range or all, that nothing moves.

        They are neither movable, nor huge, nor withdrawn. Those that are free on per-CPU lists
        have no reference, and the lists are emptied first.
        Source: ``mm/memory_hotplug.c: offline_pages`` (``zone_pcp_disable``),
        ``mm/page_isolation.c: has_unmovable_pages``.
        """
        used = self.used if pfns is None else self.used & pfns
        return used - self.movable - self.hugetlb_pages() - self.poisoned - self.percpu

    def kind_of(self, pfn: int) -> str:
        """Return what a page frame is, in a word."""
        kinds = (
            ("poisoned", self.poisoned),
            ("self-hosted memmap", self.self_hosted),
            ("reserved", self.reserved),
            ("fake-offline", self.fake_offline),
            ("hugetlb", self.hugetlb_pages()),
            ("pinned", self.pinned),
            ("movable", self.movable),
            ("page tables", self.page_tables),
            ("memmap", PfnSet.of(*(add.host_pages for add in self.additions))),
            ("unmovable", self.used),
        )
        return next((name for name, pages in kinds if pfn in pages), "free")

    def node_pages(self, node: int) -> PfnSet:
        """Return the present page frames of a node."""
        return PfnSet.of(*(zone.present for zone in self.node_zones(node)))

    def has_pages(self, node: int, *, beyond: PfnRange = _NOWHERE) -> bool:
        """Tell whether a node has present page frames, beyond those of a range."""
        zones = self.node_zones(node)
        return any(zone.present.count(beyond) < len(zone.present) for zone in zones)

    def nr_poisoned(self) -> int:
        """Return HardwareCorrupted in pages (``mm/memory-failure.c: num_poisoned_pages``)."""
        return len(self.poisoned) + self.nr_forgotten_poison

    def nr_managed(self, zone: Zone) -> int:
        """Return ``managed_pages`` of the zone."""
        present = zone.present
        if not present:
            return zone.managed_offset
        hosted = self.self_hosted.count(present)
        withheld = self.reserved.count(present) + self.fake_offline.count(present) + hosted
        extra = hosted if self.policy.accounting.total else 0
        return zone.managed_offset + len(present) - withheld + extra

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
        return managed - hidden - self.used.count(zone.present)

    def total_ram_nr_pages(self) -> int:
        """Return MemTotal in pages: the sum of all managed pages."""
        return sum(self.nr_managed(zone) for zone in self.zones.values())

    def free_nr_pages(self) -> int:
        """Return MemFree in pages."""
        return sum(self.nr_free(zone) for zone in self.zones.values())

    def memmap_nr_pages(self) -> int:
        """Return what added memory contributes to ``nr_memmap_pages``, wherever its memmap lies.

        Source: ``mm/sparse-vmemmap.c: __populate_section_memmap``: rounded up per section.
        """
        section = self.arch.section_nr_pages
        per_section = self.arch.memmap_nr_pages(section)
        added = sum(len(add.pfns) // section for add in self.additions)
        # Of an add that ran out of memory, the sections before that stay.
        left = sum(len(add.host_pages) // per_section for add in self.leftovers)
        return (added + left) * per_section + self.memmap_drift_nr_pages

    def has_defect(self, id_: str) -> bool:
        """Tell whether the policy switches a defect of the patches of 2018 on."""
        return id_ in self.policy.defects

    def online_nodes(self) -> frozenset[int]:
        """Return the nodes that are online: from boot, or for the memory that was added to them."""
        return self.boot_nodes | {add.node for add in self.additions}

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

    # --- what changes ----------------------------------------------------------------------

    def note(
        self,
        kind: str,
        text: str,
        pfns: Pages | None = None,
        function: str | None = None,
        message: bytes | None = None,
        *,
        doubt: str = "",
    ) -> None:
        """Record an event, if somebody wants to know; with a doubt it is likely, not certain."""
        if not self.tells:
            return
        certainty: Certainty = "likely" if doubt else "certain"
        self.events.append(Event(kind, text, pfns, function, certainty, doubt, message))

    def notify(self, action: str, pfns: PfnRange, node: int) -> NotifierVeto | None:
        """Tell the notifier chain, record it, and return the veto of a listener.

        Actions that the release does not have are passed over.
        Source: ``drivers/base/memory.c: memory_notify``; ``drivers/base/node.c: node_notify``.
        """
        if action.startswith("NODE_") and not self.release.node_notifier:
            return None
        if action in ("MEM_PREPARE_ONLINE", "MEM_FINISH_OFFLINE") and not (
            self.release.prepare_notifier
        ):
            return None
        function = "node_notify" if action.startswith("NODE_") else "memory_notify"
        if self.tells:
            self.note("notified", f"{action} for {pfns}", pfns, function)
        hosted = self.self_hosted.count(pfns)
        veto = self.notifier.call(Notification(action, pfns, node, hosted))
        if veto is not None:
            self.note("veto", f"{action}: {veto.function} says no: {veto.why}", pfns, veto.function)
        return veto

    def take_events(self) -> list[Event]:
        """Return the events since the last call, and forget them."""
        events, self.events = self.events, []
        return events

    def touch(self, access: str, pfns: Pages, function: str, what: str) -> None:
        """Access page frames.

        Raises
        ------
        KernelFault
            If the platform does not back all of them.
        """
        if not len(pfns):
            return
        fault: Fault | None = self.judge(Touch(access, pfns, function, what))
        if self.tells:
            self.note(access, f"{function} {access}s {what}", pfns, function)
        if fault is not None:
            raise KernelFault(fault)

    def allocate(self, node: int, nr_pages: int) -> PfnSet | None:
        """Allocate unmovable pages, from the node's kernel zones first; ``None`` if too few."""
        taken = self.find_free(list(self._zonelist(node)), nr_pages)
        if taken is not None:
            self.used |= taken
        return taken

    def find_free(self, zones: Sequence[Zone], nr_pages: int) -> PfnSet | None:
        """Return free pages of the zones, the first zone first; ``None`` if there are too few.

        Each zone gives pages down to its low watermark; only when all have, down to the minimum.
        The buddy's lists are served from their heads, where older memory is: boot memory, then
        added memory in the order of its blocks. Which frames of boot memory a real kernel takes is
        not predicted; the highest free ones stand for them.
        Source: ``mm/page_alloc.c: get_page_from_freelist, __alloc_pages_slowpath``.
        """
        taken = PfnSet()
        for mark in ("low", "min"):
            for zone in zones:
                left = nr_pages - len(taken)
                if not left:
                    return taken
                wanted = min(left, self.available(zone, zones, mark) - taken.count(zone.present))
                if wanted <= 0:
                    continue
                free = self.free(zone)
                free -= taken
                early = (free & self.boot_ram).highest(wanted)
                taken |= early
                if len(early) < wanted:
                    taken |= (free - early).lowest(wanted - len(early))
        return taken if len(taken) == nr_pages else None

    def take_units(self, unit_nr_pages: int, nr_units: int) -> PfnSet:
        """Take free aligned units from kernel zones, as many as there are up to a number.

        What asks without trying hard (``__GFP_NORETRY | __GFP_NOMEMALLOC``) gets memory down to the
        minimum watermarks. The units are not counted as used: the caller says what they are.
        """
        taken = PfnSet()
        zones = list(self._zonelist(min(self.cpu_nodes)))
        for zone in zones:
            room = self.available(zone, zones, "min") // unit_nr_pages
            wanted = min(room, nr_units - len(taken) // unit_nr_pages)
            if wanted > 0:
                free = self.free(zone)
                early = _aligned_units(free & self.boot_ram, unit_nr_pages)
                taken |= early.highest(wanted * unit_nr_pages)
                left = wanted - len(early) // unit_nr_pages
                if left > 0:
                    late = _aligned_units(free - self.boot_ram, unit_nr_pages)
                    taken |= late.lowest(left * unit_nr_pages)
        return taken

    def available_nr_pages(self, enough: int | None = None) -> int:
        """Return how many pages GFP_KERNEL can allocate until every zone is at its reserve.

        Zones are counted, the highest first, until there is *enough* if that is all one asks.
        """
        zones = [zone for zone in self.zones.values() if zone.name != MOVABLE]
        found = 0
        for zone in reversed(zones):
            if enough is not None and found >= enough:
                break
            found += self.available(zone, zones, "min")
        return found

    def write_file(self, name: str, nr_pages: int, *, long_term: bool = False) -> bool:
        """Take pages for a file in memory; false, and nothing taken, if there are too few.

        Pages that are pinned for long are moved out of ZONE_MOVABLE first (``mm/gup.c:
        check_and_migrate_movable_pages``) and so end in kernel zones. Other user pages come from
        the movable zone first, then from kernel zones, the first CPU's node before others
        (``include/linux/gfp.h: GFP_HIGHUSER_MOVABLE``).
        """
        zones = [
            zone
            for node in self.node_order(min(self.cpu_nodes))
            for zone in reversed(self.node_zones(node))
            if not (long_term and zone.name == MOVABLE)
        ]
        taken = self.find_free(zones, nr_pages)
        if taken is None:
            return False
        self.files[name] = taken
        self.used |= taken
        self.movable |= taken
        return True

    def remove_file(self, name: str) -> None:
        """Give a file's pages back to the buddy."""
        self.free_pages(self.files.pop(name))

    def migrate(self, pages: PfnSet, targets: PfnSet) -> None:
        """Move used movable pages to free ones, and the files that they hold with them."""
        if not pages:
            return
        left = targets
        for name, held in self.files.items():
            moving = held & pages
            if moving:
                to = left.lowest(len(moving))
                left = left - to
                self.files[name] = (held - moving) | to
        self.used = (self.used - pages) | targets
        self.movable = (self.movable - pages) | targets

    def available(self, zone: Zone, zones: Sequence[Zone], mark: str) -> int:
        """Return how many pages a zone can give to an allocation that may come from the zones.

        It keeps its watermark, what it reserves against allocations that could come from higher
        zones, and at the minimum the boost that fragmentation brings once its last large chunks go.
        Source: ``mm/page_alloc.c: __zone_watermark_ok, boost_watermark``.
        """
        marks = zone.watermarks
        mine = self.node_zones(zone.node)
        highest = max(index for index, each in enumerate(mine) if each in zones)
        kept = marks.protection[highest] if highest < len(marks.protection) else 0
        boost = 0 if kept or mark == "low" or zone.name == MOVABLE else self.arch.pageblock_nr_pages
        return max(0, self.nr_free(zone) - int(getattr(marks, mark)) - kept - boost)

    def free_pages(self, pages: PfnSet) -> None:
        """Give used pages back to the buddy."""
        self.used -= pages
        self.movable -= pages
        self.pinned -= pages

    def _zonelist(self, node: int) -> Iterator[Zone]:
        for each in self.node_order(node):
            yield from reversed(self.kernel_zones(each))

    def node_order(self, node: int) -> list[int]:
        """Return the nodes that serve an allocation for a node: itself, then its fallback list.

        Lists are built at boot, before the masks of CPUs are; that of a node which comes later when
        it comes; all again when a zone gets its first memory or loses its last.
        Source: ``mm/page_alloc.c: __build_all_zonelists``; ``mm/memory_hotplug.c:
        hotadd_init_pgdat, online_pages, offline_pages``.
        """
        if not self.fallback:
            boot = [zone.node for zone in self.zones.values() if zone.node in self.boot_nodes]
            self.fallback = zonelists([*boot, *self.boot_nodes], self._nodes_with_memory(), ())
        if node not in self.fallback:
            self.fallback |= zonelists([node], self._nodes_with_memory(), self.cpu_nodes)
        return self.fallback[node]

    def build_all_zonelists(self) -> None:
        """Let every node see which nodes have memory now."""
        with_memory = self._nodes_with_memory()
        nodes = {*self.boot_nodes, *self.fallback, *with_memory}
        self.fallback = zonelists(nodes, with_memory, self.cpu_nodes)

    def _nodes_with_memory(self) -> set[int]:
        return {zone.node for zone in self.zones.values() if zone.present}


def zonelists(
    nodes: Iterable[int], with_memory: Iterable[int], cpu_nodes: Collection[int]
) -> dict[int, list[int]]:
    """Return for each node the nodes that serve it, in order.

    All remote nodes are equally far. Nodes without a CPU come first, then those above the node,
    then those that fewer of the other nodes fall back to first.
    Source: ``mm/page_alloc.c: find_next_best_node, build_zonelists`` (6.1 to 7.3).
    """
    load = dict.fromkeys(with_memory, 0)
    orders: dict[int, list[int]] = {}
    for node in sorted(set(nodes)):
        order = [node] if node in load else []
        nr_local = len(order)
        while left := load.keys() - order:
            cost = {n: ((n < node) + (n in cpu_nodes), load[n], n) for n in left}
            best = min(left, key=cost.__getitem__)
            load[best] += len(order) == nr_local  # all but the first are as far as the one before
            order.append(best)
        orders[node] = order
    return orders


def _aligned_units(pages: PfnSet, unit_nr_pages: int) -> PfnSet:
    """Return the pages that lie in whole aligned units."""
    whole = PfnSet()
    for run in pages.ranges():
        start = -(-run.start // unit_nr_pages) * unit_nr_pages
        end = run.end // unit_nr_pages * unit_nr_pages
        if start < end:
            whole |= PfnRange(start, end)
    return whole
