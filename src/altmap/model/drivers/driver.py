"""The base of all drivers: the devices of a machine, and the operations of a driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from altmap.errors import InputError, one_of
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.state import Kernel
from altmap.model.platform.backing import Backing
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Plug
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST, Outcome

__all__ = ("Devices", "Driver", "MemoryDevice", "to_guest", "to_host")


def to_guest(kernel: Kernel, text: str, function: str, message: bytes | None = None) -> None:
    """Record a message of the host to its guest.

    Parameters
    ----------
    kernel : Kernel
        The guest's.
    text : str
        The message's name and fields, in one line.
    function : str
        The guest's function that receives it.
    message : bytes, optional
        The bytes of the message, where they are modelled.
    """
    kernel.log.note("driver", HOST_TO_GUEST + text, function=function, message=message)


def to_host(kernel: Kernel, text: str, function: str, message: bytes | None = None) -> None:
    """Record a message of the guest to its host; *function* is the guest's that sends it."""
    kernel.log.note("driver", GUEST_TO_HOST + text, function=function, message=message)


@dataclass(slots=True)
class MemoryDevice:
    """A device with memory.

    Attributes
    ----------
    driver : str
        As a scenario names it.
    pfns : PfnRange
        Page frames that it occupies.
    more : tuple of PfnRange
        Further ranges of the same device.
    addition : Addition or None
        Its added range, if it is a single one.
    kept : str
        Why an unplug was refused; the device is then still plugged. Only shown.
    unbound : bool
        Its driver is unbound, and its memory stays (kmem).
    node : int
        The node that its platform gives it; only kept for DIMMs.
    sparse : bool
        Memory is plugged and unplugged within its range: only parts of it are memory blocks.
    """

    driver: str
    pfns: PfnRange
    addition: Addition | None = None
    kept: str = ""
    unbound: bool = False
    more: tuple[PfnRange, ...] = ()
    sparse: bool = False
    node: int = 0

    @property
    def ranges(self) -> tuple[PfnRange, ...]:
        """All page frames that it occupies."""
        return (self.pfns, *self.more)


@dataclass(slots=True)
class Devices:
    """The devices of a machine by id, the kernel of the machine, and its backed memory."""

    kernel: Kernel
    backing: Backing
    by_id: dict[str, MemoryDevice] = field(default_factory=dict)

    def get(self, id_: str) -> MemoryDevice:
        """Return a device.

        Raises
        ------
        InputError
            If there is none of that id.
        """
        if id_ not in self.by_id:
            raise InputError(
                f"device {id_!r}: no such device, "
                f"{one_of(id_, self.by_id) if self.by_id else 'none is plugged'}"
            )
        return self.by_id[id_]

    def add(self, id_: str, device: MemoryDevice) -> MemoryDevice:
        """Put in a device and back its memory, unless it lies where the kernel can map nothing."""
        self.by_id[id_] = device
        page = self.kernel.arch.page_size_bytes
        for pfns in device.ranges:
            if pfns.end <= (1 << self.kernel.arch.max_physmem_bits) // page:
                self.backing.backed |= pfns
        return device

    def remove(self, id_: str) -> None:
        """Take out a device; its memory is no longer backed."""
        for pfns in self.by_id.pop(id_).ranges:
            self.backing.backed -= pfns

    def additions(self, id_: str) -> list[Addition]:
        """Return the added ranges of a device, lowest first."""
        ranges = self.by_id[id_].ranges
        found = [a for a in self.kernel.additions if any(a.pfns.overlaps(r) for r in ranges)]
        return sorted(found, key=lambda addition: addition.pfns.start)

    def check_new(self, id_: str) -> None:
        """Check that no device has the id.

        Raises
        ------
        InputError
            If one has.
        """
        device = self.by_id.get(id_)
        if device is not None:
            kept = f"; its unplug was refused: {device.kept}" if device.kept else ""
            raise InputError(f"plug {id_!r}: a device of that id is plugged already{kept}")

    def pfns(self, address: int, size_bytes: int) -> PfnRange:
        """Return the page frames of a range of addresses.

        Raises
        ------
        InputError
            If it is not made of whole pages.
        """
        page = self.kernel.arch.page_size_bytes
        if address % page or size_bytes % page:
            raise InputError(
                f"range {address:#x}+{size_bytes:#x}: need multiples of the page size {page:#x}"
            )
        return PfnRange(address // page, (address + size_bytes) // page)

    def addresses(self) -> list[tuple[int, int]]:
        """Return the address ranges ``[start, end)`` that devices occupy."""
        page = self.kernel.arch.page_size_bytes
        ranges = [pfns for device in self.by_id.values() for pfns in device.ranges if pfns]
        return [(pfns.start * page, pfns.end * page) for pfns in ranges]

    def blocks(self, id_: str) -> list[int]:
        """Return the ids of a device's memory blocks, in the order of its ranges.

        They are those that were added for it. A device that is cut to whole blocks may share its
        first and last one with other memory, and then has no part in them. Where nothing was added
        they are the blocks that it would have.
        """
        kernel, device = self.kernel, self.get(id_)
        touched = [block for pfns in device.ranges if pfns for block in kernel.block_ids(pfns)]
        if device.sparse:
            return [block for block in touched if block in kernel.added_blocks]
        added = {block for a in self.additions(id_) for block in kernel.block_ids(a.pfns)}
        return [block for block in dict.fromkeys(touched) if not added or block in added]

    def further_ranges(self, plug: Plug) -> tuple[PfnRange, ...]:
        """Return the page frames of a plug's further ranges.

        Raises
        ------
        InputError
            If one is not made of whole pages, or touches memory that exists.
        """
        ranges: list[PfnRange] = []
        taken = PfnSet.of(self.kernel.boot_ram)
        for start, end in self.addresses():
            taken |= self.pfns(start, end - start)
        for item in plug.more_ranges:
            pfns = self.pfns(item.address, item.size)
            if taken.count(pfns):
                raise InputError(
                    f"plug {plug.id!r}: more_ranges [{item.address:#x}, "
                    f"{item.address + item.size:#x}) overlaps memory that exists"
                )
            taken |= pfns
            ranges.append(pfns)
        return tuple(ranges)


@dataclass(slots=True)
class Driver(ABC):
    """A driver that adds memory: the host's half and the guest's.

    Attributes
    ----------
    devices : Devices
        Those of all drivers, since they share the address space.
    """

    devices: Devices

    @property
    def kernel(self) -> Kernel:
        """The guest's kernel."""
        return self.devices.kernel

    @abstractmethod
    def plug(self, plug: Plug) -> Outcome:
        """Plug a device.

        Raises
        ------
        InputError
            If the host would refuse it.
        """

    def unplug(self, id_: str) -> Outcome:
        """Request that a device is removed; by default the driver never removes memory.

        Raises
        ------
        InputError
            If the host cannot ask for it.
        """
        driver = self.devices.get(id_).driver
        raise InputError(f"unplug {id_!r}: the driver {driver!r} never removes memory")

    def resize(self, id_: str, size_bytes: int) -> Outcome:
        """Request a new size of a device; by default the size of a device is fixed.

        Raises
        ------
        InputError
            If the host cannot ask for it.
        """
        driver = self.devices.get(id_).driver
        raise InputError(f"resize {id_!r} to {size_bytes:#x}: a {driver!r} device keeps its size")

    def sizes(self, id_: str) -> tuple[int, int]:
        """Return the size that is requested of a device, and its largest size, in bytes.

        By default both are the size that it was plugged with.
        """
        page = self.kernel.arch.page_size_bytes
        size_bytes = sum(map(len, self.devices.get(id_).ranges)) * page
        return size_bytes, size_bytes

    def work(self) -> None:  # noqa: B027
        """Do the work that a step has left pending; few drivers have any."""

    def take_over(self, device: MemoryDevice) -> None:  # noqa: B027
        """Take over a device that was plugged before the start; few drivers have state for it."""
