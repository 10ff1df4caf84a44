"""Pages that are allocated and freed: the steps ``fill`` and ``free`` on the model."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.model.kernel.allocator import alloc_named, free_named
from altmap.model.kernel.files import pin_file, remove_file, write_file
from altmap.model.kernel.hugetlb import (
    hugepage_sizes_bytes,
    hugetlbfs_fallocate,
    nr_huge,
    pool_of,
    remove_huge_file,
    set_max_huge_pages,
)
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.scenario import Fill, HugePages
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("Usage",)

#: References that a pipe of default size holds (include/linux/pipe_fs_i.h: PIPE_DEF_BUFFERS).
_PIPE_NR_PAGES = 16


class Usage:
    """The pages that a scenario has put in use, by the names that it gives.

    Parameters
    ----------
    kernel : Kernel
    """

    __slots__ = ("_kernel", "_pooled", "_refused")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: Name to pool, node and number of the huge pages that a fill requested.
        self._pooled: dict[str, tuple[HugePool, int, int]] = {}
        self._refused: set[str] = set()

    def fill(self, step: Fill) -> Outcome:
        """Put pages in use.

        Raises
        ------
        InputError
            If the name is in use, or there are no huge pages of that size or no such node.
        """
        if self.has(step.id):
            raise InputError(f"fill {step.id!r}: a file of that id exists already")
        outcome = self._fill(step)
        if not outcome:
            self._refused.add(step.id)
        return outcome

    def _fill(self, step: Fill) -> Outcome:
        kernel = self._kernel
        nr_pages = -(-step.size // kernel.arch.page_size_bytes)
        if step.kind in ("hugetlb", "hugetlb-file"):
            return self._fill_hugetlb(step)
        if step.kind == "kernel":
            if not alloc_named(kernel, step.id, nr_pages):
                return _too_few("alloc_pages", nr_pages)
            return OK
        if not write_file(kernel, step.id, nr_pages, long_term=step.kind == "pinned"):
            return _too_few("shmem_get_folio_gfp", nr_pages)
        if step.kind == "held":
            pin_file(kernel, step.id, _PIPE_NR_PAGES)
        if step.kind == "pinned":
            pin_file(kernel, step.id)
        return OK

    def _fill_hugetlb(self, step: Fill) -> Outcome:
        kernel, where = self._kernel, f"fill {step.id!r}"
        pool, node = self._pool(where, step.page_size, step.node)
        size = pool.nr_pages * kernel.arch.page_size_bytes
        if step.size % size:
            known = ", ".join(map(format_size, hugepage_sizes_bytes(kernel.arch)))
            raise InputError(
                f"{where}: {format_size(step.size)} in huge pages of {format_size(size)}: "
                f"need a multiple of one of {known}"
            )
        wanted = step.size // size
        before = nr_huge(kernel, pool, pool.pages, node)
        set_max_huge_pages(kernel, pool, node, before + wanted)
        got = nr_huge(kernel, pool, pool.pages, node) - before
        self._pooled[step.id] = (pool, node, wanted)
        if step.kind == "hugetlb":
            return OK
        if not hugetlbfs_fallocate(kernel, pool, step.id, wanted):
            self.free(step.id)
            return Outcome.refused(
                "ENOSPC", "hugetlbfs_fallocate", f"the pool has {got} new huge pages, not {wanted}"
            )
        return OK

    def set_pool(self, step: HugePages) -> Outcome:
        """Write to ``nr_hugepages``, which succeeds however many the kernel can allocate.

        Raises
        ------
        InputError
            If there are no huge pages of that size, or no such node.
        """
        pool, node = self._pool("hugepages", step.page_size, step.node)
        set_max_huge_pages(self._kernel, pool, node, step.nr_hugepages)
        return OK

    def _pool(
        self, where: str, size_bytes: int | None, node_given: int | None
    ) -> tuple[HugePool, int]:
        """Return the pool of a size, by default the smallest, and the node, by default 0."""
        kernel = self._kernel
        sizes = hugepage_sizes_bytes(kernel.arch)
        size = sizes[0] if size_bytes is None else size_bytes
        node = 0 if node_given is None else node_given
        if size not in sizes:
            known = ", ".join(map(format_size, sizes))
            raise InputError(f"{where}: page_size {format_size(size)}: need one of {known}")
        if node not in kernel.online_nodes():
            raise InputError(f"{where}: node {node} is not online")
        return pool_of(kernel, size), node

    def has(self, name: str) -> bool:
        """Tell whether pages of a fill of that name are in use."""
        kernel = self._kernel
        return name in kernel.files or name in kernel.kernel_allocations or name in self._pooled

    def free(self, name: str) -> Outcome:
        """Free the pages of a fill; of one that was refused there is nothing (ENOENT).

        Raises
        ------
        InputError
            If there was no such fill.
        """
        kernel = self._kernel
        if name in kernel.files:
            remove_file(kernel, name)
        elif name in kernel.kernel_allocations:
            free_named(kernel, name)
        elif name in self._pooled:
            pool, node, nr_added = self._pooled.pop(name)
            if name in kernel.huge_files:
                remove_huge_file(kernel, pool, name)
            now = nr_huge(kernel, pool, pool.pages, node)
            set_max_huge_pages(kernel, pool, node, max(0, now - nr_added))
        elif name in self._refused:
            return Outcome.refused("ENOENT", "do_unlinkat", f"fill {name!r} was refused")
        else:
            raise InputError(f"free {name!r}: no such file")
        return OK


def _too_few(function: str, nr_pages: int) -> Outcome:
    return Outcome.refused("ENOMEM", function, f"fewer than {nr_pages} pages are available")
