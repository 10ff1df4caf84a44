"""ACPI memory devices (DIMMs): ``drivers/acpi/acpi_memhotplug.c`` and ``drivers/acpi/scan.c``."""

from __future__ import annotations

from dataclasses import replace

from altmap.drivers.driver import Device, Driver
from altmap.errors import InputError
from altmap.kernel.hotplug import (
    add_memory_resource,
    memory_block_offline,
    memory_block_online,
    try_remove_memory,
)
from altmap.kernel.memmap import memmap_on_memory_nr_pages
from altmap.kernel.state import Addition, Group, Kernel
from altmap.pfn import PfnRange
from altmap.platform.qemu import dimm_space, place_dimm
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("AcpiDimms", "eject", "insert", "plug_dimm")


class AcpiDimms(Driver):
    """DIMMs that QEMU plugs and the kernel hears of through ACPI."""

    def plug(self, plug: Plug) -> Outcome:
        """Plug a DIMM and let the kernel handle the insert event."""
        device, node = plug_dimm(self, plug)
        before = len(self.kernel.additions)
        outcome = insert(self.kernel, device.pfns, node)
        if len(self.kernel.additions) > before:
            device.addition = self.kernel.additions[-1]
        return outcome

    def unplug(self, id_: str) -> Outcome:
        """Ask a DIMM back; a DIMM whose add was refused just goes."""
        device = self.devices.get(id_)
        outcome = OK if device.addition is None else eject(self.kernel, device.addition)
        if outcome:
            self.devices.remove(id_)
        else:
            device.kept = outcome.why
        return outcome


def plug_dimm(driver: Driver, plug: Plug) -> tuple[Device, int]:
    """Let QEMU plug a DIMM, which the kernel does not know of yet.

    Returns
    -------
    (Device, int)
        The device and its node.

    Raises
    ------
    InputError
        If QEMU would refuse it: its id is taken, its place or size is impossible, or its node.
    """
    devices, kernel = driver.devices, driver.kernel
    devices.check_new(plug.id)
    boot_end = (kernel.boot_ram.max() + 1) * kernel.arch.page_size_bytes
    space = dimm_space(kernel.arch.family, boot_end)
    address = place_dimm(space, devices.addresses(), plug.size, plug.address)
    pfns = devices.pfns(address, plug.size)
    node = plug.node or 0
    if not kernel.node_zones(node):
        raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
    return devices.add(plug.id, Device(plug.driver, pfns)), node


def insert(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome:
    """Handle the insert event of one DIMM: one static group, one add.

    ACPI answers success to the platform also when the add was refused; the DIMM then stays plugged
    and unused. Source: ``acpi_memory_enable_device``; a group since 5.15.
    """
    outcome = add_memory_resource(
        kernel,
        pfns,
        node,
        asks=_asks(kernel, pfns),
        usable=pfns,
        group=Group(max_nr_pages=len(pfns)),
    )
    kernel.note("driver", "ACPI insert handled, _OST status 0", function="acpi_memory_device_add")
    return outcome


def _asks(kernel: Kernel, pfns: PfnRange) -> bool:
    if not kernel.release.acpi_asks_only_if_supported:
        return True
    if len(pfns) != kernel.block_nr_pages:
        return False
    mode = kernel.memmap_mode()
    return bool(memmap_on_memory_nr_pages(kernel.arch, kernel.release, kernel.block_nr_pages, mode))


def eject(kernel: Kernel, addition: Addition) -> Outcome:
    """Handle the eject request of a DIMM: offline its blocks in two passes, then remove it.

    If a block refuses twice, those that went offline are onlined again, as plain ``online``.
    Source: ``drivers/acpi/scan.c: acpi_scan_try_to_offline``, ``acpi_bus_online``.
    """
    ids = [id_ for id_ in kernel.block_ids(addition.pfns) if id_ in kernel.online_blocks]
    done: list[int] = []
    refusal: Outcome = OK
    for _ in range(2):
        refusal = OK
        for block in ids:
            if block not in done:
                outcome = memory_block_offline(kernel, kernel.block_pfns(block))
                if outcome:
                    done.append(block)
                else:
                    refusal = refusal if not refusal else outcome
        if refusal:
            break
    if not refusal:
        for block in done:
            memory_block_online(kernel, kernel.block_pfns(block), "online")
        kernel.note(
            "driver", "ACPI eject refused, _OST status 0x82", function="acpi_scan_hot_remove"
        )
        why = f"{refusal.function}: {refusal.why}"
        return replace(refusal, errno="EBUSY", function="acpi_scan_try_to_offline", why=why)
    outcome = try_remove_memory(kernel, addition)
    kernel.note("driver", "ACPI eject handled, _OST status 0", function="acpi_scan_hot_remove")
    return outcome
