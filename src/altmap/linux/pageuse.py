"""Who uses pages: ``/proc/kpagecount``, ``/proc/kpagecgroup``, and the cgroups' names.

Both files have 8 bytes per page frame, as ``/proc/kpageflags`` has, and are kept like it, as runs:
how often processes map a page, and the inode of the cgroup that it is charged to (0 for none).
``proc/kpagecgroup.names`` is ours: a line for each cgroup, ``0x<inode> <path>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from altmap.linux.kpageflags import PageFlag, PageRun
from altmap.linux.lines import lines

__all__ = ("parse_cgroups", "render_cgroups", "unmapped_anonymous")

_LINE = re.compile(r"0x([0-9a-f]{1,16}) (/.*)", re.ASCII)
#: Anonymous pages with these flags may be in use without being mapped: in the swap cache; a huge
#: page that is mapped in part. (6.12 shows KSM on every anonymous page, so it tells nothing.)
_ELSEWHERE = PageFlag.SWAPCACHE | PageFlag.THP | PageFlag.COMPOUND_HEAD | PageFlag.COMPOUND_TAIL


def unmapped_anonymous(
    flags: Sequence[PageRun], counts: Sequence[PageRun], charges: Sequence[PageRun]
) -> Iterator[tuple[int, int]]:
    """Yield ``(start_pfn, nr_pages)`` of anonymous pages that are charged and no process maps.

    Such a page is freed with its last mapping unless somebody else holds a reference: a pipe
    (vmsplice) or a pin. Migration cannot account for it, so that it does not move. One that came
    into use between the readings of two files is not charged yet.
    Source: ``mm/migrate.c: folio_expected_refs, migrate_folio``.

    Parameters
    ----------
    flags, counts, charges : sequence of PageRun
        The runs of kpageflags, kpagecount and kpagecgroup.
    """
    anonymous = (run for run in flags if _may_be_held(run.flags))
    unmapped = _meet(anonymous, [run for run in counts if not run.flags])
    yield from _meet((PageRun(*run, 0) for run in unmapped), [run for run in charges if run.flags])


def _may_be_held(flags: int) -> bool:
    wanted = PageFlag.ANON | PageFlag.LRU
    return flags & wanted == wanted and not flags & _ELSEWHERE


def _meet(some: Iterable[PageRun], others: Sequence[PageRun]) -> Iterator[tuple[int, int]]:
    """Yield what is in a run of both, of which each ascends."""
    at = 0
    for start, nr_pages, _ in some:
        end = start + nr_pages
        while at < len(others) and others[at].start_pfn + others[at].nr_pages <= start:
            at += 1
        look = at
        while look < len(others) and others[look].start_pfn < end:
            first = max(start, others[look].start_pfn)
            last = min(end, others[look].start_pfn + others[look].nr_pages)
            yield first, last - first
            look += 1


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
