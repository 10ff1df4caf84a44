"""Page tables that added memory costs: they come from existing memory, with or without altmap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from altmap.kernel.state import Addition, Kernel
from altmap.pfn import PfnRange, PfnSet

__all__ = ("direct_map_leaves", "page_table_nr_pages")

_GIB = 1 << 30


def page_table_nr_pages(kernel: Kernel, additions: Sequence[Addition]) -> int:
    """Return the pages of page tables that the additions need beyond those of boot memory.

    Counted are one PMD table per GiB of direct map that is not a 1 GiB leaf, one per GiB of
    vmemmap, and the tables above them (512 GiB each); tables of single pages too where the CPU
    has no larger leaves. Sizes are x86_64's with four levels; other
    architectures are not counted.
    Source: ``arch/x86/mm/init_64.c: phys_pud_init``, ``vmemmap_populate_hugepages`` (6.1, 6.12).
    """
    if not kernel.arch.name.startswith("x86_64"):
        return 0
    gib_nr_pages = _GIB // kernel.arch.page_size_bytes
    vmemmap_nr_pages = gib_nr_pages * (
        kernel.arch.page_size_bytes // kernel.arch.struct_page_size_bytes
    )
    runs, boot_runs = _merged(add.pfns for add in additions), list(kernel.boot_ram.ranges())
    all_slots, vmemmap_slots = (
        PfnSet(_slots(run, slot_nr_pages) for run in runs)
        for slot_nr_pages in (gib_nr_pages, vmemmap_nr_pages)
    )
    nr_pages = len(_pmd_slots(kernel, additions) - _boot_slots(boot_runs, gib_nr_pages))
    nr_pages += len(vmemmap_slots - _boot_slots(boot_runs, vmemmap_nr_pages))
    for slots, slot_nr_pages in (
        (all_slots, gib_nr_pages),
        (vmemmap_slots, vmemmap_nr_pages),
    ):
        upper = PfnSet(_slots(run, 512) for run in slots.ranges())
        nr_pages += len(upper - _boot_slots(boot_runs, slot_nr_pages * 512))
    return nr_pages + (0 if kernel.tunables.direct_map_2m else _leaf_tables(kernel, additions))


def _pmd_slots(kernel: Kernel, additions: Sequence[Addition]) -> PfnSet:
    """Return the GiB slots that are mapped by a table, not by one leaf."""
    gib_nr_pages = _GIB // kernel.arch.page_size_bytes
    short = [add.pfns for add in additions if len(add.pfns) < gib_nr_pages]
    slots = PfnSet(_slots(run, gib_nr_pages) for run in _merged(short))
    if len(short) < len(additions):
        for addition in additions:
            if len(addition.pfns) >= gib_nr_pages:
                slots |= direct_map_leaves(kernel, addition)[0]
    return slots


def _merged(pfns: Iterable[PfnRange]) -> list[PfnRange]:
    """Return the ranges in ascending order, neighbours as one."""
    runs: list[list[int]] = []
    for start, end in sorted((each.start, each.end) for each in pfns):
        if runs and runs[-1][1] == start:
            runs[-1][1] = end
        else:
            runs.append([start, end])
    return [PfnRange(start, end) for start, end in runs]


def _leaf_tables(kernel: Kernel, additions: Sequence[Addition]) -> int:
    """Return the tables of single pages: one for each 2 MiB of direct map and of vmemmap.

    Source: ``arch/x86/mm/init_64.c: phys_pmd_init``, ``vmemmap_populate``, without PSE.
    """
    arch = kernel.arch
    direct = arch.pmd_size_bytes // arch.page_size_bytes
    vmemmap = arch.pmd_size_bytes // arch.struct_page_size_bytes
    boot_runs = list(kernel.boot_ram.ranges())
    nr_pages = 0
    for slot_nr_pages in (direct, vmemmap):
        slots = PfnSet(_slots(addition.pfns, slot_nr_pages) for addition in additions)
        nr_pages += len(slots - _boot_slots(boot_runs, slot_nr_pages))
    return nr_pages


def direct_map_leaves(kernel: Kernel, addition: Addition) -> tuple[PfnSet, PfnSet]:
    """Return the GiB slots of an addition mapped by 2 MiB leaves, and those mapped by one leaf.

    Slots are numbers of aligned GiB, kept in sets like pfns. A 1 GiB leaf needs a single call that
    covers the whole slot; with a memmap per block there is one call per block.
    """
    gib_nr_pages = _GIB // kernel.arch.page_size_bytes
    pfns, memmap = addition.pfns, addition.memmap
    every = PfnSet.of(_slots(pfns, gib_nr_pages))
    call_nr_pages = memmap.unit_nr_pages or len(pfns)
    if not kernel.tunables.direct_map_1g or call_nr_pages < gib_nr_pages:
        return every, PfnSet()
    first, last = -(-pfns.start // gib_nr_pages), pfns.end // gib_nr_pages
    large = PfnSet.of(PfnRange(first, last)) if first < last else PfnSet()
    return every - large, large


def _slots(pfns: PfnRange, slot_nr_pages: int) -> PfnRange:
    return PfnRange(pfns.start // slot_nr_pages, -(-pfns.end // slot_nr_pages))


def _boot_slots(boot_runs: Sequence[PfnRange], slot_nr_pages: int) -> PfnSet:
    return PfnSet(_slots(run, slot_nr_pages) for run in boot_runs)
