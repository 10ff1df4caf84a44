"""What the modelled machine shows: Linux's files, as numbers that continue from the start.

The model predicts changes. Each number is the one that the machine showed at its start, plus what
the kernel's sets gained or lost since, so numbers that are not modelled stay as captured. There is
one module for each file.
"""

from __future__ import annotations

from dataclasses import replace

from altmap.linux.observation import Block, Observation
from altmap.linux.pagewords import PageWords
from altmap.model.kernel.state import Kernel
from altmap.model.observe.buddyinfo import buddyinfo_shown, zone_chunks
from altmap.model.observe.iomem import iomem_shown
from altmap.model.observe.kpageflags import kpageflags_shown
from altmap.model.observe.meminfo import meminfo_shown
from altmap.model.observe.memory import block_shown, memory_shown
from altmap.model.observe.node import nodes_shown
from altmap.model.observe.snapshot import Snapshot, snapshot
from altmap.model.observe.vmstat import vmstat_shown
from altmap.model.observe.zoneinfo import zoneinfo_shown

__all__ = ("Observer",)


class Observer:
    """Renders a kernel's files, starting from an observation of it.

    Parameters
    ----------
    kernel : Kernel
        In its start state.
    base : Observation
        What the machine showed then.
    blank : bool
        The base's numbers are all zero, so every number shown is the kernel's own.
    pages : bool
        Also show per-page files (kpageflags, buddyinfo); off, no observation walks the pages.
    """

    def __init__(
        self, kernel: Kernel, base: Observation, *, blank: bool = False, pages: bool = True
    ) -> None:
        self._kernel = kernel
        self._base = base
        self._pages = pages
        self._start = Snapshot() if blank else snapshot(kernel, pages=pages)

    @property
    def has_pages(self) -> bool:
        """Whether per-page files are shown."""
        return self._pages

    def observe(self) -> Observation:
        """Return what the machine shows now."""
        return replace(
            self.numbers(),
            memory=memory_shown(self._base, self._kernel),
            buddyinfo=self.buddyinfo() if self._pages else self._base.buddyinfo,
            kpageflags=self.kpageflags() if self._pages else self._base.kpageflags,
        )

    def numbers(self) -> Observation:
        """Return what the machine shows now, without memory blocks and per-page files.

        Its cost does not grow with the number of memory blocks.
        """
        kernel, base, start = self._kernel, self._base, self._start
        now = snapshot(kernel, pages=False)
        return replace(
            base,
            meminfo=meminfo_shown(base.meminfo, kernel, start.meminfo, now.meminfo),
            vmstat=vmstat_shown(base.vmstat, start.vmstat, now.vmstat),
            zoneinfo=zoneinfo_shown(base.zoneinfo, kernel, start.zones, now.zones),
            iomem=iomem_shown(base.iomem, kernel, start.additions, start.regions),
            nodes=nodes_shown(base.nodes, kernel, start.nodes, now.nodes),
            memory=base.memory and replace(base.memory, blocks={}),
            buddyinfo=None,
            kpageflags=None,
        )

    def buddyinfo(self) -> dict[tuple[int, str], tuple[int, ...]] | None:
        """Return the free chunks of each zone now; needs per-page files."""
        kernel = self._kernel
        now = {zone.key: zone_chunks(kernel, zone) for zone in kernel.zones.values()}
        return buddyinfo_shown(self._base.buddyinfo, kernel, self._start.chunks, now)

    def kpageflags(self) -> PageWords | None:
        """Return the flags of every page frame now; needs per-page files."""
        return kpageflags_shown(self._base.kpageflags, self._kernel)

    def block(self, id_: int) -> Block | None:
        """Return one memory block that exists; ``None`` if the files have no folder of them."""
        folder = self._base.memory
        if folder is None:
            return None
        has_nodes = self._base.nodes is not None
        return block_shown(self._kernel, id_, folder.blocks.get(id_), has_nodes=has_nodes)
