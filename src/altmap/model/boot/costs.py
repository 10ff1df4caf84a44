"""What kernels keep of boot memory, as data: sizes of each architecture's parts.

Sizes that the rules of :mod:`altmap.model.boot.reserved` cannot derive. They were measured on
Debian's kernels in QEMU, with ``memblock=debug``, and differ by some hundred KiB between builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from altmap.model.arch import Arch
from altmap.model.releases import Release

__all__ = ("BootCosts", "costs_of", "image_bytes")

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class BootCosts:
    """What one architecture, with one page size, keeps of boot memory.

    Attributes
    ----------
    image_bytes : mapping of str to int
        By release: code and data of the kernel, less what is freed once it has booted (``.init``,
        gaps between sections).
    cpu_bytes : int
        For each possible CPU: its per-CPU unit (``mm/percpu.c: pcpu_embed_first_chunk``), and the
        stacks of ppc64 (``arch/powerpc/kernel/setup_64.c: emergency_stack_init``).
    other_bytes : int
        What does not depend on the machine: tables of the firmware, node data, the structures of
        early boot.
    most_physmem_bits : int
        MAX_PHYSMEM_BITS, for the roots of the sections (``mm/sparse.c: memblocks_present``); x86:
        with five levels of page tables, 2 MiB less without.
    mem_section_bytes : int
        ``sizeof(struct mem_section)``; a root of one page holds as many as fit.
    map_table_bytes : int
        A page table of the linear map for each PMD of RAM, where it has no larger leaves: with
        ``rodata=full``, Debian's default on arm64 (``arch/arm64/mm/mmu.c: map_mem,
        can_set_direct_map``), and on s390x without EDAT, which QEMU's emulation lacks
        (``arch/s390/boot/vmem.c: pgtable_pmd_populate``).
    memmap_leaf_bytes : int
        What the memmap at boot is rounded up to (``arch/powerpc/mm/init_64.c: vmemmap_populate``).
    bounce_limit_address : int or None
        Devices may not reach memory above it: the kernel then has 64 MiB of bounce buffers;
        ``None``: never.
    bounce_counts_room : bool
        Addresses that memory can be added at count (x86: ``max_possible_pfn`` of the SRAT), not
        only RAM (arm64: ``max_pfn``).
    bounce_share : int
        Where no device needs bounce buffers, one byte of that many for buffers of kmalloc that are
        not aligned (``arch/arm64/mm/init.c: mem_init``, since 6.5); 0: none.
    crash_low_bytes : int
        DEFAULT_CRASH_KERNEL_LOW_SIZE; 0 where ``crashkernel=`` knows no ``high`` and ``low``.
    cma_bytes : int or None
        CONFIG_CMA_SIZE_MBYTES of Debian's kernels; ``None`` without CONFIG_DMA_CMA, where ``cma=``
        has no effect.
    measured : bool
        The sizes are those of a real kernel.
    process_table_bytes : mapping of str to int
        By MMU (``arch/powerpc/mm/book3s64/radix_pgtable.c:
        radix_init_pgtable``: ``1 << (mmu_pid_bits + 4)``).
    """

    image_bytes: Mapping[str, int]
    cpu_bytes: int
    other_bytes: int
    most_physmem_bits: int
    mem_section_bytes: int = 32
    map_table_bytes: int = 0
    memmap_leaf_bytes: int = 1
    bounce_limit_address: int | None = None
    bounce_counts_room: bool = False
    bounce_share: int = 0
    crash_low_bytes: int = 0
    cma_bytes: int | None = None
    measured: bool = True
    process_table_bytes: Mapping[str, int] = field(default_factory=dict)


_X86_64 = BootCosts(
    image_bytes={
        "6.1": 45244 * _KIB,
        "6.12": 38428 * _KIB,
        "6.18": 42776 * _KIB,
        "7.2": 44172 * _KIB,
        "7.3": 44764 * _KIB,
    },
    cpu_bytes=264 * _KIB,
    other_bytes=208 * _KIB,
    most_physmem_bits=52,
    bounce_limit_address=4 * _GIB,
    bounce_counts_room=True,
    crash_low_bytes=256 * _MIB,
)
_ARM64 = BootCosts(
    image_bytes={"6.12": 34564 * _KIB},
    cpu_bytes=136 * _KIB,
    # QEMU's device tree has 1 MiB (hw/arm/virt.c: create_fdt).
    other_bytes=(1024 + 284) * _KIB,
    most_physmem_bits=48,
    map_table_bytes=4 * _KIB,
    bounce_limit_address=4 * _GIB,
    bounce_share=1024,
    crash_low_bytes=128 * _MIB,
    cma_bytes=64 * _MIB,
)
_PPC64 = BootCosts(
    image_bytes={"6.12": 36376 * _KIB},
    cpu_bytes=(156 + 5 * 32) * _KIB,
    other_bytes=540 * _KIB,
    most_physmem_bits=51,
    memmap_leaf_bytes=2 * _MIB,
    process_table_bytes={"radix": 16 * _MIB},
)
#: Of an architecture that was not measured.
_NOT_MEASURED = BootCosts(
    image_bytes={"6.12": 36 * _MIB},
    cpu_bytes=256 * _KIB,
    other_bytes=_MIB,
    most_physmem_bits=46,
    measured=False,
)
_COSTS = {
    "x86_64": _X86_64,
    "x86_64-la57": _X86_64,
    "aarch64": _ARM64,
    "aarch64-16k": replace(
        _ARM64,
        image_bytes={"6.12": 34802 * _KIB},
        cpu_bytes=240 * _KIB,
        other_bytes=(1024 + 542) * _KIB,
        map_table_bytes=16 * _KIB,
    ),
    # That of 16 KiB pages, and the larger tables.
    "aarch64-64k": replace(
        _ARM64,
        image_bytes={"6.12": 34802 * _KIB},
        cpu_bytes=256 * _KIB,
        other_bytes=(1024 + 1024) * _KIB,
        most_physmem_bits=52,
        map_table_bytes=64 * _KIB,
        measured=False,
    ),
    "ppc64le": _PPC64,
    "ppc64le-64k": replace(
        _PPC64,
        image_bytes={"6.12": 36736 * _KIB},
        cpu_bytes=(640 + 5 * 32) * _KIB,
        other_bytes=1184 * _KIB,
    ),
    "s390x": BootCosts(
        image_bytes={"6.12": 22420 * _KIB},
        cpu_bytes=124 * _KIB,
        other_bytes=880 * _KIB,
        most_physmem_bits=46,
        map_table_bytes=2 * _KIB,
    ),
}


def costs_of(arch: Arch) -> BootCosts:
    """Return what kernels of an architecture keep at boot; an estimate if none was measured."""
    if arch.name in _COSTS:
        return _COSTS[arch.name]
    return replace(_NOT_MEASURED, most_physmem_bits=arch.max_physmem_bits)


def image_bytes(arch: Arch, release: Release) -> int:
    """Return what stays of the kernel's image; of a release that was not measured, the nearest."""
    measured = costs_of(arch).image_bytes
    return measured.get(release.name) or measured[max(measured, key=_number)]


def _number(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split(".")))
