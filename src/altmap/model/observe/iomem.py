"""``/proc/iomem`` as the modelled kernel shows it: the base's lines, less and more additions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from altmap.linux.observation import Resource
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange

__all__ = ("iomem_shown",)


def iomem_shown(
    base: tuple[Resource, ...] | None,
    kernel: Kernel,
    start_additions: Sequence[Addition],
    start_regions: Sequence[tuple[PfnRange, str]],
) -> tuple[Resource, ...] | None:
    """Return the base's lines without what was removed and with what was added since the start.

    Parameters
    ----------
    base : tuple of Resource or None
    kernel : Kernel
    start_additions : sequence of Addition
        Those that the base shows.
    start_regions : sequence of (PfnRange, str)
        Those of ``kernel.regions`` that the base shows.
    """
    if base is None:
        return None
    page = kernel.arch.page_size_bytes
    now = set(kernel.additions)
    gone = [add for add in start_additions if add not in now]
    new = now.difference(start_additions)
    # A line that joins its neighbours is made anew if one of them was added or removed.
    merged = {add.resource_name for add in (*gone, *new) if add.merges}
    again = [
        add for add in start_additions if add in now and add.merges and add.resource_name in merged
    ]
    lines = list(base)
    for add in gone + again:
        lines = list(_without(lines, add.pfns.start * page, add.pfns.end * page))
    for pfns, name in start_regions:
        if (pfns, name) not in kernel.regions:
            lines = [line for line in lines if line[1:] != (*_bytes(pfns, page), name)]
    for pfns, name in kernel.regions:
        if (pfns, name) not in start_regions:
            _insert(lines, *_bytes(pfns, page), name)
    for start, end, name in _resource_lines([*again, *new], page):
        _insert(lines, start, end, name)
    return tuple(lines)


def _bytes(pfns: PfnRange, page: int) -> tuple[int, int]:
    return pfns.start * page, pfns.end * page


def _resource_lines(additions: list[Addition], page: int) -> list[tuple[int, int, str]]:
    """Return ``/proc/iomem`` lines of the additions; those that merge join their neighbours."""
    lines: list[tuple[int, int, str]] = []
    before: Addition | None = None
    for add in sorted(additions, key=lambda add: add.pfns):
        start, end = add.pfns.start * page, add.pfns.end * page
        # Only siblings join: what one device has added lies in its own region.
        joins = (
            before is not None
            and (before.merges, before.resource_name) == (add.merges, add.resource_name)
            and before.group is add.group
            and before.pfns.end == add.pfns.start
        )
        if joins and add.merges:
            lines[-1] = (lines[-1][0], end, add.resource_name)
        else:
            lines.append((start, end, add.resource_name))
        before = add
    return lines


def _without(lines: list[Resource], start: int, end: int) -> Iterator[Resource]:
    """Yield the resources without a range of System RAM, which is cut out of a longer line."""
    for line in lines:
        if not line.name.startswith("System RAM") or end <= line.start or line.end <= start:
            yield line
            continue
        if line.start < start:
            yield line._replace(end=start)
        if end < line.end:
            yield line._replace(start=end)


def _insert(lines: list[Resource], start: int, end: int, name: str) -> None:
    """Put a resource where the tree has room: below the innermost line that contains it."""
    depth, at = 0, len(lines)
    for index, line in enumerate(lines):
        if line.start <= start and end <= line.end and line.depth == depth:
            depth += 1
            at = index + 1
        elif line.depth <= depth and line.start >= end:
            at = index
            break
        elif line.end <= start or line.depth > depth:
            at = index + 1
    lines.insert(at, Resource(depth, start, end, name))
