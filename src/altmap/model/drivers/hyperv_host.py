"""Hyper-V dynamic memory, the host's half, as QEMU's device is it: ``hw/hyperv/hv-balloon.c``.

The host backs ranges and names them to the guest. To give the guest more it returns what it had
taken first, and then adds; to take it asks for pages, of which the guest may have fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

from altmap.errors import InputError
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice, to_guest, to_host
from altmap.model.drivers.facts import DriverRecord
from altmap.model.drivers.hyperv import HYPERV_PAGE_BYTES, DriverState, HypervBalloon
from altmap.model.drivers.hyperv_messages import (
    MAX_RANGES,
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    Message,
    MessageType,
    PageRange,
    UnballoonRequest,
    VersionRequest,
    VersionResponse,
    decode,
    describe,
    encode,
)
from altmap.model.platform.qemu import dimm_space
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Plug
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("BALLOON", "RECORD", "HypervHost")

RECORD = DriverRecord(
    name="Hyper-V",
    scenario='`driver = "hyperv"`, `balloon = "hyperv"`',
    adds="chunks of 128 MiB; since 6.10 one block",
    partly_backed="yes, any page of 4 KiB",
    touches_offline="nobody outside of what the host has named, not even to read",
    opts_in="never",
    gives_back="pages, by the balloon; blocks never",
    group="none",
    resource="`System RAM`, merged with its neighbours",
    lab="no: QEMU's hv-balloon (8.2) needs KVM with a synthetic interrupt controller",
    sources="drivers/hv/hv_balloon.c; QEMU's hw/hyperv/hv-balloon.c",
)


#: The device that a scenario resizes.
BALLOON = "balloon"
_VERSIONS = ("0.3", "1.0", "2.0")
_MOST_BALLOON_PAGES = 585728
_MOST_RANGE_PAGES = (1 << 24) - 1
_MOST_HOT_ADD_BYTES = 2 << 30
_MIB = 1 << 20
#: The guest's function that sends a message.
_SENDERS = {
    MessageType.VERSION_REQUEST: "balloon_connect_vsp",
    MessageType.CAPABILITIES_REPORT: "balloon_connect_vsp",
    MessageType.STATUS_REPORT: "post_status",
    MessageType.BALLOON_RESPONSE: "balloon_up",
    MessageType.UNBALLOON_RESPONSE: "balloon_down",
    MessageType.MEM_HOT_ADD_RESPONSE: "hot_add_req",
}


class HypervHost(Driver):
    """A host and the balloon of its guest.

    Parameters
    ----------
    devices : Devices
    versions : tuple of str
        Versions of the protocol that the host accepts.
    """

    def __init__(self, devices: Devices, versions: tuple[str, ...] = _VERSIONS) -> None:
        Driver.__init__(self, devices)
        self.guest = HypervBalloon(devices.kernel)
        self.capabilities: CapabilitiesReport | None = None
        #: Pages that the guest gave back.
        self.removed = PfnSet()
        self._versions = versions
        self._trans_id = 0
        self._nr_added = 0
        # Firmware keeps part of boot memory, which belongs to the guest all the same.
        page = devices.kernel.arch.page_size_bytes
        backed = len(devices.backing.backed) * page
        self._unlisted_nr_pages = -backed % (2 * _MIB) // page
        devices.by_id.setdefault(BALLOON, MemoryDevice("hyperv", PfnRange(0, 0)))

    @property
    def assigned_nr_pages(self) -> int:
        """What the guest has from its host: boot memory and what was added, less what was taken."""
        return len(self.devices.backing.backed) + self._unlisted_nr_pages

    def plug(self, plug: Plug) -> Outcome:
        """Back a range and ask the guest to add it."""
        self.devices.check_new(plug.id)
        assert plug.address is not None  # checked with the scenario
        pfns = self.devices.pfns(plug.address, plug.size)
        if self.devices.backing.backed.count(pfns) or self.removed.count(pfns):
            raise InputError(
                f"plug {plug.id!r}: [{plug.address:#x}, {plug.address + plug.size:#x}) "
                "overlaps memory that the host backs already"
            )
        region = None
        if plug.region is not None:
            region = self.devices.pfns(plug.region.address, plug.region.size)
        for what in filter(None, (pfns, region)):
            if len(what) > _MOST_RANGE_PAGES:
                raise InputError(
                    f"plug {plug.id!r}: {what} has {len(what)} pages: a hot-add request holds "
                    f"{_MOST_RANGE_PAGES} at most"
                )
        outcome = self._hot_add(plug.id, pfns, region)
        if self.guest.state is not DriverState.INIT_ERROR:
            self._hear(self.guest.post_status())
        return outcome

    def take_over(self, device: MemoryDevice) -> None:
        """Take over a region that Linux added before the start."""
        self.guest.hot_add.take_over(device.pfns)

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
        refusal = self._connect()
        if refusal is not None:
            return refusal
        missing = size_bytes // self.kernel.arch.page_size_bytes - self.assigned_nr_pages
        outcome = self._grow(missing) if missing >= 0 else self._shrink(-missing)
        self._hear(self.guest.post_status())
        return outcome

    # --- the channel -----------------------------------------------------------------------

    def _tell(self, message: Message) -> Iterator[Message]:
        """Send a message; yield each answer as it comes."""
        raw = encode(message)
        to_guest(self.kernel, describe(message), "balloon_onchannelcallback", raw)
        for answer in self.guest.receive(raw):
            yield self._hear(answer)

    def _hear(self, raw: bytes) -> Message:
        message = decode(raw)
        to_host(self.kernel, describe(message), _SENDERS[message.TYPE], raw)
        return message

    def _next_id(self) -> int:
        self._trans_id += 1
        return self._trans_id

    def _connect(self) -> Outcome | None:
        """Agree on a version and take the guest's capabilities, once."""
        if self.guest.state is DriverState.INITIALIZING:
            waiting = [self._hear(self.guest.probe())]
            while waiting:
                waiting.extend(self._answer_handshake(waiting.pop(0)))
        if self.guest.state is not DriverState.INIT_ERROR:
            return None
        return Outcome.refused(
            "EPROTO", "balloon_probe", "host and guest have no version of the protocol in common"
        )

    def _answer_handshake(self, message: Message) -> Iterator[Message]:
        match message:
            case VersionRequest():
                accepted = f"{message.major}.{message.minor}" in self._versions
                yield from self._tell(
                    VersionResponse(trans_id=message.trans_id, is_accepted=accepted)
                )
            case CapabilitiesReport():
                self.capabilities = message
                yield from self._tell(
                    CapabilitiesResponse(trans_id=message.trans_id, is_accepted=True)
                )
            case _:
                raise AssertionError(message)

    # --- more ------------------------------------------------------------------------------

    def _hot_add(self, id_: str, pfns: PfnRange, region: PfnRange | None) -> Outcome:
        refusal = self._connect()
        if refusal is None and not (self.capabilities and self.capabilities.hot_add):
            refusal = Outcome.refused(
                "EOPNOTSUPP",
                "hot_add_enabled",
                "the guest's capabilities say that it adds no memory on this architecture",
            )
        if refusal is not None:
            return refusal
        self.devices.add(id_, MemoryDevice("hyperv", pfns))
        request = HotAddRequest(
            trans_id=self._next_id(),
            pages=_range(pfns),
            region=None if region is None else _range(region),
        )
        (answer,) = self._tell(request)
        if isinstance(answer, HotAddResponse) and answer.page_count:
            return OK
        refusals = self.guest.hot_add.refusals
        return (
            refusals[0]
            if refusals
            else Outcome.refused("EAGAIN", "hot_add_req", f"nothing of {pfns} was added")
        )

    def _grow(self, nr_pages: int) -> Outcome:
        """Give back what was taken; add the rest, as far as the guest's alignment allows."""
        back = self.removed.lowest(min(nr_pages, len(self.removed)))
        if back:
            self._unballoon(back)
        left = nr_pages - len(back)
        chunk = self._alignment_nr_pages
        most = _MOST_HOT_ADD_BYTES // self.kernel.arch.page_size_bytes // chunk * chunk or chunk
        while left >= chunk:
            pfns = self._place(min(left // chunk * chunk, most))
            self._nr_added += 1
            outcome = self._hot_add(f"{BALLOON}:{self._nr_added}", pfns, pfns)
            if not outcome:
                return outcome
            left -= len(pfns)
        if left:
            self.kernel.log.note(
                "driver",
                f"the host adds multiples of {format_size(self._bytes(chunk))} only: "
                f"the guest has {format_size(self._bytes(left))} less than it should",
                function="hot_add_alignment",
            )
        return OK

    @property
    def _alignment_nr_pages(self) -> int:
        assert self.capabilities is not None  # connected
        return (_MIB << self.capabilities.hot_add_alignment) // self.kernel.arch.page_size_bytes

    def _bytes(self, nr_pages: int) -> int:
        return nr_pages * self.kernel.arch.page_size_bytes

    def _place(self, nr_pages: int) -> PfnRange:
        """Return the next range behind all memory there is."""
        kernel = self.kernel
        page, chunk = kernel.arch.page_size_bytes, self._alignment_nr_pages
        base = dimm_space(kernel.arch.family, (kernel.boot_ram.max() + 1) * page).base // page
        ends = [region.end for region in self.guest.hot_add.regions]
        end = max([base, *ends, *(device.pfns.end for device in self.devices.by_id.values())])
        start = -(-end // chunk) * chunk
        return PfnRange(start, start + nr_pages)

    def _unballoon(self, pages: PfnSet) -> None:
        """Back pages again, and tell the guest."""
        self.removed -= pages
        self.devices.backing.backed |= pages
        ranges = [
            PageRange(start, min(run.end - start, _MOST_RANGE_PAGES))
            for run in pages.ranges()
            for start in range(run.start, run.end, _MOST_RANGE_PAGES)
        ]
        for first in range(0, len(ranges), MAX_RANGES):
            request = UnballoonRequest(
                trans_id=self._next_id(),
                more_pages=first + MAX_RANGES < len(ranges),
                ranges=tuple(ranges[first : first + MAX_RANGES]),
            )
            for _ in self._tell(request):
                pass

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
        pages = PfnSet()
        for answer in self._tell(BalloonRequest(trans_id=self._next_id(), num_pages=num_pages)):
            assert isinstance(answer, BalloonResponse)
            pages |= PfnSet.of_runs(answer.ranges)
        self.removed |= pages
        self.devices.backing.backed -= pages
        return len(pages)


def _range(pfns: PfnRange) -> PageRange:
    return PageRange(pfns.start, len(pfns))
