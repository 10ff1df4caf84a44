"""Where the struct pages of added memory live, and who decides it.

A :class:`Memmap` says for one add which frames hold which struct pages. A *placement* chooses it;
to try a new one, write a class with the three members of :class:`Placement`. Those built in are in
:mod:`altmap.model.kernel.placements`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from altmap.model.arch import Arch
from altmap.model.releases import Release
from altmap.pfn import PfnRange, PfnSet, PfnStride
from altmap.trace import Outcome

__all__ = (
    "AddRequest",
    "Memmap",
    "Placement",
    "block_memmap_nr_pages",
    "memmap_on_memory_nr_pages",
)


@dataclass(frozen=True, slots=True)
class AddRequest:
    """One call of ``add_memory_resource``.

    Attributes
    ----------
    pfns : PfnRange
    asks : bool
        The driver passes MHP_MEMMAP_ON_MEMORY.
    block_nr_pages : int
    mode : str
        The parameter ``memmap_on_memory``: ``off``, ``on`` or ``force``.
    usable : PfnRange or None
        The part of the range that the driver knows to be readable and writable now; ``None`` if it
        says nothing. No release has such an argument, only placements that were proposed.
    others : tuple of Memmap
        The memmaps of what was added to the same node before, in that order.
    """

    pfns: PfnRange
    asks: bool
    block_nr_pages: int
    mode: str
    usable: PfnRange | None = None
    others: tuple[Memmap, ...] = ()


@dataclass(frozen=True, slots=True)
class Memmap:
    """The place of the struct pages that describe one added range.

    The range is cut into units of *unit_nr_pages*; *hosted_nr_pages* of each unit, from
    *offset_nr_pages* on, hold the struct pages of that unit. With no units they lie in *host*, or
    else in existing memory.

    Attributes
    ----------
    arch : Arch
    described : PfnRange
    unit_nr_pages, hosted_nr_pages : int
        Both 0 when the range does not hold its own memmap.
    offset_nr_pages : int
    host : PfnRange or None
        Frames of another added range that were set aside there for this memmap.
    """

    arch: Arch
    described: PfnRange
    unit_nr_pages: int = 0
    hosted_nr_pages: int = 0
    offset_nr_pages: int = 0
    host: PfnRange | None = None

    @property
    def self_hosted(self) -> bool:
        """Whether the added range holds its own memmap."""
        return self.hosted_nr_pages > 0

    def hosted(self) -> PfnStride:
        """Return the frames of the range that hold (or pad) its memmap."""
        start, end = self.described.start + self.offset_nr_pages, self.described.end
        return PfnStride(start, end, self.unit_nr_pages or end - start, self.hosted_nr_pages)

    def frames_of(self, pfns: PfnRange) -> PfnSet:
        """Return the frames of the range that hold the struct pages of *pfns*.

        The struct page of pfn ``p`` in a unit that starts at ``u`` lies in frame
        ``u + offset + (p - u) * sizeof(struct page) / PAGE_SIZE``.
        """
        found = PfnSet()
        if not self.self_hosted:
            return found
        pfns = pfns.intersection(self.described)
        if not pfns:
            return found
        first = pfns.start - (pfns.start - self.described.start) % self.unit_nr_pages
        for start in range(first, pfns.end, self.unit_nr_pages):
            unit = PfnRange(start, start + self.unit_nr_pages).intersection(pfns)
            base = start + self.offset_nr_pages
            low = self.arch.memmap_bytes(unit.start - start) // self.arch.page_size_bytes
            found |= PfnRange(base + low, base + self.arch.memmap_nr_pages(unit.end - start))
        return found


class Placement(Protocol):
    """Chooses where the memmap of an add goes."""

    name: str
    written_at_add: str | None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return the place, or the refusal that fails the add."""
        ...


def block_memmap_nr_pages(arch: Arch, block_nr_pages: int, *, padded: bool = False) -> int:
    """Return the pages that one memory block can set aside for its own memmap, 0 if it cannot.

    Source: ``mm/memory_hotplug.c: mhp_supports_memmap_on_memory`` and
    ``memory_block_memmap_on_memory_pages`` (6.1, 6.12); the architecture's test is on the bytes
    before padding.

    Parameters
    ----------
    arch : Arch
    block_nr_pages : int
    padded : bool
        Up to whole pageblocks, as ``memmap_on_memory=force`` does.
    """
    vmemmap_bytes = arch.memmap_bytes(block_nr_pages)
    nr_pages = vmemmap_bytes // arch.page_size_bytes
    if padded:
        nr_pages += -nr_pages % arch.pageblock_nr_pages
    fits_arch = arch.memmap_rule == "any" or (
        arch.memmap_rule == "pmd" and vmemmap_bytes % arch.pmd_size_bytes == 0
    )
    supported = (
        vmemmap_bytes % arch.page_size_bytes == 0
        and nr_pages % arch.pageblock_nr_pages == 0
        and nr_pages != block_nr_pages
        and fits_arch
    )
    return nr_pages if supported else 0


def memmap_on_memory_nr_pages(arch: Arch, release: Release, block_nr_pages: int, mode: str) -> int:
    """Return the pages that a memory block of a release reserves for its memmap, 0 if it cannot."""
    if mode == "off" or arch.family not in release.self_hosting:
        return 0
    padded = mode == "force" and release.memmap_force
    return block_memmap_nr_pages(arch, block_nr_pages, padded=padded)
