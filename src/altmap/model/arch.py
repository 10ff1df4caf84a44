"""Architectures as data: what differs between them in Linux and in QEMU's machines.

No other module of the model compares the name of an architecture: it asks the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from altmap.errors import InputError, one_of
from altmap.model.memory_maps import ARM_MAPS, PC_MAPS, MemoryMap
from altmap.units import format_size

__all__ = (
    "ARCHES",
    "DEFAULT_ARCH",
    "Arch",
    "Board",
    "advised_block_size_bytes",
    "arch_named",
    "arch_of",
    "arch_with_pages",
    "archs_of",
    "boot_block_size_bytes",
    "check_block_size",
    "with_mmu",
    "with_sections",
    "with_struct_pages",
)

#: The architecture of a scenario that names none.
DEFAULT_ARCH = "x86_64"

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_MOST_BLOCK_BYTES = 64 * _GIB
#: Mechanisms that are not specific to an architecture.
_ANYWHERE = ("hyperv", "kmem", "virtio-mem")


@dataclass(frozen=True, slots=True)
class Board:
    """Where the machines of an architecture, QEMU's but for *maps*, place memory.

    Attributes
    ----------
    platforms : tuple of str
        The machines, as a scenario's ``machine.platform`` names them, the default first.
    ram_base_address : int
        Where RAM starts (``hw/arm/virt.c: base_memmap``); PCs have a map of their own besides
        (:func:`altmap.model.platform.qemu.boot_ram`).
    dimm_floor_address : int
        No DIMM lies below it; PCs leave all below 4 GiB to other devices
        (``hw/i386/pc.c: pc_get_device_memory_range``).
    lmb_size_bytes : int or None
        The firmware's logical memory block, which memory is added by and which is the memory block
        size (``include/hw/ppc/spapr.h: SPAPR_MEMORY_BLOCK_SIZE``); ``None`` without such firmware.
    maps : mapping of str to MemoryMap
        Of other hypervisors, by platform.
    virtio_mem_extent_bytes : int
        How far a virtio-mem device's usable region exceeds the request: two of the largest
        sections (``hw/virtio/virtio-mem.c: VIRTIO_MEM_USABLE_EXTENT``).
    """

    platforms: tuple[str, ...]
    ram_base_address: int = 0
    dimm_floor_address: int = 0
    lmb_size_bytes: int | None = None
    maps: Mapping[str, MemoryMap] = field(default_factory=dict, hash=False)
    virtio_mem_extent_bytes: int = 256 * _MIB

    @property
    def dimm_align_bytes(self) -> int:
        """Alignment of DIMMs: a logical memory block, else the backend's pages of 2 MiB.

        Source: ``hw/mem/memory-device.c``, with transparent huge pages; ``hw/ppc/spapr.c:
        spapr_memory_pre_plug``.
        """
        return self.lmb_size_bytes or 2 * _MIB


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture with one page size.

    Attributes
    ----------
    name : str
        ``uname -m``, followed by a page size where the architecture has several.
    board : Board
        Where QEMU's machines place its memory.
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
    mem_section_bytes : int
        ``struct mem_section``; it has more members with CONFIG_PAGE_EXTENSION.
    max_physmem_bits : int
        Addresses at or above ``1 << max_physmem_bits`` cannot be added.
    kernel_zones : tuple of (str, int or None)
        Zones below ZONE_MOVABLE, each with the address at which it ends, ``None`` for the rest.
    memmap_rule : str
        ``pmd``: a block's memmap must be a multiple of PMD_SIZE to be self-hosted
        (``arch_supports_memmap_on_memory``, default); ``any``: no such rule; ``never``.
    mechanisms : tuple of str
        Ways to add memory, each with a class in :data:`altmap.model.machine.DRIVERS`: DIMMs by
        ``acpi`` or ``dlpar`` (``arch/powerpc/platforms/pseries/hotplug-memory.c``), ``probe``
        (CONFIG_ARCH_MEMORY_PROBE), ``standby`` (``drivers/s390/char/sclp_cmd.c``), and the
        drivers that are not specific to an architecture. Which releases have ``virtio-mem`` is a
        behaviour of the release.
    mmus : tuple of str
        The MMUs between which a kernel chooses at boot; empty without a choice.
    direct_map : str
        How the kernel maps added memory, as far as files show it (``arch_report_meminfo``).
        ``pud``: leaves of up to 1 GiB, whose page tables are counted (``arch/x86/mm/init_64.c:
        phys_pud_init``). ``lmb``: leaves of 2 MiB, as each logical memory block is mapped by
        itself (``arch/powerpc/mm/book3s64/radix_pgtable.c: create_physical_mapping``). ``pages``:
        each page by itself, with a page table for each PMD, as with ``rodata=full``, arm64's
        default (``arch/arm64/mm/mmu.c: arch_add_memory``); no file shows it. ``hidden``: no file
        shows it, and page tables are not counted.
    vmemmap_leaf_bytes : int or None
        Leaf of the page tables that map the memmap of a whole section of added memory, where a
        rule asks for it: PMD_SIZE with 4 KiB pages of arm64, a page with larger ones
        (``arch/arm64/mm/mmu.c: vmemmap_populate``).
    probes_block_size : bool
        A large machine has larger memory blocks (``arch/x86/mm/init_64.c:
        probe_memory_block_size``).
    firmware_nr_pages : int
        Page frames from 0 on that are the firmware's, although its map calls them RAM
        (``arch/x86/kernel/setup.c: trim_bios_range``).
    mem_limits : tuple of str
        What ``mem=`` limits: the ``amount`` of RAM (``arch/arm64/mm/init.c: arm64_memblock_init``)
        or its ``addresses``; ``adds at boot``: also those of devices that are there at boot
        (``arch/x86/kernel/e820.c: parse_memopt``; ``mm/memory_hotplug.c:
        register_memory_resource``).
    reads_memmap_word : bool
        The kernel reads ``memmap=`` (``arch/x86/kernel/e820.c: parse_memmap_opt``).
    optimizes_hugetlb : bool
        The kernel can free most of the memmap of a huge page (ARCH_WANT_OPTIMIZE_HUGETLB_VMEMMAP).
    gigantic_page_bytes : int or None
        The size of gigantic pages that is lost where each block hosts its memmap: 1 GiB (a PUD
        leaf with 4 KiB pages, contiguous PMD leaves with 16 KiB: ``arch/arm64/mm/hugetlbpage.c:
        arch_hugetlb_valid_size``); ``None`` where this size does not exist (64 KiB pages of arm64)
        or gigantic pages are not modelled.
    offlines_boot_memory : bool
        Memory blocks that were there at boot can go offline (``arch/arm64/mm/mmu.c:
        prevent_bootmem_remove_notifier``, ``prevent_memory_remove_notifier`` since 7.1).
    knows_node_of_address : bool
        ``memory_add_physaddr_to_nid`` returns the node of an address; without it Hyper-V does not
        add memory (``drivers/hv/hv_balloon.c: hot_add_enabled``).
    vetoes_rfc_2018 : bool
        The architecture refused the memmap of the design of 2018 in added memory ([RFC PATCH 3/4]
        of November 2018: ``arch/s390/mm/init.c: arch_add_memory``).
    write_fault : str
        The exception that a write to an unbacked frame raises, by the kernel's name
        (``arch/arm64/mm/fault.c: do_sea``; ``arch/*/kernel/traps.c`` elsewhere).
    flavour : str
        What Debian's kernels of it have at the end of their release.
    vmalloc_kib : int or None
        ``VmallocTotal`` in ``/proc/meminfo``, where it tells this architecture from another one
        with the same name and page size (``arch/x86/include/asm/pgtable_64_types.h:
        VMALLOC_SIZE_TB_L5``).
    """

    name: str
    board: Board
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
    mem_section_bytes: int = 16
    mechanisms: tuple[str, ...] = ("acpi", *_ANYWHERE)
    mmus: tuple[str, ...] = ()
    direct_map: str = "hidden"
    vmemmap_leaf_bytes: int | None = None
    probes_block_size: bool = False
    firmware_nr_pages: int = 0
    mem_limits: tuple[str, ...] = ("addresses",)
    reads_memmap_word: bool = False
    optimizes_hugetlb: bool = False
    gigantic_page_bytes: int | None = None
    offlines_boot_memory: bool = True
    knows_node_of_address: bool = True
    vetoes_rfc_2018: bool = False
    write_fault: str = "general protection fault"
    flavour: str = "amd64"
    vmalloc_kib: int | None = None

    @property
    def family(self) -> str:
        """``uname -m``, whatever the page size."""
        return self.name.partition("-")[0]

    @property
    def shows_direct_map(self) -> bool:
        """Whether ``/proc/meminfo`` has DirectMap lines."""
        return self.direct_map in ("pud", "lmb")

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
    board=Board(("pc", "q35", "xen", *PC_MAPS), dimm_floor_address=4 * _GIB, maps=PC_MAPS),
    page_size_bytes=4 * _KIB,
    section_size_bytes=128 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=10,
    max_physmem_bits=46,
    kernel_zones=(("DMA", 16 * _MIB), ("DMA32", 4 * _GIB), ("Normal", None)),
    mechanisms=("acpi", "probe", *_ANYWHERE),
    direct_map="pud",
    probes_block_size=True,
    mem_limits=("addresses", "adds at boot"),
    reads_memmap_word=True,
    firmware_nr_pages=1,
    optimizes_hugetlb=True,
    gigantic_page_bytes=_GIB,
)
_ARM64 = Arch(
    name="aarch64",
    board=Board(
        ("virt", *ARM_MAPS), ram_base_address=_GIB, maps=ARM_MAPS, virtio_mem_extent_bytes=_GIB
    ),
    page_size_bytes=4 * _KIB,
    section_size_bytes=128 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=10,
    max_physmem_bits=48,
    kernel_zones=(("DMA", 4 * _GIB), ("DMA32", 4 * _GIB), ("Normal", None)),
    mem_limits=("amount",),
    direct_map="pages",
    vmemmap_leaf_bytes=2 * _MIB,
    gigantic_page_bytes=_GIB,
    offlines_boot_memory=False,
    knows_node_of_address=False,
    write_fault="synchronous external abort",
    flavour="arm64",
)
_PPC64 = Arch(
    name="ppc64le",
    board=Board(("pseries",), lmb_size_bytes=256 * _MIB),
    page_size_bytes=4 * _KIB,
    section_size_bytes=16 * _MIB,
    pmd_size_bytes=2 * _MIB,
    pageblock_nr_pages=512,
    max_page_order=12,
    max_physmem_bits=51,
    kernel_zones=(("Normal", None),),
    mechanisms=("dlpar", *_ANYWHERE),
    mmus=("radix", "hash"),
    mem_section_bytes=32,
    direct_map="lmb",
    write_fault="machine check",
    flavour="powerpc64le",
)

#: Every architecture by name. Sources: ``asm/sparsemem.h``, ``asm/page.h``, ``arch/*/Kconfig``.
ARCHES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _X86_64,
        replace(_X86_64, name="x86_64-la57", max_physmem_bits=52, vmalloc_kib=(12800 << 30) - 1),
        _ARM64,
        replace(
            _ARM64,
            name="aarch64-16k",
            flavour="arm64-16k",
            page_size_bytes=16 * _KIB,
            vmemmap_leaf_bytes=16 * _KIB,
            pmd_size_bytes=32 * _MIB,
            pageblock_nr_pages=2048,
            max_page_order=11,
        ),
        replace(
            _ARM64,
            name="aarch64-64k",
            flavour="arm64-64k",
            page_size_bytes=64 * _KIB,
            vmemmap_leaf_bytes=64 * _KIB,
            section_size_bytes=512 * _MIB,
            pmd_size_bytes=512 * _MIB,
            pageblock_nr_pages=8192,
            max_page_order=13,
            gigantic_page_bytes=None,
        ),
        _PPC64,
        replace(
            _PPC64,
            name="ppc64le-64k",
            flavour="powerpc64le-64k",
            page_size_bytes=64 * _KIB,
            pageblock_nr_pages=32,
            max_page_order=8,
            memmap_rule="any",
        ),
        Arch(
            name="s390x",
            board=Board(("s390-ccw",)),
            page_size_bytes=4 * _KIB,
            section_size_bytes=256 * _MIB,
            pmd_size_bytes=1 * _MIB,
            pageblock_nr_pages=256,
            max_page_order=10,
            max_physmem_bits=46,
            kernel_zones=(("DMA", 2 * _GIB), ("Normal", None)),
            has_nodes=False,
            mechanisms=("acpi", "standby", *_ANYWHERE),
            vetoes_rfc_2018=True,
            write_fault="addressing exception",
            flavour="s390x",
        ),
    )
}


def arch_named(name: str) -> Arch:
    """Return the architecture of that name.

    Raises
    ------
    InputError
        If there is none; the message lists the known ones.
    """
    if name not in ARCHES:
        raise InputError(f"architecture {name!r}: {one_of(name, ARCHES)}")
    return ARCHES[name]


def arch_with_pages(name: str, page_size_bytes: int | None) -> Arch:
    """Return the architecture of that name, or that of the same family with another page size.

    Raises
    ------
    InputError
        If there is none; the message lists the known ones.
    """
    arch = arch_named(name)
    if page_size_bytes in (None, arch.page_size_bytes):
        return arch
    several = archs_of(arch.family, page_size_bytes)
    if not several:
        sizes = dict.fromkeys(
            format_size(each.page_size_bytes)
            for each in ARCHES.values()
            if each.family == arch.family
        )
        raise InputError(
            f"machine.page_size {format_size(page_size_bytes)}: {arch.family} has "
            f"{', '.join(sizes)}"
        )
    return several[0]


def arch_of(machine: str, page_size_bytes: int | None = None) -> Arch | None:
    """Return the architecture with a name (``uname -m``) and page size, ``None`` if none has both.

    Without a page size the first one of the name is returned.
    """
    for arch in ARCHES.values():
        if arch.family == machine and page_size_bytes in (None, arch.page_size_bytes):
            return arch
    return None


def archs_of(machine: str, page_size_bytes: int) -> list[Arch]:
    """Return the architectures with a name (``uname -m``) and page size, the usual one first."""
    return [
        arch
        for arch in ARCHES.values()
        if arch.family == machine and arch.page_size_bytes == page_size_bytes
    ]


def with_mmu(arch: Arch, mmu: str | None) -> Arch:
    """Return the architecture with the MMU that its kernel uses: ``radix`` or ``hash`` on ppc64.

    With hash no memmap is self-hosted and no file shows the direct map's leaves.
    Source: ``arch/powerpc/include/asm/pgtable.h: arch_supports_memmap_on_memory`` (6.6 on);
    ``arch/powerpc/mm/book3s64/pgtable.c: arch_report_meminfo``.

    Raises
    ------
    InputError
        If the architecture has no such choice.
    """
    if mmu is None:
        return arch
    if mmu not in arch.mmus:
        raise InputError(
            f"machine.mmu {mmu!r}: only {_families(mmu)} has a choice, not {arch.name}"
        )
    if mmu != "hash":
        return arch
    block = 1 << arch.max_page_order
    return replace(arch, memmap_rule="never", direct_map="hidden", pageblock_nr_pages=block)


def _families(mmu: str) -> str:
    return ", ".join(dict.fromkeys(a.family for a in ARCHES.values() if mmu in a.mmus)) or "none"


def with_sections(arch: Arch, size_bytes: int | None) -> Arch:
    """Return the architecture with the section size of a release, ``None`` for the usual one.

    Source: ``arch/s390/include/asm/sparsemem.h: SECTION_SIZE_BITS``, 28 up to 6.12, 27 since 6.13.
    """
    return arch if size_bytes is None else replace(arch, section_size_bytes=size_bytes)


def with_struct_pages(arch: Arch, size_bytes: int | None) -> Arch:
    """Return the architecture with another size of a struct page, ``None`` for the usual one."""
    return arch if size_bytes is None else replace(arch, struct_page_size_bytes=size_bytes)


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


def advised_block_size_bytes(windows: Iterable[tuple[int, int]]) -> int | None:
    """Return the largest memory block that CXL windows are aligned to, ``None`` without advice.

    Parameters
    ----------
    windows : iterable of (int, int)
        Address and size of each window of the firmware's table (CFMWS). One that is aligned to less
        than 256 MiB gives none.

    Source: ``drivers/acpi/numa/srat.c: acpi_parse_cfmws``; ``drivers/base/memory.c:
    memory_block_advise_max_size`` (7.2, 7.3).
    """
    bounds = (start | (start + size) for start, size in windows)
    aligned = (bound & -bound for bound in bounds)
    return min((size for size in aligned if size >= 256 * _MIB), default=None)


def boot_block_size_bytes(arch: Arch, boot_end_address: int, advised: int | None = None) -> int:
    """Return the memory block size that the kernel of a guest chooses at boot.

    The firmware's logical memory block, if it has one; else one section, or more on a machine of
    64 GiB or more where the architecture probes for it (``arch/x86/mm/init_64.c:
    probe_memory_block_size``; 6.1, 6.12, 7.3). *boot_end_address* is the end of the highest boot
    RAM, holes included; *advised* the most that CXL windows allow, which other architectures do
    not ask for.
    """
    if arch.board.lmb_size_bytes is not None:
        return arch.board.lmb_size_bytes
    if arch.probes_block_size and boot_end_address >= 64 * _GIB:
        for size_bytes in (2 * _GIB, _GIB, 512 * _MIB, 256 * _MIB):
            if size_bytes <= (advised or size_bytes) and boot_end_address % size_bytes == 0:
                return size_bytes
    return arch.section_size_bytes
