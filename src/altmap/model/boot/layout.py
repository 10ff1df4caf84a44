"""The memory of a machine at boot: which page frames are RAM, of which node, in which zone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.model.arch import Arch
from altmap.model.boot.movablecore import movable_starts
from altmap.model.boot.parameters import boot_words, mem_limit_bytes, memmap_words, numa_off
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.platform.qemu import boot_ram
from altmap.model.platform.xen import dom0_memory
from altmap.model.releases import Release
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import XEN_HOST_BYTES, Machine

__all__ = (
    "Layout",
    "boot_zones",
    "firmware_end_address",
    "firmware_ram",
    "layout_of",
    "memory_bytes",
    "ram_in_use",
    "unused_bytes",
)

_MIB, _GIB = 1 << 20, 1 << 30
#: Pages of boot memory: a set of more takes gigabytes.
_MOST_BOOT_NR_PAGES = 1 << 34


@dataclass(frozen=True, slots=True)
class Layout:
    """Boot memory.

    Attributes
    ----------
    ram : PfnSet
        RAM of the firmware's map.
    nodes : dict of int to PfnSet
        The RAM of each node.
    backed : PfnSet
        What of the RAM the platform backs.
    """

    ram: PfnSet
    nodes: dict[int, PfnSet]
    backed: PfnSet


def memory_bytes(machine: Machine) -> int:
    """Return the size of boot memory: the machine's, else the sum of its nodes', else 1 GiB."""
    if machine.memory is not None:
        return machine.memory
    return sum(node.memory for node in machine.nodes) if machine.nodes else _GIB


def firmware_ram(machine: Machine, arch: Arch) -> list[tuple[int, int]]:
    """Return the RAM ranges of the firmware's map, ``[start, end)`` addresses."""
    platform = machine.platform or arch.board.platforms[0]
    return boot_ram(arch.board, platform, memory_bytes(machine))


def firmware_end_address(machine: Machine, arch: Arch) -> int:
    """Return the end of the firmware's RAM if words may leave some unused, else 0."""
    if not {"mem", "memmap"} & dict(boot_words(machine.cmdline or "")).keys():
        return 0
    return max(end for _, end in firmware_ram(machine, arch))


def ram_in_use(machine: Machine, arch: Arch) -> list[tuple[int, int]]:
    """Return the RAM ranges of the firmware's map that ``mem=`` and ``memmap=`` leave.

    The first limits addresses, on arm64 the amount of RAM. Source: ``arch/x86/kernel/e820.c:
    parse_memopt``; ``arch/arm64/mm/init.c: arm64_memblock_init``; ``arch/s390/boot/startup.c:
    setup_ident_map_size``; ``arch/powerpc/kernel/prom.c: early_init_devtree``.

    Raises
    ------
    InputError
        If they leave less than the model needs.
    """
    ranges = firmware_ram(machine, arch)
    words = boot_words(machine.cmdline or "")
    taken = list(memmap_words(words)) if arch.reads_memmap_word else []
    limit = mem_limit_bytes(words)
    if limit is not None:
        base = arch.board.ram_base_address if "amount" in arch.mem_limits else 0
        taken.append((base + limit, 1 << 64))
    left = list(_without(ranges, taken))
    if taken and sum(end - start for start, end in left) < 128 * _MIB:
        raise InputError(
            f"machine.cmdline {machine.cmdline!r}: leaves less than 128 MiB, which the model needs"
        )
    return left


def _without(
    ranges: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield what is left of ranges without others."""
    for start, end in ranges:
        for first, last in sorted(taken):
            if start < first < end:
                yield start, first
            if first < end and start < last:
                start = min(max(start, last), end)
        if start < end:
            yield start, end


def unused_bytes(machine: Machine, arch: Arch) -> int:
    """Return how much of the firmware's RAM lies where the kernel uses none.

    Memory at or above the limit of the memory model is not added to a zone
    (``mm/sparse.c: mminit_validate_memmodel_limits``; x86: ``arch/x86/kernel/e820.c:
    e820__end_of_ram_pfn`` with ``MAX_ARCH_PFN``).
    """
    most = _end_of_used(arch)
    return sum(max(0, end - max(start, most)) for start, end in firmware_ram(machine, arch))


def _end_of_used(arch: Arch) -> int:
    return 1 << arch.max_physmem_bits


def layout_of(machine: Machine, arch: Arch, release: Release) -> Layout:
    """Return the layout of a machine's boot memory.

    Raises
    ------
    InputError
        If a size is not a multiple of what QEMU takes, too small, too large to be modelled, or not
        the sum of the nodes'.
    """
    _check_sizes(machine)
    if machine.platform == "xen":
        domain = dom0_memory(
            memory_bytes(machine),
            machine.xen_host_memory or XEN_HOST_BYTES,
            machine.xen_max_memory,
            keeps_ibft=release.xen_keeps_ibft,
        )
        return Layout(domain.ram, {0: domain.ram.copy()}, domain.backed)
    page = arch.page_size_bytes
    used = [
        PfnRange(-(-start // page), min(end, _end_of_used(arch)) // page)
        for start, end in ram_in_use(machine, arch)
        if start < _end_of_used(arch)
    ]
    if sum(map(len, used)) > _MOST_BOOT_NR_PAGES:
        raise InputError(
            f"machine.memory {memory_bytes(machine):#x}: need at most "
            f"{_MOST_BOOT_NR_PAGES * page:#x} at boot; plug the rest"
        )
    ram = PfnSet(used)
    ram -= PfnRange(0, arch.firmware_nr_pages)
    return Layout(ram, dict(_node_ram(machine, arch, ram)), ram)


def _check_sizes(machine: Machine) -> None:
    memory, of_nodes = memory_bytes(machine), sum(node.memory for node in machine.nodes)
    if machine.nodes and memory != of_nodes:
        raise InputError(
            f"machine.memory {memory:#x}: differs from the sum of machine.nodes, {of_nodes:#x}"
        )
    for index, node in enumerate(machine.nodes):
        if node.memory % _MIB:
            raise InputError(f"machine.nodes[{index}].memory {node.memory:#x}: need whole MiB")
    if memory < 128 * _MIB or memory % (2 * _MIB):
        raise InputError(f"machine.memory {memory:#x}: need a multiple of 2 MiB, 128 MiB at least")


def _node_ram(machine: Machine, arch: Arch, ram: PfnSet) -> Iterator[tuple[int, PfnSet]]:
    """Yield each node's share of RAM in the order of addresses, without the hole below 4 GiB."""
    if not machine.nodes or numa_off(boot_words(machine.cmdline or "")):
        yield 0, ram.copy()
        return
    page, hole_end = arch.page_size_bytes, 4 * _GIB
    ranges = firmware_ram(machine, arch)
    base = ranges[0][0]
    low = memory_bytes(machine) - sum(end - start for start, end in ranges if start >= hole_end)
    first = 0
    for node, share in enumerate(machine.nodes):
        last = first + share.memory
        below = base + min(first, low), base + min(last, low)
        above = hole_end + max(first, low) - low, hole_end + max(last, low) - low
        most = _end_of_used(arch)
        pages = PfnSet(
            PfnRange(min(start, most) // page, min(end, most) // page)
            for start, end in (below, above)
        )
        yield node, pages & ram
        first = last


def boot_zones(arch: Arch, layout: Layout, machine: Machine) -> dict[tuple[int, str], Zone]:
    """Return every node's zones; a boot zone spans the node's extent within the zone's limits."""
    zones = {}
    page = arch.page_size_bytes
    starts = movable_starts(machine, arch, layout.nodes)
    for node, pages in layout.nodes.items():
        extent, floor = pages.span(), 0
        movable = starts.get(node, extent.end)
        for name, end_address in arch.kernel_zones:
            limit = movable if end_address is None else min(movable, end_address // page)
            limits = PfnRange(floor, max(floor, limit))
            floor = limits.end
            zones[node, name] = _boot_zone(node, name, pages, limits)
        zones[node, MOVABLE] = _boot_zone(node, MOVABLE, pages, PfnRange(movable, extent.end))
    return zones


def _boot_zone(node: int, name: str, pages: PfnSet, limits: PfnRange) -> Zone:
    present = pages & limits
    span = pages.span().intersection(limits) if present else PfnRange(0, 0)
    return Zone(node, name, span, present, early_nr_pages=len(present))
