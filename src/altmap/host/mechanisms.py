"""The ways by which memory is asked for, one record each: which step it is, and who takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.errors import InputError, one_of
from altmap.model.machine import ModelMachine
from altmap.scenario import Address, OnlineType, Plug, Resize, Size, Unplug

__all__ = ("WAYS", "PlugWish", "Way", "way_of", "way_of_device")


@dataclass(frozen=True, slots=True)
class PlugWish:
    """What is to be added.

    Attributes
    ----------
    size_bytes : int
    driver : str or None
        One of :data:`WAYS`; ``None`` for the machine's usual one.
    node, address : int or None
    device : str or None
        A device of the same plan that has room for more.
    to : str or None
        Word for the new blocks; ``None`` leaves it to the kernel's default, or to ``online`` if
        that is ``offline``.
    """

    size_bytes: int
    driver: str | None = None
    node: int | None = None
    address: int | None = None
    device: str | None = None
    to: OnlineType | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How memory of one driver is asked for and given back.

    Attributes
    ----------
    driver : str
        As the command line names it.
    adds : callable
        ``(machine, wish, size_bytes, id)`` to the step that brings memory.
    by : str
        The actor of that step, and how it acts.
    removes : callable or None
        ``(id)`` to the step that takes a device back, ``None`` if the driver never gives back.
    removed_by : str
    in_sysfs : str
        What names such a device: the driver as :class:`altmap.host.devices.BlockDevice` has it.
    offlines_first : bool
        Its blocks must be offline before it is removed.
    onlines_itself : bool
        The driver waits until its blocks are online, so that the kernel should do it at once.
    needs_address : bool
        Only the platform knows where the memory lies.
    by_block : bool
        Each memory block is asked for by itself.
    """

    driver: str
    adds: Callable[[ModelMachine, PlugWish, int, str], Plug | Resize]
    by: str
    removes: Callable[[str], Unplug | Resize] | None = None
    removed_by: str = ""
    in_sysfs: str = ""
    offlines_first: bool = True
    onlines_itself: bool = False
    needs_address: bool = False
    by_block: bool = False


def _plug(driver: str) -> Callable[[ModelMachine, PlugWish, int, str], Plug]:
    def adds(machine: ModelMachine, wish: PlugWish, size_bytes: int, id_: str) -> Plug:
        del machine
        address = None if wish.address is None else Address(wish.address)
        return Plug(id=id_, size=Size(size_bytes), driver=driver, address=address, node=wish.node)

    return adds


def _grow_region(machine: ModelMachine, wish: PlugWish, size_bytes: int, id_: str) -> Plug | Resize:
    """Request more of a virtio-mem device that has room; else, or for another node, plug one.

    A new one has room for all that is wished, of which *size_bytes* are requested now.
    """
    usable = machine.device_ids("virtio-mem") if wish.node is None else []
    for known in usable if wish.device is None else [wish.device]:
        size, most = machine.device_sizes(known)
        if size + size_bytes <= most:
            return Resize(id=known, size=Size(size + size_bytes))
    plug = _plug("virtio-mem")(machine, wish, max(size_bytes, wish.size_bytes), id_)
    return plug.replace(requested=Size(size_bytes))


def _raise_target(machine: ModelMachine, wish: PlugWish, size_bytes: int, id_: str) -> Resize:
    del wish, id_
    for known in machine.device_ids("xen"):
        return Resize(id=known, size=Size(machine.device_sizes(known)[0] + size_bytes))
    raise InputError("--driver xen: the machine is no Xen domain with a balloon")


def _unplug(id_: str) -> Unplug:
    return Unplug(id=id_)


def _shrink_to_nothing(id_: str) -> Resize:
    return Resize(id=id_, size=Size(0))


WAYS: dict[str, Way] = {
    way.driver: way
    for way in (
        Way(
            "dimm",
            _plug("dimm"),
            "the hypervisor or firmware (QEMU: object-add and device_add pc-dimm; POWER: drmgr -c "
            "mem -a)",
            _unplug,
            "the hypervisor or firmware (QEMU: device_del; POWER: drmgr -c mem -r)",
            in_sysfs="acpi",
        ),
        Way(
            "hyperv",
            _plug("hyperv"),
            "the Hyper-V host, when the guest reports pressure or its memory is resized",
            needs_address=True,
        ),
        Way(
            "virtio-mem",
            _grow_region,
            "the hypervisor (QEMU: qom-set requested-size; libvirt: virsh update-memory-device "
            "--requested-size)",
            _shrink_to_nothing,
            "the hypervisor (QEMU: qom-set requested-size 0)",
            in_sysfs="virtio_mem",
            offlines_first=False,
            onlines_itself=True,
        ),
        Way(
            "kmem",
            _plug("kmem"),
            "root, on this machine: daxctl reconfigure-device --mode=system-ram DEVICE",
            _unplug,
            "root, on this machine: daxctl reconfigure-device --mode=devdax DEVICE",
            in_sysfs="kmem",
        ),
        Way(
            "standby",
            _plug("standby"),
            "the hypervisor, before boot (z/VM: DEFINE STORAGE STANDBY); chmem -e brings it in",
        ),
        Way(
            "probe",
            _plug("probe"),
            "root, on this machine: the address is written to /sys/devices/system/memory/probe",
            needs_address=True,
            by_block=True,
        ),
        Way(
            "xen",
            _raise_target,
            "the toolstack (xl mem-set), or root on this machine by writing target_kb",
            onlines_itself=True,
        ),
    )
}


def way_of(machine: ModelMachine, driver: str | None, usual: str | None = None) -> Way:
    """Return a driver's way, or the one that is usual on a machine or its platform.

    Raises
    ------
    InputError
        If there is no such driver.
    """
    if driver is None:
        driver = "xen" if machine.device_ids("xen") else "dimm"
        driver = "standby" if "standby" in machine.kernel.arch.mechanisms else driver
        driver = usual or driver
    if driver not in WAYS:
        raise InputError(f"driver {driver!r}: {one_of(driver, WAYS)}")
    return WAYS[driver]


def way_of_device(name: str) -> Way | None:
    """Return the way of a device by the driver that the files name, ``None`` if there is none."""
    return next((way for way in WAYS.values() if way.in_sysfs == name), None)
