"""What kinds of pages keep a memory block from going offline, read off ``/proc/kpageflags``."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.linux.kpageflags import ON_LRU, is_memmap
from altmap.linux.pagewords import PageWords
from altmap.pfn import PfnRange, PfnSet

__all__ = ("BLANK", "FREE", "KINDS", "MOVES", "BlockingKind", "kind_of", "pages_by_kind")


@dataclass(frozen=True, slots=True)
class BlockingKind:
    """Pages that offlining does not move away, or may not.

    Attributes
    ----------
    name : str
        One word, as ``altmap ls`` shows it.
    what : str
    certainty : str
        ``certain``, ``likely`` or ``unknown``: whether such a page, while it stays as it is, makes
        the kernel refuse.
    in_movable : bool
        It also counts in ZONE_MOVABLE.
    function : str
        Kernel function that refuses.
    cure : str
    """

    name: str
    what: str
    certainty: str
    in_movable: bool
    function: str
    cure: str


#: In the order in which the kernel meets them; source: ``mm/page_isolation.c:
#: has_unmovable_pages`` (7.3: ``page_is_unmovable``), ``mm/memory_hotplug.c: scan_movable_pages``
#: and ``do_migrate_range``, ``mm/hugetlb.c: dissolve_free_hugetlb_folios``.
KINDS: dict[str, BlockingKind] = {
    kind.name: kind
    for kind in (
        BlockingKind(
            "reserved",
            "reserved pages: kernel image, boot allocations, memory map holes",
            "certain",
            True,
            "has_unmovable_pages",
            "nothing until the next boot: boot memory keeps them",
        ),
        BlockingKind(
            "page-tables",
            "page tables of processes or of the kernel",
            "certain",
            False,
            "has_unmovable_pages",
            "end the processes that they belong to",
        ),
        BlockingKind(
            "slab",
            "slab objects of the kernel",
            "certain",
            False,
            "has_unmovable_pages",
            "echo 2 >/proc/sys/vm/drop_caches frees some",
        ),
        BlockingKind(
            "compound",
            "large kernel allocations (compound pages that are not on an LRU list)",
            "certain",
            False,
            "has_unmovable_pages",
            "unload or stop the driver that holds them",
        ),
        BlockingKind(
            "mapped",
            "pages of a driver that a process maps: rings of packet sockets, perf, graphics",
            "certain",
            False,
            "has_unmovable_pages",
            "end the process that maps them",
        ),
        BlockingKind(
            "kernel",
            "pages without a type: kernel stacks, vmalloc, drivers, the memmap of added memory",
            "certain",
            False,
            "has_unmovable_pages",
            "remove first whatever was added later, if its memmap lies here",
        ),
        BlockingKind(
            "fake-offline",
            "fake-offline pages (PageOffline) of a driver, such as a balloon's",
            "certain",
            True,
            "scan_movable_pages",
            "deflate the balloon",
        ),
        BlockingKind(
            "hugetlb",
            "hugetlb pages: they move only where a free one of the same size is found or can be "
            "made",
            "unknown",
            True,
            "do_migrate_range",
            "lower nr_hugepages, or add free huge pages on other blocks",
        ),
    )
}
_SLAB, _BUDDY, _MMAP = (1 << bit for bit in (7, 10, 11))
_HEAD, _TAIL, _HUGE, _HWPOISON, _NOPAGE = (1 << bit for bit in (15, 16, 17, 19, 20))
_OFFLINE, _PGTABLE, _RESERVED = (1 << bit for bit in (23, 26, 32))


#: Pages without any flag: of kind ``kernel``, or free on a per-CPU list.
FREE, MOVES, BLANK = "free", "moves", "blank"


def kind_of(flags: int) -> str | None:
    """Return the kind of a page with these flags; or ``free``, ``moves``, ``None`` for no page.

    Memmap pages of their own block count as no page, and so do poisoned ones: offlining passes
    them by.
    """
    for bits, kind in (
        (_NOPAGE | _HWPOISON, None),
        (_BUDDY, FREE),
        (_RESERVED, None if is_memmap(flags) else "reserved"),
        (_OFFLINE, "fake-offline"),
        (_HUGE, "hugetlb"),
        (ON_LRU, MOVES),
        (_SLAB, "slab"),
        (_PGTABLE, "page-tables"),
        (_HEAD | _TAIL, "compound"),
        (_MMAP, "mapped"),
    ):
        if flags & bits:
            return kind
    return None if is_memmap(flags) else "kernel"


def pages_by_kind(words: PageWords, pfns: PfnRange | None = None) -> dict[str, PfnSet]:
    """Return the page frames of each kind, then those free, moving, and without any flag.

    Parameters
    ----------
    words : PageWords
        ``/proc/kpageflags``.
    pfns : PfnRange, optional
        Only page frames of this range.
    """
    found = words.sets(lambda flags: (kind_of(flags), not flags), pfns)
    pages = {name: PfnSet() for name in (*KINDS, FREE, MOVES, BLANK)}
    for (kind, is_blank), frames in found.items():
        if kind is not None:
            pages[kind] |= frames
        if is_blank:
            pages[BLANK] |= frames
    return pages
