"""Memory maps of other hypervisors: the usable ranges of their guests."""

import pytest

from altmap.model.memory_maps import ARM_MAPS, PC_MAPS, MemoryMap

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize("found", [*PC_MAPS.values(), *ARM_MAPS.values()])
@pytest.mark.parametrize("memory", [128 * MIB, 3 * GIB, 6 * GIB, 600 * GIB])
def test_ram_is_all_of_the_memory_but_what_is_kept(found, memory):
    ranges = found.usable(memory)
    kept = sum(end - start for start, end in found.kept if start < found.base + memory)
    assert sum(end - start for start, end in ranges) == memory - kept
    assert ranges == sorted(ranges)
    for start, end in ranges:
        assert not any(start < above and below < end for below, above in found.holes)


def test_usable_ranges_are_those_of_a_guests_bios_e820_lines():
    """VMware; the second range is the one above what ACPI keeps."""
    assert PC_MAPS["vmware"].usable(4 * GIB) == [
        (0, 0x9E800),
        (MIB, 0xBFED0000),
        (0xBFF00000, 3 * GIB),
        (4 * GIB, 5 * GIB),
    ]


def test_memory_that_ends_below_a_hole_has_none():
    assert MemoryMap(((3 * GIB, 4 * GIB),)).usable(3 * GIB) == [(0, 3 * GIB)]
    assert MemoryMap(((3 * GIB, 4 * GIB),)).usable(3 * GIB + 1) == [
        (0, 3 * GIB),
        (4 * GIB, 4 * GIB + 1),
    ]
