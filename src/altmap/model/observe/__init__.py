"""What the modelled machine shows: Linux's files, as numbers that continue from the start.

The model predicts changes. Each number is the one that the machine showed at its start, plus what
the kernel's sets gained or lost since, so numbers that are not modelled stay as captured. There is
one module for each file.
"""

from __future__ import annotations

from dataclasses import replace

from altmap.linux.observation import Observation
from altmap.model.kernel.state import Kernel
from altmap.model.observe.buddyinfo import buddyinfo_shown
from altmap.model.observe.iomem import iomem_shown
from altmap.model.observe.kpageflags import kpageflags_shown
from altmap.model.observe.meminfo import meminfo_shown
from altmap.model.observe.memory import memory_shown
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

    def observe(self) -> Observation:
        """Return what the machine shows now."""
        kernel, base, start = self._kernel, self._base, self._start
        now = snapshot(kernel, pages=self._pages)
        shown = replace(
            base,
            meminfo=meminfo_shown(base.meminfo, kernel, start.meminfo, now.meminfo),
            vmstat=vmstat_shown(base.vmstat, start.vmstat, now.vmstat),
            zoneinfo=zoneinfo_shown(base.zoneinfo, kernel, start.zones, now.zones),
            iomem=iomem_shown(base.iomem, kernel, start.additions, start.regions),
            memory=memory_shown(base, kernel),
            nodes=nodes_shown(base.nodes, kernel, start.nodes, now.nodes),
        )
        if not self._pages:
            return shown
        return replace(
            shown,
            buddyinfo=buddyinfo_shown(base.buddyinfo, kernel, start.chunks, now.chunks),
            kpageflags=kpageflags_shown(base.kpageflags, kernel),
        )
