"""QEMU's machines: where boot memory and DIMMs lie in guest-physical space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.units import format_size

__all__ = ("DimmSpace", "boot_ram", "dimm_space", "place_dimm", "platforms_of")

_MIB, _GIB = 1 << 20, 1 << 30
#: hw/i386/pc_piix.c, pc_q35.c: low memory ends at the split when RAM reaches the threshold.
_SPLIT = {"pc": (3584 * _MIB, 3 * _GIB), "q35": (2816 * _MIB, 2 * _GIB)}
#: SeaBIOS keeps the end of low memory for its ACPI tables.
_FIRMWARE_TAIL = {"pc": 0x20000, "q35": 0x21000}
#: Machines without a hole: where their RAM starts.
_RAM_BASE = {"virt": _GIB, "pseries": 0, "s390-ccw": 0}
_PLATFORMS = {
    "x86_64": ("pc", "q35", "xen"),
    "aarch64": ("virt",),
    "ppc64le": ("pseries",),
    "s390x": ("s390-ccw",),
}


@dataclass(frozen=True, slots=True)
class DimmSpace:
    """Where DIMMs may lie.

    Attributes
    ----------
    base : int
        Address of the first one.
    align : int
        Size and address of each are multiples of it.
    """

    base: int
    align: int

    def aligned(self, least_bytes: int) -> DimmSpace:
        """Return the same space for devices that want a coarser alignment."""
        return replace(self, align=max(self.align, least_bytes))


def platforms_of(family: str) -> tuple[str, ...]:
    """Return the platforms of an architecture, the default one first."""
    return _PLATFORMS[family]


def boot_ram(platform: str, memory_bytes: int) -> list[tuple[int, int]]:
    """Return the usable ranges of the firmware's memory map, ``[start, end)`` addresses.

    On PCs they are SeaBIOS's (the EBDA below 640 KiB, the hole up to 1 MiB, its tables at the end
    of low memory) with memory split below 4 GiB as ``hw/i386/pc.c`` does; elsewhere one range.
    """
    if platform in _RAM_BASE:
        base = _RAM_BASE[platform]
        return [(base, base + memory_bytes)]
    threshold, split = _SPLIT[platform]
    low = memory_bytes if memory_bytes < threshold else min(memory_bytes, split)
    ranges = [(0, 0x9FC00), (0x100000, low - _FIRMWARE_TAIL[platform])]
    if memory_bytes > low:
        ranges.append((4 * _GIB, 4 * _GIB + memory_bytes - low))
    return ranges


def dimm_space(family: str, boot_end_address: int) -> DimmSpace:
    """Return where DIMMs may lie: from the first GiB boundary above boot memory on.

    PCs leave everything below 4 GiB to devices (``hw/i386/pc.c: pc_get_device_memory_range``).
    DIMMs are aligned to the backend's page size, 2 MiB with transparent huge pages
    (``hw/mem/memory-device.c``); on pseries to a logical memory block of 256 MiB.
    """
    end = max(4 * _GIB, boot_end_address) if family == "x86_64" else boot_end_address
    align = 256 * _MIB if family == "ppc64le" else 2 * _MIB
    return DimmSpace(-(-end // _GIB) * _GIB, align)


def place_dimm(
    space: DimmSpace,
    plugged: Iterable[tuple[int, int]],
    size_bytes: int,
    address: int | None,
) -> int:
    """Return the address of a new DIMM: the one asked for, or the first that fits.

    Parameters
    ----------
    space : DimmSpace
    plugged : iterable of (int, int)
        Address ranges ``[start, end)`` of the devices there are.
    size_bytes : int
    address : int or None

    Raises
    ------
    InputError
        If QEMU would refuse it: size or address misaligned, below device memory, or overlapping.
    """
    if size_bytes % space.align:
        raise InputError(
            f"DIMM size {size_bytes:#x}: need a multiple of {format_size(space.align)}"
        )
    taken = sorted(plugged)
    if address is None:
        address = space.base
        for start, end in taken:
            if address + size_bytes <= start:
                break
            address = max(address, -(-end // space.align) * space.align)
        return address
    if address % space.align:
        raise InputError(
            f"DIMM address {address:#x}: need a multiple of {format_size(space.align)}"
        )
    if address < space.base:
        raise InputError(f"DIMM address {address:#x}: device memory starts at {space.base:#x}")
    for start, end in taken:
        if address < end and start < address + size_bytes:
            raise InputError(
                f"DIMM address {address:#x}: [{address:#x}, {address + size_bytes:#x}) "
                f"overlaps the device at [{start:#x}, {end:#x})"
            )
    return address
