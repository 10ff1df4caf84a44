"""The synthetic boot state: which pages exist, in which zones, and which of them are in use."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.arch import (
    DEFAULT_ARCH,
    Arch,
    advised_block_size_bytes,
    arch_with_pages,
    boot_block_size_bytes,
    check_block_size,
    with_mmu,
    with_sections,
    with_struct_pages,
)
from altmap.model.boot.cma import cma_pages
from altmap.model.boot.files import blank_files
from altmap.model.boot.layout import Layout, boot_zones, firmware_end_address, layout_of
from altmap.model.boot.parameters import boot_words, huge_pages_at_boot
from altmap.model.boot.reserved import BootPart, boot_parts
from altmap.model.boot.tunables import default_tunables
from altmap.model.kernel.accounting import Policy, chosen_policy
from altmap.model.kernel.changes import ChangedMemory
from altmap.model.kernel.hugetlb import hugepage_sizes_bytes, pool_of, set_max_huge_pages
from altmap.model.kernel.initial_state import adopt_zone
from altmap.model.kernel.params import Tunables
from altmap.model.kernel.pool import whole_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import MOVABLE
from altmap.model.platform.backing import Backing
from altmap.model.releases import Release, release_for
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import DEFAULT_RELEASE, Machine

__all__ = ("boot",)

_MIB, _GIB = 1 << 20, 1 << 30


def boot(
    machine: Machine, policy: Policy | None = None, record: Release | None = None
) -> tuple[Kernel, Backing, Observation]:
    """Return the kernel, the platform and the blank files of a freshly booted machine.

    Zones, blocks and RAM follow the firmware's map exactly. What the kernel reserves and what it
    has in use (:mod:`altmap.model.boot.reserved`, ``Release.boot_used_bytes``) depends on the
    kernel's build as well; start from a captured sysroot for exact numbers.

    Parameters
    ----------
    machine : Machine
    policy : Policy, optional
        The memmap policy instead of the built-in one that the machine names.
    record : Release, optional
        Behaviours of the kernel, instead of the record of the machine's release.

    Raises
    ------
    InputError
        If no machine has these sizes, this platform or these nodes.
    """
    arch = arch_with_pages(machine.arch or DEFAULT_ARCH, machine.page_size)
    arch = with_mmu(arch, machine.mmu)
    release = record or release_for(machine.release or DEFAULT_RELEASE)
    arch = with_sections(arch, release.section_size_bytes.get(arch.family))
    arch = with_struct_pages(arch, machine.struct_page_bytes)
    _check_keys(machine, arch)
    layout = layout_of(machine, arch, release)
    backing = Backing(layout.backed.copy(), machine.unbacked_reads, arch.write_fault)
    tunables = default_tunables(machine, arch, release)
    if machine.platform == "xen":
        # A paravirtual domain maps small pages only.
        tunables.direct_map_1g = tunables.direct_map_2m = tunables.khugepaged = False
        backing.write_fault = "page fault"
    kernel = _kernel(machine, policy, arch, release, tunables, layout, backing)
    init_per_zone_wmark_min(kernel)
    _fill_pools(kernel, machine)
    return kernel, backing, blank_files(kernel, machine)


def _check_keys(machine: Machine, arch: Arch) -> None:
    if machine.nodes and not arch.has_nodes:
        raise InputError(f"machine.nodes: Debian's kernel for {arch.name} has no NUMA nodes")
    platforms = arch.board.platforms
    if machine.platform not in (None, *platforms):
        raise InputError(
            f"machine.platform {machine.platform!r}: {arch.name} has {', '.join(platforms)}"
        )
    for name in ("xen_host_memory", "xen_max_memory"):
        if getattr(machine, name) is not None and machine.platform != "xen":
            raise InputError(f"machine.{name}: need the platform 'xen'")


def _block_size_bytes(machine: Machine, arch: Arch, release: Release, end_address: int) -> int:
    windows = ((each.address, each.size) for each in machine.cxl_windows)
    advised = advised_block_size_bytes(windows) if release.cxl_advises_block_size else None
    size_bytes = boot_block_size_bytes(arch, end_address, advised)
    if machine.block_size is not None:
        size_bytes = machine.block_size
    check_block_size(arch, "machine.block_size", size_bytes)
    return size_bytes


def _kernel(
    machine: Machine,
    policy: Policy | None,
    arch: Arch,
    release: Release,
    tunables: Tunables,
    layout: Layout,
    backing: Backing,
) -> Kernel:
    """Return a kernel whose boot memory is online, with what it reserves and uses."""
    page, max_pfn = arch.page_size_bytes, layout.ram.max() + 1
    block_nr_pages = _block_size_bytes(machine, arch, release, max_pfn * page) // page
    blocks = whole_chunks(layout.ram, block_nr_pages)
    ids = PfnSet(
        PfnRange(run.start // block_nr_pages, run.end // block_nr_pages) for run in blocks.ranges()
    )
    zones = boot_zones(arch, layout, machine)
    reserved, used = _reserved_and_used(
        arch,
        release,
        layout.backed,
        arch.memmap_nr_pages(len(blocks)),
        boot_parts(machine, arch, release),
        PfnSet.of(*(zone.present for zone in zones.values() if zone.name == MOVABLE)),
    )
    cma = cma_pages(machine, arch)
    for zone in zones.values():
        adopt_zone(zone, zone.span, cma.count(zone.present))
    unbacked, fake_offline = layout.ram - layout.backed, PfnSet()
    if release.xen_extra_memory == "ballooned":
        fake_offline |= unbacked
    else:
        reserved |= unbacked
    return Kernel(
        arch,
        release,
        chosen_policy(policy, machine.policy),
        tunables,
        block_nr_pages,
        backing.check_access,
        zones=zones,
        added_blocks=ids.copy(),
        online_blocks=ids.copy(),
        changed=ChangedMemory(blocks=ids),
        boot_ram=layout.ram,
        reserved=reserved,
        used=used,
        fake_offline=fake_offline,
        boot_node_pages=layout.nodes,
        boot_nodes=frozenset(node for node, pages in layout.nodes.items() if pages),
        max_pfn=max_pfn,
        firmware_end_address=firmware_end_address(machine, arch),
    )


def _reserved_and_used(
    arch: Arch,
    release: Release,
    backed: PfnSet,
    memmap_nr_pages: int,
    parts: tuple[BootPart, ...],
    movable: PfnSet,
) -> tuple[PfnSet, PfnSet]:
    """Return the pages that are reserved at boot, and those in use once the kernel runs.

    memblock reserves in ZONE_MOVABLE too, the page allocator serves the kernel from other zones.
    """
    page = arch.page_size_bytes
    nr_reserved = memmap_nr_pages + sum(part.size_bytes for part in parts) // page
    nr_reserved = min(nr_reserved, len(backed) * 3 // 4)
    nr_low = sum(part.size_bytes for part in parts if part.low) // page
    nr_loaded = sum(part.size_bytes for part in parts if part.loaded) // page
    dma = backed & PfnRange(0, (16 * _MIB) // page)
    reserved = dma & PfnRange(0, 256)
    above = backed - dma
    low = above & PfnRange(0, (4 * _GIB) // page)
    nr_low = min(nr_low, nr_reserved - len(reserved), len(low))
    loaded = (low - movable).highest(min(nr_low, nr_loaded))
    reserved |= loaded | (low - loaded).highest(nr_low - len(loaded))
    left = above - reserved
    reserved |= left.highest(nr_reserved - len(reserved))
    left -= reserved | movable
    nr_used = min(release.boot_used_bytes // page, len(left) * 3 // 4)
    return reserved, left.highest(nr_used)


def _fill_pools(kernel: Kernel, machine: Machine) -> None:
    """Allocate the huge pages of the command line, evenly on the nodes (``mm/hugetlb.c``)."""
    nodes = sorted(kernel.boot_nodes)
    for asked in huge_pages_at_boot(boot_words(machine.cmdline or "")):
        sizes = hugepage_sizes_bytes(kernel.arch)
        size = sizes[0] if asked.size_bytes is None else asked.size_bytes
        if size not in sizes:
            continue  # the kernel knows no such size
        pool = pool_of(kernel, size)
        for at, node in enumerate(nodes):
            share = asked.nr_pages // len(nodes) + (at < asked.nr_pages % len(nodes))
            set_max_huge_pages(kernel, pool, node, share)
