"""Sub-Block Mode of virtio-mem: memory is added by memory blocks, plugged by parts of them.

Source: ``drivers/virtio/virtio_mem.c: virtio_mem_sbm_*`` (6.1, 6.12, 7.3).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from altmap.model.drivers.virtio_mem_guest import VirtioMemGuest, kept_busy, refused
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.contig import fake_offline, fake_online
from altmap.model.kernel.notifier import NotifierVeto
from altmap.model.kernel.page_offline import drop_references, take_references
from altmap.model.kernel.zone import MOVABLE
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("BlockState", "SubBlockMode")


class BlockState(IntEnum):
    """State of a memory block in the driver (``VIRTIO_MEM_SBM_MB_*``)."""

    UNUSED = 0
    PLUGGED = 1
    OFFLINE = 2
    OFFLINE_PARTIAL = 3
    KERNEL = 4
    KERNEL_PARTIAL = 5
    MOVABLE = 6
    MOVABLE_PARTIAL = 7


_OFFLINE = (BlockState.OFFLINE, BlockState.OFFLINE_PARTIAL)
_PLUG_ORDER = (
    BlockState.KERNEL_PARTIAL,
    BlockState.MOVABLE_PARTIAL,
    BlockState.OFFLINE_PARTIAL,
)
_UNPLUG_ORDER = (
    (BlockState.OFFLINE_PARTIAL,),
    (BlockState.OFFLINE,),
    (BlockState.MOVABLE_PARTIAL,),
    (BlockState.KERNEL_PARTIAL,),
    (BlockState.MOVABLE,),
    (BlockState.KERNEL,),
)
#: On releases that do not distinguish kernel and movable blocks.
_UNPLUG_ORDER_BY_FILL = (
    (BlockState.OFFLINE_PARTIAL,),
    (BlockState.OFFLINE,),
    (BlockState.KERNEL_PARTIAL, BlockState.MOVABLE_PARTIAL),
    (BlockState.KERNEL, BlockState.MOVABLE),
)


@dataclass(slots=True, eq=False)
class SubBlockMode:
    """The state of one device in Sub-Block Mode.

    Attributes
    ----------
    guest : VirtioMemGuest
    sub_nr_pages : int
        Pages of a sub-block.
    first : int
        Id of the first whole memory block of the region.
    states : dict of int to BlockState
        Of every block that was ever prepared, in ascending order.
    plugged : PfnSet
        Page frames of plugged sub-blocks.
    last_usable : int
        Id of the last memory block that lies in the usable region.
    have_unplugged : bool
        A block without a plugged sub-block could not be removed.
    """

    guest: VirtioMemGuest
    sub_nr_pages: int
    first: int
    states: dict[int, BlockState] = field(default_factory=dict)
    plugged: PfnSet = field(default_factory=PfnSet)
    last_usable: int = -1
    have_unplugged: bool = False
    _left: int = 0
    _kept: dict[int, Outcome] = field(default_factory=dict)
    name: str = "Sub-Block Mode"

    @property
    def unit_nr_pages(self) -> int:
        """Pages that are added and removed at a time."""
        return self.guest.kernel.block_nr_pages

    @property
    def threshold_nr_pages(self) -> int:
        """Pages that the mode needs to have offline at a time."""
        return 0

    def describe(self) -> str:
        """Return the units of memory, in words."""
        page = self.guest.page_size_bytes
        return f"sub-blocks of {format_size(self.sub_nr_pages * page)}"

    def refresh(self, end: int) -> None:
        """Set the end of the usable region, a pfn."""
        self.last_usable = end // self.unit_nr_pages - 1

    def pending(self) -> bool:
        """Tell whether cleanup is pending."""
        return self.have_unplugged

    def cleanup(self) -> Outcome:
        """Unplug blocks that were never added, and try again to remove empty ones."""
        for block in self._in_state(BlockState.PLUGGED):
            self._left = self._nr_subs
            outcome = self._unplug_raw(block)
            if not outcome:
                return outcome
            self.states[block] = BlockState.UNUSED
        if self.have_unplugged:
            self.have_unplugged = False
            for state in (
                BlockState.MOVABLE_PARTIAL,
                BlockState.KERNEL_PARTIAL,
                BlockState.OFFLINE_PARTIAL,
            ):
                for block in self._in_state(state):
                    if not self._try_remove_unplugged(block):
                        self.have_unplugged = True
        return OK

    # --- plug ------------------------------------------------------------------------------

    def plug(self, nr_pages: int) -> Outcome:
        """Fill partial blocks, then add unused ones, then new ones (``..._plug_request``)."""
        self._left = nr_pages // self.sub_nr_pages
        if not self._left:
            return self._too_little(nr_pages, "virtio_mem_sbm_plug_request")
        for state in _PLUG_ORDER:
            for block in self._in_state(state):
                outcome = self._plug_missing(block)
                if not outcome or not self._left:
                    return outcome
        for block in self._in_state(BlockState.UNUSED):
            outcome = self._plug_and_add(block)
            if not outcome or not self._left:
                return outcome
        while self._left:
            # The threshold is checked before a block is prepared.
            outcome = self._check_threshold() and self._prepare_next()
            if not outcome:
                return outcome
            outcome = self._plug_and_add(next(reversed(self.states)))
            if not outcome:
                return outcome
        return OK

    def _too_little(self, nr_pages: int, function: str) -> Outcome:
        page = self.guest.page_size_bytes
        self.guest.note(
            f"{format_size(nr_pages * page)} is less than a sub-block, nothing to do", function
        )
        return OK

    def _check_threshold(self) -> Outcome:
        guest = self.guest
        if guest.could_add(self.unit_nr_pages):
            return OK
        page = guest.page_size_bytes
        return refused(
            "ENOSPC",
            "virtio_mem_could_add_memory",
            f"{format_size(guest.offline_nr_pages * page)} are added and not online, "
            f"no more than {format_size(guest.threshold_nr_pages * page)} may be",
        )

    def _prepare_next(self) -> Outcome:
        block = self.first + len(self.states)
        if block > self.last_usable:
            return refused(
                "ENOSPC",
                "virtio_mem_sbm_prepare_next_mb",
                f"memory{block} lies outside the usable region",
            )
        self.states[block] = BlockState.UNUSED
        return OK

    def _plug_missing(self, block: int) -> Outcome:
        """Plug sub-blocks of an added block (``virtio_mem_sbm_plug_any_sb``)."""
        before = self.states[block]
        while self._left:
            missing = PfnSet.of(self._pfns(block)) - self.plugged
            if not missing:
                break
            run = next(missing.ranges())
            count = min(self._left, len(run) // self.sub_nr_pages)
            pfns = PfnRange(run.start, run.start + count * self.sub_nr_pages)
            outcome = self._plug_subs(pfns)
            if not outcome:
                return outcome
            self._left -= count
            if before is not BlockState.OFFLINE_PARTIAL:
                fake_online(self.guest.kernel, pfns)
        if self.plugged.covers(self._pfns(block)):
            self.states[block] = BlockState(before - 1)
        return OK

    def _plug_and_add(self, block: int) -> Outcome:
        outcome = self._check_threshold()
        if not outcome:
            return outcome
        count = min(self._left, self._nr_subs)
        start = self._pfns(block).start
        pfns = PfnRange(start, start + count * self.sub_nr_pages)
        outcome = self._plug_subs(pfns)
        if not outcome:
            return outcome
        whole = count == self._nr_subs
        self.states[block] = BlockState.OFFLINE if whole else BlockState.OFFLINE_PARTIAL
        outcome = self.guest.add_memory(self._pfns(block), pfns)
        if not outcome:
            undone = self._unplug_subs(pfns)
            self.states[block] = BlockState.UNUSED if undone else BlockState.PLUGGED
            return outcome
        self._left -= count
        return OK

    def _plug_subs(self, pfns: PfnRange) -> Outcome:
        outcome = self.guest.send_plug(pfns)
        if outcome:
            self.plugged |= pfns
        return outcome

    # --- unplug ----------------------------------------------------------------------------

    def unplug(self, nr_pages: int) -> Outcome:
        """Unplug offline blocks first, then partial ones, movable before kernel ones."""
        self._left, self._kept = nr_pages // self.sub_nr_pages, {}
        if not self._left:
            return self._too_little(nr_pages, "virtio_mem_sbm_unplug_request")
        kernel = self.guest.kernel
        by_zone = kernel.release.virtio_mem_prefers_movable
        for states in _UNPLUG_ORDER if by_zone else _UNPLUG_ORDER_BY_FILL:
            if states[0] not in _OFFLINE and not kernel.tunables.virtio_mem.unplug_online:
                return OK
            for block in self._in_state(*states, down=True):
                outcome = self._unplug_any(block)
                if not outcome or not self._left:
                    return outcome
        left = format_size(self._left * self.sub_nr_pages * self.guest.page_size_bytes)
        return kept_busy(
            "virtio_mem_sbm_unplug_request", left, self._left, list(self._kept.values())
        )

    def _unplug_any(self, block: int) -> Outcome:
        if self.states[block] in _OFFLINE:
            return self._unplug_offline(block)
        return self._unplug_online(block)

    def _unplug_offline(self, block: int) -> Outcome:
        outcome = self._unplug_raw(block)
        pfns = self._pfns(block)
        if not self.plugged.covers(pfns):
            self.states[block] = BlockState.OFFLINE_PARTIAL
        if not outcome:
            return outcome
        if not self.plugged.count(pfns):
            self.states[block] = BlockState.UNUSED
            self.guest.remove_memory(pfns)
        return OK

    def _unplug_raw(self, block: int) -> Outcome:
        """Unplug sub-blocks of a block that is not online, runs of them at a time, from the end."""
        while self._left:
            plugged = self.plugged & self._pfns(block)
            if not plugged:
                break
            *_, run = plugged.ranges()
            count = min(self._left, len(run) // self.sub_nr_pages)
            outcome = self._unplug_subs(PfnRange(run.end - count * self.sub_nr_pages, run.end))
            if not outcome:
                return outcome
            self._left -= count
        return OK

    def _unplug_online(self, block: int) -> Outcome:
        """Unplug the whole block if that is not too much, else sub-blocks that are not busy."""
        pfns = self._pfns(block)
        if self._left >= self._nr_subs and self.plugged.covers(pfns):
            outcome = self._unplug_range(block, pfns)
            if outcome:
                self._left -= self._nr_subs
            elif outcome.errno != "EBUSY":
                return outcome
        if self.plugged.count(pfns):
            outcome = self._unplug_singly(block)
            if not outcome:
                return outcome
        if not self._try_remove_unplugged(block):
            self.have_unplugged = self.guest.kernel.release.virtio_mem_retries_removal
        return OK

    def _unplug_singly(self, block: int) -> Outcome:
        pfns = self._pfns(block)
        for start in range(pfns.end - self.sub_nr_pages, pfns.start - 1, -self.sub_nr_pages):
            sub = PfnRange(start, start + self.sub_nr_pages)
            if not self._left:
                break
            if not self.plugged.covers(sub):
                continue
            outcome = self._unplug_range(block, sub)
            if outcome:
                self._left -= 1
            elif outcome.errno == "EBUSY":
                self._kept[start] = outcome
                self.guest.note(
                    f"keeps {sub}: {outcome.why}", "virtio_mem_sbm_unplug_any_sb_online"
                )
            else:
                return outcome
        return OK

    def _unplug_range(self, block: int, pfns: PfnRange) -> Outcome:
        """Fake-offline and unplug sub-blocks of an online block."""
        kernel = self.guest.kernel
        if self.guest.config_changed and kernel.release.virtio_mem_retries_removal:
            return refused("EAGAIN", "virtio_mem_fake_offline", "the config changed")
        outcome = fake_offline(kernel, pfns)
        if not outcome:
            return outcome
        outcome = self._unplug_subs(pfns)
        if not outcome:
            fake_online(kernel, pfns)
            return outcome
        if self.states[block] in (BlockState.KERNEL, BlockState.MOVABLE):
            self.states[block] = BlockState(self.states[block] + 1)
        return OK

    def _unplug_subs(self, pfns: PfnRange) -> Outcome:
        outcome = self.guest.send_unplug(pfns)
        if outcome:
            self.plugged -= pfns
        return outcome

    def _try_remove_unplugged(self, block: int) -> Outcome:
        pfns = self._pfns(block)
        if self.plugged.count(pfns):
            return OK
        outcome = self.guest.offline_and_remove_memory(pfns)
        if outcome:
            self.states[block] = BlockState.UNUSED
        return outcome

    # --- notifications ---------------------------------------------------------------------

    def notify(self, action: str, pfns: PfnRange) -> NotifierVeto | None:
        """Update the state of a memory block; drop references so that it can go offline."""
        block = pfns.start // self.unit_nr_pages
        if pfns != self._pfns(block):
            return NotifierVeto(
                errno.EPERM, "virtio_mem_memory_notifier_cb", f"{pfns} is not one block"
            )
        kernel, state = self.guest.kernel, self.states.get(block, BlockState.UNUSED)
        match action:
            case "MEM_GOING_ONLINE" if state not in _OFFLINE:
                return NotifierVeto(
                    errno.EPERM, "virtio_mem_sbm_notify_going_online", f"memory{block} is unplugged"
                )
            case "MEM_ONLINE":
                movable = kernel.zones_of(pfns)[0].name == MOVABLE
                to = BlockState.MOVABLE if movable else BlockState.KERNEL
                self.states[block] = BlockState(to + state - BlockState.OFFLINE)
            case "MEM_GOING_OFFLINE":
                drop_references(kernel, PfnSet.of(pfns) - self.plugged)
            case "MEM_CANCEL_OFFLINE":
                take_references(kernel, pfns)
            case "MEM_OFFLINE":
                partial = state in (BlockState.KERNEL_PARTIAL, BlockState.MOVABLE_PARTIAL)
                self.states[block] = BlockState.OFFLINE_PARTIAL if partial else BlockState.OFFLINE
        return None

    def kept_fake_offline(self, pages: PfnSet) -> PfnSet:
        """Return those of pages going online that lie in unplugged sub-blocks."""
        return (pages & self.guest.pfns) - self.plugged

    def take_over(self, additions: list[Addition], plugged: PfnSet) -> None:
        """Take over memory blocks that were added before the start."""
        self.plugged = plugged.copy()
        kernel = self.guest.kernel
        added = {add.pfns.start // self.unit_nr_pages: add.pfns for add in additions}
        for block in range(self.first, max(added, default=self.first - 1) + 1):
            state = BlockState.UNUSED
            if block in added:
                zones = kernel.zones_of(added[block])
                state = BlockState.OFFLINE
                if zones:
                    movable = zones[0].name == MOVABLE
                    state = BlockState.MOVABLE if movable else BlockState.KERNEL
                state = BlockState(state + (not plugged.covers(added[block])))
            self.states[block] = state

    # --- units of the region ---------------------------------------------------------------

    @property
    def _nr_subs(self) -> int:
        return self.unit_nr_pages // self.sub_nr_pages

    def _pfns(self, block: int) -> PfnRange:
        return self.guest.kernel.block_pfns(block)

    def _in_state(self, *states: BlockState, down: bool = False) -> Iterator[int]:
        """Yield blocks in a state, each checked when its turn comes."""
        blocks = list(self.states)
        for block in reversed(blocks) if down else blocks:
            if self.states[block] in states:
                yield block
