"""Where the struct pages of added memory live, and who decides it.

A :class:`Memmap` says for one add which frames hold which struct pages. A *placement* chooses it;
to try a new one, write a class with the three members of :class:`Placement`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Protocol

from altmap.arch import Arch
from altmap.pfn import PfnRange, PfnSet, PfnStride
from altmap.release import Release
from altmap.trace import Outcome

__all__ = (
    "AddRequest",
    "ExistingMemory",
    "Memmap",
    "OptIn",
    "Placement",
    "WholeRange",
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
    """

    pfns: PfnRange
    asks: bool
    block_nr_pages: int
    mode: str


@dataclass(frozen=True, slots=True)
class Memmap:
    """The place of the struct pages that describe one added range.

    The range is cut into units of *unit_nr_pages*; the first *hosted_nr_pages* of each unit hold
    the struct pages of that unit. With no units, existing memory holds them.

    Attributes
    ----------
    arch : Arch
    described : PfnRange
    unit_nr_pages, hosted_nr_pages : int
        Both 0 when existing memory holds the memmap.
    """

    arch: Arch
    described: PfnRange
    unit_nr_pages: int = 0
    hosted_nr_pages: int = 0

    @property
    def self_hosted(self) -> bool:
        """Whether the added range holds its own memmap."""
        return self.hosted_nr_pages > 0

    def hosted(self) -> PfnStride:
        """Return the frames of the range that hold (or pad) its memmap."""
        start, end = self.described.start, self.described.end
        return PfnStride(start, end, self.unit_nr_pages or end - start, self.hosted_nr_pages)

    def frames_of(self, pfns: PfnRange) -> PfnSet:
        """Return the frames of the range that hold the struct pages of *pfns*.

        The struct page of pfn ``p`` in a unit that starts at ``u`` lies in frame
        ``u + (p - u) * sizeof(struct page) / PAGE_SIZE``.
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
            low = self.arch.memmap_bytes(unit.start - start) // self.arch.page_size_bytes
            found |= PfnRange(start + low, start + self.arch.memmap_nr_pages(unit.end - start))
        return found


class Placement(Protocol):
    """Chooses where the memmap of an add goes."""

    name: str
    written_at_add: str | None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return the place, or the refusal that fails the add."""
        ...


def memmap_on_memory_nr_pages(arch: Arch, release: Release, block_nr_pages: int, mode: str) -> int:
    """Return the pages that one memory block reserves for its own memmap, 0 if it cannot.

    Source: ``mm/memory_hotplug.c: mhp_supports_memmap_on_memory`` and
    ``memory_block_memmap_on_memory_pages`` (6.1, 6.12); the architecture's test is on the bytes
    before padding.
    """
    if mode == "off" or arch.family not in release.self_hosting:
        return 0
    vmemmap_bytes = arch.memmap_bytes(block_nr_pages)
    nr_pages = vmemmap_bytes // arch.page_size_bytes
    if mode == "force" and release.memmap_force:
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


class ExistingMemory:
    """The memmap comes from memory that the machine already has: Linux before 5.13."""

    name = "existing"
    written_at_add: str | None = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return a memmap in existing memory, always."""
        del release
        return Memmap(arch, request.pfns)


class OptIn:
    """Each block holds its own memmap if the driver asks for it: Linux since 5.13."""

    name = "opt-in"
    written_at_add: str | None = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return one altmap per block when asked for, supported and within the release's scope.

        A driver that asks for what is not supported gets existing memory, except where the release
        refuses it (``mm/memory_hotplug.c: add_memory_resource``, 6.1).
        """
        if not request.asks:
            return Memmap(arch, request.pfns)
        block = request.block_nr_pages
        hosted = memmap_on_memory_nr_pages(arch, release, block, request.mode)
        if release.memmap_scope == "one_block" and len(request.pfns) != block:
            hosted = 0
        if hosted:
            return Memmap(arch, request.pfns, block, hosted)
        if release.refuses_unsupported_memmap:
            return Outcome.refused(
                errno.EINVAL,
                "add_memory_resource",
                f"MHP_MEMMAP_ON_MEMORY is not supported for {len(request.pfns)} pages: "
                f"need exactly one memory block ({block} pages)",
            )
        return Memmap(arch, request.pfns)


class WholeRange:
    """The memmap of the whole request lies at its start, for every driver: the design of 2018.

    Source: "mm, memory_hotplug: allocate memmap from the added memory range for sparse-vmemmap",
    [RFC PATCH 3/4], November 2018; ``arch/s390`` is the one veto.
    """

    name = "rfc-2018"
    written_at_add: str | None = "mark_vmemmap_pages"

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return one altmap at the start of the request, whatever the driver asks."""
        del release
        if arch.name == "s390x":
            return Memmap(arch, request.pfns)
        nr_pages = len(request.pfns)
        return Memmap(arch, request.pfns, nr_pages, arch.memmap_nr_pages(nr_pages))
