"""Accesses to struct pages: which frames of a memmap each step writes and reads.

Source: ``mm/mm_init.c: memmap_init_range``; ``mm/memory_hotplug.c: mhp_init_memmap_on_memory``;
``mm/page_isolation.c: has_unmovable_pages, isolate_single_pageblock``.
"""

from __future__ import annotations

from altmap.model.kernel.addition import Addition
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.touch import Touch
from altmap.pfn import PfnRange, PfnSet, PfnStride

__all__ = ("marked_frames", "page_init_poison", "read_struct_pages", "write_struct_pages")


def page_init_poison(kernel: Kernel, addition: Addition, pfns: PfnRange | None = None) -> None:
    """Fill the whole memmap with ones (``mm/debug.c: page_init_poison``, CONFIG_DEBUG_VM).

    Where nothing may be touched before, that of the blocks that go online
    (``mm/memory_hotplug.c: mhp_init_memmap_on_memory``).
    """
    memmap = addition.memmap
    frames = memmap.frames_of(pfns or addition.pfns)
    if not memmap.self_hosted:
        frames = addition.host_pages
    kernel.touch("write", frames, "page_init_poison", "poison over the memmap")


def marked_frames(addition: Addition) -> PfnSet:
    """Return the frames that hold the struct pages of the memmap pages themselves."""
    memmap = addition.memmap
    frames = PfnSet()
    for unit in range(addition.pfns.start, addition.pfns.end, memmap.unit_nr_pages):
        start = unit + memmap.offset_nr_pages
        frames |= memmap.frames_of(PfnRange(start, start + memmap.hosted_nr_pages))
    return frames


def write_struct_pages(kernel: Kernel, addition: Addition | None, pfns: PfnRange) -> None:
    """Initialise the struct pages of the range: first those of the memmap pages, then the rest."""
    if addition is None:
        return
    memmap = addition.memmap
    units_are_whole = memmap.self_hosted and memmap.unit_nr_pages <= len(pfns)
    if not units_are_whole or kernel.policy.placement.written_at_add:
        frames = _frames_of(kernel, addition, pfns)
        kernel.touch("write", frames, "memmap_init_range", f"the struct pages of {pfns}")
        return
    touches = _touches_of_units(kernel, memmap, pfns)
    if any(kernel.check_access(touch) for touch in touches):
        # The kernel goes block by block, so the fault is that of the first block that has one.
        starts = range(pfns.start, pfns.end, memmap.unit_nr_pages)
        units = (PfnRange(start, start + memmap.unit_nr_pages) for start in starts)
        touches = [touch for unit in units for touch in _touches_of_units(kernel, memmap, unit)]
    for touch in touches:
        kernel.touch(touch.access, touch.pfns, touch.function, touch.what)


def read_struct_pages(kernel: Kernel, pfns: PfnRange) -> None:
    """Read the struct pages of a block, in search of pages that cannot be moved.

    Those of the memmap pages that it holds are left out, but for the first, which tells the zone
    (``drivers/base/memory.c: memory_block_offline``). Since 5.19 those are read too that a chunk of
    the buddy allocator could join with the first other page (``isolate_single_pageblock``).
    """
    addition = kernel.addition_of(pfns.start)
    if addition is None:
        return
    others = PfnSet.of(pfns) - kernel.self_hosted
    frames = _frames_of(kernel, addition, PfnRange(pfns.start, pfns.start + 1))
    for run in others.ranges():
        frames |= _frames_of(kernel, addition, run)
    kernel.touch("read", frames, "has_unmovable_pages", f"the struct pages of {pfns}")
    if not kernel.release.isolates_ends_first or not others:
        return
    first, chunk = others.span().start, 1 << kernel.arch.max_page_order
    before = PfnRange(first - first % chunk, first)
    if before:
        frames = _frames_of(kernel, addition, before)
        kernel.touch("read", frames, "isolate_single_pageblock", f"the struct pages of {before}")


def _frames_of(kernel: Kernel, addition: Addition, pfns: PfnRange) -> PfnSet:
    """Return the frames that hold the struct pages of *pfns*."""
    if addition.memmap.self_hosted:
        return addition.memmap.frames_of(pfns)
    offset = pfns.start - addition.pfns.start
    last = addition.host_pages.lowest(kernel.arch.memmap_nr_pages(offset + len(pfns)))
    first = kernel.arch.memmap_bytes(offset) // kernel.arch.page_size_bytes
    return last - addition.host_pages.lowest(first)


def _touches_of_units(kernel: Kernel, memmap: Memmap, pfns: PfnRange) -> list[Touch]:
    """Return the writes to the memmaps of whole units that onlining makes, in order."""
    arch, unit, base = kernel.arch, memmap.unit_nr_pages, pfns.start + memmap.offset_nr_pages
    own_bytes = arch.memmap_bytes(memmap.hosted_nr_pages)
    first, whole = own_bytes // arch.page_size_bytes, arch.memmap_nr_pages(unit)
    if memmap.offset_nr_pages:
        frames = PfnStride(base, pfns.end, unit, whole)
        return [Touch("write", frames, "memmap_init_range", "the struct pages of every page")]
    own = PfnStride(base, pfns.end, unit, arch.memmap_nr_pages(memmap.hosted_nr_pages))
    rest = PfnStride(base + first, pfns.end, unit, whole - first)
    return [
        Touch("write", own, "mhp_init_memmap_on_memory", "the memmap's own struct pages"),
        Touch("write", rest, "memmap_init_range", "the struct pages of the other pages"),
    ]
