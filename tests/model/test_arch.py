"""Architectures: sizes of the kernel's headers, block sizes, and what a new record needs."""

from dataclasses import replace

import pytest

from altmap.errors import InputError
from altmap.model.arch import (
    ARCHES,
    Board,
    advised_block_size_bytes,
    arch_named,
    arch_of,
    boot_block_size_bytes,
    check_block_size,
    with_mmu,
)
from altmap.model.boot import boot
from altmap.model.machine import DRIVERS, ModelMachine
from altmap.scenario import Address, Machine, Plug, Range, Size

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
    ("windows", "advised"),
    [
        ((), None),
        ([(0x1010000000, 512 * MIB)], 256 * MIB),
        ([(68 * GIB, 4 * GIB)], 4 * GIB),
        ([(64 * GIB, 4 * GIB), (66 * GIB, GIB)], GIB),
        ([(64 * GIB, 128 * MIB)], None),
        ([(64 * GIB, 128 * MIB), (68 * GIB, 512 * MIB)], 512 * MIB),
    ],
)
def test_cxl_windows_advise_what_their_bounds_are_aligned_to(windows, advised):
    assert advised_block_size_bytes(windows) == advised


@pytest.mark.parametrize(
    ("end", "advised", "block"),
    [
        (64 * GIB, 256 * MIB, 256 * MIB),
        (64 * GIB, 4 * GIB, 2 * GIB),
        (64 * GIB + 512 * MIB, GIB, 512 * MIB),
        (64 * GIB + 128 * MIB, 256 * MIB, 128 * MIB),
        (63 * GIB, GIB, 128 * MIB),
    ],
)
def test_a_block_is_no_larger_than_the_advice(end, advised, block):
    assert boot_block_size_bytes(ARCHES["x86_64"], end, advised) == block
    assert boot_block_size_bytes(ARCHES["aarch64"], end, advised) == 128 * MIB


@pytest.mark.parametrize(("release", "mib"), [("6.12", 2048), ("6.18", 256), ("7.3", 256)])
def test_releases_before_6_15_ask_for_no_advice(release, mib):
    window = Range(address=Address(0x1010000000), size=Size(512 * MIB))
    machine = Machine(platform="q35", memory=Size(62 * GIB), release=release, cxl_windows=[window])
    memory = ModelMachine.start(machine).observe().memory
    assert memory.block_size_bytes == mib * MIB


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


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        arch_named("vax")
    assert "'vax'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHES)


def test_s390x_sections_are_smaller_on_7_3():
    machines = [
        Machine(arch="s390x", release=release, memory=Size(1 << 30)) for release in ("6.12", "7.3")
    ]
    sizes = [boot(machine)[0].arch.section_size_bytes for machine in machines]
    assert sizes == [256 << 20, 128 << 20]
    assert boot(machines[1])[0].block_nr_pages == (128 << 20) // 4096


@pytest.mark.parametrize(
    ("machine", "page", "name"),
    [
        ("x86_64", None, "x86_64"),
        ("x86_64", 4096, "x86_64"),
        ("aarch64", None, "aarch64"),
        ("aarch64", 16384, "aarch64-16k"),
        ("aarch64", 65536, "aarch64-64k"),
        ("ppc64le", 65536, "ppc64le-64k"),
        ("s390x", 4096, "s390x"),
    ],
)
def test_machine_name_and_page_size_tell_the_architecture(machine, page, name):
    assert arch_of(machine, page) == ARCHES[name]


@pytest.mark.parametrize(("machine", "page"), [("x86_64", 65536), ("vax", None), ("", 4096)])
def test_no_architecture_has_a_wrong_name_or_page_size(machine, page):
    assert arch_of(machine, page) is None


@pytest.mark.parametrize("name", ["ppc64le", "ppc64le-64k"])
def test_with_hash_no_memmap_is_self_hosted(name):
    assert with_mmu(ARCHES[name], "hash").memmap_rule == "never"
    assert with_mmu(ARCHES[name], "radix") == ARCHES[name]
    assert with_mmu(ARCHES[name], None) == ARCHES[name]


def test_an_mmu_is_refused_where_the_kernel_has_no_choice():
    with pytest.raises(InputError, match=r"'hash': only ppc64le has a choice, not x86_64$"):
        with_mmu(ARCHES["x86_64"], "hash")


@pytest.mark.parametrize("size", [16 * MIB, 256 * MIB, 64 * GIB])
def test_a_block_is_a_power_of_two_from_a_section_to_64_gib(size):
    check_block_size(ARCHES["ppc64le"], "block", size)


@pytest.mark.parametrize("size", [0, 8 * MIB, 24 * MIB, 128 * GIB])
def test_another_block_size_is_refused(size):
    with pytest.raises(InputError, match=rf"^block {size:#x}: .*from 16 MiB, .* to 64 GiB$"):
        check_block_size(ARCHES["ppc64le"], "block", size)


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_every_mechanism_has_a_driver_and_every_zone_an_end(arch):
    known = {mechanism for classes in DRIVERS.values() for mechanism in classes}
    assert set(arch.mechanisms) <= known
    assert len(arch.mechanisms) == len(set(arch.mechanisms))
    assert arch.kernel_zones[-1][1] is None
    assert arch.board.platforms


def test_a_new_architecture_needs_no_more_than_its_record(monkeypatch):
    board = Board(("virt",), ram_base_address=2 * GIB)
    riscv64 = replace(ARCHES["aarch64"], name="riscv64", board=board, max_physmem_bits=56)
    monkeypatch.setitem(ARCHES, "riscv64", riscv64)
    model = ModelMachine.start(
        Machine(arch="riscv64", release="6.12", memory=Size(GIB), memmap_on_memory="on")
    )
    assert model.kernel.boot_ram.min() == 2 * GIB // 4096
    assert model.perform(Plug(id="d", size=Size(256 * MIB))).outcome
    assert model.perform(Plug(id="v", driver="virtio-mem", size=Size(GIB))).outcome
    assert list(model.kernel.added_blocks) == [*range(16, 24), 24, 25]
    assert len(model.kernel.self_hosted) == 2 * 512


@pytest.mark.parametrize(
    ("name", "nr_pages", "nr_memmap_pages"),
    [("x86_64", 32768, 512), ("x86_64", 1, 1), ("aarch64-64k", 128, 1), ("ppc64le-64k", 4096, 4)],
)
def test_a_memmap_is_whole_pages_of_64_bytes_for_each_page(name, nr_pages, nr_memmap_pages):
    assert ARCHES[name].memmap_nr_pages(nr_pages) == nr_memmap_pages
    assert ARCHES[name].memmap_bytes(nr_pages) == 64 * nr_pages


FACTS = [
    # arch/x86/kernel/setup.c: trim_bios_range
    ("firmware_nr_pages", 1, ["x86_64", "x86_64-la57"]),
    # Documentation/arch/arm64/hugetlbpage.rst: with 64 KiB pages 2 MiB, 512 MiB and 16 GiB
    ("gigantic_page_bytes", GIB, ["x86_64", "x86_64-la57", "aarch64", "aarch64-16k"]),
    # arch/arm64/mm/mmu.c: prevent_bootmem_remove_notifier
    ("offlines_boot_memory", False, ["aarch64", "aarch64-16k", "aarch64-64k"]),
    # drivers/hv/hv_balloon.c: hot_add_enabled
    ("knows_node_of_address", False, ["aarch64", "aarch64-16k", "aarch64-64k"]),
    # [RFC PATCH 3/4] of November 2018
    ("vetoes_rfc_2018", True, ["s390x"]),
    ("has_nodes", False, ["s390x"]),
    ("write_fault", "general protection fault", ["x86_64", "x86_64-la57"]),
    # arch/arm64/mm/fault.c: fault_info
    ("write_fault", "synchronous external abort", ["aarch64", "aarch64-16k", "aarch64-64k"]),
    # arch/powerpc/kernel/traps.c: machine_check_exception
    ("write_fault", "machine check", ["ppc64le", "ppc64le-64k"]),
    ("write_fault", "addressing exception", ["s390x"]),
    ("direct_map", "pud", ["x86_64", "x86_64-la57"]),
    ("direct_map", "lmb", ["ppc64le", "ppc64le-64k"]),
    ("mmus", ("radix", "hash"), ["ppc64le", "ppc64le-64k"]),
    ("probes_block_size", True, ["x86_64", "x86_64-la57"]),
]


@pytest.mark.parametrize(("field", "value", "names"), FACTS)
def test_what_is_special_to_an_architecture_is_so_in_its_source(field, value, names):
    assert [name for name, arch in ARCHES.items() if getattr(arch, field) == value] == names


@pytest.mark.parametrize(
    ("mechanism", "families"),
    [
        ("acpi", {"x86_64", "aarch64", "s390x"}),
        ("dlpar", {"ppc64le"}),
        ("probe", {"x86_64"}),
        ("standby", {"s390x"}),
        ("virtio-mem", {"x86_64", "aarch64", "ppc64le", "s390x"}),
    ],
)
def test_a_mechanism_is_one_of_its_architectures(mechanism, families):
    assert {arch.family for arch in ARCHES.values() if mechanism in arch.mechanisms} == families


@pytest.mark.parametrize(
    ("name", "extent", "align"),
    [("x86_64", 256, 2), ("aarch64-64k", 1024, 2), ("s390x", 256, 2), ("ppc64le", 256, 256)],
)
def test_qemus_machines_differ_in_extent_and_alignment(name, extent, align):
    board = ARCHES[name].board
    assert board.virtio_mem_extent_bytes == extent * MIB
    assert board.dimm_align_bytes == align * MIB
