"""Explanations of memory blocks and errnos, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from altmap.errors import printable
from altmap.host.errnos import Reason
from altmap.host.explain import BlockExplanation, worst
from altmap.host.page_owners import Owner

__all__ = ("block_text", "errno_text")

_MOST_OWNERS = 4


def block_text(found: BlockExplanation, width: int = 100) -> str:
    """Return what a block is, whether it would go offline, and its blockers."""
    lines = [*_wrap(_heading(found), width, ""), *_wrap(_verdict(found), width, "  ")]
    for blocker in found.blockers:
        pages = ""
        if blocker.first_pfn is not None:
            pages = f"{blocker.nr_pages} pages from pfn {blocker.first_pfn:#x} on: "
        lines.extend(
            _wrap(f"{blocker.certainty:8} {blocker.name}: {pages}{blocker.what}", width, "  ")
        )
        lines.extend(_wrap(f"rule: {blocker.errno} by {blocker.function}", width, "           "))
        if blocker.owners:
            lines.extend(_wrap(f"charged to: {_owners(blocker.owners)}", width, "           "))
        lines.extend(_wrap(f"helps: {blocker.cure}", width, "           "))
    if found.logged_pfn is not None:
        text = f'the kernel\'s log names pfn {found.logged_pfn:#x} ("unmovable page")'
        lines.extend(_wrap(text, width, "  "))
    if found.free_nr_pages is not None:
        text = f"{found.free_nr_pages} pages are free, {found.moving_nr_pages} in use would move"
        lines.extend(
            _wrap(
                f"{text}, {found.room_nr_pages} elsewhere are free or can be reclaimed for them",
                width,
                "  ",
            )
        )
    if found.moving_nr_pages and found.mapped_nr_pages is not None:
        text = f"of those that would move, processes map {found.mapped_nr_pages}"
        owners = f"; charged to: {_owners(found.owners)}" if found.owners else ""
        lines.extend(_wrap(text + owners, width, "  "))
    for note in found.notes:
        lines.extend(_wrap(f"note: {note}", width, "  "))
    return "\n".join(map(str.rstrip, lines)) + "\n"


def _owners(owners: Sequence[Owner]) -> str:
    shown = [f"{owner.cgroup} ({owner.nr_pages} pages)" for owner in owners[:_MOST_OWNERS]]
    if len(owners) > _MOST_OWNERS:
        shown.append(f"{len(owners) - _MOST_OWNERS} more")
    return printable(", ".join(shown))


def _heading(found: BlockExplanation) -> str:
    parts = [f"memory{found.block}: {found.state}"]
    if found.zones:
        zones = "/".join(found.zones)
        parts.append(f"zone {zones}" if found.state != "offline" else f"could be {zones}")
    if found.node is not None:
        parts.append(f"node {found.node}")
    parts.append(f"[{found.start_address:#x}, {found.end_address:#x})")
    if found.device is not None:
        parts.append(f"{found.driver} device {found.device}")
    if found.memmap is not None:
        place = "the block itself" if found.memmap == "self" else "existing memory"
        parts.append(f"memmap in {place}")
    return printable(", ".join(parts))


def _verdict(found: BlockExplanation) -> str:
    deciding = worst(found.blockers)
    match found.verdict:
        case "refused" | "likely refused" if deciding is not None:
            word = "would be refused" if found.verdict == "refused" else "is likely to be refused"
            return f"offline {word}: {deciding.errno} by {deciding.function}"
        case "no room":
            return (
                f"offline would not end: {found.moving_nr_pages} pages would have to move, "
                f"{found.room_nr_pages} elsewhere are free or can be reclaimed (EINTR by "
                "offline_pages on a signal)"
            )
        case "offline already":
            return "offline already"
        case "unknown" if deciding is not None and deciding.errno == "EINTR":
            return "offline may never end: EINTR by offline_pages on a signal"
        case "unknown":
            return "offline may be refused: what is known does not decide it"
    return "offline meets nothing that the files show"


def errno_text(reasons: Iterable[Reason], blocks: dict[str, str], width: int = 100) -> str:
    """Return every rule behind an errno.

    Parameters
    ----------
    reasons : iterable of Reason
    blocks : dict
        Function to the blocks of a machine that it would refuse now, empty if none was asked.
    width : int
    """
    lines: list[str] = []
    for reason in reasons:
        lines.append(f"{reason.errno} on {reason.operation}, by {reason.function}")
        lines.extend(_wrap(f"rule: {reason.rule}", width, "  "))
        lines.extend(_wrap(f"helps: {reason.cure}", width, "  "))
        here = blocks.get(reason.name) or blocks.get(reason.function)
        if reason.operation == "offline" and here:
            lines.extend(_wrap(f"here now: {here}", width, "  "))
    return "\n".join(lines) + "\n"


def _wrap(text: str, width: int, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False
    )
