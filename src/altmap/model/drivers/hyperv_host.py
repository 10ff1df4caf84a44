"""Hyper-V dynamic memory on the model: the host of :mod:`altmap.protocol.hyperv_host` and a guest.

The guest's driver answers at once, so that its messages wait in a queue until the host asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from altmap.errors import InputError
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice, to_guest, to_host
from altmap.model.drivers.facts import DriverRecord
from altmap.model.drivers.hyperv import HypervBalloon
from altmap.model.platform.qemu import dimm_space
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_host import (
    BALLOON,
    HYPERV_PAGE_BYTES,
    HYPERV_VERSIONS,
    DynamicMemoryHost,
    check_hot_add,
)
from altmap.protocol.hyperv_messages import Message, decode, describe, encode, guest_function
from altmap.scenario import Plug
from altmap.trace import Outcome

__all__ = ("RECORD", "HypervHost")

RECORD = DriverRecord(
    name="Hyper-V",
    scenario='`driver = "hyperv"`, `balloon = "hyperv"`',
    adds="chunks of 128 MiB; since 6.10 one block",
    partly_backed="yes, any page of 4 KiB",
    touches_offline="only what the host has named; the rest not even to read",
    opts_in="never",
    gives_back="pages, by the balloon; blocks never",
    group="none",
    resource="`System RAM`, merged with its neighbours",
    lab="yes, Debian's hv_balloon on a VMBus of the lab, with hidden DIMMs that back frames",
    sources="drivers/hv/hv_balloon.c; QEMU's hw/hyperv/hv-balloon.c",
)

_MIB = 1 << 20

#: Free pages of ZONE_MOVABLE are available (``si_mem_available``), and no balloon allocates them.
_EXHAUSTED = (
    "the balloon has the kernel zones down to their minimum, since free pages of ZONE_MOVABLE "
    "count as available too: the kernel's next allocations may end in a panic (out_of_memory)"
)


class HypervHost(Driver):
    """A host and the balloon of its guest.

    Parameters
    ----------
    devices : Devices
    versions : tuple of str
        Versions of the protocol that the host accepts.
    """

    def __init__(self, devices: Devices, versions: tuple[str, ...] = HYPERV_VERSIONS) -> None:
        Driver.__init__(self, devices)
        self.guest = HypervBalloon(devices.kernel)
        self.host = DynamicMemoryHost(self, versions)
        self._sent: list[Message] = []
        # Firmware keeps part of boot memory, which belongs to the guest all the same.
        page = devices.kernel.arch.page_size_bytes
        backed = len(devices.backing.backed) * page
        self._unlisted_nr_pages = -backed % (2 * _MIB) // page
        devices.by_id.setdefault(BALLOON, MemoryDevice("hyperv", PfnRange(0, 0)))

    def plug(self, plug: Plug) -> Outcome:
        """Back a range and ask the guest to add it; where System RAM is, the kernel refuses it."""
        self.devices.check_new(plug.id)
        assert plug.address is not None  # checked with the scenario
        pfns = self.devices.pfns(plug.address, plug.size)
        mine = PfnSet(d.pfns for d in self.devices.by_id.values() if d.driver == "hyperv")
        if mine.count(pfns) or self.host.removed.count(pfns):
            raise InputError(
                f"plug {plug.id!r}: [{plug.address:#x}, {plug.address + plug.size:#x}) "
                "overlaps memory that the host backs already"
            )
        region = None
        if plug.region is not None:
            region = self.devices.pfns(plug.region.address, plug.region.size)
        check_hot_add(plug.id, pfns, region)
        backed = self.devices.backing.backed.copy()
        outcome = self.host.hot_add(plug.id, pfns, region)
        if outcome.errno == "EEXIST":
            # System RAM is there, and nothing of the range belongs to this host.
            self.devices.by_id.pop(plug.id)
            self.devices.backing.backed = backed
        if not self.host.failed:
            self._post_status()
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
        self.guest.exhausts_kernel_zones = False
        outcome = self.host.resize(id_, size_bytes)
        if not self.host.failed:
            self._post_status()
        return (
            outcome.doubted("unknown", _EXHAUSTED) if self.guest.exhausts_kernel_zones else outcome
        )

    def _post_status(self) -> None:
        """Let the guest report its pressure, which is part of no transaction."""
        self._record(self.guest.post_status())

    # --- the guest, as the host deals with it ----------------------------------------------

    @property
    def assigned_nr_pages(self) -> int:
        """What the guest has from its host: boot memory and what was added, less what was taken."""
        nr_pages = len(self.devices.backing.backed) + self._unlisted_nr_pages
        return nr_pages * self.kernel.arch.page_size_bytes // HYPERV_PAGE_BYTES

    @property
    def end_pfn(self) -> int:
        """The page frame behind all memory there is, and behind what the driver made of it."""
        kernel = self.kernel
        page = kernel.arch.page_size_bytes
        base = dimm_space(kernel.arch.board, (kernel.boot_ram.max() + 1) * page).base // page
        ends = [region.end for region in self.guest.hot_add.regions]
        end = max([base, *ends, *(device.pfns.end for device in self.devices.by_id.values())])
        return end * page // HYPERV_PAGE_BYTES

    def open(self) -> None:
        """Start the guest's driver, which asks for a version."""
        self._queue([self.guest.probe()])

    def send(self, message: Message) -> None:
        """Give the guest's driver a message; its answers wait in the queue."""
        raw = encode(message)
        to_guest(self.kernel, describe(message), guest_function(message), raw)
        self._queue(self.guest.receive(raw))

    def receive(self) -> Message:
        """Return the guest's next message."""
        return self._sent.pop(0)

    def back(self, id_: str, pages: PfnRange) -> None:
        """Back a range that is about to be added."""
        self.devices.add(id_, MemoryDevice("hyperv", pages))

    def back_again(self, pages: PfnSet) -> None:
        """Back pages again that were taken."""
        self.devices.backing.backed |= pages

    def take(self, pages: PfnSet) -> None:
        """Stop backing pages that the guest gave."""
        self.devices.backing.backed -= pages

    def why_not_added(self, pages: PfnRange) -> Outcome:
        """Return the kernel's refusal of the latest request."""
        refusals = self.guest.hot_add.refusals
        nothing = Outcome.refused("EAGAIN", "hot_add_req", f"nothing of {pages} was added")
        return refusals[0] if refusals else nothing

    def note(self, text: str, function: str) -> None:
        """Write down what the host could not do."""
        self.kernel.log.note("driver", text, function=function)

    def _queue(self, raw_messages: Iterable[bytes]) -> None:
        for raw in raw_messages:
            self._sent.append(self._record(raw))

    def _record(self, raw: bytes) -> Message:
        message = decode(raw)
        to_host(self.kernel, describe(message), guest_function(message), raw)
        return message
