"""hugetlb pages: a write to a node's ``nr_hugepages`` grows or shrinks the pool.

Functions have the names of the kernel's (``mm/hugetlb.c``).
"""

from __future__ import annotations

from collections.abc import Iterable

from altmap.model.arch import Arch
from altmap.model.kernel.allocator import available, in_list_order
from altmap.model.kernel.files import migrate_pages
from altmap.model.kernel.hvo import optimize, restore
from altmap.model.kernel.pool import HugePool, aligned_chunks, whole_chunks
from altmap.model.kernel.single_pages import find_movable_pages, unmovable_pageblocks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.kernel.zonelists import zones_of_nodes
from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "dissolve_free_hugetlb_folios",
    "gigantic_across",
    "hugepage_sizes_bytes",
    "hugetlbfs_fallocate",
    "migrate_hugetlb",
    "nr_huge",
    "pool_of",
    "remove_huge_file",
    "replace_free_huge_pages",
    "set_max_huge_pages",
)

_GIB = 1 << 30


def hugepage_sizes_bytes(arch: Arch) -> tuple[int, ...]:
    """Return the sizes of huge pages that are modelled: a PMD's, and 1 GiB with pages of 4 KiB."""
    return (arch.pmd_size_bytes, _GIB) if arch.page_size_bytes == 4096 else (arch.pmd_size_bytes,)


def pool_of(kernel: Kernel, size_bytes: int) -> HugePool:
    """Return the pool of a size, which is made empty if there is none."""
    nr_pages = size_bytes // kernel.arch.page_size_bytes
    return kernel.hugetlb.setdefault(nr_pages, HugePool(nr_pages))


def nr_huge(kernel: Kernel, pool: HugePool, pages: PfnSet, node: int | None = None) -> int:
    """Return how many huge pages page frames make, of one node or of all."""
    if node is not None and pages:  # most machines have none, and large nodes
        pages = pages & kernel.node_pages(node)
    return len(pages) // pool.nr_pages


def set_max_huge_pages(kernel: Kernel, pool: HugePool, node: int, wanted: int) -> None:
    """Write a number to ``nr_hugepages`` of a node; the kernel allocates as many as it can."""
    surplus = pool.surplus.get(node, 0)
    persistent = nr_huge(kernel, pool, pool.pages, node) - surplus
    reused = min(surplus, max(0, wanted - persistent))
    pool.surplus[node] = surplus - reused
    persistent += reused
    if wanted > persistent:
        _grow(kernel, pool, node, wanted - persistent)
        return
    freed = pool.take(
        persistent - wanted,
        kernel.node_pages(node),
        ascending=kernel.release.hugetlb_first_in_first_out,
    )
    freed -= _free_huge_pages(kernel, pool, freed, "update_and_free_pages_bulk")
    # Pages in use are surplus until their file is removed.
    pool.surplus[node] += persistent - wanted - len(freed) // pool.nr_pages


def _grow(kernel: Kernel, pool: HugePool, node: int, wanted: int) -> None:
    zones = list(reversed(kernel.node_zones(node)))
    if _is_gigantic(kernel, pool):
        got = [_alloc_gigantic(kernel, pool, zones, wanted)]
    else:
        got = _alloc_buddy(kernel, pool, zones, wanted)
    taken = PfnSet.of(*got)
    kernel.used |= taken
    kernel.changed.pages |= taken
    batches = reversed(got) if kernel.release.hugetlb_first_in_first_out else got
    for batch in batches:
        pool.put(batch)
    optimize(kernel, pool, taken)
    nr_got = len(taken) // pool.nr_pages
    kernel.log.note(
        "hugetlb",
        f"{nr_got} of {wanted} huge pages of {_mib(kernel, pool)} MiB on node {node}",
        taken,
        "alloc_pool_huge_folio",
        doubt=""
        if nr_got == wanted or _is_gigantic(kernel, pool)
        else "reclaim and compaction might find more",
    )


def _is_gigantic(kernel: Kernel, pool: HugePool) -> bool:
    return pool.nr_pages > 1 << kernel.arch.max_page_order


def _mib(kernel: Kernel, pool: HugePool) -> int:
    return pool.nr_pages * kernel.arch.page_size_bytes >> 20


def _alloc_buddy(
    kernel: Kernel, pool: HugePool, zones: Iterable[Zone], wanted: int
) -> list[PfnSet]:
    """Take chunks from the buddy allocator: the smallest free chunk that suffices comes first.

    Returns batches in the order in which they were taken; a zone gives down to its watermark.
    Source: ``mm/page_alloc.c: __rmqueue_smallest``; hugetlb pages of this size are movable
    (``hugepage_movable_supported``).
    """
    zones, got = list(zones), list[PfnSet]()
    for mark in ("low", "min"):
        for zone in zones:
            spare = available(kernel, zone, zones, mark) - sum(b.count(zone.present) for b in got)
            nr_got = sum(len(batch) for batch in got) // pool.nr_pages
            left = min(wanted - nr_got, spare // pool.nr_pages)
            for batch in _smallest_first(kernel, pool.nr_pages, zone, got):
                if left <= 0:
                    break
                parts = in_list_order(kernel, batch, left * pool.nr_pages)
                got += parts
                left -= sum(map(len, parts)) // pool.nr_pages
    return got


def _smallest_first(kernel: Kernel, nr_pages: int, zone: Zone, taken: list[PfnSet]) -> list[PfnSet]:
    """Return free chunks by the order of the buddy allocator's chunk that they belong to.

    Pageblocks that processes are expected to use are left out; unmovable ones come last.
    """
    free = kernel.free(zone) - PfnSet.of(*taken) - kernel.expected_movable
    unmovable = free & unmovable_pageblocks(kernel, zone)
    own = _by_size(kernel, nr_pages, free - unmovable)
    return own + _by_size(kernel, nr_pages, unmovable)


def _by_size(kernel: Kernel, nr_pages: int, free: PfnSet) -> list[PfnSet]:
    batches, size = [], nr_pages
    chunks = aligned_chunks(free, size)
    while size < 1 << kernel.arch.max_page_order:
        larger = aligned_chunks(chunks, 2 * size)
        batches.append(chunks - larger)
        chunks, size = larger, 2 * size
    return [*batches, chunks]


def _alloc_gigantic(kernel: Kernel, pool: HugePool, zones: Iterable[Zone], wanted: int) -> PfnSet:
    """Allocate whole naturally aligned ranges of kernel zones, after moving movable pages.

    Nothing in the range may be unmovable: pages that hold their own block's memmap are, so with a
    memmap in each block no range of 1 GiB qualifies.
    Source: ``mm/page_alloc.c: alloc_contig_pages, pfn_range_valid_contig``; such pages are not
    allocated from ZONE_MOVABLE unless ``movable_gigantic_pages`` says so
    (``hugepage_movable_supported``).
    """
    taken = PfnSet()
    for zone in zones:
        if zone.name == MOVABLE and not kernel.tunables.movable_gigantic_pages:
            continue
        fixed = (kernel.used - kernel.movable) | kernel.pinned
        suitable = aligned_chunks(kernel.managed(zone) - fixed, pool.nr_pages)
        for run in suitable.ranges():
            for start in range(run.start, run.end, pool.nr_pages):
                if len(taken) == wanted * pool.nr_pages:
                    return taken
                chunk = PfnRange(start, start + pool.nr_pages)
                if _alloc_contig_range(kernel, zone.node, chunk):
                    taken |= chunk
    return taken


def _alloc_contig_range(kernel: Kernel, node: int, chunk: PfnRange) -> bool:
    """Allocate a range after moving its pages in use; false if there is no page to move them to."""
    moving = kernel.movable & chunk
    kernel.used |= chunk
    nodes = [node, *sorted({zone.node for zone in kernel.zones.values()} - {node})]
    zones = zones_of_nodes(kernel, nodes, below_movable=False)
    targets = find_movable_pages(kernel, zones, len(moving))
    if len(targets) < len(moving):
        kernel.used = (kernel.used - chunk) | moving
        return False
    migrate_pages(kernel, moving, targets)
    kernel.used |= chunk
    return True


def _free_huge_pages(kernel: Kernel, pool: HugePool, pages: PfnSet, function: str) -> PfnSet:
    """Free huge pages; return those that go back to the pool, as their memmap cannot be had."""
    stuck = restore(kernel, pool, pages)
    pool.put(stuck)
    pages = pages - stuck
    if not pages:
        return stuck
    kernel.used -= pages - kernel.hvo.lost
    kernel.changed.pages |= pages
    kernel.log.note(
        "hugetlb",
        f"{len(pages) // pool.nr_pages} free huge pages of {_mib(kernel, pool)} MiB freed "
        "to the buddy allocator",
        pages,
        function,
    )
    return stuck


def hugetlbfs_fallocate(kernel: Kernel, pool: HugePool, name: str, nr_wanted: int) -> bool:
    """Give a file huge pages of the pool; false, and nothing changed, if too few are free.

    Source: ``fs/hugetlbfs/inode.c: hugetlbfs_fallocate``.
    """
    everywhere = pool.free_pages
    if len(everywhere) < nr_wanted * pool.nr_pages:
        return False
    ascending = kernel.release.hugetlb_first_in_first_out
    taken = pool.take(nr_wanted, everywhere, ascending=ascending)
    pool.in_use |= taken
    kernel.huge_files[name] = (pool.nr_pages, taken)
    return True


def remove_huge_file(kernel: Kernel, pool: HugePool, name: str) -> None:
    """Return a file's huge pages to the pool; surplus ones are freed to the buddy allocator.

    Source: ``mm/hugetlb.c: free_huge_folio``.
    """
    pages = kernel.huge_files.pop(name)[1]
    pool.in_use -= pages
    pool.not_migratable -= pages
    for node in sorted({zone.node for zone in kernel.zones.values()}):
        mine = pages & kernel.node_pages(node)
        surplus = mine.highest(pool.surplus.get(node, 0) * pool.nr_pages)
        if surplus:
            stuck = _free_huge_pages(kernel, pool, surplus, "free_huge_folio")
            pool.surplus[node] -= len(surplus - stuck) // pool.nr_pages
        pool.put(mine - surplus)


def gigantic_across(kernel: Kernel, pfns: PfnRange) -> PfnRange | None:
    """Return a huge page of which only a part lies in the block and that reaches beyond its end."""
    for pool in kernel.pools():
        pages = pool.pages
        last = pfns.end - 1
        if last in pages and pfns.end % pool.nr_pages:
            start = last // pool.nr_pages * pool.nr_pages
            return PfnRange(start, start + pool.nr_pages)
    return None


def migrate_hugetlb(kernel: Kernel, pfns: PfnRange, node: int, nodes: Iterable[int]) -> PfnSet:
    """Move huge pages in use out of a range of a node to some nodes; return those without a target.

    Each moves to a free huge page of the pool on the nodes, else to a new one; a gigantic one only
    to one of the pool. One that is not migratable stays, and is not returned.
    Source: ``mm/migrate.c: alloc_migration_target``; ``mm/hugetlb.c: alloc_hugetlb_folio_nodemask,
    folio_isolate_hugetlb, move_hugetlb_state``.
    """
    stuck = PfnSet()
    if not kernel.hugetlb:
        return stuck
    nodes = list(nodes)
    allowed = PfnSet.of(*(kernel.node_pages(node) for node in nodes)) - pfns
    zones = zones_of_nodes(kernel, nodes, below_movable=False)
    for pool in kernel.pools():
        moving = whole_chunks((pool.in_use & pfns) - pool.not_migratable, pool.nr_pages)
        wanted = len(moving) // pool.nr_pages
        if not wanted:
            continue
        pooled = pool.take(wanted, allowed, ascending=kernel.release.hugetlb_first_in_first_out)
        missing = wanted - len(pooled) // pool.nr_pages
        fresh = PfnSet()
        if missing and not _is_gigantic(kernel, pool):
            fresh = PfnSet.of(*_alloc_buddy(kernel, pool, zones, missing))
        if len(pooled) + len(fresh) < len(moving):
            pool.put(pooled)
            stuck |= moving
            continue
        kernel.used |= fresh
        kernel.changed.pages |= fresh | moving
        targets = pooled | fresh
        for name, (size, pages) in kernel.huge_files.items():
            if size == pool.nr_pages and (part := pages & moving):
                to = targets.lowest(len(part))
                targets -= to
                kernel.huge_files[name] = (size, (pages - part) | to)
        pool.in_use = (pool.in_use - moving) | pooled | fresh
        if kernel.release.hugetlb_migrates_once:
            pool.not_migratable |= fresh & kernel.node_pages(node)
        optimize(kernel, pool, fresh)
        # For a pooled target the old one goes to the pool; for a new one, to the buddy allocator.
        old = moving.lowest(len(pooled))
        stuck_here = restore(kernel, pool, moving - old)
        pool.put(old | stuck_here)
        kernel.used -= moving - old - stuck_here - kernel.hvo.lost
        kernel.log.note(
            "migrated",
            f"{wanted} huge pages in use migrated",
            moving,
            "do_migrate_range",
        )
    return stuck


def replace_free_huge_pages(kernel: Kernel, pfns: PfnRange, node: int) -> None:
    """Put a new huge page of the node into the pool for each free one of a range, and free that.

    Those without memory for a new one stay, and gigantic ones.
    Source: ``mm/hugetlb.c: isolate_or_dissolve_huge_page`` (6.12),
    ``isolate_or_dissolve_huge_folio, replace_free_hugepage_folios`` (7.3).
    """
    zones = zones_of_nodes(kernel, [node], below_movable=False)
    for pool in kernel.pools():
        pages = whole_chunks(pool.free_pages & pfns, pool.nr_pages)
        if not pages or _is_gigantic(kernel, pool):
            continue
        wanted = len(pages) // pool.nr_pages
        fresh = PfnSet.of(*_alloc_buddy(kernel, pool, zones, wanted))
        kernel.used |= fresh
        kernel.changed.pages |= fresh
        optimize(kernel, pool, fresh)
        replaced = pages.lowest(len(fresh))
        pool.drop(replaced)
        pool.put(fresh)
        _free_huge_pages(kernel, pool, replaced, "isolate_or_dissolve_huge_page")


def dissolve_free_hugetlb_folios(kernel: Kernel, pfns: PfnRange) -> tuple[PfnSet, PfnSet]:
    """Take free huge pages that touch a range out of their pool, and free them.

    The first huge page in use ends it: those behind it stay in the pool.

    Returns
    -------
    (PfnSet, PfnSet)
        Huge pages that stay as their memmap cannot be had; the first one in use.
    """
    stays, in_use = PfnSet(), PfnSet()
    for pool in kernel.pools():
        if left := whole_chunks(pool.in_use & pfns, pool.nr_pages):
            first = left.lowest(pool.nr_pages)
            if not in_use or first.min() < in_use.min():
                in_use = first
    if in_use:
        pfns = PfnRange(pfns.start, max(pfns.start, in_use.min()))
    for pool in kernel.pools():
        pages = whole_chunks(pool.free_pages & pfns, pool.nr_pages)
        stuck = restore(kernel, pool, pages)
        stays |= stuck
        pages -= stuck
        if not pages:
            continue
        for node in pool.surplus:
            mine = nr_huge(kernel, pool, pages, node)
            pool.surplus[node] = max(0, pool.surplus[node] - mine)
        pool.drop(pages)
        kernel.used -= pages - kernel.hvo.lost
        kernel.changed.pages |= pages
        kernel.log.note(
            "hugetlb",
            f"{len(pages) // pool.nr_pages} free huge pages of {_mib(kernel, pool)} MiB dissolved",
            pages,
            "dissolve_free_hugetlb_folios",
        )
    return stays, in_use
