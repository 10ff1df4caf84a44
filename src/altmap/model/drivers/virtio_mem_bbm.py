"""Big-Block Mode of virtio-mem: memory is plugged and added by one or more memory blocks.

Source: ``drivers/virtio/virtio_mem.c: virtio_mem_bbm_*`` (6.1, 6.12, 7.3).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from altmap.errors import InputError
from altmap.model.drivers.virtio_mem_guest import VirtioMemGuest, kept_busy, refused
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.contig import fake_offline, fake_online
from altmap.model.kernel.notifier import NotifierVeto
from altmap.model.kernel.page_offline import drop_references, take_references
from altmap.model.kernel.registration import join_additions
from altmap.model.kernel.zone import MOVABLE
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("BigBlockMode", "BigBlockState")


class BigBlockState(IntEnum):
    """State of a big block in the driver (``VIRTIO_MEM_BBM_BB_*``)."""

    UNUSED = 0
    PLUGGED = 1
    ADDED = 2
    FAKE_OFFLINE = 3


@dataclass(slots=True, eq=False)
class BigBlockMode:
    """The state of one device in Big-Block Mode.

    Attributes
    ----------
    guest : VirtioMemGuest
    big_nr_pages : int
        Pages of a big block.
    first : int
        Id of the first whole big block of the region.
    states : dict of int to BigBlockState
        Of every big block that was ever prepared, in ascending order.
    last_usable : int
        Id of the last big block that lies in the usable region.
    """

    guest: VirtioMemGuest
    big_nr_pages: int
    first: int
    states: dict[int, BigBlockState] = field(default_factory=dict)
    last_usable: int = -1
    name: str = "Big-Block Mode"

    @property
    def unit_nr_pages(self) -> int:
        """Pages that are added and removed at a time."""
        return self.big_nr_pages

    @property
    def threshold_nr_pages(self) -> int:
        """Pages that the mode needs to have offline at a time."""
        return 2 * self.big_nr_pages

    def describe(self) -> str:
        """Return the units of memory, in words."""
        return f"big blocks of {self._size(self.big_nr_pages)}"

    def refresh(self, end: int) -> None:
        """Set the end of the usable region, a pfn."""
        self.last_usable = end // self.big_nr_pages - 1

    def pending(self) -> bool:
        """Tell whether cleanup is pending; big blocks need none."""
        return False

    def cleanup(self) -> Outcome:
        """Unplug big blocks that are plugged but not added."""
        for big in self._in_state(BigBlockState.PLUGGED):
            outcome = self.guest.send_unplug(self._pfns(big))
            if not outcome:
                return outcome
            self.states[big] = BigBlockState.UNUSED
        return OK

    # --- plug ------------------------------------------------------------------------------

    def plug(self, nr_pages: int) -> Outcome:
        """Add unused big blocks, then new ones; less than a big block is left over."""
        left = nr_pages // self.big_nr_pages
        if not left:
            return self._too_little(nr_pages, "virtio_mem_bbm_plug_request")
        for big in self._in_state(BigBlockState.UNUSED):
            outcome = self._check_threshold() and self._plug_and_add(big)
            left -= bool(outcome)
            if not outcome or not left:
                return outcome
        for _ in range(left):
            outcome = self._check_threshold() and self._prepare_next()
            if not outcome:
                return outcome
            outcome = self._plug_and_add(next(reversed(self.states)))
            if not outcome:
                return outcome
        return OK

    def _too_little(self, nr_pages: int, function: str) -> Outcome:
        self.guest.note(f"{self._size(nr_pages)} is less than a big block, nothing to do", function)
        return OK

    def _check_threshold(self) -> Outcome:
        guest = self.guest
        if guest.could_add(self.big_nr_pages):
            return OK
        return refused(
            "ENOSPC",
            "virtio_mem_could_add_memory",
            f"{self._size(guest.offline_nr_pages)} are added and not online, "
            f"no more than {self._size(guest.threshold_nr_pages)} may be",
        )

    def _prepare_next(self) -> Outcome:
        big = self.first + len(self.states)
        if big > self.last_usable:
            return refused(
                "ENOSPC",
                "virtio_mem_bbm_prepare_next_bb",
                f"the big block {self._pfns(big)} lies outside the usable region",
            )
        self.states[big] = BigBlockState.UNUSED
        return OK

    def _plug_and_add(self, big: int) -> Outcome:
        pfns = self._pfns(big)
        outcome = self.guest.send_plug(pfns)
        if not outcome:
            return outcome
        self.states[big] = BigBlockState.ADDED
        outcome = self.guest.add_memory(pfns, pfns)
        if not outcome:
            undone = self.guest.send_unplug(pfns)
            self.states[big] = BigBlockState.UNUSED if undone else BigBlockState.PLUGGED
        return outcome

    # --- unplug ----------------------------------------------------------------------------

    def unplug(self, nr_pages: int) -> Outcome:
        """Unplug big blocks that are offline, then those that are movable, then any."""
        left = nr_pages // self.big_nr_pages
        if not left:
            return self._too_little(nr_pages, "virtio_mem_bbm_unplug_request")
        kernel = self.guest.kernel
        kept: dict[int, Outcome] = {}
        passes: list[Callable[[int], bool]] = [self._is_offline, self._is_movable, self._is_any]
        if not kernel.release.virtio_mem_prefers_movable:
            passes.remove(self._is_movable)
        for fits in passes:
            for big in self._in_state(BigBlockState.ADDED, down=True):
                if not fits(big):
                    continue
                outcome = self._remove_and_unplug(big)
                if outcome.errno == "EBUSY":
                    kept[big] = outcome
                    continue
                left -= bool(outcome)
                if not outcome or not left:
                    return outcome
            if fits == self._is_offline and not kernel.tunables.virtio_mem.unplug_online:
                return OK
        size = self._size(left * self.big_nr_pages)
        return kept_busy("virtio_mem_bbm_unplug_request", size, left, list(kept.values()))

    def _remove_and_unplug(self, big: int) -> Outcome:
        """Source: ``virtio_mem_bbm_offline_remove_and_unplug_bb``."""
        kernel, pfns = self.guest.kernel, self._pfns(big)
        release, parameters = kernel.release, kernel.tunables.virtio_mem
        taken: list[PfnRange] = []
        if parameters.bbm_safe_unplug or not release.virtio_mem_bbm_safe_unplug:
            self.states[big] = BigBlockState.FAKE_OFFLINE
            for section in self._online_sections(pfns):
                outcome = fake_offline(kernel, section)
                if not outcome:
                    return self._roll_back(big, taken, outcome)
                taken.append(section)
        outcome = self.guest.offline_and_remove_memory(pfns)
        if not outcome.ends:
            return outcome
        if not outcome:
            return self._roll_back(big, taken, outcome)
        outcome = self.guest.send_unplug(pfns)
        self.states[big] = BigBlockState.UNUSED if outcome else BigBlockState.PLUGGED
        return outcome

    def _roll_back(self, big: int, taken: list[PfnRange], outcome: Outcome) -> Outcome:
        for section in taken:
            fake_online(self.guest.kernel, section)
        self.states[big] = BigBlockState.ADDED
        self.guest.note(
            f"keeps {self._pfns(big)}: {outcome.why}",
            "virtio_mem_bbm_offline_remove_and_unplug_bb",
        )
        return outcome

    # --- notifications ---------------------------------------------------------------------

    def notify(self, action: str, pfns: PfnRange) -> NotifierVeto | None:
        """Drop references to fake-offline pages, so that their blocks can go offline."""
        big = pfns.start // self.big_nr_pages
        if (pfns.end - 1) // self.big_nr_pages != big:
            return NotifierVeto(
                errno.EPERM, "virtio_mem_memory_notifier_cb", f"{pfns}: two big blocks"
            )
        if self.states.get(big) is BigBlockState.FAKE_OFFLINE:
            if action == "MEM_GOING_OFFLINE":
                drop_references(self.guest.kernel, pfns)
            if action == "MEM_CANCEL_OFFLINE":
                take_references(self.guest.kernel, pfns)
        return None

    def kept_fake_offline(self, pages: PfnSet) -> PfnSet:
        """Return those of pages going online whose big block is being unplugged."""
        kept = PfnSet()
        for big in self._in_state(BigBlockState.FAKE_OFFLINE):
            kept |= pages & self._pfns(big)
        return kept

    def take_over(self, additions: list[Addition], plugged: PfnSet) -> None:
        """Take over big blocks that were added before the start, each by one add."""
        kernel = self.guest.kernel
        bigs = sorted({add.pfns.start // self.big_nr_pages for add in additions})
        for big in range(self.first, max(bigs, default=self.first - 1) + 1):
            self.states[big] = BigBlockState.UNUSED
        for big in bigs:
            pfns = self._pfns(big)
            if not plugged.covers(pfns) or big < self.first:
                raise InputError(
                    f"device {self.guest.name!r}: {pfns} is not a whole big block: set the "
                    "device's block to its real size"
                )
            parts = [add for add in additions if add.pfns.start in pfns]
            join_additions(kernel, parts, pfns)
            self.states[big] = BigBlockState.ADDED

    # --- units of the region ---------------------------------------------------------------

    def _size(self, nr_pages: int) -> str:
        return format_size(nr_pages * self.guest.page_size_bytes)

    def _pfns(self, big: int) -> PfnRange:
        return PfnRange(big * self.big_nr_pages, (big + 1) * self.big_nr_pages)

    def _in_state(self, state: BigBlockState, *, down: bool = False) -> Iterator[int]:
        """Yield big blocks in a state, each checked when its turn comes."""
        bigs = list(self.states)
        for big in reversed(bigs) if down else bigs:
            if self.states[big] is state:
                yield big

    def _online_sections(self, pfns: PfnRange) -> Iterator[PfnRange]:
        kernel = self.guest.kernel
        step = kernel.arch.section_nr_pages
        for start in range(pfns.start, pfns.end, step):
            section = PfnRange(start, start + step)
            if kernel.nr_online(section):
                yield section

    def _is_any(self, big: int) -> bool:
        return big in self.states

    def _is_offline(self, big: int) -> bool:
        return not self.guest.kernel.nr_online(self._pfns(big))

    def _is_movable(self, big: int) -> bool:
        return all(zone.name == MOVABLE for zone in self.guest.kernel.zones_of(self._pfns(big)))
