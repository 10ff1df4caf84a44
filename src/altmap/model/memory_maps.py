"""Memory maps of hypervisors other than QEMU, as data: where RAM lies, and memory that is added."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("ARM_MAPS", "PC_MAPS", "MemoryMap")

_MIB, _GIB = 1 << 20, 1 << 30
_PAST_PC_HOLE = 4 * _GIB


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """A map: RAM fills the addresses from *base* on, but for holes.

    Attributes
    ----------
    holes : tuple of (int, int)
        Addresses without RAM, which lies above instead.
    base : int
        Where RAM starts.
    kept : tuple of (int, int)
        RAM that the firmware's map does not call usable.
    device_floor_address : int
        No memory is added below it.
    device_align_bytes : int
        Alignment of what is added.
    """

    holes: tuple[tuple[int, int], ...]
    base: int = 0
    kept: tuple[tuple[int, int], ...] = ()
    device_floor_address: int = 0
    device_align_bytes: int = 128 * _MIB

    def usable(self, memory_bytes: int) -> list[tuple[int, int]]:
        """Return the usable ranges of so much RAM, ``[start, end)`` addresses."""
        found, at, left = [], self.base, memory_bytes
        for start, end in self.holes:
            size = min(left, start - at)
            found.append((at, at + size))
            at, left = end, left - size
        found.append((at, at + left))
        for start, end in self.kept:
            found = [
                part
                for first, last in found
                for part in ((first, min(last, start)), (max(first, end), last))
            ]
        return [(first, last) for first, last in found if first < last]


#: Of x86_64.
PC_MAPS = {
    # arch/src/x86_64/layout.rs: EBDA_START, MEM_32BIT_RESERVED_START, RAM_64BIT_START;
    # vmm/src/memory_manager.rs: start_addr.
    "cloud-hypervisor": MemoryMap(
        ((3 * _GIB, _PAST_PC_HOLE),),
        kept=((0xA0000, _MIB),),
        device_floor_address=_PAST_PC_HOLE,
    ),
    # src/vmm/src/arch/x86_64/layout.rs: SYSTEM_MEM_START, MMIO32_MEM_START, MMIO64_MEM_START (1.14;
    # up to 1.12 the first hole starts at 3.25 GiB, and there is no second one);
    # builder.rs: allocate_virtio_mem_address.
    "firecracker": MemoryMap(
        ((3 * _GIB, _PAST_PC_HOLE), (256 * _GIB, 512 * _GIB)),
        kept=((0x9FC00, _MIB),),
        device_floor_address=512 * _GIB,
    ),
    # As BIOS-e820 lines of guests of ESXi and Workstation have it.
    "vmware": MemoryMap(
        ((3 * _GIB, _PAST_PC_HOLE),),
        kept=((0x9E800, _MIB), (0xBFED0000, 0xBFF00000)),
        device_floor_address=_PAST_PC_HOLE,
    ),
    # As BIOS-e820 lines of guests of generation 1 have it: 128 MiB of MMIO below 4 GiB.
    "hyper-v": MemoryMap(
        ((0xF8000000, _PAST_PC_HOLE),),
        kept=((0x9FC00, _MIB), (0xF7FF0000, 0xF8000000)),
        device_floor_address=_PAST_PC_HOLE,
    ),
    # xen/include/public/hvm/e820.h: HVM_BELOW_4G_RAM_END; tools/firmware/hvmloader/e820.c.
    "xen-hvm": MemoryMap(
        ((0xF0000000, _PAST_PC_HOLE),),
        kept=((0x9FC00, _MIB),),
        device_floor_address=_PAST_PC_HOLE,
    ),
}
#: Of arm64.
ARM_MAPS = {
    # arch/src/aarch64/layout.rs: RAM_START, MEM_32BIT_RESERVED_START (older: 2 GiB, and no hole).
    "cloud-hypervisor": MemoryMap(((0xFC000000, 4 * _GIB),), base=_GIB),
    # src/vmm/src/arch/aarch64/layout.rs: DRAM_MEM_START, SYSTEM_MEM_SIZE, MMIO64_MEM_START.
    "firecracker": MemoryMap(
        ((256 * _GIB, 512 * _GIB),),
        base=2 * _GIB,
        kept=((2 * _GIB, 2 * _GIB + 2 * _MIB),),
        device_floor_address=512 * _GIB,
    ),
}
