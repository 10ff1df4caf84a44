"""QEMU's PC machines: where boot memory and DIMMs lie in guest-physical space."""

from __future__ import annotations

from collections.abc import Iterable

from altmap.errors import InputError
from altmap.pfn import format_size

__all__ = ("boot_ram", "device_memory_base", "place_dimm")

_MIB, _GIB = 1 << 20, 1 << 30
#: hw/i386/pc_piix.c, pc_q35.c: low memory ends at the split when RAM reaches the threshold.
_SPLIT = {"pc": (3584 * _MIB, 3 * _GIB), "q35": (2816 * _MIB, 2 * _GIB)}
#: A DIMM's size and address are multiples of the backend's page size, 2 MiB with transparent huge
#: pages (backends/hostmem-ram.c, hw/mem/memory-device.c).
_DIMM_ALIGN = 2 * _MIB
#: SeaBIOS keeps the end of low memory for its ACPI tables.
_FIRMWARE_TAIL = {"pc": 0x20000, "q35": 0x21000}


def boot_ram(platform: str, memory_bytes: int) -> list[tuple[int, int]]:
    """Return the usable ranges of the firmware's memory map, ``[start, end)`` addresses.

    Addresses are those of SeaBIOS (the EBDA below 640 KiB, the hole up to 1 MiB, its tables at the
    end of low memory) with memory split below 4 GiB as ``hw/i386/pc.c`` does.
    """
    threshold, split = _SPLIT[platform]
    low = memory_bytes if memory_bytes < threshold else min(memory_bytes, split)
    ranges = [(0, 0x9FC00), (0x100000, low - _FIRMWARE_TAIL[platform])]
    if memory_bytes > low:
        ranges.append((4 * _GIB, 4 * _GIB + memory_bytes - low))
    return ranges


def device_memory_base(boot_end_address: int) -> int:
    """Return where DIMMs start: the first GiB boundary above boot memory, 4 GiB at least.

    Source: ``hw/i386/pc.c: pc_get_device_memory_range``.
    """
    end = max(4 * _GIB, boot_end_address)
    return -(-end // _GIB) * _GIB


def place_dimm(
    base: int,
    plugged: Iterable[tuple[int, int]],
    size_bytes: int,
    address: int | None,
) -> int:
    """Return the address of a new DIMM: the one asked for, or the first that fits.

    Parameters
    ----------
    base : int
        Start of device memory.
    plugged : iterable of (int, int)
        Address ranges ``[start, end)`` of the devices there are.
    size_bytes : int
    address : int or None

    Raises
    ------
    InputError
        If QEMU would refuse it: size or address misaligned, below device memory, or overlapping.
    """
    if size_bytes % _DIMM_ALIGN:
        raise InputError(
            f"DIMM size {size_bytes:#x}: need a multiple of {format_size(_DIMM_ALIGN)}"
        )
    taken = sorted(plugged)
    if address is None:
        address = base
        for start, end in taken:
            if address + size_bytes <= start:
                break
            address = max(address, -(-end // _DIMM_ALIGN) * _DIMM_ALIGN)
        return address
    if address % _DIMM_ALIGN:
        raise InputError(
            f"DIMM address {address:#x}: need a multiple of {format_size(_DIMM_ALIGN)}"
        )
    if address < base:
        raise InputError(f"DIMM address {address:#x}: device memory starts at {base:#x}")
    for start, end in taken:
        if address < end and start < address + size_bytes:
            raise InputError(
                f"DIMM address {address:#x}: [{address:#x}, {address + size_bytes:#x}) "
                f"overlaps the device at [{start:#x}, {end:#x})"
            )
    return address
