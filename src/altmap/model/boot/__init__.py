"""The synthetic boot state: which pages exist, in which zones, and which of them are in use."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.arch import (
    DEFAULT_ARCH,
    Arch,
    arch_named,
    boot_block_size_bytes,
    check_block_size,
    with_mmu,
    with_sections,
)
from altmap.model.boot.files import blank_files
from altmap.model.boot.layout import Layout, boot_zones, layout_of
from altmap.model.boot.tunables import default_tunables
from altmap.model.kernel.accounting import policy_named
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.platform.backing import Backing
from altmap.model.releases import Release, release_for
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import DEFAULT_RELEASE, Machine

__all__ = ("boot",)

_MIB = 1 << 20


def boot(machine: Machine) -> tuple[Kernel, Backing, Observation]:
    """Return the kernel, the platform and the blank files of a freshly booted machine.

    Zones, blocks and RAM follow the firmware's map exactly. What the kernel reserves and what it
    has in use are estimates (``Release.boot_reserved_bytes``, ``boot_used_bytes``), as they depend
    on the kernel's configuration; start from a captured sysroot for exact numbers.

    Raises
    ------
    InputError
        If no machine has these sizes, this platform or these nodes.
    """
    arch = with_mmu(arch_named(DEFAULT_ARCH if machine.arch is None else machine.arch), machine.mmu)
    release = release_for(DEFAULT_RELEASE if machine.release is None else machine.release)
    arch = with_sections(arch, release.section_size_bytes.get(arch.family))
    _check_keys(machine, arch)
    layout = layout_of(machine, arch, release)
    kernel, backing = _booted(machine, arch, release, layout)
    _take_boot_pages(kernel, layout.backed)
    if machine.platform == "xen":
        _become_domain(kernel, backing, layout)
    init_per_zone_wmark_min(kernel)
    return kernel, backing, blank_files(kernel, machine)


def _check_keys(machine: Machine, arch: Arch) -> None:
    if machine.nodes and not arch.has_nodes:
        raise InputError(f"machine.nodes: Debian's kernel for {arch.name} has no NUMA nodes")
    if machine.devices:
        raise InputError("machine.devices: need a sysroot; a booted machine has no devices yet")
    platforms = arch.board.platforms
    if machine.platform not in (None, *platforms):
        raise InputError(
            f"machine.platform {machine.platform!r}: {arch.name} has {', '.join(platforms)}"
        )
    for name in ("xen_host_memory", "xen_max_memory"):
        if getattr(machine, name) is not None and machine.platform != "xen":
            raise InputError(f"machine.{name}: need the platform 'xen'")


def _booted(
    machine: Machine, arch: Arch, release: Release, layout: Layout
) -> tuple[Kernel, Backing]:
    """Return a kernel whose boot memory is online and free, and a platform that backs it all."""
    max_pfn = layout.ram.max() + 1
    block_bytes = boot_block_size_bytes(arch, max_pfn * arch.page_size_bytes)
    if machine.block_size is not None:
        block_bytes = machine.block_size
    check_block_size(arch, "machine.block_size", block_bytes)
    backing = Backing(layout.ram.copy(), machine.unbacked_reads, arch.write_fault)
    kernel = Kernel(
        arch,
        release,
        policy_named("opt-in" if machine.policy is None else machine.policy),
        default_tunables(machine, arch, release),
        block_bytes // arch.page_size_bytes,
        backing.judge,
        zones=boot_zones(arch, layout),
        boot_ram=layout.ram,
        boot_node_pages=layout.nodes,
        boot_nodes=frozenset(node for node, pages in layout.nodes.items() if pages),
        max_pfn=max_pfn,
    )
    for run in layout.ram.ranges():
        kernel.added_blocks |= kernel.blocks(run)
    kernel.online_blocks = kernel.added_blocks.copy()
    kernel.changed_blocks = kernel.added_blocks.copy()
    return kernel, backing


def _take_boot_pages(kernel: Kernel, backed: PfnSet) -> None:
    """Set which pages the kernel reserves at boot, and which are in use once it has booted."""
    arch, release = kernel.arch, kernel.release
    page = arch.page_size_bytes
    memmap = arch.memmap_nr_pages(len(kernel.added_blocks) * kernel.block_nr_pages)
    keep = min(memmap + release.boot_reserved_bytes // page, len(backed) * 3 // 4)
    dma = backed & PfnRange(0, (16 * _MIB) // page)
    kernel.reserved = dma & PfnRange(0, 256)
    above = backed - dma
    kernel.reserved |= above.highest(keep - len(kernel.reserved))
    left = above - kernel.reserved
    used = min(release.boot_used_bytes // page, len(left) * 3 // 4)
    kernel.used = left.highest(used)


def _become_domain(kernel: Kernel, backing: Backing, layout: Layout) -> None:
    """Make the kernel a paravirtual domain of Xen: RAM without backing, and small pages only."""
    unbacked = layout.ram - layout.backed
    if kernel.release.xen_extra_memory == "ballooned":
        kernel.fake_offline |= unbacked
    else:
        kernel.reserved |= unbacked
    kernel.tunables.direct_map_1g = kernel.tunables.direct_map_2m = False
    kernel.tunables.khugepaged = False
    backing.write_fault = "page fault"
