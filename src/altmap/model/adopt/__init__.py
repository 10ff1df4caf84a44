"""A machine adopted from the files of a real one: the model carries on where they leave off."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from altmap.errors import InputError
from altmap.linux import iomem, version
from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.observation import (
    Block,
    MemoryFolder,
    Observation,
    PageRun,
    ZoneInfo,
    page_size_bytes,
)
from altmap.linux.pageuse import unmapped_anonymous
from altmap.model.arch import ARCHES, Arch, arch_named, check_block_size, with_mmu, with_sections
from altmap.model.boot import default_tunables
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.memmap import AddRequest, Memmap, memmap_on_memory_nr_pages
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Addition, Kernel, MemoryGroup, Tunables
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import MOVABLE, Watermarks, Zone
from altmap.model.platform.backing import Backing, write_fault_of
from altmap.model.releases import Release, release_for
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Device, Machine, Size

__all__ = ("Adopted", "adopt")

_MOST_BYTES = 1 << 52
#: What drivers call the memory that they manage themselves.
_RESOURCES = {"kmem": "System RAM (kmem)"}
_WORDS = {"Y": "on", "N": "off", "force": "force"}


@dataclass(frozen=True, slots=True)
class Adopted:
    """A kernel that starts where a real one was observed.

    Attributes
    ----------
    kernel : Kernel
    backing : Backing
    devices : dict of str to Addition
        Devices that are plugged already, by id.
    drivers : dict of str to str
        The driver of each, as a scenario names it.
    regions : list of Device
        Devices in whose region memory comes and goes (virtio-mem), each with the size that is
        requested of it.
    notes : list of str
        What the files did not say, and what was assumed.
    """

    kernel: Kernel
    backing: Backing
    devices: dict[str, Addition]
    drivers: dict[str, str]
    regions: list[Device]
    notes: list[str]


def adopt(seen: Observation, machine: Machine, policy: Policy) -> Adopted:
    """Return the kernel that shows these files.

    The scenario's machine overrides what the files say. Page sets that the files do not show
    (without kpageflags) are assumed so that every counter agrees, and a note says so.

    Parameters
    ----------
    seen : Observation
    machine : Machine

    Raises
    ------
    InputError
        If the files lack what no assumption can replace: zones, memory blocks, RAM ranges.
    """
    notes: list[str] = []
    _require(seen)
    arch = _arch(seen, machine, notes)
    arch = with_mmu(arch, machine.mmu or _mmu(seen, arch))
    release = _release(seen, machine, notes)
    arch = with_sections(arch, release.section_size_bytes.get(arch.family))
    if machine.memory is not None or machine.nodes:
        notes.append("machine.memory and machine.nodes are ignored: the sysroot says them")
    if machine.cpus is not None or machine.platform is not None:
        notes.append("machine.cpus and machine.platform are ignored: the sysroot is as it is")
    assert seen.memory is not None  # _require
    block_bytes = _block_size_bytes(seen.memory, machine, arch)
    tunables = _tunables(seen, machine, arch, release)
    given = _devices(seen, machine, notes)
    devices = [device for device in given if device.driver != "virtio-mem"]
    regions = [device for device in given if device.driver == "virtio-mem"]
    ram = _system_ram(seen, arch)
    backing = Backing(ram.copy(), machine.unbacked_reads, write_fault_of(arch.family))
    kernel = Kernel(
        arch,
        release,
        policy,
        tunables,
        block_bytes // arch.page_size_bytes,
        backing.judge,
        zones=_empty_zones(seen, machine),
        boot_nodes=_online_nodes(seen),
        cpu_nodes=_cpu_nodes(seen),
    )
    _take_blocks(kernel, seen)
    plugged = {device.id: _take_device(kernel, seen, device) for device in devices}
    for device in regions:
        _take_region(kernel, device)
    kernel.boot_ram = ram.copy()
    for addition in kernel.additions:
        kernel.boot_ram -= addition.pfns
    if not kernel.boot_ram:
        raise InputError("machine.devices: they cover all RAM, nothing is left that booted")
    _take_zones(kernel, seen, ram)
    _take_pages(kernel, seen, notes)
    _take_domain(kernel, seen, backing)
    for device in devices:
        if device.driver == "hyperv":
            backing.backed -= kernel.fake_offline & plugged[device.id].pfns
    regions = [_with_requested(kernel, device, notes) for device in regions]
    for device in regions:
        backing.backed -= kernel.fake_offline & _region_pfns(kernel, device)
    end = sum(run.nr_pages for run in seen.kpageflags or ())
    kernel.max_pfn = max(end, ram.max() + 1)
    _take_watermarks(kernel, seen)
    tables = page_table_nr_pages(kernel, kernel.additions)
    fixed = kernel.unmovable()
    kernel.page_tables = fixed.highest(tables)
    _take_memmaps(kernel, fixed - kernel.page_tables)
    drivers: dict[str, str] = {device.id: device.driver for device in devices}
    return Adopted(kernel, backing, plugged, drivers, regions, notes)


# --- what kind of machine ------------------------------------------------------------------


def _require(seen: Observation) -> None:
    for value, path in (
        (seen.zoneinfo, "proc/zoneinfo"),
        (seen.iomem, "proc/iomem"),
        (seen.memory, "sys/devices/system/memory/block_size_bytes"),
    ):
        if not value:
            raise InputError(f"sysroot: {path} is missing, and a prediction needs it")
    iomem.require_addresses(seen.iomem or ())
    for info in seen.zoneinfo or ():
        zones = sum(other.node == info.node for other in seen.zoneinfo or ())
        if len(info.protection) != zones:
            raise InputError(
                f"sysroot: proc/zoneinfo: node {info.node} {info.name}: protection "
                f"{info.protection}: need a number for each of {zones} zones"
            )


def _block_size_bytes(memory: MemoryFolder, machine: Machine, arch: Arch) -> int:
    shown = memory.block_size_bytes
    check_block_size(arch, "sysroot: block_size_bytes", shown)
    if machine.block_size is not None and machine.block_size != shown:
        raise InputError(
            f"machine.block_size {machine.block_size:#x}: the sysroot's blocks are of {shown:#x}"
        )
    return shown


def _arch(seen: Observation, machine: Machine, notes: list[str]) -> Arch:
    if machine.arch is not None:
        return arch_named(machine.arch)
    name = seen.machine
    if name is None:
        name = "x86_64"
        notes.append("the files do not name the architecture, x86_64 is assumed")
    page_bytes = page_size_bytes(seen)
    fitting = [
        arch
        for arch in ARCHES.values()
        if arch.family == name and page_bytes in (None, arch.page_size_bytes)
    ]
    if not fitting:
        return arch_named(name)
    return fitting[0]


def _mmu(seen: Observation, arch: Arch) -> str | None:
    """Tell ppc64's MMU: only radix shows the direct map's leaves (``arch_report_meminfo``)."""
    if arch.family != "ppc64le" or seen.meminfo is None:
        return None
    return "radix" if "DirectMap2M" in seen.meminfo else "hash"


def _release(seen: Observation, machine: Machine, notes: list[str]) -> Release:
    name = machine.release
    if name is None:
        if seen.version is None:
            raise InputError("sysroot: proc/version is missing; set machine.release")
        try:
            name = version.parse(seen.version).release
        except InputError as error:
            raise InputError(f"sysroot: proc/version: {error}") from error
    release = release_for(name)
    if not name.startswith(release.name):
        notes.append(f"release {name} has no record of its own and is taken to be {release.name}")
    return release


def _tunables(seen: Observation, machine: Machine, arch: Arch, release: Release) -> Tunables:
    tunables = default_tunables(machine, arch, release)
    shown = seen.parameters
    if machine.memmap_on_memory is None and "memmap_on_memory" in shown:
        tunables.memmap_on_memory = _one_of("memmap_on_memory", shown["memmap_on_memory"], _WORDS)
    if machine.online_policy is None and "online_policy" in shown:
        tunables.online_policy = _one_of(
            "online_policy", shown["online_policy"], _itself("contig-zones", "auto-movable")
        )
    if machine.auto_movable_ratio is None and "auto_movable_ratio" in shown:
        ratio = shown["auto_movable_ratio"]
        if not re.fullmatch(r"[0-9]{1,10}", ratio):
            raise InputError(f"sysroot: auto_movable_ratio {ratio!r}: need a number of percent")
        tunables.auto_movable_ratio = int(ratio)
    if machine.auto_movable_numa_aware is None and "auto_movable_numa_aware" in shown:
        aware = _one_of(
            "auto_movable_numa_aware", shown["auto_movable_numa_aware"], _itself("Y", "N")
        )
        tunables.auto_movable_numa_aware = aware == "Y"
    if machine.movable_node is None:
        tunables.movable_node = "movable_node" in (seen.cmdline or "").split()
    if machine.hugetlb_free_vmemmap is None:
        words = (seen.cmdline or "").split()
        tunables.hugetlb_free_vmemmap = "hugetlb_free_vmemmap=on" in words
    if machine.auto_online_blocks is None and seen.memory and seen.memory.auto_online_blocks:
        tunables.auto_online_blocks = _one_of(
            "auto_online_blocks",
            seen.memory.auto_online_blocks,
            _itself("offline", "online", "online_kernel", "online_movable"),
        )
    if seen.meminfo and "DirectMap1G" not in seen.meminfo:
        tunables.direct_map_1g = False
    if seen.balloon is not None and not (seen.meminfo or {}).get("DirectMap2M"):
        tunables.direct_map_2m = False
    return tunables


def _one_of(name: str, text: str, words: dict[str, str]) -> str:
    if text not in words:
        raise InputError(f"sysroot: {name} {text!r}: need one of {', '.join(words)}")
    return words[text]


def _itself(*words: str) -> dict[str, str]:
    return {word: word for word in words}


# --- zones, blocks, devices ----------------------------------------------------------------


def _empty_zones(seen: Observation, machine: Machine) -> dict[tuple[int, str], Zone]:
    """Return every possible node's zones, those that hold nothing yet included."""
    infos = seen.zoneinfo or ()
    first = infos[0].node
    names = [info.name for info in infos if info.node == first and info.name != "Device"]
    possible = set(seen.nodes.lists.get("possible", ()) if seen.nodes else ())
    possible |= {info.node for info in infos} | {device.node for device in machine.devices}
    return {(node, name): Zone(node, name) for node in sorted(possible) for name in names}


def _online_nodes(seen: Observation) -> frozenset[int]:
    if seen.nodes is not None and "online" in seen.nodes.lists:
        return frozenset(seen.nodes.lists["online"])
    return frozenset(info.node for info in seen.zoneinfo or ())


def _cpu_nodes(seen: Observation) -> frozenset[int]:
    listed = seen.nodes.lists.get("has_cpu") if seen.nodes is not None else None
    return frozenset(listed) if listed else frozenset({0})


def _system_ram(seen: Observation, arch: Arch) -> PfnSet:
    """Return whole page frames of all System RAM, whoever added it."""
    page, ram = arch.page_size_bytes, PfnSet()
    for line in seen.iomem or ():
        if line.name.startswith("System RAM"):
            start, end = -(-line.start // page), line.end // page
            if end > _MOST_BYTES // page:
                raise InputError(
                    f"sysroot: proc/iomem: System RAM ends at {line.end:#x}, above 4 PiB"
                )
            ram |= PfnRange(start, max(start, end))
    if not ram:
        raise InputError("sysroot: proc/iomem has no line 'System RAM'")
    return ram


def _take_blocks(kernel: Kernel, seen: Observation) -> None:
    for id_, block in (seen.memory.blocks if seen.memory else {}).items():
        kernel.added_blocks |= PfnRange(id_, id_ + 1)
        if block.state != "offline":
            kernel.online_blocks |= PfnRange(id_, id_ + 1)


def _devices(seen: Observation, machine: Machine, notes: list[str]) -> list[Device]:
    """Return the devices plugged already: named by the scenario, or by ACPI in sysfs."""
    if machine.devices or seen.memory is None:
        return list(machine.devices)
    by_name: dict[str, list[int]] = defaultdict(list)
    for id_, block in seen.memory.blocks.items():
        if block.firmware_node:
            by_name[block.firmware_node.rsplit("/", 1)[-1]].append(id_)
    shown = [*_driver_managed(seen), *_regions_shown(seen)]
    unknown = [
        line
        for line in seen.iomem or ()
        if line.name.startswith("System RAM (")
        and not any(d.address <= line.start and line.end <= d.address + d.size for d in shown)
    ]
    if not by_name and unknown:
        notes.append("driver-managed System RAM is taken as boot memory: no device is named")
    size = seen.memory.block_size_bytes
    return shown + [
        Device(
            id=name,
            address=Address(min(ids) * size),
            size=Size(len(ids) * size),
            node=next(iter(seen.memory.blocks[ids[0]].nodes), 0),
        )
        for name, ids in by_name.items()
    ]


def _driver_managed(seen: Observation) -> list[Device]:
    """Return the dax devices of kmem: each line names its memory, the line above it the device."""
    found: list[Device] = []
    parent = ""
    blocks = seen.memory.blocks if seen.memory else {}
    size = seen.memory.block_size_bytes if seen.memory else 1
    for line in seen.iomem or ():
        if line.name != _RESOURCES["kmem"]:
            parent = line.name
            continue
        same = sum(device.id.partition(":")[0] == parent for device in found)
        block = blocks.get(line.start // size)
        found.append(
            Device(
                id=f"{parent}:{same}" if same else parent,
                address=line.start,  # type: ignore[arg-type]
                size=line.end - line.start,  # type: ignore[arg-type]
                driver="kmem",
                node=next(iter(block.nodes), 0) if block else 0,
            )
        )
    return found


def _regions_shown(seen: Observation) -> list[Device]:
    """Return the virtio-mem devices whose regions ``/proc/iomem`` shows (``virtio0``)."""
    assert seen.memory is not None  # checked by the caller
    size = seen.memory.block_size_bytes
    found = []
    for line in seen.iomem or ():
        if re.fullmatch(r"virtio[0-9]+", line.name):
            ids = range(line.start // size, -(-line.end // size))
            blocks = [seen.memory.blocks[id_] for id_ in ids if id_ in seen.memory.blocks]
            nodes = [node for block in blocks for node in block.nodes]
            found.append(
                Device(
                    id=line.name,
                    address=Address(line.start),
                    size=Size(line.end - line.start),
                    driver="virtio-mem",
                    node=nodes[0] if nodes else 0,
                )
            )
    return found


def _region_pfns(kernel: Kernel, device: Device) -> PfnRange:
    page = kernel.arch.page_size_bytes
    return PfnRange(device.address // page, (device.address + device.size) // page)


def _take_region(kernel: Kernel, device: Device) -> None:
    """Take the memory blocks in a virtio-mem device's region, each as an add of its own."""
    region = _region_pfns(kernel, device)
    group = MemoryGroup(unit_nr_pages=kernel.block_nr_pages, node=device.node)
    blocks = kernel.added_blocks & kernel.blocks(region)
    for block in blocks:
        pfns = kernel.block_pfns(block)
        memmap = Memmap(kernel.arch, pfns)
        kernel.additions.append(
            Addition(pfns, device.node, memmap, group, "System RAM (virtio_mem)", merges=True)
        )
    kernel.groups.append(group)


def _with_requested(kernel: Kernel, device: Device, notes: list[str]) -> Device:
    """Return the device with the size that is requested of it: what is plugged, if nobody says."""
    region = _region_pfns(kernel, device)
    blocks = kernel.added_blocks & kernel.blocks(region)
    plugged = kernel.pages_of(blocks) - kernel.fake_offline
    if blocks - kernel.online_blocks:
        notes.append(
            f"device {device.id!r}: memory blocks that are offline are taken to be plugged as a "
            "whole, no file says it"
        )
    if device.requested is None:
        device = device.replace(requested=Size(len(plugged) * kernel.arch.page_size_bytes))
        notes.append(f"device {device.id!r}: it is taken to have the size that is requested of it")
    return device


def _take_device(kernel: Kernel, seen: Observation, device: Device) -> Addition:
    page = kernel.arch.page_size_bytes
    pfns = PfnRange(device.address // page, (device.address + device.size) // page)
    block = kernel.block_nr_pages * page
    if device.address % block or device.size % block:
        raise InputError(
            f"machine.devices {device.id!r}: [{device.address:#x}, "
            f"{device.address + device.size:#x}): need whole memory blocks of {block:#x} bytes"
        )
    if not kernel.added_blocks.covers(kernel.blocks(pfns)):
        raise InputError(
            f"machine.devices {device.id!r}: [{device.address:#x}, "
            f"{device.address + device.size:#x}) has no memory blocks in the sysroot"
        )
    memmap = _memmap_of(kernel, seen, device, pfns)
    addition = Addition(pfns, device.node, memmap, MemoryGroup(max_nr_pages=len(pfns)))
    if device.driver not in ("dimm", "kmem"):
        addition.group = None
    addition.merges = device.driver == "hyperv"
    addition.resource_name = _RESOURCES.get(device.driver, addition.resource_name)
    kernel.additions.append(addition)
    kernel.self_hosted |= memmap.hosted()
    return addition


def _memmap_of(kernel: Kernel, seen: Observation, device: Device, pfns: PfnRange) -> Memmap:
    """Tell where a plugged device's memmap is: its page flags say it, else the rule does."""
    block = kernel.block_nr_pages
    mode = kernel.memmap_mode()
    hosted = memmap_on_memory_nr_pages(kernel.arch, kernel.release, block, mode)
    self_hosted = device.self_hosted
    if self_hosted is None and seen.kpageflags and kernel.nr_online(pfns):
        self_hosted = any(is_memmap(run.flags) and _within(run, pfns) for run in seen.kpageflags)
    if self_hosted is None:
        request = AddRequest(pfns, True, block, mode)
        placed = kernel.policy.placement.place(kernel.arch, kernel.release, request)
        return placed if isinstance(placed, Memmap) else Memmap(kernel.arch, pfns)
    return (
        Memmap(kernel.arch, pfns, block, hosted)
        if self_hosted and hosted
        else Memmap(kernel.arch, pfns)
    )


def _within(run: PageRun, pfns: PfnRange) -> bool:
    return PfnRange(run.start_pfn, run.start_pfn + run.nr_pages).overlaps(pfns)


def _take_zones(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None:
            continue
        if info.pages.get("spanned") and info.start_pfn is not None:
            zone.span = PfnRange(info.start_pfn, info.start_pfn + info.pages["spanned"])
        zone.cma_nr_pages = info.pages.get("cma", 0)
    _share_out(kernel, seen, ram)
    for node in {zone.node for zone in kernel.zones.values()}:
        pages = PfnSet()
        for zone in kernel.node_zones(node):
            pages |= zone.present & kernel.boot_ram
        kernel.boot_node_pages[node] = pages
    for zone in kernel.zones.values():
        zone.early_nr_pages = len(zone.present & kernel.boot_ram)
        for addition in kernel.additions:
            if addition.group is not None:
                part = zone.present.count(addition.pfns)
                if zone.name == MOVABLE:
                    addition.group.present_movable_nr_pages += part
                else:
                    addition.group.present_kernel_nr_pages += part


def _share_out(kernel: Kernel, seen: Observation, ram: PfnSet) -> None:
    """Give each online block's RAM to its zone: the one its file names, else by the spans."""
    blocks = seen.memory.blocks if seen.memory else {}
    left = ram & kernel.pages_of(kernel.online_blocks)
    for id_, block in blocks.items():
        zone = _named_zone(kernel, block)
        if zone is not None:
            pfns = kernel.block_pfns(id_)
            zone.present |= left & pfns
            left -= pfns
    for zone in kernel.zones.values():
        if zone.span:
            mine = left & zone.span
            zone.present |= mine
            left -= mine


def _named_zone(kernel: Kernel, block: Block) -> Zone | None:
    if block.state == "offline" or not block.valid_zones or len(block.nodes) > 1:
        return None
    node = block.nodes[0] if block.nodes else 0
    return kernel.zones.get((node, block.valid_zones[0]))


def _take_watermarks(kernel: Kernel, seen: Observation) -> None:
    """Take the zones' counters, and find out by which rule this machine sets watermarks.

    With or without khugepaged, the rule must give the ``min_free_kbytes`` in force. Zones' shares
    may be off: they were set before the kernel freed the last of its boot memory. If neither
    agrees, somebody has set ``min_free_kbytes``, and watermarks stay as they are.
    """
    infos = [(kernel.zones[i.key], i) for i in seen.zoneinfo or () if i.key in kernel.zones]
    for zone, info in infos:
        zone.managed_offset = info.pages["managed"] - kernel.nr_managed(zone)
    kernel.computes_watermarks = any(
        _rule_holds(kernel, infos, khugepaged) for khugepaged in (True, False)
    )
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks()
    for zone, info in infos:
        zone.watermarks = _watermarks_shown(info)


def _rule_holds(kernel: Kernel, infos: list[tuple[Zone, ZoneInfo]], khugepaged: bool) -> bool:
    for zone, info in infos:
        zone.watermarks = _watermarks_shown(info)
    kernel.tunables.khugepaged = khugepaged
    in_force = _min_free_nr_pages(kernel)
    init_per_zone_wmark_min(kernel)
    computed = _min_free_nr_pages(kernel)
    return abs(in_force - computed) <= computed // 50 + len(infos)


def _min_free_nr_pages(kernel: Kernel) -> int:
    return sum(z.watermarks.min for z in kernel.zones.values() if z.name != MOVABLE)


def _watermarks_shown(info: ZoneInfo) -> Watermarks:
    lowest, low, high, promo = (info.pages.get(n, 0) for n in ("min", "low", "high", "promo"))
    return Watermarks(lowest, low, high, promo, info.protection)


# --- pages ---------------------------------------------------------------------------------


def _take_pages(kernel: Kernel, seen: Observation, notes: list[str]) -> None:
    if not seen.kpageflags:
        notes.append(
            "proc/kpageflags is missing: which pages are free, in use or reserved is assumed "
            "so that the zones' counters agree"
        )
        _assume_pages(kernel, seen)
        return
    free, movable, huge, blank = PfnSet(), PfnSet(), PfnSet(), PfnSet()
    for run in seen.kpageflags:
        pfns = PfnRange(run.start_pfn, run.start_pfn + run.nr_pages)
        if run.flags & PageFlag.BUDDY:
            free |= pfns
        elif run.flags & PageFlag.HWPOISON:
            kernel.poisoned |= pfns
        elif run.flags & PageFlag.OFFLINE:
            kernel.fake_offline |= pfns
            if run.flags & PageFlag.DIRTY:
                kernel.never_onlined |= pfns
        elif run.flags & PageFlag.RESERVED and not run.flags & PageFlag.OWNER_PRIVATE:
            kernel.reserved |= pfns
        elif run.flags & PageFlag.HUGE:
            huge |= pfns
        elif run.flags & PageFlag.LRU:
            movable |= pfns
        elif not run.flags:
            blank |= pfns
    _take_huge_pages(kernel, seen)
    movable |= huge - kernel.hugetlb_pages()
    for zone in kernel.zones.values():
        managed = kernel.managed(zone)
        in_use = managed - free
        kernel.used |= in_use
        # Whatever is allocated from ZONE_MOVABLE can be migrated.
        movable_here = in_use if zone.name == MOVABLE else in_use & movable
        kernel.movable |= movable_here - kernel.poisoned - kernel.hugetlb_pages()
    _take_percpu_lists(kernel, seen, blank)
    files = (seen.kpageflags, seen.kpagecount or (), seen.kpagecgroup or ())
    for start, nr_pages in unmapped_anonymous(*files):
        kernel.pinned |= kernel.movable & PfnRange(start, start + nr_pages)


def _take_percpu_lists(kernel: Kernel, seen: Observation, blank: PfnSet) -> None:
    """Tell pages that are free on per-CPU lists: they have no flag, as some of the kernel's.

    Only the lists' lengths are in a file. If a zone has no more pages without any flag, all of
    them are free; else a block that has more than the lists hold has some of the kernel's.
    """
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or zone.name == MOVABLE:
            continue
        waiting = sum(pageset.get("count", 0) for pageset in info.pagesets)
        mine = blank & kernel.used & zone.present
        if len(mine) <= waiting:
            kernel.percpu |= mine
            continue
        for block in kernel.online_blocks & kernel.blocks(zone.span):
            part = mine & kernel.block_pfns(block)
            if len(part) <= waiting:
                kernel.doubtful |= part


def _take_huge_pages(kernel: Kernel, seen: Observation) -> None:
    """Put huge pages into pools by their size: a head, and its tails behind it.

    The flag UPTODATE tells those that hold something from those that are free.
    """
    runs = [run for run in seen.kpageflags or () if run.flags & PageFlag.HUGE]
    for head, tail in pairwise(runs):
        if not head.flags & PageFlag.COMPOUND_HEAD or not tail.flags & PageFlag.COMPOUND_TAIL:
            continue
        size = head.nr_pages + tail.nr_pages
        if head.nr_pages != 1 or head.start_pfn % size or tail.start_pfn != head.start_pfn + 1:
            continue
        pool = kernel.hugetlb.setdefault(size, HugePool(size))
        pages = PfnSet([PfnRange(head.start_pfn, head.start_pfn + size)])
        if head.flags & PageFlag.UPTODATE:
            pool.in_use |= pages
        elif pool.free:
            pool.free[0] |= pages
        else:
            pool.put(pages)


def _take_memmaps(kernel: Kernel, fixed: PfnSet) -> None:
    """Say which pages in use hold the memmaps of what was added: any will do, if there are enough.

    They come back to the buddy when their block is removed.
    """
    fixed &= kernel.boot_ram
    for addition in kernel.additions:
        if not addition.memmap.self_hosted:
            addition.host_pages = fixed.highest(kernel.arch.memmap_nr_pages(len(addition.pfns)))
            fixed = fixed - addition.host_pages


def _take_domain(kernel: Kernel, seen: Observation, backing: Backing) -> None:
    """Find out which page frames of a Xen domain nobody backs.

    Ballooned pages are PageOffline. RAM beyond what the domain has at boot may be set aside for
    other drivers instead: reserved pages at the end of boot memory, as many as the domain's pages
    leave over. Page 0 is the domain's, but not System RAM.
    """
    if seen.balloon is None:
        return
    backing.write_fault = "page fault"
    backing.backed -= kernel.fake_offline
    owned = seen.balloon.current_kb * 1024 // kernel.arch.page_size_bytes
    offline = kernel.pages_of(kernel.added_blocks - kernel.online_blocks)
    surplus = len(backing.backed - offline) + 1 - owned
    if surplus > 0:
        # Holes of a pageblock are reserved too, and no RAM.
        reserved = kernel.reserved & backing.backed
        backing.backed -= reserved.highest(min(surplus, len(reserved)))
    backing.backed -= offline


def _assume_pages(kernel: Kernel, seen: Observation) -> None:
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or not zone.present:
            continue
        early = zone.present & kernel.boot_ram
        hosted = len(kernel.self_hosted & zone.present)
        missing = info.pages["present"] - info.pages["managed"] - hosted
        kept = early - early.highest(max(0, len(early) - max(0, missing)))
        kernel.reserved |= kept
        managed = kernel.managed(zone)
        in_use = managed - managed.highest(info.pages["free"])
        kernel.used |= in_use
        if zone.name == MOVABLE:
            kernel.movable |= in_use
