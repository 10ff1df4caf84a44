"""What page flags say of added memory, read at few places where that is enough.

A memmap in the added range lies at the start of its block; memory that a driver keeps from the
kernel lies in the blocks that the driver added. So counting either needs no look at most of the
page frames of a large machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.observation import Observation, page_size_bytes
from altmap.linux.pagewords import Pfns, Words
from altmap.pfn import PfnRange

__all__ = ("fake_offline_nr_pages", "self_hosted_nr_pages")

#: Page frames that are read to be counted; beyond, places are chosen.
_MOST_READ_NR_PAGES = 1 << 23


def self_hosted_nr_pages(seen: Observation) -> int:
    """Return how many pages of online blocks hold the memmap of their own block.

    In a Xen domain the same flag marks page tables, and a balloon's blocks hold no memmap. On a
    large machine the first block that holds one tells how many pages it takes, and the others are
    asked for the first, the last and the next page; if one of them differs, all are read.
    """
    words = seen.kpageflags
    if not words or seen.balloon is not None:
        return 0
    starts = _online_starts(seen)
    if words.nr_pages <= _MOST_READ_NR_PAGES or not len(starts):
        return len(words.select(is_memmap))
    hosting = starts[_are_memmap(words.words_at(starts))]
    if not len(hosting):
        return 0
    page = page_size_bytes(seen)
    assert seen.memory is not None
    assert page is not None
    first = int(hosting[0])
    block = PfnRange(first, first + seen.memory.block_size_bytes // page)
    nr_pages = len(words.select(is_memmap, block))
    last, behind = words.words_at(hosting + nr_pages - 1), words.words_at(hosting + nr_pages)
    if not _are_memmap(last).all() or _are_memmap(behind).any():
        return len(words.select(is_memmap))
    return nr_pages * len(hosting)


def fake_offline_nr_pages(seen: Observation) -> int | None:
    """Return how many pages are PageOffline, ``None`` if that takes too long to count.

    On a large machine only blocks are counted that a driver's name in ``/proc/iomem`` marks, or
    whose first or last page is PageOffline: a block that a host backs in part begins or ends so.
    """
    words = seen.kpageflags
    if not words:
        return None
    if words.nr_pages <= _MOST_READ_NR_PAGES:
        return len(words.select(_is_offline))
    starts, page = _online_starts(seen), page_size_bytes(seen)
    if not len(starts) or page is None or seen.memory is None:
        return None
    block = seen.memory.block_size_bytes // page
    chosen = _are_offline(words.words_at(starts))
    chosen |= _are_offline(words.words_at(starts + block - 1))
    for line in seen.iomem or ():
        if line.name.startswith("System RAM ("):
            chosen |= (starts * page < line.end) & (line.start < (starts + block) * page)
    if int(chosen.sum()) * block > _MOST_READ_NR_PAGES:
        return None
    return sum(
        len(words.select(_is_offline, PfnRange(start, start + block)))
        for start in starts[chosen].tolist()
    )


def _online_starts(seen: Observation) -> Pfns:
    """Return the first pfn of each online block whose page frames the file has: (nr_blocks,)."""
    page = page_size_bytes(seen)
    if seen.memory is None or page is None or not seen.kpageflags:
        return np.zeros(0, np.int64)
    block = seen.memory.block_size_bytes // page
    ids = [nr for nr, each in seen.memory.blocks.items() if each.state != "offline"]
    starts = np.sort(np.array(ids, np.int64)) * block
    return starts[starts + block <= seen.kpageflags.nr_pages]


def _is_offline(flags: int) -> bool:
    return bool(flags & PageFlag.OFFLINE)


def _are_offline(words: Words) -> NDArray[np.bool_]:
    return np.array((words & np.uint64(PageFlag.OFFLINE)) != 0)


def _are_memmap(words: Words) -> NDArray[np.bool_]:
    distinct, inverse = np.unique(words, return_inverse=True)
    return np.array([is_memmap(word) for word in distinct.tolist()], bool)[inverse]
