"""Devices that are there when a machine boots: given in the scenario, or left by a reboot.

The firmware does not list such memory as RAM (QEMU: e820, UEFI's map). A driver adds it while the
kernel boots, and the policy for new blocks onlines it, so that the kernel and user space start with
it online. Source: ``drivers/acpi/acpi_memhotplug.c: acpi_memory_device_add``, called by
``acpi_bus_scan`` at boot.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from altmap.errors import InputError, one_of
from altmap.model.arch import Arch
from altmap.model.drivers.driver import Devices, Driver
from altmap.scenario import DRIVER_KEYS, Address, Device, Plug, Size
from altmap.trace import Outcome

__all__ = ("check_at_boot", "plug_of_device", "plugs_after_reboot", "refused_at_boot")

#: Drivers whose devices are found at boot; what the others added is gone after a reboot.
_FOUND_AT_BOOT = ("dimm", "virtio-mem", "kmem", "standby")


def check_at_boot(plug: Plug, arch: Arch) -> None:
    """Check that such a device can be there at boot.

    Raises
    ------
    InputError
        If its driver finds none at boot, or the firmware lists its memory as boot memory.
    """
    where = f"device {plug.id!r} at boot"
    if plug.driver not in _FOUND_AT_BOOT:
        raise InputError(f"{where}: driver {plug.driver!r}: {one_of(plug.driver, _FOUND_AT_BOOT)}")
    if plug.driver == "dimm" and "dlpar" in arch.mechanisms:
        raise InputError(
            f"{where}: on {arch.name} the firmware lists it as boot memory: add it to "
            "machine.memory"
        )


def plug_of_device(device: Device) -> Plug:
    """Return the step that plugs a device of ``machine.devices``.

    Raises
    ------
    InputError
        If it says where its memmap lies, which the kernel decides.
    """
    if device.self_hosted is not None:
        raise InputError(f"machine.devices {device.id!r}: self_hosted: need a sysroot")
    return Plug(
        id=device.id,
        driver=device.driver,
        address=None if device.driver == "standby" else device.address,
        size=device.size,
        node=device.node if DRIVER_KEYS[device.driver].names_node else None,
        requested=device.requested,
        block=device.block,
    )


def refused_at_boot(plug: Plug, arch: Arch, limit_bytes: int | None) -> Outcome | None:
    """Return the refusal of a DIMM that ``mem=`` leaves out while the kernel boots.

    virtio-mem's driver is a module, which is loaded later. Source: ``mm/memory_hotplug.c:
    register_memory_resource``.
    """
    if limit_bytes is None or "adds at boot" not in arch.mem_limits or plug.driver != "dimm":
        return None
    if plug.address is None or plug.address + plug.size <= limit_bytes:
        return None
    why = f"it ends above mem={limit_bytes:#x}"
    return Outcome.refused(errno.E2BIG, "register_memory_resource", why)


def plugs_after_reboot(
    devices: Devices, plugs: dict[str, Plug], drivers: dict[str, Driver]
) -> Iterator[Plug]:
    """Yield the steps that plug again, while the kernel boots, what is plugged now.

    Memory that hv_balloon or the file probe added is gone. A dax device of persistent memory stays
    one until it is turned into system RAM again.

    Parameters
    ----------
    devices : Devices
    plugs : dict of str to Plug
        The latest step with each id.
    drivers : dict of str to Driver
    """
    page = devices.kernel.arch.page_size_bytes
    for id_, device in devices.by_id.items():
        plug = plugs.get(id_)
        if plug is None or plug.driver not in _FOUND_AT_BOOT or plug.dax == "pmem":
            continue
        requested = plug.requested
        if plug.driver == "virtio-mem":
            requested = Size(drivers[plug.driver].sizes(id_)[0])
        yield plug.replace(address=Address(device.pfns.start * page), requested=requested)
