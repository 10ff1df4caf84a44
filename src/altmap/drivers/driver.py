"""What every way of adding memory has in common: its devices, and what a machine asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.kernel.state import Addition, Kernel
from altmap.pfn import PfnRange
from altmap.platform.backing import Backing
from altmap.scenario import Plug
from altmap.trace import Outcome

__all__ = ("Device", "Devices", "Driver")


@dataclass(slots=True)
class Device:
    """Something that brought memory.

    Attributes
    ----------
    driver : str
        As a scenario names it.
    pfns : PfnRange
        What it occupies.
    addition : Addition or None
        What the kernel made of it, if it is one add.
    kept : str
        Why an unplug was refused; the device is then still there.
    """

    driver: str
    pfns: PfnRange
    addition: Addition | None = None
    kept: str = ""


@dataclass(slots=True)
class Devices:
    """The devices of a machine by id, the kernel that sees them, and what backs them."""

    kernel: Kernel
    backing: Backing
    by_id: dict[str, Device] = field(default_factory=dict)

    def get(self, id_: str) -> Device:
        """Return a device.

        Raises
        ------
        InputError
            If there is none of that id.
        """
        if id_ not in self.by_id:
            known = ", ".join(map(repr, self.by_id)) or "none is plugged"
            raise InputError(f"device {id_!r}: no such device ({known})")
        return self.by_id[id_]

    def add(self, id_: str, device: Device) -> Device:
        """Put in a device and back its memory, unless it lies where nothing can be mapped."""
        self.by_id[id_] = device
        page = self.kernel.arch.page_size_bytes
        if device.pfns.end <= (1 << self.kernel.arch.max_physmem_bits) // page:
            self.backing.backed |= device.pfns
        return device

    def remove(self, id_: str) -> None:
        """Take out a device and what backed its memory."""
        self.backing.backed -= self.by_id.pop(id_).pfns

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
        return [(d.pfns.start * page, d.pfns.end * page) for d in self.by_id.values()]


@dataclass(slots=True)
class Driver(ABC):
    """One way of adding memory: the host's half and the guest's.

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
        """Bring memory.

        Raises
        ------
        InputError
            If the host would not do it.
        """

    def unplug(self, id_: str) -> Outcome:
        """Ask a device back; by default the driver never removes memory.

        Raises
        ------
        InputError
            If the host cannot ask for it.
        """
        driver = self.devices.get(id_).driver
        raise InputError(f"unplug {id_!r}: the driver {driver!r} never removes memory")

    def resize(self, id_: str, size_bytes: int) -> Outcome:
        """Tell a device its new size; by default a device keeps the one that it came with.

        Raises
        ------
        InputError
            If the host cannot ask for it.
        """
        driver = self.devices.get(id_).driver
        raise InputError(f"resize {id_!r} to {size_bytes:#x}: a {driver!r} device keeps its size")

    def work(self) -> None:  # noqa: B027
        """Do what the driver does by itself once a block was onlined; few have a thread."""

    def take_over(self, device: Device) -> None:  # noqa: B027
        """Carry on with a device that was there before the start; few drivers keep books."""
