"""ACPI memory devices (DIMMs): ``drivers/acpi/acpi_memhotplug.c`` and ``drivers/acpi/scan.c``."""

from __future__ import annotations

from altmap.kernel.hotplug import (
    add_memory_resource,
    memory_block_offline,
    memory_block_online,
    try_remove_memory,
)
from altmap.kernel.memmap import memmap_on_memory_nr_pages
from altmap.kernel.state import Addition, Group, Kernel
from altmap.pfn import PfnRange
from altmap.trace import OK, Outcome

__all__ = ("eject", "insert")


def insert(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome:
    """Handle the insert event of one DIMM: one static group, one add.

    ACPI answers success to the platform also when the add was refused; the DIMM then stays plugged
    and unused. Source: ``acpi_memory_enable_device``; a group since 5.15.
    """
    outcome = add_memory_resource(
        kernel, pfns, node, asks=_asks(kernel, pfns), group=Group(max_nr_pages=len(pfns))
    )
    kernel.note("driver", "ACPI insert handled, _OST status 0", function="acpi_memory_device_add")
    return outcome


def _asks(kernel: Kernel, pfns: PfnRange) -> bool:
    if not kernel.release.acpi_asks_only_if_supported:
        return True
    if len(pfns) != kernel.block_nr_pages:
        return False
    mode = kernel.tunables.memmap_on_memory
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
        return Outcome.refused(
            "EBUSY", "acpi_scan_try_to_offline", f"{refusal.function}: {refusal.why}"
        )
    outcome = try_remove_memory(kernel, addition)
    kernel.note("driver", "ACPI eject handled, _OST status 0", function="acpi_scan_hot_remove")
    return outcome
