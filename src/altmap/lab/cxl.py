"""CXL memory of a guest: what a scenario asks for, and the devices that the guest gets.

Each device has a window and a host bridge of its own, and the kernel makes a node of each window
(``drivers/acpi/numa/srat.c: acpi_parse_cfmws``). Their numbers follow those that the firmware tells
of memory, in the order of their addresses, so in a scenario they are the last nodes, without memory
at boot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from altmap.errors import InputError
from altmap.lab.pmem import with_pmem
from altmap.lab.qemu import CxlMemory, Hardware
from altmap.scenario import Plug

__all__ = ("with_dax_memory",)

_MACHINE = "q35"
#: Windows and regions are multiples of it (``drivers/cxl/core/region.c: alloc_hpa``).
_UNIT_BYTES = 256 << 20


def with_dax_memory(hardware: Hardware, plugs: Sequence[Plug]) -> Hardware:
    """Return the hardware with the memory of which plugs of kmem make dax devices.

    Raises
    ------
    InputError
        Naming the plug and the key that the guest cannot follow.
    """
    kinds = {plug.dax or "cxl": plug for plug in plugs}
    if "hmem" in kinds:
        raise InputError(
            f"plug {kinds['hmem'].id!r}: dax 'hmem': need 'pmem' or 'cxl', the only dax devices of "
            "guests here"
        )
    if len(kinds) > 1:
        raise InputError(f"plug {kinds['cxl'].id!r}: dax 'cxl': a guest has CXL memory or PMEM")
    devices: dict[str, Plug] = {}
    for plug in plugs:
        known = devices.setdefault(plug.id, plug)
        if (plug.address, plug.size) != (known.address, known.size):
            raise InputError(f"plug {plug.id!r}: address and size: need those of the first plug")
    made = tuple(devices.values())
    return _with_cxl(hardware, made) if "cxl" in kinds else with_pmem(hardware, made)


def _with_cxl(hardware: Hardware, plugs: Sequence[Plug]) -> Hardware:
    """Return the hardware with a CXL device for each plug; the nodes with memory keep theirs."""
    node = len(hardware.node_bytes)
    while node and not hardware.node_bytes[node - 1]:
        node -= 1
    ordered = sorted(plugs, key=lambda plug: plug.address or 0)
    for number, plug in enumerate(ordered, node):
        _check_plug(plug, hardware, number)
    nr_empty = len(hardware.node_bytes) - node
    if nr_empty != len(ordered):
        raise InputError(
            f"machine.nodes: need a node without memory for each CXL device, the last "
            f"{len(ordered)}, not {nr_empty}"
        )
    cxl = tuple(CxlMemory(plug.id, int(plug.address or 0), int(plug.size)) for plug in ordered)
    return replace(hardware, node_bytes=hardware.node_bytes[:node], slots=0, cxl=cxl)


def _check_plug(plug: Plug, hardware: Hardware, node: int) -> None:
    guest, where = hardware.guest, f"plug {plug.id!r}"
    if not guest.cxl_cpu:
        raise InputError(f"{where}: {guest.name} has no CXL memory")
    if hardware.qemu_machine != _MACHINE:
        raise InputError(f"{where}: CXL memory needs machine.platform {_MACHINE!r}")
    if plug.more_ranges:
        raise InputError(f"{where}: more_ranges: CXL memory here has one range")
    if plug.address is None:
        raise InputError(f"{where}: address: a CXL window is there at boot, so it needs one")
    if plug.size % _UNIT_BYTES:
        raise InputError(f"{where}: size {plug.size:#x}: need a multiple of {_UNIT_BYTES:#x}")
    if plug.node != node:
        given = 0 if plug.node is None else plug.node
        raise InputError(
            f"{where}: node {given}: need {node}: the kernel makes a node of each window, behind "
            "the nodes with memory, in the order of addresses"
        )
