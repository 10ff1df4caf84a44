"""What a kernel keeps of boot memory, part by part: MemTotal is what is left of it.

Each part is memory that memblock has reserved when free memory goes to the buddy allocator
(``mm/memblock.c: memblock_free_all``), and that is not freed later: the initrd and ``.init`` are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from altmap.model.arch import Arch
from altmap.model.boot.costs import BootCosts, costs_of, image_bytes
from altmap.model.boot.hashtables import hash_tables_nr_pages
from altmap.model.boot.layout import memory_bytes, ram_in_use
from altmap.model.boot.parameters import (
    CrashKernel,
    boot_words,
    crash_kernel,
    mem_limit_bytes,
    memparse,
    numa_off,
)
from altmap.model.releases import Release
from altmap.scenario import Machine

__all__ = ("BootPart", "boot_parts")

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
#: ``kernel/dma/swiotlb.c``: IO_TLB_DEFAULT_SIZE, IO_TLB_SIZE, IO_TLB_SEGSIZE, struct io_tlb_slot.
_BOUNCE_BYTES, _SLAB_BYTES, _SEGMENT_SLABS, _SLOT_BYTES = 64 * _MIB, 2 * _KIB, 128, 24
#: ``kernel/printk/printk.c``, with Debian's CONFIG_LOG_BUF_SHIFT and CONFIG_LOG_CPU_MAX_BUF_SHIFT.
_LOG_BYTES, _LOG_OF_CPU_BYTES = 128 * _KIB, 4 * _KIB
#: A descriptor and an info for each 32 bytes of the log.
_LOG_RECORD_BYTES, _DESC_BYTES, _INFO_BYTES = 32, 24, 88
#: What is in the way of the crash kernel's memory below 4 GiB: the kernel, where it is loaded.
_LOADED_BYTES = 80 * _MIB
_LOW_END = 4 * _GIB


@dataclass(frozen=True, slots=True)
class BootPart:
    """Memory that is kept, in bytes, and for what.

    *low*: it lies below 4 GiB; *loaded*: where the kernel was loaded, below any ZONE_MOVABLE.
    """

    size_bytes: int
    cause: str
    low: bool = False
    loaded: bool = False


def boot_parts(machine: Machine, arch: Arch, release: Release) -> tuple[BootPart, ...]:
    """Return what the kernel keeps of boot memory beside the memmap, largest causes apart.

    Raises
    ------
    InputError
        If the machine's command line has a word that is not modelled.
    """
    costs = costs_of(arch)
    words = boot_words(machine.cmdline or "")
    ram = ram_in_use(machine, arch)
    total = sum(end - start for start, end in ram)
    cpus = machine.cpus or 1
    parts = [
        BootPart(image_bytes(arch, release), "the kernel's code and data", low=True, loaded=True),
        BootPart(
            _bounce_bytes(costs, machine, ram, words, release), "bounce buffers (swiotlb)", True
        ),
        BootPart(_hash_bytes(machine, arch, total), "hash tables of dentries and inodes"),
        BootPart(_table_bytes(costs, machine, arch, total), "page tables, roots of sections"),
        BootPart(cpus * costs.cpu_bytes, f"per-CPU memory of {cpus}"),
        BootPart(_log_bytes(words, cpus), "the kernel's log"),
        BootPart(costs.other_bytes + _low_bytes(arch), "tables of the firmware and of early boot"),
        BootPart(_crash_bytes(costs, crash_kernel(words, total), ram), "crashkernel="),
    ]
    return tuple(part for part in parts if part.size_bytes)


def _low_bytes(arch: Arch) -> int:
    """Return what is reserved below 1 MiB (``arch/x86/realmode/init.c: reserve_real_mode``)."""
    return 158 * 4 * _KIB if arch.firmware_nr_pages else 0


def _hash_bytes(machine: Machine, arch: Arch, total_bytes: int) -> int:
    """Return what the tables take of memblock: with several nodes they come from vmalloc, later.

    Source: ``mm/mm_init.c: fixup_hashdist``; ``fs/dcache.c: dcache_init_early``.
    """
    one_node = numa_off(boot_words(machine.cmdline or ""))
    if sum(node.memory > 0 for node in machine.nodes) > 1 and not one_node:
        return 0
    page = arch.page_size_bytes
    return hash_tables_nr_pages(arch, total_bytes // page) * page


def _table_bytes(costs: BootCosts, machine: Machine, arch: Arch, total_bytes: int) -> int:
    page = arch.page_size_bytes
    nr_sections = (1 << costs.most_physmem_bits) // arch.section_size_bytes
    roots = nr_sections * 8 // (page // costs.mem_section_bytes)
    tables = total_bytes // arch.pmd_size_bytes * costs.map_table_bytes
    rest_of_leaf = -arch.memmap_bytes(total_bytes // page) % costs.memmap_leaf_bytes
    mmus = costs.process_table_bytes
    processes = mmus.get(machine.mmu or "radix", 0)
    return -(-roots // page) * page + tables + rest_of_leaf + processes


def _bounce_bytes(
    costs: BootCosts,
    machine: Machine,
    ram: list[tuple[int, int]],
    words: list[tuple[str, str]],
    release: Release,
) -> int:
    """Return what bounce buffers and their slots take.

    Source: ``arch/x86/kernel/pci-dma.c: pci_swiotlb_detect``; ``arch/arm64/mm/init.c: mem_init``;
    ``kernel/dma/swiotlb.c: swiotlb_init_remap, swiotlb_adjust_size``.
    """
    named = dict(words)
    limit = costs.bounce_limit_address
    if limit is None or (costs.bounce_counts_room and named.get("iommu") == "off"):
        return 0
    end = max(end for _, end in ram)
    forced = named.get("swiotlb", "").split(",")
    if "noforce" in forced:
        return 0
    needed = end > limit or (costs.bounce_counts_room and _has_room(machine))
    size = _BOUNCE_BYTES
    if not needed and costs.bounce_share and release.bounces_kmalloc:
        # The whole of RAM, also what the firmware keeps.
        whole = min(memory_bytes(machine), mem_limit_bytes(words) or memory_bytes(machine))
        size, needed = whole // costs.bounce_share, True
    if forced[0].isdigit():
        size = int(forced[0]) * _SLAB_BYTES
    if not needed and "force" not in forced:
        return 0
    # Each CPU has an area of at least one segment, and all are a power of two.
    areas = _power_of_two(machine.cpus or 1)
    segments = -(-size // (_SLAB_BYTES * _SEGMENT_SLABS))
    nr_slabs = _power_of_two(max(segments, areas)) * _SEGMENT_SLABS
    return nr_slabs * (_SLAB_BYTES + _SLOT_BYTES)


def _has_room(machine: Machine) -> bool:
    """Return whether the kernel is told of addresses for memory devices (ACPI's SRAT)."""
    if numa_off(boot_words(machine.cmdline or "")):
        return False
    if machine.max_memory is None:
        return True
    return machine.max_memory > memory_bytes(machine)


def _log_bytes(words: Iterable[tuple[str, str]], cpus: int) -> int:
    """Return what a larger log than the built-in one takes (``setup_log_buf``)."""
    asked = dict(words).get("log_buf_len", "")
    extra = (cpus - 1) * _LOG_OF_CPU_BYTES
    size = _power_of_two(min(memparse(asked)[0] or 0, 2 * _GIB))
    if size <= _LOG_BYTES and extra > _LOG_BYTES // 2:
        size = _power_of_two(extra + _LOG_BYTES)
    if size <= _LOG_BYTES:
        return 0
    return size + size // _LOG_RECORD_BYTES * (_DESC_BYTES + _INFO_BYTES)


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


def _crash_bytes(
    costs: BootCosts, asked: CrashKernel | None, ram: Iterable[tuple[int, int]]
) -> int:
    """Return what ``crashkernel=`` reserves.

    Source: ``kernel/crash_reserve.c: reserve_crashkernel_generic``. Memory below 4 GiB is tried
    first, without ``high``; with memory above it, some below is reserved as well.
    """
    if asked is None:
        return 0
    ram = list(ram)
    below = max((min(end, _LOW_END) - start for start, end in ram if start < _LOW_END), default=0)
    above = max((end - max(start, _LOW_END) for start, end in ram if end > _LOW_END), default=0)
    fits_below = asked.size_bytes <= below - _LOADED_BYTES
    if asked.fixed or not costs.crash_low_bytes:
        return asked.size_bytes if asked.size_bytes <= max(below, above) else 0
    low = costs.crash_low_bytes if asked.low_bytes is None else asked.low_bytes
    if (asked.high or not fits_below) and asked.size_bytes <= above:
        return asked.size_bytes + low if low <= below - _LOADED_BYTES else 0
    return asked.size_bytes if fits_below else 0
