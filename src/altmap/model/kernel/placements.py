"""The placements that are built in: merged, proposed in patches, or only named in a discussion."""

from __future__ import annotations

import errno

from altmap.model.arch import Arch
from altmap.model.kernel.memmap import (
    AddRequest,
    Memmap,
    Placement,
    block_memmap_nr_pages,
    memmap_on_memory_nr_pages,
)
from altmap.model.releases import Release
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = (
    "PLACEMENTS",
    "ExistingMemory",
    "Hinted",
    "OptIn",
    "PerBlock",
    "SharedHost",
    "WholeRange",
)


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


class PerBlock:
    """Each block holds its own memmap, for every driver: the merged layout without the question."""

    name = "per-block"
    written_at_add: str | None = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return one altmap per block where the sizes permit it, else existing memory.

        The parameter only says whether to pad; release and driver are not asked.
        """
        del release
        block = request.block_nr_pages
        hosted = block_memmap_nr_pages(arch, block, padded=request.mode == "force")
        return Memmap(arch, request.pfns, block if hosted else 0, hosted)


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
        if arch.vetoes_rfc_2018:
            return Memmap(arch, request.pfns)
        nr_pages = len(request.pfns)
        return Memmap(arch, request.pfns, nr_pages, arch.memmap_nr_pages(nr_pages))


class Hinted:
    """The driver names the place: the memmap goes into what it knows to be usable.

    Source: reply of 22 November 2018 to the series; never built. A driver that names nothing, or
    too little, gets existing memory. Nothing keeps the host from taking the hint back later.
    """

    name = "hinted"
    written_at_add: str | None = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return a memmap in the first aligned pages of the hint, the same in every block."""
        del release
        block, pfns = request.block_nr_pages, request.pfns
        hosted = block_memmap_nr_pages(arch, block, padded=request.mode == "force")
        if request.usable is None or not hosted:
            return Memmap(arch, pfns)
        pageblock = arch.pageblock_nr_pages
        usable = request.usable.intersection(pfns)
        blocks = [PfnRange(start, start + block) for start in range(pfns.start, pfns.end, block)]
        if usable == pfns:  # every block is like the first
            blocks = blocks[:1]
        parts = [(start.start, usable.intersection(start)) for start in blocks]
        offset = max(-(-(part.start - start) // pageblock) * pageblock for start, part in parts)
        if all(start + offset + hosted <= part.end for start, part in parts):
            return Memmap(arch, pfns, block, hosted, offset)
        return Memmap(arch, pfns)


class SharedHost:
    """One section of a node holds the memmaps of others, which stay whole: named, never built.

    The first request whose driver asks gives up its first sections for its own memmap and for those
    of later requests to the node, until they are full. A driver that does not ask is served there
    too, as its own memory then need not be backed; without a host, existing memory serves it.
    What hosts the memmap of others cannot leave before them.
    """

    name = "shared-host"
    written_at_add: str | None = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return a place in a host of the node, or make the request one, or existing memory."""
        del release
        pfns, nr_pages = request.pfns, arch.memmap_nr_pages(len(request.pfns))
        for run in _room(request.others).ranges():
            if len(run) >= nr_pages:
                return Memmap(arch, pfns, host=PfnRange(run.start, run.start + nr_pages))
        section = arch.section_nr_pages
        hosted = -(-nr_pages // section) * section
        if request.asks and hosted < len(pfns):
            return Memmap(arch, pfns, len(pfns), hosted)
        return Memmap(arch, pfns)


def _room(others: tuple[Memmap, ...]) -> PfnSet:
    """Return what the hosts of a node have set aside and not given away."""
    room = PfnSet()
    for memmap in others:
        if memmap.self_hosted:
            room |= memmap.hosted()
            room -= memmap.frames_of(memmap.described)
    for memmap in others:
        if memmap.host is not None:
            room -= memmap.host
    return room


#: Every built-in placement by name.
PLACEMENTS: dict[str, Placement] = {
    placement.name: placement
    for placement in (
        OptIn(),
        WholeRange(),
        ExistingMemory(),
        PerBlock(),
        Hinted(),
        SharedHost(),
    )
}
