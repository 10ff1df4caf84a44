"""Why a memory block would not go offline, or what stands behind its going."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from altmap.host.blockers import NO_HOT_REMOVE, Blocker, Blocks
from altmap.host.blocking_pages import KINDS
from altmap.host.page_owners import Owner
from altmap.host.room import Room, room_for
from altmap.linux.node import no_such_block, render_list
from altmap.linux.observation import Observation

__all__ = ("BlockExplanation", "block_named", "explain_block", "refused_now", "worst")

#: Who asks, where the errno's table names the caller.
_CALLERS = {"has_unmovable_pages": "start_isolate_page_range"}
CERTAINTIES = ("certain", "likely", "unknown")


@dataclass(frozen=True, slots=True)
class BlockExplanation:
    """One memory block, and what offlining it meets.

    Attributes
    ----------
    block : int
    state : str
    zones : tuple of str
    node : int or None
    start_address, end_address : int
        Bytes, half-open.
    driver, device, memmap : str or None
    blockers : list of Blocker
        In the kernel's order; the first that is certain decides.
    free_nr_pages, moving_nr_pages : int or None
        Of the block: free ones, and those that would have to move; ``None`` if it showed no pages.
    room_nr_pages : int or None
        Pages elsewhere that are free or can be reclaimed for the moving ones.
    mapped_nr_pages : int or None
        Of those that would move, how many processes map; ``None`` where no file tells.
    owners : tuple of Owner
        Cgroups that are charged for those that would move, the largest share first.
    logged_pfn : int or None
        The unmovable page that the kernel's log names when it refuses; ``None`` if none is seen.
    verdict : str
        ``offline already``, ``refused``, ``likely refused``, ``no room``, ``unknown``, or
        ``no visible blocker``.
    notes : list of str
    """

    block: int
    state: str
    zones: tuple[str, ...]
    node: int | None
    start_address: int
    end_address: int
    driver: str | None
    device: str | None
    memmap: str | None
    blockers: list[Blocker]
    free_nr_pages: int | None
    moving_nr_pages: int | None
    room_nr_pages: int | None
    verdict: str
    mapped_nr_pages: int | None = None
    owners: tuple[Owner, ...] = ()
    logged_pfn: int | None = None
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<BlockExplanation of memory{self.block}: {self.verdict}>"

    def __str__(self) -> str:
        from altmap.host.text.explanation import block_text

        return block_text(self)


def block_named(text: str) -> int | None:
    """Return the id that ``32`` or ``memory32`` names, ``None`` if the text names no block."""
    match = re.fullmatch(r"(?:memory)?([0-9]{1,9})", text)
    return int(match[1]) if match else None


def worst(blockers: Iterable[Blocker]) -> Blocker | None:
    """Return the blocker that decides: the first of the highest certainty."""
    return min(blockers, key=lambda each: CERTAINTIES.index(each.certainty), default=None)


def explain_block(seen: Observation, nr: int) -> BlockExplanation:
    """Return what the files say about a block.

    Raises
    ------
    InputError
        If there is no such block.
    """
    seen.require("explain", "memory")
    assert seen.memory is not None
    if nr not in seen.memory.blocks:
        raise no_such_block("", nr, seen.memory.blocks)
    blocks, block = Blocks(seen), seen.memory.blocks[nr]
    size, device = seen.memory.block_size_bytes, blocks.device(nr)
    found = blocks.blockers(nr)
    free = moving = mapped = None
    room: Room | None = None
    owners: tuple[Owner, ...] = ()
    if blocks.sees_pages and blocks.is_online(nr):
        free = blocks.nr_free(nr)
        moving = blocks.nr_moving(nr)
        room = room_for(seen, blocks, nr)
        mapped, owners = blocks.nr_mapped(nr), blocks.moving_owners(nr)
    return BlockExplanation(
        nr,
        block.state,
        blocks.zones(nr),
        block.nodes[0] if block.nodes else None,
        nr * size,
        (nr + 1) * size,
        device.driver if device else None,
        device.name if device else None,
        blocks.memmap(nr),
        found,
        free,
        moving,
        None if room is None else room.nr_pages,
        _verdict(blocks, nr, found, moving, room),
        mapped,
        owners,
        blocks.logged_pfn(nr, found) if blocks.is_online(nr) else None,
        [*seen.problems.values(), *_notes(blocks, nr, found, moving)],
    )


def _verdict(
    blocks: Blocks, nr: int, found: list[Blocker], moving: int | None, room: Room | None
) -> str:
    if not blocks.is_online(nr):
        return "offline already"
    deciding = worst(found)
    if deciding is not None and deciding.certainty == "certain":
        return "refused"
    too_small = room is not None and moving is not None and room.is_too_small(moving)
    if too_small:
        return "no room"
    if deciding is not None and deciding.certainty == "likely":
        return "likely refused"
    if not blocks.sees_pages or deciding is not None or too_small is None:
        return "unknown"
    return "no visible blocker"


def _notes(blocks: Blocks, nr: int, found: list[Blocker], moving: int | None) -> Iterable[str]:
    if not blocks.is_online(nr):
        return
    if not blocks.sees_pages:
        yield "proc/kpageflags could not be read: which pages block is not known"
    yield from _pins(blocks, moving)
    if waiting := blocks.nr_waiting(nr):
        yield f"{waiting} pages are free on per-CPU lists, which offlining empties first"
    if any(each.name in KINDS and not KINDS[each.name].in_movable for each in found):
        yield (
            "the kernel allocates here because the zone is not Movable: "
            + (
                "online the block with online_movable when it comes back"
                if blocks.device(nr) is not None
                else "boot memory stays out of its reach only with movablecore=, kernelcore= or "
                "movable_node on the command line"
            )
        )
    if any(each.name == "kernel" for each in found):
        for device in blocks.devices:
            if nr not in device.blocks and any(
                blocks.memmap(other) == "existing" for other in device.blocks
            ):
                yield (
                    f"the memmap of {device.name} lies in existing memory, perhaps in this block: "
                    "remove that device first"
                )


def _pins(blocks: Blocks, moving: int | None) -> Iterable[str]:
    """Say what is known of pins: files tell how many there are, not where."""
    nr_pinned = blocks.uses.nr_pinned
    if not moving:
        return
    if nr_pinned:
        yield (
            f"{nr_pinned} pages of this machine are pinned (nr_foll_pin_acquired less "
            "nr_foll_pin_released in /proc/vmstat), no file says which: if one is here, offlining "
            "retries indefinitely"
        )
    elif nr_pinned is None:
        yield "pins of pages that could move (VFIO, RDMA, O_DIRECT) are in no file"
    else:
        yield "no page is pinned now (nr_foll_pin in /proc/vmstat); what a pipe holds is in no file"


def refused_now(seen: Observation, errno: str) -> dict[str, str]:
    """Return the online blocks whose offlining would certainly end in an errno.

    By function, or by the name of a rule that shares its function with another one.
    """
    blocks = Blocks(seen)
    ids: dict[str, list[int]] = {}
    for nr in seen.memory.blocks if seen.memory else ():
        deciding = worst(blocks.blockers(nr))
        if deciding is not None and deciding.certainty == "certain" and deciding.errno == errno:
            function = _CALLERS.get(deciding.function, deciding.function)
            if deciding.name == NO_HOT_REMOVE:
                function = deciding.name  # shared with the rule of memory holes
            ids.setdefault(function, []).append(nr)
    return {function: f"memory{render_list(found).strip()}" for function, found in ids.items()}
