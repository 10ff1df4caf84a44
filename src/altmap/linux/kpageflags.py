"""``/proc/kpageflags``: the flags of every page frame, kept as runs of equal flags.

The kernel's file has 8 bytes per page frame, in the machine's byte order. Ours,
``proc/kpageflags.runs``, has a line per run: ``0x<start_pfn> <nr_pages> 0x<flags>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np

from altmap.errors import InputError
from altmap.linux.lines import lines

__all__ = (
    "FLAG_NAMES",
    "PageFlag",
    "PageRun",
    "flag_names",
    "is_memmap",
    "parse",
    "parse_raw",
    "render",
    "render_raw",
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

_HEADER = "# start_pfn nr_pages flags\n"
_LINE = re.compile(r"0x([0-9a-f]{1,16}) (\d{1,19}) 0x([0-9a-f]{1,16})", re.ASCII)
_WORD = 8


class PageRun(NamedTuple):
    """Consecutive page frames with equal flags in ``/proc/kpageflags``."""

    start_pfn: int
    nr_pages: int
    flags: int


def is_memmap(flags: int) -> bool:
    """Tell whether the flags are those of a page that holds its own block's memmap.

    OWNER_PRIVATE marks it; on pages of files and processes the same bit means something else.
    """
    others = PageFlag.LRU | PageFlag.SWAPBACKED
    return bool(flags & PageFlag.OWNER_PRIVATE) and not flags & others


def flag_names(flags: int) -> tuple[str, ...]:
    """Return the names of the set bits, lowest first; ``BIT_<n>`` for one without a name.

    >>> flag_names(0x2100000000)
    ('RESERVED', 'OWNER_PRIVATE')
    """
    return tuple(FLAG_NAMES.get(bit, f"BIT_{bit}") for bit in range(64) if flags >> bit & 1)


def parse(text: str) -> tuple[PageRun, ...]:
    """Return the runs of ``proc/kpageflags.runs``: ascending from pfn 0, without gaps."""
    runs: list[PageRun] = []
    end = 0
    for line in lines(text):
        if line.text.startswith("#"):
            continue
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need '0x<start_pfn> <nr_pages> 0x<flags>'")
        run = PageRun(int(match[1], 16), int(match[2]), int(match[3], 16))
        if run.start_pfn != end or not run.nr_pages:
            raise line.error(f"need a run of at least one page that starts at {end:#x}")
        end += run.nr_pages
        runs.append(run)
    return tuple(runs)


def render(runs: Iterable[PageRun]) -> str:
    """Return the text of ``proc/kpageflags.runs``."""
    return _HEADER + "".join(f"{start:#x} {nr} {flags:#x}\n" for start, nr, flags in runs)


def parse_raw(chunks: Iterable[bytes]) -> tuple[PageRun, ...]:
    """Return the runs of the kernel's own file, handed over in pieces of any length.

    The byte order shows: no flag is above bit 42, and every real file has some below bit 16, which
    end up at the top when read in the wrong order.

    Raises
    ------
    InputError
        If the length is not a multiple of 8 bytes.
    """
    starts: list[int] = []
    flags: list[int] = []
    nr_pages, rest = 0, b""
    for chunk in chunks:
        raw = rest + chunk if rest else chunk
        whole = len(raw) - len(raw) % _WORD
        rest = raw[whole:]
        _append_runs(np.frombuffer(raw, "<u8", whole // _WORD), nr_pages, starts, flags)
        nr_pages += whole // _WORD
    if rest:
        raise InputError(f"{nr_pages * _WORD + len(rest)} bytes: need a multiple of {_WORD}")
    if _is_big_endian(flags):
        flags = np.array(flags, "<u8").byteswap().tolist()
    ends = [*starts, nr_pages][1:]
    return tuple(
        PageRun(start, end - start, value)
        for start, end, value in zip(starts, ends, flags, strict=True)
    )


def render_raw(runs: Sequence[PageRun], byteorder: str = "little") -> bytes:
    """Return the kernel's own file; *byteorder* is ``"little"`` or ``"big"``."""
    words = np.array([run.flags for run in runs], "<u8" if byteorder == "little" else ">u8")
    return np.repeat(words, [run.nr_pages for run in runs]).tobytes()


def _append_runs(
    words: np.ndarray[tuple[int], np.dtype[np.uint64]],
    first_pfn: int,
    starts: list[int],
    flags: list[int],
) -> None:
    if not words.size:
        return
    at = np.concatenate(([0], np.flatnonzero(words[1:] != words[:-1]) + 1))
    if flags and flags[-1] == int(words[0]):
        at = at[1:]
    starts.extend((at + first_pfn).tolist())
    flags.extend(words[at].tolist())


def _is_big_endian(flags: list[int]) -> bool:
    seen = reduce(or_, flags, 0)
    return seen >> 48 != 0 and seen & 0xFFFF == 0
