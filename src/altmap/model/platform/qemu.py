"""Where boot memory and DIMMs lie in guest-physical space, by QEMU's rules or another map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.model.arch import Board
from altmap.units import format_size

__all__ = ("DimmSpace", "boot_ram", "dimm_space", "low_memory_bytes", "place_dimm")

_MIB, _GIB = 1 << 20, 1 << 30
#: Of PCs: low memory ends at the split when RAM reaches the threshold.
_SPLIT = {"pc": (3584 * _MIB, 3 * _GIB), "q35": (2816 * _MIB, 2 * _GIB)}
#: SeaBIOS reserves the end of low memory for its ACPI tables.
_FIRMWARE_TAIL = {"pc": 0x20000, "q35": 0x21000}


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
        """Return the same space for devices that need a coarser alignment."""
        return replace(self, align=max(self.align, least_bytes))


def boot_ram(board: Board, platform: str, memory_bytes: int) -> list[tuple[int, int]]:
    """Return the usable ranges of the firmware's memory map, ``[start, end)`` addresses.

    On PCs they are SeaBIOS's (the EBDA below 640 KiB, the hole up to 1 MiB, its tables at the end
    of low memory) with memory split below 4 GiB as ``hw/i386/pc.c`` does; elsewhere one range.
    Other hypervisors have maps of their own (:mod:`altmap.model.memory_maps`).
    """
    if platform in board.maps:
        return board.maps[platform].usable(memory_bytes)
    if platform not in _SPLIT:
        return [(board.ram_base_address, board.ram_base_address + memory_bytes)]
    low = low_memory_bytes(platform, memory_bytes)
    ranges = [(0, 0x9FC00), (0x100000, low - _FIRMWARE_TAIL[platform])]
    if memory_bytes > low:
        ranges.append((4 * _GIB, 4 * _GIB + memory_bytes - low))
    return ranges


def low_memory_bytes(platform: str, memory_bytes: int) -> int:
    """Return how much of a PC's memory lies below 4 GiB (``hw/i386/pc_piix.c, pc_q35.c``)."""
    threshold, split = _SPLIT[platform]
    return memory_bytes if memory_bytes < threshold else split


def dimm_space(board: Board, boot_end_address: int) -> DimmSpace:
    """Return where DIMMs may lie: from the first GiB boundary above boot memory on."""
    end = max(board.dimm_floor_address, boot_end_address)
    return DimmSpace(-(-end // _GIB) * _GIB, board.dimm_align_bytes)


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
        Address ranges ``[start, end)`` of the devices that are plugged.
    size_bytes : int
    address : int or None

    Raises
    ------
    InputError
        If QEMU would refuse it: size or address misaligned, below device memory, or overlapping.
    """
    if size_bytes % space.align:
        raise InputError(
            f"DIMM size {format_size(size_bytes)}: need a multiple of {format_size(space.align)}"
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
