"""The state of each page frame after each step, by the kernel's files and the platform's backing.

A page frame has one state. Whether it is backed is a second, independent fact: the kernel may use
frames that are not backed, and faults there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from altmap.linux.iomem import addresses_hidden, system_ram
from altmap.linux.kpageflags import is_memmap
from altmap.linux.observation import Observation, page_size_bytes
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import StepRecord, Trace

__all__ = ("STATES", "BlockFacts", "PageState", "PageView", "StateInfo", "page_views")


class PageState(IntEnum):
    """The state of a page frame; of two in one tile, the higher number is shown."""

    HOLE = 0
    PLUGGED = 1
    OFFLINE = 2
    ONLINE = 3
    FREE = 4
    MOVABLE = 5
    UNMOVABLE = 6
    MEMMAP = 7
    FAKE_OFFLINE = 8
    UNBACKED = 9
    POISONED = 10
    FAULT = 11


@dataclass(frozen=True, slots=True)
class StateInfo:
    """How a state is named and drawn.

    Attributes
    ----------
    name, meaning : str
    letter : str
        Shown in addition to the colour.
    colour : str
        From the Okabe-Ito palette, which colour-blind readers can distinguish; or grey.
    pattern : str
        ``plain``, ``hatch``, ``dots`` or ``cross``.
    """

    name: str
    meaning: str
    letter: str
    colour: str
    pattern: str = "plain"


STATES: dict[PageState, StateInfo] = {
    PageState.HOLE: StateInfo("hole", "no memory known to the kernel", "", "#e4e4e4"),
    PageState.PLUGGED: StateInfo(
        "plugged", "backed by the host, not added by the kernel", "+", "#fff"
    ),
    PageState.OFFLINE: StateInfo("offline", "in an offline memory block", "o", "#9a9a9a"),
    PageState.ONLINE: StateInfo(
        "online", "online; the files do not show its pages", "?", "#8fb8a8"
    ),
    PageState.FREE: StateInfo("free", "free, in the buddy allocator", "", "#009e73"),
    PageState.MOVABLE: StateInfo("movable", "in use, can be migrated", "m", "#56b4e9"),
    PageState.UNMOVABLE: StateInfo(
        "unmovable", "in use and cannot move, or on a per-CPU list", "u", "#0072b2"
    ),
    PageState.MEMMAP: StateInfo("memmap", "struct pages of added memory", "M", "#e69f00", "dots"),
    PageState.FAKE_OFFLINE: StateInfo(
        "fake-offline", "hidden by the driver (PageOffline)", "w", "#f0e442", "hatch"
    ),
    PageState.UNBACKED: StateInfo("unbacked", "not backed by the host", "×", "#fff", "hatch"),
    PageState.POISONED: StateInfo(
        "poisoned", "hardware poison (HWPOISON)", "P", "#cc79a7", "cross"
    ),
    PageState.FAULT: StateInfo(
        "fault", "an access by the kernel faults here", "!", "#d55e00", "cross"
    ),
}


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """Facts of a whole memory block.

    Attributes
    ----------
    state : str
        As in sysfs, or ``absent`` if the kernel has no such block.
    zones : str
        Names of its zones; empty while it is offline.
    node : int or None
    owner : str
        Id of the device that it belongs to, ``boot``, or empty if unknown.
    """

    state: str
    zones: str
    node: int | None
    owner: str


@dataclass(slots=True)
class PageView:
    """All page frames and blocks after one step.

    Attributes
    ----------
    pages : dict of PageState to PfnSet
        Disjoint. What is in none of them is a hole.
    unbacked : PfnSet
        Page frames of memory blocks that are not backed, in any state.
    blocks : dict of int to BlockFacts
    crashed : bool
        The kernel crashed in this step or before; the blocks are as before that.
    """

    pages: dict[PageState, PfnSet]
    unbacked: PfnSet
    blocks: dict[int, BlockFacts]
    crashed: bool = False


@dataclass(slots=True)
class _Past:
    """State from earlier steps that the files do not show."""

    start: Observation
    block_nr_pages: int
    last: Observation
    boot_blocks: frozenset[int]
    memmaps: PfnSet = field(default_factory=PfnSet)
    faults: PfnSet = field(default_factory=PfnSet)
    backed: PfnSet | None = None
    owners: dict[int, tuple[str, ...]] = field(default_factory=dict)
    crashed: bool = False


def page_views(trace: Trace) -> list[PageView] | None:
    """Return a view for each step of a trace, ``None`` if its files have no memory blocks."""
    start = trace.steps[0].observation
    page = start and page_size_bytes(start)
    if start is None or start.memory is None or not page:
        return None
    boot = frozenset(start.memory.blocks)
    past = _Past(start, start.memory.block_size_bytes // page, start, boot)
    return [_page_view(past, step) for step in trace.steps]


def _page_view(past: _Past, step: StepRecord) -> PageView:
    _update(past, step)
    seen = past.last
    assert seen.memory is not None
    known = _block_pages(past, seen.memory.blocks)
    online = _block_pages(
        past, (id_ for id_, block in seen.memory.blocks.items() if block.state == "online")
    )
    pages = dict.fromkeys(PageState, PfnSet()) | _flagged(seen, online)
    pages[PageState.OFFLINE] = known - online
    if not past.crashed:
        reused = pages[PageState.FREE] | pages[PageState.MOVABLE] | pages[PageState.HOLE]
        past.memmaps = (past.memmaps & known) - reused
    _unknown_blocks(past, pages, known)
    _put(pages, PageState.MEMMAP, past.memmaps)
    ram = _ram(seen)  # a block of boot memory also has frames of firmware, which are reserved
    in_use = (known if ram is None else known & ram) - pages[PageState.HOLE] | past.memmaps
    unbacked = PfnSet() if past.backed is None else in_use - past.backed
    _put(pages, PageState.UNBACKED, pages[PageState.OFFLINE] & unbacked)
    _put(pages, PageState.FAULT, past.faults)
    ids = sorted({*seen.memory.blocks, *_unknown_ids(past, known)})
    return PageView(pages, unbacked, {id_: _facts(past, id_) for id_ in ids}, past.crashed)


def _update(past: _Past, step: StepRecord) -> None:
    if step.backed is not None:
        gained = step.backed - (past.backed or step.backed)
        _add_owner(past, gained, step)
        past.backed = step.backed
    for event in step.events:
        if event.kind == "memmap-placed" and event.pfns is not None:
            past.memmaps |= event.pfns
        if event.kind == "added" and event.pfns is not None:
            _add_owner(past, PfnSet.of(event.pfns), step)
        if event.kind == "removed" and event.pfns is not None:
            past.memmaps -= event.pfns
    if step.observation is not None and step.observation.memory is not None:
        past.last = step.observation
    for fault in step.faults:
        past.faults |= fault.pfns
        past.crashed = True


def _add_owner(past: _Past, pfns: PfnSet, step: StepRecord) -> None:
    if step.action.get("do") in ("plug", "resize"):
        for run in pfns.ranges():
            first, last = run.start // past.block_nr_pages, (run.end - 1) // past.block_nr_pages
            for id_ in range(first, last + 1):
                owners = past.owners.get(id_, ())
                past.owners[id_] = tuple(dict.fromkeys((*owners, str(step.action["id"]))))


def _block_pages(past: _Past, ids: Iterable[int]) -> PfnSet:
    nr = past.block_nr_pages
    return PfnSet(PfnRange(run.start * nr, run.end * nr) for run in _runs(ids))


def _runs(ids: Iterable[int]) -> Iterator[PfnRange]:
    start = end = None
    for id_ in sorted(ids):
        if id_ != end:
            if start is not None and end is not None:
                yield PfnRange(start, end)
            start = id_
        end = id_ + 1
    if start is not None and end is not None:
        yield PfnRange(start, end)


def _unknown_ids(past: _Past, known: PfnSet) -> list[int]:
    """Return blocks that the kernel lacks, but that are backed or contain a fault or memmap."""
    unknown = past.faults | past.memmaps | (past.backed or PfnSet())
    nr = past.block_nr_pages
    ids: set[int] = set()
    for run in (unknown - known).ranges():
        ids.update(range(run.start // nr, (run.end - 1) // nr + 1))
    return sorted(ids)


def _unknown_blocks(past: _Past, pages: dict[PageState, PfnSet], known: PfnSet) -> None:
    if past.backed is None:
        return
    unknown = _block_pages(past, _unknown_ids(past, known)) - known
    _put(pages, PageState.PLUGGED, unknown & past.backed)
    _put(pages, PageState.UNBACKED, unknown - past.backed)


def _put(pages: dict[PageState, PfnSet], state: PageState, pfns: PfnSet) -> None:
    """Move page frames to a state from all other states."""
    if not pfns:
        return
    for other in PageState:
        if other is not state and not pages[other].isdisjoint(pfns):
            pages[other] = pages[other] - pfns
    pages[state] = pages[state] | pfns


def _facts(past: _Past, id_: int) -> BlockFacts:
    assert past.last.memory is not None
    block = past.last.memory.blocks.get(id_)
    owner = "boot" if id_ in past.boot_blocks else ", ".join(past.owners.get(id_, ()))
    if block is None:
        return BlockFacts("absent", "", None, owner)
    if owner == "boot" and block.firmware_node is not None:
        owner = block.firmware_node.rpartition("/")[2]
    node = block.nodes[0] if block.nodes else None
    return BlockFacts(block.state, _zones(past, id_, block.state), node, owner)


def _zones(past: _Past, id_: int, state: str) -> str:
    assert past.last.memory is not None
    shown = past.last.memory.blocks[id_].valid_zones
    if state != "online":
        return ""
    if shown and shown != ("none",):
        return shown[0]
    start, end = id_ * past.block_nr_pages, (id_ + 1) * past.block_nr_pages
    names = [
        zone.name
        for zone in past.last.zoneinfo or ()
        if zone.start_pfn is not None
        and zone.start_pfn < end
        and start < zone.start_pfn + zone.pages["spanned"]
    ]
    return " + ".join(dict.fromkeys(names))


# --- flags ---------------------------------------------------------------------------------

_LRU, _SLAB, _BUDDY, _ANON, _HUGE = (1 << bit for bit in (5, 7, 10, 12, 17))
_HWPOISON, _NOPAGE, _OFFLINE = (1 << bit for bit in (19, 20, 23))


def _state_of(flags: int) -> PageState:
    """Return the state of an online page from its flags."""
    for mask, state in (
        (_NOPAGE, PageState.HOLE),
        (_HWPOISON, PageState.POISONED),
        (_OFFLINE, PageState.FAKE_OFFLINE),
        (_BUDDY, PageState.FREE),
        (_SLAB, PageState.UNMOVABLE),
        (_LRU | _ANON | _HUGE, PageState.MOVABLE),
    ):
        if flags & mask:
            return state
    return PageState.MEMMAP if is_memmap(flags) else PageState.UNMOVABLE


def _flagged(seen: Observation, online: PfnSet) -> dict[PageState, PfnSet]:
    """Return the online page frames by state."""
    if seen.kpageflags is None:
        return {PageState.ONLINE: online}
    made: dict[PageState, PfnSet] = {state: PfnSet() for state in PageState}
    ram = _ram(seen)
    for (state, is_blank), frames in seen.kpageflags.sets(
        lambda flags: (_state_of(flags), not flags)
    ).items():
        pages = frames & online
        if is_blank and ram is not None:  # some releases lack the flag NOPAGE
            made[PageState.HOLE] |= pages - ram
            pages = pages & ram
        if state is PageState.MEMMAP and seen.balloon is not None:
            state = PageState.UNMOVABLE  # in a Xen domain the flag marks page tables
        made[state] |= pages
    made[PageState.ONLINE] = online - PfnSet.of(*made.values())
    return made


def _ram(seen: Observation) -> PfnSet | None:
    page = page_size_bytes(seen)
    if not seen.iomem or not page or addresses_hidden(seen.iomem):
        return None
    return PfnSet(PfnRange(line.start // page, line.end // page) for line in system_ram(seen.iomem))
