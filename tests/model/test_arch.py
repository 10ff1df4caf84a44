"""Architectures: the memory block size that each kernel chooses at boot."""

import pytest

from altmap.errors import InputError
from altmap.model.arch import ARCHES, arch_named, boot_block_size_bytes
from altmap.model.boot import boot
from altmap.model.kernel.accounting import POLICIES
from altmap.scenario import Machine, Size

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("end", "block"),
    [
        (4 * GIB, 128 * MIB),
        (64 * GIB - 1, 128 * MIB),
        (64 * GIB - 128 * MIB, 128 * MIB),
        (64 * GIB, 2 * GIB),
        (65 * GIB, GIB),
        (66 * GIB, 2 * GIB),
        (64 * GIB + 512 * MIB, 512 * MIB),
        (64 * GIB + 256 * MIB, 256 * MIB),
        (64 * GIB + 128 * MIB, 128 * MIB),
        (64 * GIB + 4096, 128 * MIB),
    ],
)
def test_x86_guests_take_the_largest_block_that_divides_the_end_of_boot_memory(end, block):
    assert boot_block_size_bytes(ARCHES["x86_64"], end) == block
    assert boot_block_size_bytes(ARCHES["x86_64-la57"], end) == block


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("aarch64", 128 * MIB),
        ("aarch64-16k", 128 * MIB),
        ("aarch64-64k", 512 * MIB),
        ("s390x", 256 * MIB),
    ],
)
def test_elsewhere_a_block_is_a_section(name, block):
    assert boot_block_size_bytes(ARCHES[name], 128 * GIB) == block


@pytest.mark.parametrize(
    ("name", "page", "section", "pmd", "pageblock_order", "max_order"),
    [
        ("x86_64", 4096, 128 * MIB, 2 * MIB, 9, 10),
        ("aarch64", 4096, 128 * MIB, 2 * MIB, 9, 10),
        ("aarch64-16k", 16384, 128 * MIB, 32 * MIB, 11, 11),
        ("aarch64-64k", 65536, 512 * MIB, 512 * MIB, 13, 13),
        ("ppc64le", 4096, 16 * MIB, 2 * MIB, 9, 12),
        ("ppc64le-64k", 65536, 16 * MIB, 2 * MIB, 5, 8),
        ("s390x", 4096, 256 * MIB, MIB, 8, 10),
    ],
)
def test_sizes_are_those_of_the_kernels_headers(
    name, page, section, pmd, pageblock_order, max_order
):
    arch = ARCHES[name]
    assert arch.page_size_bytes == page
    assert arch.section_size_bytes == section
    assert arch.pmd_size_bytes == pmd
    assert arch.pageblock_nr_pages == 1 << pageblock_order
    assert arch.max_page_order == max_order
    assert arch.section_nr_pages * page == section
    assert arch.subsection_nr_pages * page == 2 * MIB


def test_an_unknown_architecture_is_refused_with_those_there_are():
    with pytest.raises(InputError) as caught:
        arch_named("vax")
    assert "'vax'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHES)


def test_s390x_sections_are_smaller_on_7_3():
    machines = [
        Machine(arch="s390x", release=release, memory=Size(1 << 30)) for release in ("6.12", "7.3")
    ]
    sizes = [boot(machine, POLICIES["opt-in"])[0].arch.section_size_bytes for machine in machines]
    assert sizes == [256 << 20, 128 << 20]
    assert boot(machines[1], POLICIES["opt-in"])[0].block_nr_pages == (128 << 20) // 4096
