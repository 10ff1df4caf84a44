"""What page flags say of added memory, read of added blocks only.

A memmap in the added range lies at the start of its block. Memory that a driver keeps from the
kernel lies in the blocks that the driver added, at the start of one or at the end; what a balloon
took of other blocks is counted in ``/proc/vmstat``. So counting either asks a few page frames of
each block, and reads only blocks where these tell of such pages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from altmap.linux.kpageflags import MEMMAP_CLEAR, MEMMAP_SET, PageFlag, is_memmap
from altmap.linux.observation import Observation, page_size_bytes
from altmap.linux.pagewords import Pfns, Words
from altmap.pfn import PfnRange

__all__ = ("fake_offline_nr_pages", "self_hosted_nr_pages")

#: Page frames that are read to be counted.
_MOST_READ_NR_PAGES = 1 << 23


def self_hosted_nr_pages(seen: Observation) -> int:
    """Return how many pages of online blocks hold the memmap of their own block.

    In a Xen domain the same flag marks page tables, and a balloon's blocks hold no memmap. The
    first block that holds one tells how many pages it takes, and the others are asked for the last
    and the next page; those that differ are read.
    """
    words = seen.kpageflags
    if not words or seen.balloon is not None:
        return 0
    starts, block_nr_pages = _online_blocks(seen)
    hosting = starts[_are_memmap(words.words_at(starts))]
    if not len(hosting):
        return 0

    def counted(start: int) -> int:
        return len(words.select(is_memmap, PfnRange(start, start + block_nr_pages)))

    usual = counted(int(hosting[0]))
    behind = np.minimum(hosting + usual, words.nr_pages - 1)
    differs = ~_are_memmap(words.words_at(hosting + usual - 1))
    if usual < block_nr_pages:
        differs |= _are_memmap(words.words_at(behind))
    return usual * int((~differs).sum()) + sum(map(counted, hosting[differs].tolist()))


def fake_offline_nr_pages(seen: Observation) -> int | None:
    """Return how many pages are PageOffline, ``None`` if that takes too long to count.

    Read are blocks that a driver's name in ``/proc/iomem`` marks, or whose first or last page is
    PageOffline: a block that a host backs in part begins or ends so. For the pages that a balloon
    took, ``balloon_inflate`` less ``balloon_deflate`` of ``/proc/vmstat`` stand.
    """
    words = seen.kpageflags
    if not words:
        return None
    starts, block = _online_blocks(seen)
    page = page_size_bytes(seen) or 1
    chosen = _are_offline(words.words_at(starts))
    chosen |= _are_offline(words.words_at(starts + block - 1))
    for line in seen.iomem or ():
        if line.name.startswith("System RAM ("):
            chosen |= (starts * page < line.end) & (line.start < (starts + block) * page)
    if int(chosen.sum()) * block > _MOST_READ_NR_PAGES:
        return None
    counted = sum(
        len(words.select(_is_offline, PfnRange(start, start + block)))
        for start in starts[chosen].tolist()
    )
    vmstat = seen.vmstat or {}
    return max(counted, vmstat.get("balloon_inflate", 0) - vmstat.get("balloon_deflate", 0))


def _online_blocks(seen: Observation) -> tuple[Pfns, int]:
    """Return the first pfn of each online block whose page frames the file has, and their number.

    (nr_blocks,) pfns, ascending; none without memory blocks or a page size.
    """
    page = page_size_bytes(seen)
    if seen.memory is None or page is None or not seen.kpageflags:
        return np.zeros(0, np.int64), 1
    block = seen.memory.block_size_bytes // page
    ids = [nr for nr, each in seen.memory.blocks.items() if each.state != "offline"]
    starts = np.sort(np.array(ids, np.int64)) * block
    return starts[starts + block <= seen.kpageflags.nr_pages], block


def _is_offline(flags: int) -> bool:
    return bool(flags & PageFlag.OFFLINE)


def _are_offline(words: Words) -> NDArray[np.bool_]:
    return _any_of(words, PageFlag.OFFLINE)


def _are_memmap(words: Words) -> NDArray[np.bool_]:
    return _any_of(words, MEMMAP_SET) & ~_any_of(words, MEMMAP_CLEAR)


def _any_of(words: Words, bits: int) -> NDArray[np.bool_]:
    return np.asarray((words & np.uint64(bits)) != 0)
