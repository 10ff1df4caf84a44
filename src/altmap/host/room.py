"""Room elsewhere for pages that must move: what is free, and what can be reclaimed."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.host.blockers import Blocks
from altmap.linux.meminfo import reclaimable_slab_kib
from altmap.linux.observation import Observation

__all__ = ("Room", "room_for")

_MOVABLE = "Movable"


@dataclass(frozen=True, slots=True)
class Room:
    """How many pages may move to elsewhere.

    Attributes
    ----------
    nr_pages : int
        Free above the minimum watermarks, of clean page cache, and of swap.
    maybe_nr_pages : int or None
        How many more there may be: dirty page cache and reclaimable slab; ``None`` if no file tells
        what can be reclaimed.
    """

    nr_pages: int
    maybe_nr_pages: int | None

    def is_too_small(self, nr_moving: int) -> bool | None:
        """Tell whether that many pages find no room, ``None`` if the files do not decide it."""
        if nr_moving <= self.nr_pages:
            return False
        if self.maybe_nr_pages is None or nr_moving <= self.nr_pages + self.maybe_nr_pages:
            return None
        return True


def room_for(seen: Observation, blocks: Blocks, nr: int) -> Room:
    """Return the room for the pages of a block, whose page flags must be seen.

    They go to other nodes with memory, to their own only if there is no other; pages of
    ZONE_MOVABLE to any zone, others to kernel zones (``mm/memory_hotplug.c: do_migrate_range``;
    ``mm/migrate.c: alloc_migration_target``). The allocation reclaims: see
    :mod:`altmap.model.kernel.reclaim`. What of the block itself is dropped need not move, so that
    it counts as well.
    """
    own, movable = blocks.node(nr), blocks.zones(nr) == (_MOVABLE,)
    present = [zone for zone in seen.zoneinfo or () if zone.pages["present"]]
    elsewhere = {zone.node for zone in present} - {own} or {own}
    zones = [
        zone for zone in present if zone.node in elsewhere and (movable or zone.name != _MOVABLE)
    ]
    free = sum(max(0, zone.pages["free"] - zone.pages["min"]) for zone in zones)
    if elsewhere == {own}:
        free = max(0, free - blocks.nr_free(nr))
    lists = [zone.lru for zone in zones if zone.pages["managed"]]
    counted = [lru for lru in lists if lru is not None]
    if len(counted) < len(lists):
        return Room(free, None)
    dirty = sum(lru.write_pending for lru in counted)
    cache = max(0, sum(lru.file for lru in counted) - dirty)
    meminfo, kib = seen.meminfo or {}, (blocks.page_size_bytes or 4096) // 1024
    swap = min(sum(lru.anonymous for lru in counted), meminfo.get("SwapFree", 0) // kib)
    return Room(free + cache + swap, dirty + reclaimable_slab_kib(meminfo) // kib)
