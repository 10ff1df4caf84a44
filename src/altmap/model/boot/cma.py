"""Boot memory that is kept for contiguous allocations of devices, and for movable pages until then.

Source: ``kernel/dma/contiguous.c: dma_contiguous_reserve``; ``mm/cma.c:
cma_declare_contiguous_nid``.
"""

from __future__ import annotations

from altmap.model.arch import Arch
from altmap.model.boot.costs import costs_of
from altmap.model.boot.layout import ram_in_use
from altmap.model.boot.parameters import boot_words, cma_bytes
from altmap.model.kernel.pool import aligned_chunks
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine

__all__ = ("cma_pages",)

_MIB, _GIB = 1 << 20, 1 << 30
#: What early boot has taken by then, where the kernel is loaded and below the end of memory.
_LOADED_BYTES, _TAKEN_BYTES = 80 * _MIB, 10 * _MIB
#: arm64_dma_phys_limit: what all devices reach.
_LIMIT = 4 * _GIB


def cma_pages(machine: Machine, arch: Arch) -> PfnSet:
    """Return the pages of the area that all drivers share; none if it does not fit.

    It is made of whole pageblocks, the highest below 4 GiB.
    """
    by_default = costs_of(arch).cma_bytes
    if by_default is None:
        return PfnSet()
    asked = cma_bytes(boot_words(machine.cmdline or ""))
    page, block = arch.page_size_bytes, arch.pageblock_nr_pages
    size = by_default if asked is None else asked
    nr_pages = -(-size // (page * block)) * block
    for start, end in reversed(ram_in_use(machine, arch)):
        if start < _LIMIT and nr_pages:
            first, last = start + _LOADED_BYTES, min(end - _TAKEN_BYTES, _LIMIT)
            free = PfnSet([PfnRange(first // page, max(first, last) // page)])
            pages = aligned_chunks(free, block).highest(nr_pages)
            return pages if len(pages) == nr_pages else PfnSet()
    return PfnSet()
