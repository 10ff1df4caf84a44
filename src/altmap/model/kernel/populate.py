"""Existing memory that an add takes: the memmap, unless it is self-hosted, and page tables.

Source: ``mm/sparse-vmemmap.c: vmemmap_populate``; ``mm/memory_hotplug.c: __add_pages``;
``arch/x86/mm/init_64.c: vmemmap_populate``.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.allocator import (
    allocate,
    allocate_on_node,
    available_nr_pages,
    free_pages,
)
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.kernel.state import Kernel
from altmap.pfn import Pages, PfnRange, PfnSet
from altmap.trace import Outcome
from altmap.units import rounded_size

__all__ = ("arch_add_memory",)


def arch_add_memory(kernel: Kernel, addition: Addition) -> Outcome | None:
    """Allocate memmap and page tables of an added range, or refuse.

    A refusal for page tables changes nothing. One for the memmap leaves the sections that were
    added before memory ran out.
    """
    memmap = addition.memmap
    if not kernel.tunables.direct_map_2m and (memmap.self_hosted or memmap.host is not None):
        return _no_altmap(kernel, addition)
    if memmap.host is not None:
        addition.host_pages = PfnSet([memmap.host])
        _note_placed(kernel, addition, addition.host_pages, "of a host section")
    elif not memmap.self_hosted:
        refusal = _allocate_memmap(kernel, addition)
        if refusal is not None:
            return refusal
    refusal = _allocate_page_tables(kernel, addition)
    if refusal is None and memmap.self_hosted:
        hosted = memmap.hosted()
        kernel.self_hosted |= hosted
        first = addition.pfns.start + memmap.offset_nr_pages
        _note_placed(kernel, addition, hosted, f"of the range itself, from pfn {first:#x}")
    if refusal is None:
        _allocate_section_roots(kernel, addition)
    return refusal


def _no_altmap(kernel: Kernel, addition: Addition) -> Outcome:
    """Refuse a memmap in frames of the caller's choice: the CPU must map it by leaves of 2 MiB.

    The first block that has its own memmap is the last that is tried. Its page tables stay.
    """
    first = addition.pfns.start
    end = min(addition.pfns.end, first + addition.memmap.unit_nr_pages)
    tried = replace(addition, pfns=PfnRange(first, end))
    refusal = _allocate_page_tables(kernel, tried)
    if refusal is not None:
        return refusal
    _note_failed(kernel, tried)
    why = "no cpu support for altmap allocations: a paravirtual Xen domain has no leaves of 2 MiB"
    return Outcome.refused(errno.ENOMEM, "vmemmap_populate", why)


def _allocate_memmap(kernel: Kernel, addition: Addition) -> Outcome | None:
    """Allocate the memmap from existing memory; what was allocated before it ran out stays."""
    nr_pages = kernel.arch.memmap_nr_pages(len(addition.pfns))
    available = available_nr_pages(kernel, nr_pages)
    pages = _allocate(kernel, addition.node, min(nr_pages, available))
    if pages is not None and nr_pages <= available:
        addition.host_pages = pages
        _note_placed(kernel, addition, pages, "of existing memory")
        return None
    addition.host_pages = pages or PfnSet()
    _note_failed(kernel, addition)
    needed, free = (rounded_size(nr * kernel.arch.page_size_bytes) for nr in (nr_pages, available))
    return Outcome.refused(
        errno.ENOMEM,
        "vmemmap_populate",
        f"the memmap needs {needed} ({nr_pages} pages) in kernel zones of existing memory, "
        f"{free} ({available}) are available; those allocated until then are lost",
    )


def _note_failed(kernel: Kernel, addition: Addition) -> None:
    """Note an add that ran out of memory for a memmap: what it had until then stays."""
    kernel.failed_additions.append(addition)
    kernel.max_pfn = max(kernel.max_pfn, addition.pfns.end)
    if kernel.release.uncounts_failed_memmap:
        # section_deactivate takes back what was not counted yet.
        section = kernel.arch.section_nr_pages
        kernel.memmap_drift_nr_pages -= kernel.arch.memmap_nr_pages(section)


def _allocate_page_tables(kernel: Kernel, addition: Addition) -> Outcome | None:
    needed = page_table_nr_pages(kernel, [*kernel.additions, addition])
    tables = _allocate(kernel, addition.node, max(0, needed - len(kernel.page_tables)))
    kernel.failures.end_add()
    if tables is None:
        free_pages(kernel, addition.host_pages)
        return Outcome.refused(
            errno.ENOMEM, "arch_add_memory", "no free page for the page tables of the new range"
        )
    kernel.page_tables |= tables
    return None


def _allocate_section_roots(kernel: Kernel, addition: Addition) -> None:
    """Allocate the arrays of a node without CPUs for sections above all that were there before.

    Each has the size of a page, and is never freed; the other objects of its slab are free. A node
    with CPUs has slabs with room. Where no kernel zone of the node has memory, another node serves.
    Source: ``mm/sparse.c: sparse_index_alloc`` (``kzalloc_node``).
    """
    if addition.node in kernel.cpu_nodes:
        return
    arch = kernel.arch
    root = arch.page_size_bytes // arch.mem_section_bytes * arch.section_nr_pages
    nr_roots = (addition.pfns.end - 1) // root - (kernel.max_pfn - 1) // root
    if nr_roots > 0:
        allocate_on_node(kernel, addition.node, nr_roots)


def _allocate(kernel: Kernel, node: int, nr_pages: int) -> PfnSet | None:
    """Allocate pages for an add, unless an injected failure hits this allocation."""
    if nr_pages and kernel.failures.fails_allocation():
        return None
    return allocate(kernel, node, nr_pages)


def _note_placed(kernel: Kernel, addition: Addition, pages: Pages, where: str) -> None:
    text = f"memmap of {addition.pfns}: {len(pages)} pages {where}"
    kernel.log.note("memmap-placed", text, pages, "vmemmap_populate")
