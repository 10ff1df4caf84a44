"""Pages that come into use and are given back: the steps ``fill`` and ``free`` on the model."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.model.kernel.hugetlb import (
    free_of_file,
    hugepage_sizes_bytes,
    nr_huge,
    pool_of,
    set_max_huge_pages,
    take_for_file,
)
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.scenario import Fill
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("Usage",)

#: References that a pipe of default size holds (include/linux/pipe_fs_i.h: PIPE_DEF_BUFFERS).
_PIPE_NR_PAGES = 16


class Usage:
    """Who uses which pages of a kernel, by the names that a scenario gives.

    Parameters
    ----------
    kernel : Kernel
    """

    __slots__ = ("_kernel", "_pooled")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: Name to node and number of the huge pages that a fill added to a pool.
        self._pooled: dict[str, tuple[HugePool, int, int]] = {}

    def fill(self, step: Fill) -> Outcome:
        """Bring pages into use.

        Raises
        ------
        InputError
            If the name is taken, or no kernel has huge pages of that size or that node.
        """
        kernel = self._kernel
        if self.has(step.id):
            raise InputError(f"fill {step.id!r}: a file of that id is there already")
        nr_pages = -(-step.size // kernel.arch.page_size_bytes)
        if step.kind in ("hugetlb", "hugetlb-file"):
            return self._fill_hugetlb(step)
        if step.kind == "kernel":
            taken = kernel.allocate(min(kernel.cpu_nodes), nr_pages)
            if taken is None:
                return _too_few("alloc_pages", nr_pages)
            kernel.kernel_uses[step.id] = taken
            return OK
        if not kernel.write_file(step.id, nr_pages, long_term=step.kind == "pinned"):
            return _too_few("shmem_get_folio_gfp", nr_pages)
        if step.kind == "held":
            kernel.pinned |= kernel.files[step.id].lowest(_PIPE_NR_PAGES)
        if step.kind == "pinned":
            kernel.pinned |= kernel.files[step.id]
        return OK

    def _fill_hugetlb(self, step: Fill) -> Outcome:
        kernel = self._kernel
        sizes = hugepage_sizes_bytes(kernel.arch)
        size = sizes[0] if step.page_size is None else step.page_size
        node = 0 if step.node is None else step.node
        if size not in sizes or step.size % size:
            known = ", ".join(map(format_size, sizes))
            raise InputError(
                f"fill {step.id!r}: {format_size(step.size)} in huge pages of "
                f"{format_size(size)}: need a multiple of a size that there is: {known}"
            )
        if node not in kernel.online_nodes():
            raise InputError(f"fill {step.id!r}: node {node} is not online")
        pool, wanted = pool_of(kernel, size), step.size // size
        before = nr_huge(kernel, pool, pool.pages, node)
        set_max_huge_pages(kernel, pool, node, before + wanted)
        got = nr_huge(kernel, pool, pool.pages, node) - before
        self._pooled[step.id] = (pool, node, wanted)
        if step.kind == "hugetlb":
            return OK
        taken = take_for_file(kernel, pool, wanted)
        if taken is None:
            self.free(step.id)
            return Outcome.refused(
                "ENOSPC", "hugetlbfs_fallocate", f"the pool has {got} new huge pages, not {wanted}"
            )
        kernel.huge_files[step.id] = (pool.nr_pages, taken)
        return OK

    def has(self, name: str) -> bool:
        """Tell whether a fill of that name brought pages into use that are still there."""
        kernel = self._kernel
        return name in kernel.files or name in kernel.kernel_uses or name in self._pooled

    def free(self, name: str) -> Outcome:
        """Give back what a fill brought into use.

        Raises
        ------
        InputError
            If there was no such fill.
        """
        kernel = self._kernel
        if name in kernel.files:
            kernel.remove_file(name)
        elif name in kernel.kernel_uses:
            kernel.free_pages(kernel.kernel_uses.pop(name))
        elif name in self._pooled:
            pool, node, nr_added = self._pooled.pop(name)
            if name in kernel.huge_files:
                free_of_file(kernel, pool, kernel.huge_files.pop(name)[1])
            now = nr_huge(kernel, pool, pool.pages, node)
            set_max_huge_pages(kernel, pool, node, max(0, now - nr_added))
        else:
            raise InputError(f"free {name!r}: no such file")
        return OK


def _too_few(function: str, nr_pages: int) -> Outcome:
    return Outcome.refused("ENOMEM", function, f"there are fewer than {nr_pages} pages to have")
