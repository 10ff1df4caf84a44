"""A machine booted on paper: which pages exist, in which zones, and what the kernel keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.linux.observation import BalloonFolder, Observation, Resource
from altmap.linux.shapes import blank_observation
from altmap.model.arch import (
    Arch,
    arch_named,
    boot_block_size_bytes,
    check_block_size,
    with_mmu,
    with_sections,
)
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.changes import ChangedMemory
from altmap.model.kernel.params import Tunables, VirtioMemTunables
from altmap.model.kernel.pool import whole_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.platform.backing import Backing, write_fault_of
from altmap.model.platform.qemu import boot_ram, platforms_of
from altmap.model.platform.xen import dom0_memory, host_resources
from altmap.model.releases import Release, release_for
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import DEFAULT_RELEASE, XEN_HOST_BYTES, Machine

__all__ = ("boot", "default_tunables", "parameters_shown")

_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class _Layout:
    ram: PfnSet
    nodes: dict[int, PfnSet]
    backed: PfnSet


def default_tunables(machine: Machine, arch: Arch, release: Release) -> Tunables:
    """Return the parameters that the scenario sets, defaults for the rest."""
    defaults = Tunables(
        auto_online_blocks=release.debian_default_online.get(arch.family, "offline")
    )
    for name in (
        "memmap_on_memory",
        "online_policy",
        "auto_movable_ratio",
        "auto_movable_numa_aware",
        "movable_node",
        "debug_vm",
        "hugetlb_free_vmemmap",
        "auto_online_blocks",
    ):
        value = getattr(machine, name)
        if value is not None:
            setattr(defaults, name, value)
    given = machine.virtio_mem
    defaults.virtio_mem = VirtioMemTunables(
        given.unplug_online, given.force_bbm, given.bbm_block_size or 0, given.bbm_safe_unplug
    )
    if not release.has_auto_movable:
        defaults.online_policy = "contig-zones"
    if defaults.memmap_on_memory == "force" and not release.memmap_force:
        # A boolean parameter rejects the word, and stays off.
        defaults.memmap_on_memory = "off"
    return defaults


def boot(machine: Machine, policy: Policy) -> tuple[Kernel, Backing, Observation]:
    """Return the kernel, the platform and the blank files of a freshly booted machine.

    Zones, blocks and RAM follow the firmware's map exactly. What the kernel keeps for itself and
    what it has in use are estimates (``Release.boot_reserved_bytes``, ``boot_used_bytes``), as they
    depend on the kernel's configuration; start from a captured sysroot for exact numbers.

    Raises
    ------
    InputError
        If the machine cannot be.
    """
    arch = with_mmu(arch_named("x86_64" if machine.arch is None else machine.arch), machine.mmu)
    release = release_for(DEFAULT_RELEASE if machine.release is None else machine.release)
    arch = with_sections(arch, release.section_size_bytes.get(arch.family))
    if machine.nodes and not arch.has_nodes:
        raise InputError(f"machine.nodes: Debian's kernel for {arch.name} knows no nodes")
    if machine.devices:
        raise InputError("machine.devices: only a machine from a sysroot has devices already")
    platforms = platforms_of(arch.family)
    if machine.platform not in (None, *platforms):
        raise InputError(
            f"machine.platform {machine.platform!r}: {arch.name} has {', '.join(platforms)}"
        )
    for name in ("xen_host_memory", "xen_max_memory"):
        if getattr(machine, name) is not None and machine.platform != "xen":
            raise InputError(f"machine.{name}: need the platform 'xen'")
    layout = _layout(machine, arch, release)
    end = (layout.ram.max() + 1) * arch.page_size_bytes
    block_bytes = boot_block_size_bytes(arch, end)
    if machine.block_size is not None:
        block_bytes = machine.block_size
    check_block_size(arch, "machine.block_size", block_bytes)
    backing = Backing(layout.ram.copy(), machine.unbacked_reads, write_fault_of(arch.family))
    tunables = default_tunables(machine, arch, release)
    if machine.platform == "xen":
        # A paravirtual domain maps small pages only.
        tunables.direct_map_1g = tunables.direct_map_2m = tunables.khugepaged = False
        backing.write_fault = "page fault"
    kernel = _kernel(policy, arch, release, tunables, layout, block_bytes, backing)
    init_per_zone_wmark_min(kernel)
    return kernel, backing, _blank(kernel, machine)


def _kernel(
    policy: Policy,
    arch: Arch,
    release: Release,
    tunables: Tunables,
    layout: _Layout,
    block_bytes: int,
    backing: Backing,
) -> Kernel:
    block_nr_pages = block_bytes // arch.page_size_bytes
    blocks = whole_chunks(layout.ram, block_nr_pages)
    ids = PfnSet(
        PfnRange(run.start // block_nr_pages, run.end // block_nr_pages) for run in blocks.ranges()
    )
    reserved, used = _kept_at_boot(arch, release, layout.backed, arch.memmap_nr_pages(len(blocks)))
    unbacked, fake_offline = layout.ram - layout.backed, PfnSet()
    if release.xen_extra_memory == "ballooned":
        fake_offline |= unbacked
    else:
        reserved |= unbacked
    return Kernel(
        arch,
        release,
        policy,
        tunables,
        block_nr_pages,
        backing.check_access,
        zones=_zones(arch, layout),
        added_blocks=ids.copy(),
        online_blocks=ids.copy(),
        changed=ChangedMemory(blocks=ids),
        boot_ram=layout.ram,
        reserved=reserved,
        used=used,
        fake_offline=fake_offline,
        boot_node_pages=layout.nodes,
        boot_nodes=frozenset(node for node, pages in layout.nodes.items() if pages),
        max_pfn=layout.ram.max() + 1,
    )


def _memory_bytes(machine: Machine) -> int:
    if machine.memory is not None:
        return machine.memory
    return sum(node.memory for node in machine.nodes) if machine.nodes else _GIB


def _layout(machine: Machine, arch: Arch, release: Release) -> _Layout:
    memory = _memory_bytes(machine)
    if machine.nodes and memory != sum(node.memory for node in machine.nodes):
        raise InputError(
            f"machine.memory {memory:#x}: differs from the sum of machine.nodes, "
            f"{sum(node.memory for node in machine.nodes):#x}"
        )
    for index, node in enumerate(machine.nodes):
        if node.memory % _MIB:
            raise InputError(f"machine.nodes[{index}].memory {node.memory:#x}: need whole MiB")
    if memory < 128 * _MIB or memory % (2 * _MIB):
        raise InputError(f"machine.memory {memory:#x}: need a multiple of 2 MiB, 128 MiB at least")
    if machine.platform == "xen":
        domain = dom0_memory(
            memory,
            machine.xen_host_memory or XEN_HOST_BYTES,
            machine.xen_max_memory,
            keeps_ibft=release.xen_keeps_ibft,
        )
        return _Layout(domain.ram, {0: domain.ram.copy()}, domain.backed)
    page = arch.page_size_bytes
    ram = PfnSet()
    for start, end in boot_ram(_platform(machine, arch), memory):
        ram |= PfnRange(-(-start // page), end // page)
    if arch.family == "x86_64":
        ram -= PfnRange(0, 1)  # arch/x86/kernel/setup.c: trim_bios_range
    return _Layout(ram, _split_nodes(machine, arch, memory, ram), ram)


def _platform(machine: Machine, arch: Arch) -> str:
    return machine.platform or platforms_of(arch.family)[0]


def _split_nodes(machine: Machine, arch: Arch, memory: int, ram: PfnSet) -> dict[int, PfnSet]:
    """Give each node its share of RAM in the order of addresses, the hole below 4 GiB skipped."""
    if not machine.nodes:
        return {0: ram.copy()}
    page = arch.page_size_bytes
    ranges = boot_ram(_platform(machine, arch), memory)
    base = 0 if arch.family == "x86_64" else ranges[0][0]
    low = memory - (ranges[2][1] - ranges[2][0]) if len(ranges) == 3 else memory
    shares, offset = {}, 0
    for node, share in enumerate(machine.nodes):
        first, last = offset, offset + share.memory
        offset = last
        parts = [(base + first, base + min(last, low))] if first < low else []
        if last > low:
            parts.append((4 * _GIB + max(first, low) - low, 4 * _GIB + last - low))
        pages = PfnSet(PfnRange(start // page, end // page) for start, end in parts)
        shares[node] = pages & ram
    return shares


def _zones(arch: Arch, layout: _Layout) -> dict[tuple[int, str], Zone]:
    """Return every node's zones; a boot zone spans the node's extent within the zone's limits."""
    zones = {}
    page = arch.page_size_bytes
    for node, pages in layout.nodes.items():
        extent, floor = pages.span(), 0
        for name, end_address in arch.kernel_zones:
            limit = extent.end if end_address is None else end_address // page
            limits = PfnRange(floor, max(floor, limit))
            floor = limits.end
            present = pages & limits
            span = extent.intersection(limits) if present else PfnRange(0, 0)
            zones[node, name] = Zone(node, name, span, present, early_nr_pages=len(present))
        zones[node, MOVABLE] = Zone(node, MOVABLE)
    return zones


def _kept_at_boot(
    arch: Arch, release: Release, backed: PfnSet, memmap_nr_pages: int
) -> tuple[PfnSet, PfnSet]:
    """Return the pages that are reserved at boot, and those in use once the kernel runs."""
    page = arch.page_size_bytes
    nr_reserved = memmap_nr_pages + release.boot_reserved_bytes // page
    nr_reserved = min(nr_reserved, len(backed) * 3 // 4)
    dma = backed & PfnRange(0, (16 * _MIB) // page)
    reserved = dma & PfnRange(0, 256)
    above = backed - dma
    reserved |= above.highest(nr_reserved - len(reserved))
    left = above - reserved
    nr_used = min(release.boot_used_bytes // page, len(left) * 3 // 4)
    return reserved, left.highest(nr_used)


def _blank(kernel: Kernel, machine: Machine) -> Observation:
    """Return what the booted machine's files look like before any number is filled in."""
    page = kernel.arch.page_size_bytes
    blank = blank_observation(
        kernel.release.shape,
        [name for name, _ in kernel.arch.kernel_zones] + [MOVABLE, "Device"],
        sorted(kernel.boot_nodes),
        sorted(kernel.boot_node_pages),
        machine.cpus or 1,
        kernel.block_nr_pages * page,
    )
    if machine.platform == "xen":
        return _domain_files(blank, kernel, machine)
    floor = page if kernel.arch.family == "x86_64" else 0  # page 0 is a PC's firmware's
    lines = [
        Resource(0, max(start, floor), end, "System RAM")
        for start, end in boot_ram(_platform(machine, kernel.arch), _memory_bytes(machine))
    ]
    return replace(
        blank,
        iomem=tuple(lines),
        parameters=parameters_shown(kernel.tunables),
        nodes=blank.nodes if kernel.arch.has_nodes else None,
    )


def _domain_files(blank: Observation, kernel: Kernel, machine: Machine) -> Observation:
    """Return the files of Xen's first domain: the host's resources, and the balloon's counters."""
    page = kernel.arch.page_size_bytes
    lines = [(run.start * page, run.end * page, "System RAM") for run in kernel.boot_ram.ranges()]
    lines += host_resources(machine.xen_host_memory or XEN_HOST_BYTES)
    given = _memory_bytes(machine) // 1024
    return replace(
        blank,
        iomem=tuple(Resource(0, *line) for line in sorted(lines)),
        parameters=parameters_shown(kernel.tunables),
        balloon=BalloonFolder(given, given, len(kernel.fake_offline) * page // 1024),
    )


def parameters_shown(tunables: Tunables) -> dict[str, str]:
    """Return the files of ``/sys/module/memory_hotplug/parameters``."""
    return {
        "auto_movable_numa_aware": "Y" if tunables.auto_movable_numa_aware else "N",
        "auto_movable_ratio": str(tunables.auto_movable_ratio),
        "memmap_on_memory": {"off": "N", "on": "Y", "force": "force"}[tunables.memmap_on_memory],
        "online_policy": tunables.online_policy,
    }
