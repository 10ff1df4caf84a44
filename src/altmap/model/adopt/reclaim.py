"""What an adopted kernel can reclaim: page flags say which pages, or counters how many."""

from __future__ import annotations

from altmap.linux.kpageflags import PageFlag
from altmap.linux.meminfo import reclaimable_slab_kib
from altmap.linux.observation import Observation
from altmap.model.kernel.initial_state import adopt_pages, adopt_reclaim
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnSet

__all__ = ("take_reclaimable",)

_DIRTY = PageFlag.DIRTY | PageFlag.WRITEBACK
_SWAPPABLE = PageFlag.ANON | PageFlag.SWAPBACKED
_NEVER = PageFlag.UNEVICTABLE | PageFlag.MLOCKED | PageFlag.HUGE | PageFlag.HWPOISON


def take_reclaimable(kernel: Kernel, seen: Observation) -> None:
    """Set which pages reclaim can free, how much swap has room for, and what is in doubt.

    Without page flags the zones' counters say how many; which pages then stand for them is
    arbitrary. Source: ``mm/vmscan.c: zone_reclaimable_pages``; dirty pages have to be written back
    first, which direct reclaim leaves to others (``shrink_folio_list``).
    """
    meminfo = seen.meminfo or {}
    kib = kernel.arch.page_size_bytes // 1024
    dirty = _by_flags(kernel, seen) if seen.kpageflags else _by_counters(kernel, seen)
    slab = reclaimable_slab_kib(meminfo) // kib
    maybe = None if dirty is None else dirty + slab
    adopt_reclaim(kernel, meminfo.get("SwapFree", 0) // kib, maybe)


def _by_flags(kernel: Kernel, seen: Observation) -> int:
    """Take the pages by their flags; return how many pages of files are dirty."""
    assert seen.kpageflags is not None
    found = seen.kpageflags.sets(_kind_of)
    adopt_pages(
        kernel,
        clean_cache=found.get("clean", PfnSet()) & kernel.movable,
        swappable=found.get("swappable", PfnSet()) & kernel.movable,
    )
    return len(found.get("dirty", PfnSet()))


def _kind_of(flags: int) -> str | None:
    if not flags & PageFlag.LRU or flags & _NEVER:
        return None
    if flags & _SWAPPABLE:
        return "swappable"
    return "dirty" if flags & _DIRTY else "clean"


def _by_counters(kernel: Kernel, seen: Observation) -> int | None:
    """Let used pages stand for what each zone counts; return how many pages are dirty.

    ``None`` if a zone does not count its LRU lists.
    """
    dirty = 0
    for info in seen.zoneinfo or ():
        zone = kernel.zones.get(info.key)
        if zone is None or not info.pages["managed"]:
            continue
        lru = info.lru
        if lru is None:
            return None
        dirty += lru.write_pending
        used = kernel.used & zone.present
        clean = used.lowest(max(0, lru.file - lru.write_pending))
        anonymous = (used - clean).lowest(lru.anonymous)
        adopt_pages(kernel, clean_cache=clean, swappable=anonymous)
    return dirty
