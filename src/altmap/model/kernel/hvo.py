"""HVO: most of the memmap of a huge page is freed while the page is in its pool.

The first memmap pages of a huge page stay (``kept``); the rest are freed, and allocated again
before the huge page is freed or dissolved. Since 6.2 the one that stays is a new page, and the old
one is freed, too. Memmap pages of boot memory are reserved until then; freed, they are managed
pages, so MemTotal grows, and what is allocated in their place is counted as memmap of added memory.
A memmap in its own block stays as it is.

Source: ``mm/hugetlb_vmemmap.c: __hugetlb_vmemmap_optimize_folio, free_vmemmap_page,
alloc_vmemmap_page_list, vmemmap_pmd_entry``. The tail page that all huge pages of a zone share in
7.3 is not counted by the kernel, nor here.
"""

from __future__ import annotations

from collections.abc import Iterator

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.allocator import allocate, available_nr_pages, free_pages
from altmap.model.kernel.pool import HugePool, whole_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import adjust_managed_page_count
from altmap.pfn import PfnSet, PfnStride

__all__ = ("adopt_optimized", "optimize", "restore", "saved_nr_pages")


def saved_nr_pages(kernel: Kernel, pool: HugePool) -> int:
    """Return how many memmap pages HVO saves for each huge page of a pool; 0 where it cannot."""
    kept = kernel.release.hvo_kept_nr_pages
    whole = kernel.arch.memmap_nr_pages(pool.nr_pages)
    return max(0, whole - kept) if kept and kernel.arch.optimizes_hugetlb else 0


def optimize(kernel: Kernel, pool: HugePool, pages: PfnSet) -> None:
    """Free most of the memmap of huge pages that enter a pool, where the parameter says so."""
    saved = saved_nr_pages(kernel, pool)
    if not saved or not kernel.tunables.hugetlb_free_vmemmap:
        return
    pages = _not_self_hosted(kernel, pool, pages - pool.optimized)
    first = (pages & kernel.boot_ram) - kernel.hvo.replaced
    for node, part in _of_boot_nodes(kernel, first):
        _free_reserved_memmap(kernel, pool, node, part)
    kernel.hvo.replaced |= first
    again = (pages & kernel.boot_ram) - first
    freed = kernel.hvo.pages.highest(saved * _nr(pool, again))
    kernel.hvo.pages -= freed
    free_pages(kernel, freed)
    for addition, part in _of_additions(kernel, pages):
        freed = addition.host_pages.highest(saved * _nr(pool, part))
        addition.host_pages = addition.host_pages - freed
        kernel.hvo.saved_nr_pages += saved * _nr(pool, part)
        free_pages(kernel, freed)
    pool.optimized |= pages
    if pages:
        text = f"{_nr(pool, pages)} huge pages: {saved} memmap pages of each are freed"
        kernel.log.note("hugetlb", text, pages, "hugetlb_vmemmap_optimize_folios")


def restore(kernel: Kernel, pool: HugePool, pages: PfnSet) -> PfnSet:
    """Allocate the memmap of huge pages again; return those for which there is no memory.

    On some kernels their tail pages are copies of the head then: the page allocator takes none of
    them back (``mm/page_alloc.c: free_tail_page_prepare``), and they have no reference.
    """
    saved, stuck = saved_nr_pages(kernel, pool), PfnSet()
    wanted = pages & pool.optimized
    possible = available_nr_pages(kernel, saved * _nr(pool, wanted)) // saved if wanted else 0
    if possible < _nr(pool, wanted):
        stuck = wanted - wanted.lowest(possible * pool.nr_pages)
        wanted -= stuck
    for node, part in _of_boot_nodes(kernel, wanted):
        kernel.hvo.pages |= _allocated(kernel, node, saved * _nr(pool, part))
    for addition, part in _of_additions(kernel, wanted):
        fresh = _allocated(kernel, addition.node, saved * _nr(pool, part))
        addition.host_pages = addition.host_pages | fresh
        kernel.hvo.saved_nr_pages -= saved * _nr(pool, part)
    pool.optimized -= wanted
    if kernel.release.hvo_loses_restored:
        _lose(kernel, pool, wanted)
    if wanted:
        text = f"{_nr(pool, wanted)} huge pages: {saved} memmap pages of each are allocated again"
        kernel.log.note("hugetlb", text, wanted, "hugetlb_vmemmap_restore_folios")
    return stuck


def _lose(kernel: Kernel, pool: HugePool, pages: PfnSet) -> None:
    """Note huge pages each restored memmap page of which is a copy of their first one."""
    kernel.hvo.lost |= pages
    described = pool.nr_pages // kernel.arch.memmap_nr_pages(pool.nr_pages)
    for run in pages.ranges():
        kernel.hvo.copied_heads |= PfnStride(run.start, run.end, described, 1)
        kernel.hvo.copied_heads -= PfnStride(run.start, run.end, pool.nr_pages, 1)


def adopt_optimized(kernel: Kernel, pool: HugePool) -> None:
    """Take the huge pages that are there at the start as optimised: no file tells which are."""
    saved = saved_nr_pages(kernel, pool)
    if not saved or not kernel.tunables.hugetlb_free_vmemmap:
        return
    pages = _not_self_hosted(kernel, pool, pool.pages)
    pool.optimized = pages
    kernel.hvo.replaced |= pages & kernel.boot_ram
    for addition, part in _of_additions(kernel, pages):
        lost = addition.host_pages.highest(saved * _nr(pool, part))
        addition.host_pages = addition.host_pages - lost


def _free_reserved_memmap(kernel: Kernel, pool: HugePool, node: int, pages: PfnSet) -> None:
    """Free memmap pages that were reserved at boot; the highest ones of the node stand for them."""
    replaces = kernel.release.hvo_replaces_first
    nr_huge, saved = _nr(pool, pages), saved_nr_pages(kernel, pool)
    nr_freed = kernel.arch.memmap_nr_pages(pool.nr_pages) if replaces else saved
    if replaces:
        kept = kernel.release.hvo_kept_nr_pages
        kernel.hvo.pages |= _allocated(kernel, node, kept * nr_huge)
    reserved = kernel.reserved & kernel.boot_node_pages[node]
    freed = reserved.highest(nr_freed * nr_huge)
    kernel.reserved -= freed
    kernel.hvo.boot_nr_pages -= len(freed)
    kernel.changed.pages |= freed
    adjust_managed_page_count(kernel)


def _allocated(kernel: Kernel, node: int, nr_pages: int) -> PfnSet:
    return allocate(kernel, node, nr_pages) or PfnSet()


def _not_self_hosted(kernel: Kernel, pool: HugePool, pages: PfnSet) -> PfnSet:
    """Leave out huge pages whose memmap lies in their own block."""
    for addition in kernel.additions:
        if addition.memmap.self_hosted:
            pages = pages - whole_chunks(pages & addition.pfns, pool.nr_pages)
    return pages


def _of_boot_nodes(kernel: Kernel, pages: PfnSet) -> Iterator[tuple[int, PfnSet]]:
    for node, memory in kernel.boot_node_pages.items():
        part = pages & memory
        if part:
            yield node, part


def _of_additions(kernel: Kernel, pages: PfnSet) -> Iterator[tuple[Addition, PfnSet]]:
    for addition in kernel.additions:
        part = pages & addition.pfns
        if part:
            yield addition, part


def _nr(pool: HugePool, pages: PfnSet) -> int:
    return len(pages) // pool.nr_pages
