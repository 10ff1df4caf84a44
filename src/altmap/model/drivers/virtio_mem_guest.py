"""virtio-mem's guest half: the work that plugs and unplugs memory, and the memory notifier.

Source: ``drivers/virtio/virtio_mem.c`` (6.1, 6.12, 7.3). The units of memory depend on the mode:
:mod:`altmap.model.drivers.virtio_mem_sbm` or :mod:`altmap.model.drivers.virtio_mem_bbm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from altmap.model.drivers.virtio_mem_wire import (
    Config,
    Request,
    RequestType,
    Response,
    ResponseType,
)
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.notifier import Notification, NotifierVeto
from altmap.model.kernel.registration import move_to_group
from altmap.model.kernel.remove import offline_and_remove_memory, try_remove_memory
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST, OK, Outcome
from altmap.units import format_size

__all__ = (
    "RESOURCE_NAME",
    "WORKER",
    "DeviceChannel",
    "Mode",
    "VirtioMemGuest",
    "kept_busy",
    "refused",
)

RESOURCE_NAME = "System RAM (virtio_mem)"
#: drivers/virtio/virtio_mem.c: virtio_mem_config_changed
WORKER = "virtio_mem_run_wq (system_freezable_wq)"
_OFFLINE_THRESHOLD_BYTES = 1 << 30
_RETRY_SECONDS, _MOST_RETRY_SECONDS = 50, 300
#: The main loop tries again at once on EAGAIN, which a config change causes; after so many rounds
#: the device refuses every time.
_MOST_ROUNDS = 64
_FUNCTIONS = {
    RequestType.PLUG: "virtio_mem_send_plug_request",
    RequestType.UNPLUG: "virtio_mem_send_unplug_request",
}
#: The driver's errno for a request and its response; ENOMEM for others.
_ERRNO = {
    (RequestType.PLUG, ResponseType.NACK): "EAGAIN",
    (RequestType.PLUG, ResponseType.BUSY): "ETXTBSY",
    (RequestType.PLUG, ResponseType.ERROR): "EINVAL",
    (RequestType.UNPLUG, ResponseType.BUSY): "ETXTBSY",
    (RequestType.UNPLUG, ResponseType.ERROR): "EINVAL",
    (RequestType.UNPLUG_ALL, ResponseType.BUSY): "ETXTBSY",
}


class DeviceChannel(Protocol):
    """The device as the driver accesses it."""

    def config(self) -> bytes:
        """Return the config space."""
        ...

    def handle(self, raw: bytes) -> bytes:
        """Answer a request."""
        ...


class Mode(Protocol):
    """The units of the region: Sub-Block Mode or Big-Block Mode."""

    name: str

    @property
    def unit_nr_pages(self) -> int:
        """Pages that are added and removed at a time."""
        ...

    @property
    def threshold_nr_pages(self) -> int:
        """Pages that must be allowed to be offline at a time."""
        ...

    def describe(self) -> str:
        """Return the units of memory, in words."""
        ...

    def refresh(self, end: int) -> None:
        """Set the end of the usable region, a pfn."""
        ...

    def cleanup(self) -> Outcome:
        """Finish what an earlier run has left."""
        ...

    def plug(self, nr_pages: int) -> Outcome:
        """Plug and add up to so many pages."""
        ...

    def unplug(self, nr_pages: int) -> Outcome:
        """Remove and unplug up to so many pages."""
        ...

    def pending(self) -> bool:
        """Tell whether cleanup is pending."""
        ...

    def notify(self, action: str, pfns: PfnRange) -> NotifierVeto | None:
        """Handle a notification about memory blocks of the region."""
        ...

    def kept_fake_offline(self, pages: PfnSet) -> PfnSet:
        """Return those of pages going online that must stay fake-offline."""
        ...

    def take_over(self, additions: list[Addition], plugged: PfnSet) -> None:
        """Take over memory that was added and plugged before the start."""
        ...


def refused(errno: str, function: str, why: str) -> Outcome:
    """Return the refusal of a function of the driver."""
    return Outcome.refused(errno, function, why)


def kept_busy(function: str, left: str, nr_left: int, kept: list[Outcome]) -> Outcome:
    """Return the refusal of an unplug request that found too little memory that can move.

    It is as unsure as what kept its blocks or sub-blocks, unless more are missing than are unsure.

    Parameters
    ----------
    function : str
    left : str
        The size of what is missing.
    nr_left : int
        How many units are missing.
    kept : list of Outcome
        Why units stay, one each.
    """
    refusal = refused("EBUSY", function, f"{left} of plugged memory cannot move")
    unsure = [outcome for outcome in kept if outcome.certainty != "certain"]
    if len(unsure) < nr_left:
        return refusal
    return refusal.doubted(unsure[0].certainty, unsure[0].doubt)


@dataclass(slots=True, eq=False)
class VirtioMemGuest:
    """The driver's state of one device (``struct virtio_mem``).

    Attributes
    ----------
    kernel : Kernel
    device : DeviceChannel
    name : str
        As in ``/proc/iomem``: ``virtio0``.
    config : Config
        As last read.
    group : MemoryGroup
        The dynamic memory group of all that it adds.
    mode : Mode
    plugged_nr_pages : int
        Pages that are plugged, as the driver counts them.
    offline_nr_pages : int
        Pages that it has added and that are not online.
    broken : bool
        An unknown error has occurred; the driver does nothing any more.
    config_changed, queued, active, unplug_all : bool
        A config interrupt is not handled yet; work is queued; work is running; all memory is to be
        unplugged.
    retry_seconds : int
        When the timer tries again after a refusal, doubled up to five minutes each time.
    last : Outcome
        The outcome of the last work.
    """

    kernel: Kernel
    device: DeviceChannel
    name: str
    config: Config
    group: MemoryGroup = field(init=False)
    mode: Mode = field(init=False)
    plugged_nr_pages: int = 0
    offline_nr_pages: int = 0
    broken: bool = False
    config_changed: bool = True
    queued: bool = True
    active: bool = False
    unplug_all: bool = False
    retry_seconds: int = _RETRY_SECONDS
    last: Outcome = OK

    # --- sizes -----------------------------------------------------------------------------

    @property
    def page_size_bytes(self) -> int:
        """Bytes of a page."""
        return self.kernel.arch.page_size_bytes

    @property
    def pfns(self) -> PfnRange:
        """The region's page frames."""
        page = self.page_size_bytes
        return PfnRange(
            self.config.addr // page, (self.config.addr + self.config.region_size) // page
        )

    @property
    def pluggable_end(self) -> int:
        """End of what may be added, a pfn (``mhp_get_pluggable_range``)."""
        return (1 << self.kernel.arch.max_physmem_bits) // self.page_size_bytes

    @property
    def requested_nr_pages(self) -> int:
        """Pages that the device requests."""
        return self.config.requested_size // self.page_size_bytes

    @property
    def threshold_nr_pages(self) -> int:
        """How much may be added and offline at a time."""
        default = _OFFLINE_THRESHOLD_BYTES // self.page_size_bytes
        return max(default, 2 * self.kernel.block_nr_pages, self.mode.threshold_nr_pages)

    def could_add(self, nr_pages: int) -> bool:
        """Tell whether so many more pages may be offline (``virtio_mem_could_add_memory``)."""
        return self.offline_nr_pages + nr_pages <= self.threshold_nr_pages

    def take_over(self, plugged: PfnSet) -> None:
        """Take over memory that was plugged and added before the start.

        Every memory block of the region is one addition; the mode joins those that it adds
        together.
        """
        kernel = self.kernel
        self.config_changed = self.queued = False
        self.plugged_nr_pages = len(plugged)
        additions = [add for add in kernel.additions if add.pfns.start in self.pfns]
        for addition in additions:
            nr_online = move_to_group(kernel, addition, self.group)
            self.offline_nr_pages += len(addition.pfns) - nr_online
        self.mode.take_over(additions, plugged)
        usable_end = (self.config.addr + self.config.usable_region_size) // self.page_size_bytes
        self.mode.refresh(min(usable_end, self.pluggable_end))

    # --- requests --------------------------------------------------------------------------

    def send_plug(self, pfns: PfnRange) -> Outcome:
        """Request that a range is plugged (``virtio_mem_send_plug_request``)."""
        return self._send_change(RequestType.PLUG, pfns)

    def send_unplug(self, pfns: PfnRange) -> Outcome:
        """Request that a range is unplugged (``virtio_mem_send_unplug_request``)."""
        return self._send_change(RequestType.UNPLUG, pfns)

    def _send_change(self, kind: RequestType, pfns: PfnRange) -> Outcome:
        function = _FUNCTIONS[kind]
        if self.config_changed:
            return refused("EAGAIN", function, "the config changed")
        address, size = (number * self.page_size_bytes for number in (pfns.start, len(pfns)))
        # The field has 16 bits, and the driver does not check that the number fits.
        nb_blocks = size // self.config.block_size & 0xFFFF
        outcome = self._send(Request(kind, address, nb_blocks), pfns, function)
        if outcome:
            self.plugged_nr_pages += len(pfns) if kind is RequestType.PLUG else -len(pfns)
        return outcome

    def _send_unplug_all(self) -> Outcome:
        function = "virtio_mem_send_unplug_all_request"
        outcome = self._send(Request(RequestType.UNPLUG_ALL), self.pfns, function)
        if outcome:
            self.unplug_all, self.config_changed = False, True
            self.plugged_nr_pages = 0
        return outcome

    def _send(self, request: Request, pfns: PfnRange, function: str) -> Outcome:
        raw, kernel = request.encode(), self.kernel
        if kernel.log.enabled:
            asked = self._asked(request, pfns)
            kernel.log.note("driver", GUEST_TO_HOST + asked, pfns, function, raw)
        answer = self.device.handle(raw)
        response = Response.decode(answer)
        if kernel.log.enabled:
            answered = HOST_TO_GUEST + response.type.name
            kernel.log.note("driver", answered, None, "virtio_mem_handle_response", answer)
        if response.type is ResponseType.ACK:
            return OK
        asked = self._asked(request, pfns)
        errno = _ERRNO.get((request.type, response.type), "ENOMEM")
        return refused(errno, function, f"{asked} was answered with {response.type.name}")

    def _asked(self, request: Request, pfns: PfnRange) -> str:
        page = self.page_size_bytes
        return f"{request.type.name} {pfns.start * page:#x} - {pfns.end * page - 1:#x}"

    # --- for both modes --------------------------------------------------------------------

    def add_memory(self, pfns: PfnRange, plugged: PfnRange) -> Outcome:
        """Add a range to Linux, part of which is plugged, without MHP_MEMMAP_ON_MEMORY.

        Source: ``virtio_mem_add_memory``: MHP_MERGE_RESOURCE | MHP_NID_IS_MGID.
        """
        self.offline_nr_pages += len(pfns)
        outcome = add_memory_resource(
            self.kernel,
            pfns,
            self.group.node,
            asks=False,
            usable=plugged,
            group=self.group,
            resource_name=RESOURCE_NAME,
            merges=True,
        )
        if not outcome:
            self.offline_nr_pages -= len(pfns)
        return outcome

    def remove_memory(self, pfns: PfnRange) -> Outcome:
        """Remove an offline range from Linux (``virtio_mem_remove_memory``)."""
        addition = self.kernel.addition_of(pfns.start)
        assert addition is not None  # its block exists
        return self._removed(pfns, try_remove_memory(self.kernel, addition))

    def offline_and_remove_memory(self, pfns: PfnRange) -> Outcome:
        """Offline a range and remove it (``virtio_mem_offline_and_remove_memory``)."""
        outcome = offline_and_remove_memory(self.kernel, pfns, worker=WORKER)
        return self._removed(pfns, outcome)

    def _removed(self, pfns: PfnRange, outcome: Outcome) -> Outcome:
        if outcome:
            self.offline_nr_pages -= len(pfns)
            self.queued = True
        return outcome

    def note(self, text: str, function: str) -> None:
        """Log an action of the driver."""
        self.kernel.log.note("driver", f"{self.name}: {text}", None, function)

    # --- notifier --------------------------------------------------------------------------

    def memory_notifier_cb(self, notification: Notification) -> NotifierVeto | None:
        """Handle a notification (``virtio_mem_memory_notifier_cb``).

        The range that it gets leaves out the pages that hold the block's memmap.
        """
        action, pfns = notification.action, notification.pfns
        pfns = PfnRange(pfns.start + notification.altmap_nr_pages, pfns.end)
        if action.startswith("NODE_") or not pfns.overlaps(self.pfns):
            return None
        veto = self.mode.notify(action, pfns)
        if action == "MEM_OFFLINE":
            self.offline_nr_pages += len(pfns)
            self.queued |= not self.kernel.tunables.virtio_mem.unplug_online
        if action == "MEM_ONLINE":
            self.offline_nr_pages -= len(pfns)
            half = self.threshold_nr_pages // 2
            self.queued |= not self.active and self.could_add(half)
        return veto

    # --- the work --------------------------------------------------------------------------

    def run(self, refresh: Callable[[], None] = lambda: None) -> Outcome:
        """Do the work until nothing is queued; return how it ended (``virtio_mem_run_wq``).

        Parameters
        ----------
        refresh : callable
            Called before each round, so that the config can change meanwhile.
        """
        while self.queued and not self.broken:
            refresh()
            self.queued = False
            self.active = True
            self.last = self._rounds()
            if not self.last.ends:
                return self.last
            self.active = False
            self._conclude()
        return self.last

    def _rounds(self) -> Outcome:
        outcome = OK
        for _ in range(_MOST_ROUNDS):
            outcome = self._round()
            if outcome.errno != "EAGAIN":
                break
        return outcome

    def _round(self) -> Outcome:
        outcome = self._send_unplug_all() if self.unplug_all else OK
        if self.config_changed:
            self.config_changed = False
            self._refresh_config()
        if outcome:
            outcome = self.mode.cleanup()
        wanted = self.requested_nr_pages - self.plugged_nr_pages
        if outcome and wanted:
            outcome = self.mode.plug(wanted) if wanted > 0 else self.mode.unplug(-wanted)
        if outcome and self.mode.pending():
            return refused(
                "EBUSY", "virtio_mem_run_wq", "memory blocks that are unplugged still exist"
            )
        return outcome

    def _refresh_config(self) -> None:
        self.read_config()
        usable_end = (self.config.addr + self.config.usable_region_size) // self.page_size_bytes
        self.mode.refresh(min(usable_end, self.pluggable_end))

    def read_config(self) -> None:
        """Read the config space again (``virtio_mem_refresh_config``)."""
        raw = self.device.config()
        self.config = Config.decode(raw)
        self.kernel.log.note(
            "driver",
            f"{HOST_TO_GUEST}{self.name} config: plugged {format_size(self.config.plugged_size)}, "
            f"requested {format_size(self.config.requested_size)}, usable "
            f"{format_size(self.config.usable_region_size)}",
            None,
            "virtio_mem_refresh_config",
            raw,
        )

    def _conclude(self) -> None:
        errno = self.last.errno
        if self.last:
            self.retry_seconds = _RETRY_SECONDS
        elif errno in ("ETXTBSY", "EBUSY", "ENOMEM"):
            self.note(f"tries again in {self.retry_seconds} s", "virtio_mem_run_wq")
            self.retry_seconds = min(2 * self.retry_seconds, _MOST_RETRY_SECONDS)
        elif errno not in ("ENOSPC", "EAGAIN"):
            self.broken = True
            self.note(f"unknown error, marking device broken: {errno}", "virtio_mem_run_wq")
