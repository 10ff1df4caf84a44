"""``/proc/kpageflags``: the flags of every page frame, kept as runs of equal flags.

The kernel's file has 8 bytes per page frame, in the machine's byte order. Ours,
``proc/kpageflags.runs``, has a line per run: ``0x<start_pfn> <nr_pages> 0x<flags>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np

from altmap.errors import InputError
from altmap.linux.lines import lines

__all__ = (
    "FLAG_NAMES",
    "PageRun",
    "flag_names",
    "is_memmap",
    "parse",
    "parse_raw",
    "render",
    "render_raw",
)

#: Names by bit, from ``include/uapi/linux/kernel-page-flags.h`` and
#: ``include/linux/kernel-page-flags.h``. Bit 34 was MAPPEDTODISK up to 6.1 and is OWNER_2 since.
FLAG_NAMES: dict[int, str] = {
    0: "LOCKED",
    1: "ERROR",
    2: "REFERENCED",
    3: "UPTODATE",
    4: "DIRTY",
    5: "LRU",
    6: "ACTIVE",
    7: "SLAB",
    8: "WRITEBACK",
    9: "RECLAIM",
    10: "BUDDY",
    11: "MMAP",
    12: "ANON",
    13: "SWAPCACHE",
    14: "SWAPBACKED",
    15: "COMPOUND_HEAD",
    16: "COMPOUND_TAIL",
    17: "HUGE",
    18: "UNEVICTABLE",
    19: "HWPOISON",
    20: "NOPAGE",
    21: "KSM",
    22: "THP",
    23: "OFFLINE",
    24: "ZERO_PAGE",
    25: "IDLE",
    26: "PGTABLE",
    32: "RESERVED",
    33: "MLOCKED",
    34: "OWNER_2",
    35: "PRIVATE",
    36: "PRIVATE_2",
    37: "OWNER_PRIVATE",
    38: "ARCH",
    39: "UNCACHED",
    40: "SOFTDIRTY",
    41: "ARCH_2",
    42: "ARCH_3",
}

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
    lru, swapbacked, owner_private = (1 << bit for bit in (5, 14, 37))
    return bool(flags & owner_private) and not flags & (lru | swapbacked)


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
