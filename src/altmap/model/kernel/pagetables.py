"""Page tables of added memory: they take existing memory, with or without altmap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from altmap.model.arch import Arch
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.allocator import free_pages
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange, PfnSet

__all__ = ("direct_map_leaves", "free_page_tables", "page_table_nr_pages")

_GIB = 1 << 30


#: Start, end and pages of one call of each run of adds; 0 for calls of less than 1 GiB.
_Runs = tuple[tuple[int, int, int], ...]


def page_table_nr_pages(kernel: Kernel, additions: Sequence[Addition]) -> int:
    """Return the pages of page tables that the additions need beyond those of boot memory.

    Counted are one PMD table per GiB of direct map that is not a 1 GiB leaf, one per GiB of
    vmemmap, and the tables above them (512 GiB each); tables of single pages too where the CPU
    has no larger leaves. Sizes are x86_64's with four levels. On arm64, tables of single pages and
    those above them map all of the direct map; of other architectures nothing is counted.
    Source: ``arch/x86/mm/init_64.c: phys_pud_init``, ``vmemmap_populate_hugepages`` (6.1, 6.12);
    ``arch/arm64/mm/mmu.c: alloc_init_cont_pmd, alloc_init_cont_pte``.
    """
    if kernel.arch.direct_map not in ("pud", "pages"):
        return 0
    boot_runs = tuple(kernel.boot_ram.ranges())
    if kernel.arch.direct_map == "pages":
        return _nr_tables_of_pages(kernel.arch, boot_runs, _runs(additions, 1 << 64))
    tunables = kernel.tunables
    return _nr_pages(
        kernel.arch, tunables.direct_map_1g, tunables.direct_map_2m, boot_runs,
        _runs(additions, _GIB // kernel.arch.page_size_bytes),
    )  # fmt: skip


def _nr_tables_of_pages(arch: Arch, boot_runs: tuple[PfnRange, ...], runs: _Runs) -> int:
    """Count the tables of all levels that map single pages, one for each slot."""
    nr_entries = arch.page_size_bytes // 8
    slot_nr_pages = arch.pmd_size_bytes // arch.page_size_bytes
    nr_pages = 0
    while slot_nr_pages * arch.page_size_bytes < 1 << arch.max_physmem_bits:
        slots = _every_slot(runs, slot_nr_pages)
        nr_pages += len(slots - _boot_slots(boot_runs, slot_nr_pages))
        slot_nr_pages *= nr_entries
    return nr_pages


def free_page_tables(kernel: Kernel) -> None:
    """Free the page tables that no added memory needs any more."""
    surplus = len(kernel.page_tables) - page_table_nr_pages(kernel, kernel.additions)
    if surplus > 0:
        freed = kernel.page_tables.highest(surplus)
        kernel.page_tables -= freed
        free_pages(kernel, freed)


def _runs(additions: Sequence[Addition], gib_nr_pages: int) -> _Runs:
    """Return the additions, short ones that follow each other as one."""
    runs: list[tuple[int, int, int]] = []
    start = end = 0
    for addition in additions:
        pfns = addition.pfns
        if pfns.end - pfns.start >= gib_nr_pages:
            runs.append((pfns.start, pfns.end, addition.memmap.unit_nr_pages or len(pfns)))
        elif pfns.start == end:
            end = pfns.end
        else:
            runs.append((start, end, 0))
            start, end = pfns.start, pfns.end
    return (*runs, (start, end, 0))


@lru_cache(maxsize=4096)
def _nr_pages(
    arch: Arch,
    direct_map_1g: bool,
    direct_map_2m: bool,
    boot_runs: tuple[PfnRange, ...],
    runs: _Runs,
) -> int:
    """Count them; cached, since memory that is added block by block needs the same count often."""
    gib_nr_pages = _GIB // arch.page_size_bytes
    vmemmap_nr_pages = gib_nr_pages * (arch.page_size_bytes // arch.struct_page_size_bytes)
    nr_pages = 0
    for slot_nr_pages, mapped in (
        (gib_nr_pages, _tables_of(runs, gib_nr_pages, direct_map_1g)),
        (vmemmap_nr_pages, _every_slot(runs, vmemmap_nr_pages)),
    ):
        nr_pages += len(mapped - _boot_slots(boot_runs, slot_nr_pages))
        upper = PfnSet(_slots(run, 512) for run in _every_slot(runs, slot_nr_pages).ranges())
        nr_pages += len(upper - _boot_slots(boot_runs, slot_nr_pages * 512))
    if not direct_map_2m:
        # One table of single pages for each 2 MiB of direct map and of vmemmap
        # (phys_pmd_init, vmemmap_populate, without PSE).
        for size_bytes in (arch.page_size_bytes, arch.struct_page_size_bytes):
            slot_nr_pages = arch.pmd_size_bytes // size_bytes
            leaves = _every_slot(runs, slot_nr_pages)
            nr_pages += len(leaves - _boot_slots(boot_runs, slot_nr_pages))
    return nr_pages


def _every_slot(runs: _Runs, slot_nr_pages: int) -> PfnSet:
    return PfnSet(_slots(PfnRange(start, end), slot_nr_pages) for start, end, _ in runs)


def _tables_of(runs: _Runs, gib_nr_pages: int, direct_map_1g: bool) -> PfnSet:
    """Return the GiB slots that are mapped by a table, not by one leaf."""
    slots = PfnSet()
    for start, end, call_nr_pages in runs:
        slots |= _leaves(PfnRange(start, end), call_nr_pages, gib_nr_pages, direct_map_1g)[0]
    return slots


def direct_map_leaves(kernel: Kernel, addition: Addition) -> tuple[PfnSet, PfnSet]:
    """Return the GiB slots of an addition mapped by 2 MiB leaves, and those mapped by one leaf.

    Slots are numbers of aligned GiB, kept in sets like pfns. A 1 GiB leaf needs a single call that
    covers the whole slot; with a memmap per block there is one call per block.
    """
    pfns = addition.pfns
    return _leaves(
        pfns,
        addition.memmap.unit_nr_pages or len(pfns),
        _GIB // kernel.arch.page_size_bytes,
        kernel.tunables.direct_map_1g,
    )


def _leaves(
    pfns: PfnRange, call_nr_pages: int, gib_nr_pages: int, direct_map_1g: bool
) -> tuple[PfnSet, PfnSet]:
    every = PfnSet.of(_slots(pfns, gib_nr_pages))
    if not direct_map_1g or call_nr_pages < gib_nr_pages:
        return every, PfnSet()
    first, last = -(-pfns.start // gib_nr_pages), pfns.end // gib_nr_pages
    large = PfnSet.of(PfnRange(first, last)) if first < last else PfnSet()
    return every - large, large


def _slots(pfns: PfnRange, slot_nr_pages: int) -> PfnRange:
    return PfnRange(pfns.start // slot_nr_pages, -(-pfns.end // slot_nr_pages))


def _boot_slots(boot_runs: Sequence[PfnRange], slot_nr_pages: int) -> PfnSet:
    return PfnSet(_slots(run, slot_nr_pages) for run in boot_runs)
