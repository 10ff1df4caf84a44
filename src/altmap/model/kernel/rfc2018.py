"""Defects of the patches of 2018, where a policy switches them on: see :mod:`.defects`.

Each function is called from its place in add, online or remove, and does nothing without its
switch.
Source: [RFC PATCH 3/4], November 2018; derived by reading; not run.
"""

from __future__ import annotations

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.touch import KernelFault
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Fault

__all__ = (
    "check_chunks",
    "check_order_of_removal",
    "creates_memory_blocks",
    "forget_memmap",
    "keep_marks",
    "revive_marks",
)

#: The first pfn that 32 bits cannot hold: 16 TiB with pages of 4 KiB.
_CUT = 1 << 32


def creates_memory_blocks(kernel: Kernel) -> bool:
    """D1: a veto clears the flag MHP_MEMBLOCK_API too (``1<<1`` without parentheses)."""
    return not (kernel.has_defect("D1") and kernel.arch.vetoes_rfc_2018)


def keep_marks(kernel: Kernel, addition: Addition) -> None:
    """D4: marks of memmap pages stay in memory when x86 removes it (``free_pagetable``)."""
    if kernel.has_defect("D4") and addition.memmap.self_hosted:
        kernel.rfc2018.stale_marks |= addition.memmap.hosted()


def revive_marks(kernel: Kernel, addition: Addition) -> None:
    """D4: struct pages of a new memmap that still have a mark keep it (``__init_single_page``).

    Poison (CONFIG_DEBUG_VM) would have overwritten it; so would memory that lost its contents.
    """
    if not addition.memmap.self_hosted or kernel.tunables.debug_vm:
        return
    lost = (kernel.rfc2018.stale_marks & addition.pfns) - PfnSet.of(addition.memmap.hosted())
    if lost:
        kernel.self_hosted |= lost
        kernel.log.note(
            "bug",
            f"{len(lost)} pages have a mark from an earlier memmap and are lost",
            lost,
            "__init_single_page",
        )


def forget_memmap(kernel: Kernel, pfns: PfnRange) -> None:
    """D6: no memmap page is found in a section that ends at or above 16 TiB.

    ``online_pages_range`` keeps the end in an unsigned int; the section is then onlined whole.
    """
    if not kernel.has_defect("D6") or pfns.end < _CUT:
        return
    first = max(pfns.start, _CUT - kernel.arch.section_nr_pages)
    given = kernel.self_hosted & PfnRange(first, pfns.end)
    if given:
        kernel.self_hosted -= given
        kernel.log.note(
            "bug",
            f"{len(given)} memmap pages freed to the buddy allocator",
            given,
            "online_pages_range",
        )


def check_chunks(kernel: Kernel, pfns: PfnRange) -> None:
    """D3: behind the memmap of a section, chunks of the highest order start where they are.

    Raises
    ------
    KernelFault
        With CONFIG_DEBUG_VM, at the first chunk that is not aligned to its order.
    """
    if not kernel.has_defect("D3"):
        return
    section, top = kernel.arch.section_nr_pages, 1 << kernel.arch.max_page_order
    wrong = PfnSet()
    for run in (kernel.self_hosted & pfns).ranges():
        end = -(-run.end // section) * section
        nr_chunks = (end - run.end) // top
        if run.end % top and nr_chunks:
            wrong |= PfnRange(run.end, run.end + nr_chunks * top)
    if not wrong:
        return
    text = f"{len(wrong) // top} chunks of order {kernel.arch.max_page_order} are not aligned to it"
    if kernel.tunables.debug_vm:
        what = f"pages in {text}"
        raise KernelFault(
            Fault(wrong.min(), "free", "__free_one_page", wrong, "kernel BUG", what=what)
        )
    kernel.log.note("bug", text, wrong, "online_pages_blocks")


def check_order_of_removal(kernel: Kernel, addition: Addition) -> None:
    """F1: the memmap of the first section goes first, which describes the memmap of all others.

    Raises
    ------
    KernelFault
        If there is a second section.
    """
    section = kernel.arch.section_nr_pages
    memmap = addition.memmap
    if not kernel.has_defect("F1") or not memmap.self_hosted or len(addition.pfns) <= section:
        return
    first = PfnRange(addition.pfns.start, addition.pfns.start + section)
    others = PfnSet.of(memmap.hosted()) - memmap.frames_of(first)
    what = "memmap pages whose own struct pages are unmapped already"
    raise KernelFault(
        Fault(others.min(), "read", "vmemmap_free", others, "kernel page fault", what=what)
    )
