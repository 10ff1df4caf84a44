"""QEMU's PC machines put boot memory and DIMMs where QEMU 10 was seen to put them."""

import pytest

from altmap.errors import InputError
from altmap.model.arch import ARCHES
from altmap.model.kernel.touch import Touch
from altmap.model.platform.backing import Backing
from altmap.model.platform.qemu import DimmSpace, boot_ram, dimm_space, place_dimm
from altmap.pfn import PfnRange, PfnSet, PfnStride

MIB, GIB = 1 << 20, 1 << 30

FIRST_DIMM = [
    ("pc", 1000, 0x100000000),
    ("pc", 1024, 0x100000000),
    ("pc", 2048, 0x100000000),
    ("pc", 3072, 0x100000000),
    ("pc", 4096, 0x140000000),
    ("pc", 5120, 0x180000000),
    ("pc", 6144, 0x1C0000000),
    ("q35", 1024, 0x100000000),
    ("q35", 2048, 0x100000000),
    ("q35", 3072, 0x140000000),
    ("q35", 4096, 0x180000000),
    ("q35", 5120, 0x1C0000000),
    ("q35", 6144, 0x200000000),
]


PC = DimmSpace(4 * GIB, 2 * MIB)


def space(platform, mib, family="x86_64"):
    board = ARCHES[family].board
    return dimm_space(board, boot_ram(board, platform, mib * MIB)[-1][1])


@pytest.mark.parametrize(("platform", "mib", "address"), FIRST_DIMM)
def test_dimms_start_at_the_gib_above_boot_memory_and_are_packed(platform, mib, address):
    plugged, found = [], []
    for size in (128 * MIB, 256 * MIB, GIB):
        found.append(place_dimm(space(platform, mib), plugged, size, None))
        plugged.append((found[-1], found[-1] + size))
    assert found == [address, address + 0x8000000, address + 0x18000000]


@pytest.mark.parametrize(
    ("platform", "mib", "split"),
    [
        ("pc", 3583, None),
        ("pc", 3584, 3 * GIB),
        ("pc", 8192, 3 * GIB),
        ("q35", 2815, None),
        ("q35", 2816, 2 * GIB),
        ("q35", 8192, 2 * GIB),
    ],
)
def test_memory_is_split_below_4_gib_from_a_threshold_on(platform, mib, split):
    ranges = boot_ram(ARCHES["x86_64"].board, platform, mib * MIB)
    tail = {"pc": 0x20000, "q35": 0x21000}[platform]
    assert ranges[0] == (0, 0x9FC00)
    assert ranges[1] == (0x100000, (split or mib * MIB) - tail)
    assert ranges[2:] == ([(4 * GIB, 4 * GIB + mib * MIB - split)] if split else [])


@pytest.mark.parametrize(
    ("platform", "family", "mib", "address"),
    [
        ("virt", "aarch64", 1024, 0x80000000),
        ("virt", "aarch64", 4096, 0x140000000),
        ("pseries", "ppc64le", 512, 0x40000000),
        ("pseries", "ppc64le", 1024, 0x40000000),
        ("pseries", "ppc64le", 4096, 0x100000000),
    ],
)
def test_machines_without_a_hole_put_dimms_above_their_memory(platform, family, mib, address):
    found = space(platform, mib, family)
    assert place_dimm(found, [], 256 * MIB, None) == address
    assert place_dimm(found, [(address, address + 256 * MIB)], GIB, None) == address + 256 * MIB


def test_pseries_takes_whole_logical_memory_blocks_only():
    found = space("pseries", 1024, "ppc64le")
    with pytest.raises(InputError, match="256 MiB"):
        place_dimm(found, [], 128 * MIB, None)


def test_a_small_dimm_puts_the_next_ones_out_of_step_with_blocks():
    assert place_dimm(PC, [(4 * GIB, 4 * GIB + 64 * MIB)], 128 * MIB, None) == 0x104000000


def test_the_first_hole_that_is_large_enough_is_taken():
    plugged = [(0x110000000, 0x120000000), (0x100000000, 0x104000000)]
    assert place_dimm(PC, plugged, 128 * MIB, None) == 0x104000000
    assert place_dimm(PC, plugged, 256 * MIB, None) == 0x120000000
    assert place_dimm(PC, plugged, 2 * MIB, 0x104000000) == 0x104000000


@pytest.mark.parametrize(
    ("size", "address", "words"),
    [
        (129 * MIB, None, ["129 MiB", "2 MiB"]),
        (128 * MIB, 4 * GIB + 4096, ["0x100001000", "2 MiB"]),
        (128 * MIB, 4 * GIB - 128 * MIB, ["0xf8000000", "starts at 0x100000000"]),
        (128 * MIB, 4 * GIB + 64 * MIB, ["0x104000000", "overlaps"]),
    ],
)
def test_what_qemu_refuses_is_an_error_with_value_and_rule(size, address, words):
    with pytest.raises(InputError) as caught:
        place_dimm(PC, [(4 * GIB, 4 * GIB + 128 * MIB)], size, address)
    assert all(word in str(caught.value) for word in words)


def touch(access, pfns):
    return Touch(access, pfns, "memmap_init_range", "struct pages")


def test_a_fault_is_what_is_touched_and_not_backed():
    backing = Backing(PfnSet([PfnRange(0x100000, 0x104000)]))
    assert backing.check_access(touch("write", PfnRange(0x100000, 0x104000))) is None
    fault = backing.check_access(touch("write", PfnRange(0x103FFF, 0x104002)))
    assert fault.pfn == 0x104000
    assert fault.pfns == PfnSet([PfnRange(0x104000, 0x104002)])
    assert (fault.access, fault.function) == ("write", "memmap_init_range")


def test_a_stride_faults_only_where_its_pages_are_not_backed():
    backing = Backing(PfnSet([PfnRange(0, 8), PfnRange(16, 24)]))
    assert backing.check_access(touch("write", PfnStride(0, 32, 16, 8))) is None
    fault = backing.check_access(touch("write", PfnStride(0, 48, 16, 8)))
    assert list(fault.pfns) == list(range(32, 40))


def test_reads_of_unbacked_frames_fault_unless_the_platform_answers_them():
    frames = PfnRange(0, 1)
    assert Backing().check_access(touch("read", frames)).access == "read"
    assert Backing(unbacked_reads="allowed").check_access(touch("read", frames)) is None
    assert Backing(unbacked_reads="allowed").check_access(touch("write", frames)).access == "write"


def test_a_hole_of_just_the_size_is_large_enough_and_the_first_address_can_be_named():
    taken = [(4 * GIB + 128 * MIB, 5 * GIB)]
    assert place_dimm(PC, taken, 128 * MIB, None) == 4 * GIB
    assert place_dimm(PC, taken, 128 * MIB, 4 * GIB) == 4 * GIB
    assert place_dimm(PC, taken, 130 * MIB, None) == 5 * GIB
    assert place_dimm(PC, taken, 128 * MIB, 5 * GIB) == 5 * GIB
