"""Who uses pages: ``/proc/kpagecount``, ``/proc/kpagecgroup``, and the cgroups' names.

Both files have 8 bytes per page frame, as ``/proc/kpageflags`` has, and are kept like it:
how often processes map a page, and the inode of the cgroup that it is charged to (0 for none).
``proc/kpagecgroup.names`` is ours: a line for each cgroup, ``0x<inode> <path>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from altmap.linux.kpageflags import PageFlag
from altmap.linux.lines import lines
from altmap.linux.pagewords import PageWords
from altmap.pfn import PfnRange, PfnSet

__all__ = ("parse_cgroups", "render_cgroups", "unmapped_anonymous")

_LINE = re.compile(r"0x([0-9a-f]{1,16}) (/.*)", re.ASCII)
#: Anonymous pages with these flags may be in use without being mapped: in the swap cache; a huge
#: page that is mapped in part. (6.12 shows KSM on every anonymous page, so it tells nothing.)
_ELSEWHERE = PageFlag.SWAPCACHE | PageFlag.THP | PageFlag.COMPOUND_HEAD | PageFlag.COMPOUND_TAIL


def unmapped_anonymous(
    flags: PageWords | None,
    counts: PageWords | None,
    charges: PageWords | None,
    pfns: PfnRange | None = None,
) -> PfnSet:
    """Return the anonymous pages that are charged to a cgroup and that no process maps.

    Such a page is freed with its last mapping unless something else holds a reference: a pipe
    (vmsplice) or a pin. Migration cannot account for it, so that it does not move. One that came
    into use between the readings of two files is not charged yet.
    Source: ``mm/migrate.c: folio_expected_refs, migrate_folio``.

    Parameters
    ----------
    flags, counts, charges : PageWords or None
        kpageflags, kpagecount and kpagecgroup; without one of them nothing is known.
    pfns : PfnRange, optional
        Only page frames of this range.
    """
    if flags is None or counts is None or charges is None:
        return PfnSet()
    pages = flags.select(_may_be_held, pfns)
    if pages:
        pages &= counts.select(lambda count: not count, pfns)
    if pages:
        pages &= charges.select(bool, pfns)
    return pages


def _may_be_held(flags: int) -> bool:
    wanted = PageFlag.ANON | PageFlag.LRU
    return flags & wanted == wanted and not flags & _ELSEWHERE


def parse_cgroups(text: str) -> dict[int, str]:
    """Return the paths of cgroups by inode."""
    found: dict[int, str] = {}
    for line in lines(text):
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need '0x<inode> <path>'")
        found[int(match[1], 16)] = match[2]
    return found


def render_cgroups(paths: Iterable[tuple[int, str]]) -> str:
    """Return the text of ``proc/kpagecgroup.names``; control characters become ``?``."""
    return "".join(f"{inode:#x} {re.sub(r'[^ -~]', '?', path)}\n" for inode, path in sorted(paths))
