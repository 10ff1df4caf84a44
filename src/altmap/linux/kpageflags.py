"""The flags of ``/proc/kpageflags``, and what they say of a page."""

from __future__ import annotations

from enum import IntEnum

__all__ = (
    "FLAG_NAMES",
    "MEMMAP_CLEAR",
    "MEMMAP_SET",
    "ON_LRU",
    "PageFlag",
    "flag_names",
    "is_memmap",
)


class PageFlag(IntEnum):
    """Bits of ``/proc/kpageflags``, by the kernel's names without ``KPF_``.

    Source: ``include/uapi/linux/kernel-page-flags.h`` and ``include/linux/kernel-page-flags.h``.
    Bit 34 was MAPPEDTODISK up to 6.1 and is OWNER_2 since.
    """

    LOCKED = 1 << 0
    ERROR = 1 << 1
    REFERENCED = 1 << 2
    UPTODATE = 1 << 3
    DIRTY = 1 << 4
    LRU = 1 << 5
    ACTIVE = 1 << 6
    SLAB = 1 << 7
    WRITEBACK = 1 << 8
    RECLAIM = 1 << 9
    BUDDY = 1 << 10
    MMAP = 1 << 11
    ANON = 1 << 12
    SWAPCACHE = 1 << 13
    SWAPBACKED = 1 << 14
    COMPOUND_HEAD = 1 << 15
    COMPOUND_TAIL = 1 << 16
    HUGE = 1 << 17
    UNEVICTABLE = 1 << 18
    HWPOISON = 1 << 19
    NOPAGE = 1 << 20
    KSM = 1 << 21
    THP = 1 << 22
    OFFLINE = 1 << 23
    ZERO_PAGE = 1 << 24
    IDLE = 1 << 25
    PGTABLE = 1 << 26
    RESERVED = 1 << 32
    MLOCKED = 1 << 33
    OWNER_2 = 1 << 34
    PRIVATE = 1 << 35
    PRIVATE_2 = 1 << 36
    OWNER_PRIVATE = 1 << 37
    ARCH = 1 << 38
    UNCACHED = 1 << 39
    SOFTDIRTY = 1 << 40
    ARCH_2 = 1 << 41
    ARCH_3 = 1 << 42


#: Names by bit.
FLAG_NAMES: dict[int, str] = {flag.bit_length() - 1: flag.name for flag in PageFlag}


#: Bits of a page that holds its own block's memmap: set, and clear. OWNER_PRIVATE marks it; on
#: pages of files and processes the same bit means something else.
MEMMAP_SET, MEMMAP_CLEAR = PageFlag.OWNER_PRIVATE, PageFlag.LRU | PageFlag.SWAPBACKED


#: Of a page of a process or a file: on an LRU list, or in a CPU's batch for one, which offlining
#: empties first (``mm/swap.c: lru_cache_disable``).
ON_LRU = PageFlag.LRU | PageFlag.UPTODATE | PageFlag.ANON | PageFlag.SWAPBACKED | PageFlag.THP


def is_memmap(flags: int) -> bool:
    """Tell whether the flags are those of a page that holds its own block's memmap."""
    return bool(flags & MEMMAP_SET) and not flags & MEMMAP_CLEAR


def flag_names(flags: int) -> tuple[str, ...]:
    """Return the names of the set bits, lowest first; ``BIT_<n>`` for one without a name.

    >>> flag_names(0x2100000000)
    ('RESERVED', 'OWNER_PRIVATE')
    """
    return tuple(FLAG_NAMES.get(bit, f"BIT_{bit}") for bit in range(64) if flags >> bit & 1)
