"""Persistent memory of a guest: what a scenario asks for, and how firmware and kernel are told.

A dax device begins behind a block of metadata, which the kernel writes at the start of the range
(``drivers/nvdimm/pfn_devs.c: nd_pfn_init``). x86_64 is told of the range by the parameter
``memmap=SIZE!ADDRESS`` (``arch/x86/kernel/e820.c: parse_memmap_one``), other machines by a node
of their device tree (``drivers/nvdimm/of_pmem.c``).

Effects: files, processes.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from altmap.errors import InputError, LabError
from altmap.lab.device_tree import cells_of, with_node
from altmap.lab.qemu import Hardware, Pmem, machine_arguments
from altmap.scenario import Plug

__all__ = (
    "METADATA_BYTES",
    "pmem_cmdline",
    "tells_by_tree",
    "tree_with_pmem",
    "with_pmem",
)

#: The metadata has 8 KiB; the device begins at the next multiple of a subsection.
METADATA_BYTES = 2 << 20
#: Where memory that is no boot memory can begin: QEMU's DIMMs on a PC; RAM on the machine ``virt``.
_DIMMS_START = 4 << 30
_RAM_START = 1 << 30
_DUMP_SECONDS = 30.0


def with_pmem(hardware: Hardware, plugs: Sequence[Plug]) -> Hardware:
    """Return the hardware with the persistent memory of plugs; one that names no node is on node 0.

    With a node for it, the guest is told of nodes; with a device tree, QEMU's RAM reaches to the
    end of the last range.

    Raises
    ------
    InputError
        Naming the plug and the key that the guest cannot follow.
    """
    if not plugs:
        return hardware
    for plug in plugs:
        _check_plug(plug, hardware)
    ranges = tuple(
        Pmem(
            plug.id,
            int(plug.address or 0) - METADATA_BYTES,
            int(plug.size) + METADATA_BYTES,
            0 if plug.node is None else plug.node,
        )
        for plug in plugs
    )
    named = any(each.node >= 0 for each in ranges)
    memory, nodes = hardware.memory_bytes, hardware.node_bytes
    if hardware.guest.pmem == "device-tree":
        memory = max(each.address + each.size_bytes for each in ranges) - _RAM_START
        nodes = (memory,)
    elif named and any(each.node < 0 for each in ranges):
        raise InputError(f"plug {plugs[0].id!r}: node: need -1 for every device or for none")
    elif named:
        nodes = nodes or (memory,)
    return replace(hardware, memory_bytes=memory, node_bytes=nodes, pmem=ranges)


def _check_plug(plug: Plug, hardware: Hardware) -> None:
    guest, where = hardware.guest, f"plug {plug.id!r}"
    if not guest.pmem:
        raise InputError(f"{where}: {guest.name} has no persistent memory")
    if plug.more_ranges:
        raise InputError(f"{where}: more_ranges: persistent memory here has one range")
    if plug.address is None:
        raise InputError(f"{where}: address: persistent memory is there at boot, so it needs one")
    for key, value in (("address", plug.address), ("size", plug.size)):
        if value % METADATA_BYTES:
            raise InputError(f"{where}: {key} {value:#x}: need a multiple of {METADATA_BYTES:#x}")
    by_tree = guest.pmem == "device-tree"
    least = _RAM_START + hardware.memory_bytes if by_tree else _DIMMS_START
    if plug.address < least + METADATA_BYTES:
        raise InputError(
            f"{where}: address {plug.address:#x}: need {least + METADATA_BYTES:#x} at least: "
            f"{METADATA_BYTES:#x} bytes before the device hold its metadata"
        )
    nr_nodes = max(1, len(hardware.node_bytes))
    if by_tree and nr_nodes > 1:
        raise InputError(f"{where}: persistent memory on {guest.name} needs a machine of one node")
    last = 0 if by_tree else nr_nodes - 1
    allowed = (last, -1) if by_tree or not hardware.node_bytes else (last,)
    node = 0 if plug.node is None else plug.node
    if node not in allowed:
        choice = " or ".join(map(str, allowed))
        raise InputError(
            f"{where}: node {node}: need {choice}: QEMU has no memory devices of others"
        )


def pmem_cmdline(hardware: Hardware, boot_bytes: int) -> str:
    """Return the kernel parameters that persistent memory needs.

    Parameters
    ----------
    hardware : Hardware
    boot_bytes : int
        Memory that the kernel is to have as RAM at boot.
    """
    if not hardware.pmem:
        return ""
    if tells_by_tree(hardware):
        return f"mem={boot_bytes}"
    ranges = (f"memmap={each.size_bytes}!{each.address:#x}" for each in hardware.pmem)
    return " ".join(("acpi_no_memhotplug", *ranges))


def tells_by_tree(hardware: Hardware) -> bool:
    """Tell whether the kernel learns of persistent memory by the device tree."""
    return bool(hardware.pmem) and hardware.guest.pmem == "device-tree"


def tree_with_pmem(hardware: Hardware) -> bytes:
    """Return QEMU's device tree for the hardware, with a node for each range.

    Raises
    ------
    LabError
        If QEMU writes none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree"
        dump = ("-machine", f"dumpdtb={path}", "-cpu", hardware.guest.cpu)
        command = [hardware.guest.program, *machine_arguments(hardware), *dump]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_DUMP_SECONDS
            )
            tree = path.read_bytes()
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabError(f"QEMU writes no device tree: {error}") from error
        if result.returncode:
            raise LabError(f"QEMU writes no device tree: {result.stderr.strip()}")
    for each in hardware.pmem:
        properties = {
            "compatible": b"pmem-region\0",
            "reg": cells_of(each.address, each.size_bytes),
            "volatile": b"",
        }
        if each.node >= 0:
            properties["numa-node-id"] = each.node.to_bytes(4, "big")
        tree = with_node(tree, f"pmem@{each.address:x}", properties)
    return tree
