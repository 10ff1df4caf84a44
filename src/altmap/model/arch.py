"""Architectures as data: the sizes that decide where memory may be added and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.units import format_size

__all__ = (
    "ARCHES",
    "Arch",
    "arch_named",
    "boot_block_size_bytes",
    "check_block_size",
    "with_mmu",
    "with_sections",
)

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_MOST_BLOCK_BYTES = 64 * _GIB


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture with one page size.

    Attributes
    ----------
    name : str
        ``uname -m``; with a page size behind it where the architecture has several.
    page_size_bytes, section_size_bytes, pmd_size_bytes : int
        PAGE_SIZE, SECTION_SIZE_BITS as a size (``asm/sparsemem.h``), PMD_SIZE.
    pageblock_nr_pages : int
        ``include/linux/pageblock-flags.h``.
    max_page_order : int
        MAX_PAGE_ORDER (MAX_ORDER - 1 on 6.1).
    has_nodes : bool
        Debian's kernel is built with CONFIG_NUMA; without it sysfs shows no nodes, and blocks have
        no links to them.
    struct_page_size_bytes : int
        ``include/linux/mm_types.h``; 64 with the configurations of distributions.
    max_physmem_bits : int
        Addresses at or above ``1 << max_physmem_bits`` cannot be added.
    kernel_zones : tuple of (str, int or None)
        Zones below ZONE_MOVABLE, each with the address at which it ends, ``None`` for the rest.
    memmap_rule : str
        ``pmd``: a block's memmap must be a multiple of PMD_SIZE to be self-hosted
        (``arch_supports_memmap_on_memory``, default); ``any``: no such rule; ``never``.
    """

    name: str
    page_size_bytes: int
    section_size_bytes: int
    pmd_size_bytes: int
    pageblock_nr_pages: int
    max_page_order: int
    max_physmem_bits: int
    kernel_zones: tuple[tuple[str, int | None], ...]
    memmap_rule: str = "pmd"
    has_nodes: bool = True
    struct_page_size_bytes: int = 64

    @property
    def family(self) -> str:
        """``uname -m``, whatever the page size."""
        return self.name.partition("-")[0]

    @property
    def section_nr_pages(self) -> int:
        """PAGES_PER_SECTION."""
        return self.section_size_bytes // self.page_size_bytes

    @property
    def subsection_nr_pages(self) -> int:
        """PAGES_PER_SUBSECTION: 2 MiB on every architecture (``mmzone.h``)."""
        return 2 * _MIB // self.page_size_bytes

    def memmap_bytes(self, nr_pages: int) -> int:
        """Return the bytes of struct pages that describe that many pages."""
        return nr_pages * self.struct_page_size_bytes

    def memmap_nr_pages(self, nr_pages: int) -> int:
        """Return the pages that hold the struct pages of that many pages, rounded up."""
        return -(-self.memmap_bytes(nr_pages) // self.page_size_bytes)


_X86_64 = Arch(
    name="x86_64",
    page_size_bytes=4 * _KIB,
    section_size_bytes=128 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=10,
    max_physmem_bits=46,
    kernel_zones=(("DMA", 16 * _MIB), ("DMA32", 4 * _GIB), ("Normal", None)),
)
_ARM64 = Arch(
    name="aarch64",
    page_size_bytes=4 * _KIB,
    section_size_bytes=128 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=10,
    max_physmem_bits=48,
    kernel_zones=(("DMA", 4 * _GIB), ("DMA32", 4 * _GIB), ("Normal", None)),
)
_PPC64 = Arch(
    name="ppc64le",
    page_size_bytes=4 * _KIB,
    section_size_bytes=16 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=12,
    max_physmem_bits=51,
    kernel_zones=(("Normal", None),),
)

#: Every architecture by name. Sources: ``asm/sparsemem.h``, ``asm/page.h``, ``arch/*/Kconfig``.
ARCHES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _X86_64,
        replace(_X86_64, name="x86_64-la57", max_physmem_bits=52),
        _ARM64,
        replace(
            _ARM64,
            name="aarch64-16k",
            page_size_bytes=16 * _KIB,
            pmd_size_bytes=32 * _MIB,
            pageblock_nr_pages=2048,
            max_page_order=11,
        ),
        replace(
            _ARM64,
            name="aarch64-64k",
            page_size_bytes=64 * _KIB,
            section_size_bytes=512 * _MIB,
            pmd_size_bytes=512 * _MIB,
            pageblock_nr_pages=8192,
            max_page_order=13,
        ),
        _PPC64,
        replace(
            _PPC64,
            name="ppc64le-64k",
            page_size_bytes=64 * _KIB,
            pageblock_nr_pages=32,
            max_page_order=8,
            memmap_rule="any",
        ),
        Arch(
            name="s390x",
            page_size_bytes=4 * _KIB,
            section_size_bytes=256 * _MIB,
            pmd_size_bytes=1 * _MIB,
            pageblock_nr_pages=256,
            max_page_order=10,
            max_physmem_bits=46,
            kernel_zones=(("DMA", 2 * _GIB), ("Normal", None)),
            has_nodes=False,
        ),
    )
}


def arch_named(name: str) -> Arch:
    """Return the architecture of that name.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name not in ARCHES:
        raise InputError(f"architecture {name!r}: need one of {', '.join(ARCHES)}")
    return ARCHES[name]


def with_mmu(arch: Arch, mmu: str | None) -> Arch:
    """Return the architecture with the MMU that its kernel uses: ``radix`` or ``hash`` on ppc64.

    With hash no memmap is self-hosted and nothing tells the direct map's leaves.
    Source: ``arch/powerpc/include/asm/pgtable.h: arch_supports_memmap_on_memory`` (6.6 on);
    ``arch/powerpc/mm/book3s64/pgtable.c: arch_report_meminfo``.

    Raises
    ------
    InputError
        If the architecture has no such choice.
    """
    if mmu is None:
        return arch
    if arch.family != "ppc64le":
        raise InputError(f"machine.mmu {mmu!r}: only ppc64le has a choice, not {arch.name}")
    return replace(arch, memmap_rule="never") if mmu == "hash" else arch


def with_sections(arch: Arch, size_bytes: int | None) -> Arch:
    """Return the architecture with the section size of a release, ``None`` for the usual one.

    Source: ``arch/s390/include/asm/sparsemem.h: SECTION_SIZE_BITS``, 28 up to 6.12, 27 in 7.3.
    """
    return arch if size_bytes is None else replace(arch, section_size_bytes=size_bytes)


def check_block_size(arch: Arch, what: str, size_bytes: int) -> None:
    """Check a memory block size (``drivers/base/memory.c: memory_dev_init``).

    Raises
    ------
    InputError
        Unless it is a power of two of at least one section, and one that machines have.
    """
    section = arch.section_size_bytes
    if size_bytes & (size_bytes - 1) or not section <= size_bytes <= _MOST_BLOCK_BYTES:
        raise InputError(
            f"{what} {size_bytes:#x}: need a power of two from {format_size(section)}, a section, "
            f"to {format_size(_MOST_BLOCK_BYTES)}"
        )


def boot_block_size_bytes(arch: Arch, boot_end_address: int) -> int:
    """Return the memory block size that the kernel of a guest chooses at boot.

    Source: ``arch/x86/mm/init_64.c: probe_memory_block_size`` (6.1, 6.12). *boot_end_address* is
    the end of the highest boot RAM, holes included. ppc64: the firmware's logical memory block.
    Other architectures: one section, unless the scenario's ``block_size`` says otherwise.
    """
    if arch.family == "ppc64le":
        return 256 * _MIB  # QEMU's logical memory block
    if arch.family != "x86_64" or boot_end_address < 64 * _GIB:
        return arch.section_size_bytes
    for size_bytes in (2 * _GIB, _GIB, 512 * _MIB, 256 * _MIB):
        if boot_end_address % size_bytes == 0:
            return size_bytes
    return arch.section_size_bytes
