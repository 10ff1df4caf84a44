"""A Hyper-V host's half of dynamic memory, as QEMU's device is it: ``hw/hyperv/hv-balloon.c``.

The host backs ranges and names them to the guest. To give the guest more it returns what it had
taken first, and then adds; to take it asks for pages, of which the guest may have fewer. It counts
pages of 4 KiB, whatever the guest's own page size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from altmap.errors import InputError
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_messages import (
    MAX_RANGES,
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    Message,
    MessageError,
    PageRange,
    UnballoonRequest,
    UnballoonResponse,
    VersionRequest,
    VersionResponse,
)
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = (
    "BALLOON",
    "HYPERV_PAGE_BYTES",
    "HYPERV_VERSIONS",
    "DynamicMemoryHost",
    "HostedGuest",
    "check_hot_add",
)

#: The device that a scenario resizes.
BALLOON = "balloon"
HYPERV_PAGE_BYTES = 4096
#: Versions of the protocol that a host of today accepts.
HYPERV_VERSIONS = ("0.3", "1.0", "2.0")
_MOST_BALLOON_PAGES = 585728
_MOST_RANGE_PAGES = (1 << 24) - 1
_MIB = 1 << 20
_MOST_HOT_ADD_PAGES = (2 << 30) // HYPERV_PAGE_BYTES
_AnswerT = TypeVar("_AnswerT", HotAddResponse, BalloonResponse, UnballoonResponse)


class HostedGuest(Protocol):
    """A guest as its host deals with it: modelled, or real."""

    @property
    def assigned_nr_pages(self) -> int:
        """What the guest has: boot memory and what was added, less what was taken."""
        ...

    @property
    def end_pfn(self) -> int:
        """The page frame behind all memory of the guest, where a host adds more."""
        ...

    def open(self) -> None:
        """Start the guest's driver, which sends its first message."""
        ...

    def send(self, message: Message) -> None:
        """Give the guest a message."""
        ...

    def receive(self) -> Message:
        """Return the guest's next message; status reports are part of no transaction."""
        ...

    def back(self, id_: str, pages: PfnRange) -> None:
        """Back a range that is about to be added."""
        ...

    def back_again(self, pages: PfnSet) -> None:
        """Back pages again that were taken."""
        ...

    def take(self, pages: PfnSet) -> None:
        """Stop backing pages that the guest gave."""
        ...

    def why_not_added(self, pages: PfnRange) -> Outcome:
        """Return why nothing of a range was added, as far as the guest shows it."""
        ...

    def note(self, text: str, function: str) -> None:
        """Write down what the host could not do."""
        ...


def check_hot_add(id_: str, pages: PfnRange, region: PfnRange | None) -> None:
    """Check that ranges fit a hot-add request.

    Raises
    ------
    InputError
        If one has more pages than 24 bits hold.
    """
    for what in filter(None, (pages, region)):
        if len(what) > _MOST_RANGE_PAGES:
            raise InputError(
                f"plug {id_!r}: {what} has {len(what)} pages: a hot-add request holds "
                f"{_MOST_RANGE_PAGES} at most"
            )


@dataclass(slots=True)
class DynamicMemoryHost:
    """The host's end of one guest's channel.

    Attributes
    ----------
    guest : HostedGuest
    versions : tuple of str
        Versions of the protocol that the host accepts.
    capabilities : CapabilitiesReport or None
        What the guest said that it can do; ``None`` before it did.
    removed : PfnSet
        Pages that the guest gave.
    failed : bool
        Host and guest have no version in common: the channel is closed.
    """

    guest: HostedGuest
    versions: tuple[str, ...] = HYPERV_VERSIONS
    capabilities: CapabilitiesReport | None = None
    removed: PfnSet = field(default_factory=PfnSet)
    failed: bool = False
    _trans_id: int = 0
    _nr_added: int = 0

    def connect(self) -> Outcome:
        """Agree on a version and take the guest's capabilities, once.

        Raises
        ------
        MessageError
            If the guest sends what it does not send at its start.
        """
        if self.capabilities is None and not self.failed:
            self.guest.open()
            while self.capabilities is None and not self.failed:
                self._answer(self.guest.receive())
        if not self.failed:
            return OK
        return Outcome.refused(
            "EPROTO", "balloon_probe", "host and guest have no version of the protocol in common"
        )

    def hot_add(self, id_: str, pages: PfnRange, region: PfnRange | None) -> Outcome:
        """Back a range and ask the guest to add it.

        Parameters
        ----------
        id_ : str
            The device that stands for the range.
        pages : PfnRange
        region : PfnRange or None
            What the host may back later, if it names that.
        """
        refusal = self.connect()
        if not refusal:
            return refusal
        if not (self.capabilities and self.capabilities.hot_add):
            return Outcome.refused(
                "EOPNOTSUPP",
                "hot_add_enabled",
                "the guest's capabilities say that it adds no memory on this architecture",
            )
        self.guest.back(id_, pages)
        self.guest.send(
            HotAddRequest(
                trans_id=self._next_id(),
                pages=_range(pages),
                region=None if region is None else _range(region),
            )
        )
        answer = self._receive(HotAddResponse)
        return OK if answer.page_count else self.guest.why_not_added(pages)

    def resize(self, id_: str, size_bytes: int) -> Outcome:
        """Let the guest have that much memory in all.

        Raises
        ------
        InputError
            If it is not the balloon that is resized, or no whole number of pages.
        """
        if id_ != BALLOON:
            raise InputError(
                f"resize {id_!r}: a range keeps its size; the guest's memory is {BALLOON!r}"
            )
        if size_bytes % HYPERV_PAGE_BYTES:
            raise InputError(
                f"resize {id_!r} to {size_bytes:#x}: need whole pages of {HYPERV_PAGE_BYTES} bytes"
            )
        refusal = self.connect()
        if not refusal:
            return refusal
        missing = size_bytes // HYPERV_PAGE_BYTES - self.guest.assigned_nr_pages
        return self._grow(missing) if missing >= 0 else self._shrink(-missing)

    # --- the channel -----------------------------------------------------------------------

    def _answer(self, message: Message) -> None:
        """Answer a message of the handshake."""
        match message:
            case VersionRequest():
                accepted = f"{message.major}.{message.minor}" in self.versions
                self.guest.send(VersionResponse(trans_id=message.trans_id, is_accepted=accepted))
                self.failed = not accepted and message.is_last_attempt
            case CapabilitiesReport():
                self.guest.send(CapabilitiesResponse(trans_id=message.trans_id, is_accepted=True))
                self.capabilities = message
            case _:
                raise MessageError(f"{message.TYPE.name}: the guest sends it before its version")

    def _receive(self, kind: type[_AnswerT]) -> _AnswerT:
        message = self.guest.receive()
        if not isinstance(message, kind):
            raise MessageError(f"{message.TYPE.name}: the host waits for {kind.TYPE.name}")
        return message

    def _next_id(self) -> int:
        self._trans_id += 1
        return self._trans_id

    # --- more ------------------------------------------------------------------------------

    def _grow(self, nr_pages: int) -> Outcome:
        """Give back what was taken; add the rest, as far as the guest's alignment allows."""
        back = self.removed.lowest(min(nr_pages, len(self.removed)))
        if back:
            self._unballoon(back)
        left = nr_pages - len(back)
        chunk = self._alignment_nr_pages
        most = _MOST_HOT_ADD_PAGES // chunk * chunk or chunk
        while left >= chunk:
            start = -(-self.guest.end_pfn // chunk) * chunk
            pages = PfnRange(start, start + min(left // chunk * chunk, most))
            self._nr_added += 1
            outcome = self.hot_add(f"{BALLOON}:{self._nr_added}", pages, pages)
            if not outcome:
                return outcome
            left -= len(pages)
        if left:
            self.guest.note(
                f"the host adds multiples of {format_size(chunk * HYPERV_PAGE_BYTES)} only: "
                f"the guest has {format_size(left * HYPERV_PAGE_BYTES)} less than it should",
                "hot_add_alignment",
            )
        return OK

    @property
    def _alignment_nr_pages(self) -> int:
        assert self.capabilities is not None  # connected
        return (_MIB << self.capabilities.hot_add_alignment) // HYPERV_PAGE_BYTES

    def _unballoon(self, pages: PfnSet) -> None:
        """Back pages again, and tell the guest."""
        self.removed -= pages
        self.guest.back_again(pages)
        ranges = [
            PageRange(start, min(run.end - start, _MOST_RANGE_PAGES))
            for run in pages.ranges()
            for start in range(run.start, run.end, _MOST_RANGE_PAGES)
        ]
        for first in range(0, len(ranges), MAX_RANGES):
            self.guest.send(
                UnballoonRequest(
                    trans_id=self._next_id(),
                    more_pages=first + MAX_RANGES < len(ranges),
                    ranges=tuple(ranges[first : first + MAX_RANGES]),
                )
            )
        self._receive(UnballoonResponse)  # to the last of them

    # --- less ------------------------------------------------------------------------------

    def _shrink(self, nr_pages: int) -> Outcome:
        """Ask for pages until there are enough, or the guest gives none."""
        if not (self.capabilities and self.capabilities.balloon):
            return Outcome.refused(
                "EOPNOTSUPP",
                "ballooning_enabled",
                f"the guest's pages are not {HYPERV_PAGE_BYTES} bytes",
            )
        taken = 0
        while taken < nr_pages:
            given = self._balloon(min(nr_pages - taken, _MOST_BALLOON_PAGES))
            taken += given
            if not given:
                return Outcome.refused(
                    "ENOMEM", "balloon_up", f"the guest gave {taken} of {nr_pages} pages"
                )
        return OK

    def _balloon(self, num_pages: int) -> int:
        """Ask once; return how many pages the guest gave, which the host takes."""
        self.guest.send(BalloonRequest(trans_id=self._next_id(), num_pages=num_pages))
        pages, more = PfnSet(), True
        while more:
            answer = self._receive(BalloonResponse)
            pages |= PfnSet.of_runs(answer.ranges)
            more = answer.more_pages
        self.removed |= pages
        self.guest.take(pages)
        return len(pages)


def _range(pages: PfnRange) -> PageRange:
    return PageRange(pages.start, len(pages))
