"""A definition as the platform of a plan: its driver, what it leaves, and its commands."""

from __future__ import annotations

import re

from altmap.host.platforms import DefinedPlatform
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Plug, Resize, Step, Unplug
from altmap.vm.answers import BootedGuest
from altmap.vm.definition import DefinedDevice
from altmap.vm.words import command, has_command, total_bytes

__all__ = ("files_at_boot", "platform_of_definition")

_BLOCKS = "sys/devices/system/memory"


def files_at_boot(guest: BootedGuest) -> Sysroot:
    """Return the files of a guest that has booted; its DIMMs are called as in the definition."""
    sysroot = guest.booted.observe().render()
    blocks = guest.booted.kernel.added_blocks
    for device in guest.machine.machine.devices:
        if device.driver == "dimm":
            first = device.address // guest.block_bytes
            for number in range(first, first + device.size // guest.block_bytes):
                if number in blocks:
                    sysroot.links[f"{_BLOCKS}/memory{number}/firmware_node"] = device.id
    return sysroot


def platform_of_definition(guest: BootedGuest) -> DefinedPlatform:
    """Return what a definition says of a guest's hypervisor."""
    definition = guest.definition
    ways = [way for way in guest.ways() if way.driver != "balloon"]
    usable = [way for way in ways if not way.missing and way.limit_bytes > way.start_bytes]
    cannot = ""
    if not usable:
        cannot = (
            ways[0].missing or f"nothing can be added while it runs: {ways[0].limit}"
            if ways
            else "nothing can be added while it runs; altmap vm says what to change"
        )

    def words(step: Step, added_bytes: int) -> str:
        return _command(guest, step, added_bytes)

    return DefinedPlatform(
        name=f"{definition.format} {definition.name!r}",
        driver=usable[0].driver if usable else None,
        command=words,
        cannot=cannot,
        slots=next((way.slots for way in ways if way.driver == "dimm"), None),
        most_bytes={way.driver: way.limit_bytes - way.start_bytes for way in ways},
        knows_address=definition.hypervisor == "qemu",
        **_balloon(guest),
    )


def _balloon(guest: BootedGuest) -> dict[str, int]:
    """Return what a guest has beside its balloon, and at most."""
    balloon, most = guest.definition.balloon, guest.machine.start_bytes
    if balloon.present is False or not has_command(guest.definition, "balloon"):
        return {}
    now = most if balloon.current_bytes is None else min(most, balloon.current_bytes)
    return {"balloon_bytes": now, "balloon_most_bytes": most}


def _command(guest: BootedGuest, step: Step, added_bytes: int) -> str:
    """Return the hypervisor's command for a step of the platform."""
    definition = guest.definition
    total = total_bytes(definition) + added_bytes
    if isinstance(step, Plug):
        is_region = step.driver == "virtio-mem"
        size = int(step.size if step.requested is None else step.requested)
        return command(
            definition,
            "add_virtio_mem" if is_region else "add",
            id_=step.id,
            size_bytes=size,
            region_bytes=step.size,
            total=total + size,
            node=step.node,
        )
    if isinstance(step, Resize):
        device = None if step.id == "balloon" else _numbered(guest, step.id, "virtio-mem")
        if device is None:
            return command(definition, "balloon", total=step.size)
        others = total - (device.requested_bytes or 0)
        return command(
            definition,
            "resize",
            id_=device.name,
            size_bytes=step.size,
            total=others + step.size,
        )
    if isinstance(step, Unplug):
        device = _numbered(guest, step.id, "dimm")
        size = device.size_bytes if device is not None else 0
        name = device.name if device is not None else step.id
        return command(definition, "remove", id_=name, size_bytes=size, total=total - size)
    return ""


def _numbered(guest: BootedGuest, name: str, kind: str) -> DefinedDevice | None:
    """Return the device that a guest calls so: by its name, else by the number in it.

    ACPI numbers the slots of DIMMs (``PNP0C80:00``), the kernel its virtio devices in their order.
    """
    devices = [each for each in guest.definition.devices if each.kind == kind]
    by_name = next((each for each in devices if each.name == name), None)
    if by_name is not None or len(devices) == 1:
        return by_name or devices[0]
    match = re.search(r"([0-9A-Fa-f]+)$", name.partition(":")[2] or name)
    number = int(match[1], 16) if match else len(devices)
    return devices[number] if number < len(devices) else None
