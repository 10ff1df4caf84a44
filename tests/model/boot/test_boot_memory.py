"""MemTotal at boot: what kernels keep, against /proc/meminfo of Debian's kernels in QEMU."""

import pytest

from altmap.errors import InputError
from altmap.model.arch import arch_named
from altmap.model.boot.parameters import boot_words, crash_kernel, huge_pages_at_boot, memparse
from altmap.model.boot.reserved import boot_parts
from altmap.model.machine import ModelMachine
from altmap.model.releases import RELEASES
from altmap.scenario import Machine, Node, Size

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: Small reservations that no rule has: those of each further CPU and node.
TOLERANCE_KIB = 256


def machine(arch, memory_mib, **keys):
    return Machine(arch=arch, memory=Size(memory_mib * MIB), **{"release": "6.12", **keys})


def part_of(made, cause):
    arch = arch_named(made.arch)
    parts = boot_parts(made, arch, RELEASES[made.release])
    return sum(part.size_bytes for part in parts if cause in part.cause)


@pytest.mark.parametrize(
    ("arch", "memory", "keys", "mem_total"),
    [  # MemTotal in kB; x86_64 with room for devices, unless max_memory says that there is none
        ("x86_64", 512, {}, 406924),
        ("x86_64", 1024, {}, 922252),
        ("x86_64", 1024, {"max_memory": Size(GIB)}, 988556),
        ("x86_64", 4096, {}, 4014212),
        ("x86_64", 1024, {"release": "6.1", "cpus": 2, "max_memory": Size(GIB)}, 981476),
        ("x86_64", 1024, {"release": "6.18"}, 917904),
        ("x86_64", 1024, {"release": "7.2"}, 916508),
        ("aarch64", 512, {}, 477648),
        ("aarch64", 1024, {}, 991436),
        ("aarch64", 4096, {}, 4011980),
        ("aarch64", 6144, {"cpus": 4}, 6065700),
        ("aarch64-16k", 1024, {}, 1004752),
        ("aarch64-16k", 4096, {"cpus": 2}, 4066544),
        ("ppc64le", 512, {}, 453520),
        ("ppc64le", 2048, {"cpus": 4}, 1998516),
        ("ppc64le", 4096, {}, 4060796),
        ("ppc64le-64k", 1024, {}, 989376),
        ("ppc64le-64k", 2048, {"cpus": 4}, 2033856),
        ("s390x", 1024, {}, 1005168),
        ("s390x", 4096, {"cpus": 2}, 4090660),
    ],
)
def test_mem_total_is_that_of_the_real_kernel(arch, memory, keys, mem_total):
    booted = ModelMachine.start(machine(arch, memory, **keys), pages=False).kernel
    total = booted.total_ram_nr_pages() * booted.arch.page_size_bytes // KIB
    assert abs(total - mem_total) <= TOLERANCE_KIB


def test_the_words_of_the_command_line_take_what_they_take_on_the_real_kernel():
    words = "crashkernel=256M hugepages=64 swiotlb=4096,force"
    made = machine("x86_64", 2048, cpus=8, max_memory=Size(2 * GIB), cmdline=words)
    booted = ModelMachine.start(made, pages=False).kernel
    assert abs(booted.total_ram_nr_pages() * 4 - 1746928) <= TOLERANCE_KIB
    bare = ModelMachine.start(made.replace(cmdline=words.replace("hugepages=64 ", "")), pages=False)
    assert bare.kernel.free_nr_pages() - booted.free_nr_pages() == 64 * 512


def test_a_pc_has_bounce_buffers_if_memory_could_be_above_4_gib():
    """pci_swiotlb_detect: max_possible_pfn, of the SRAT."""
    assert part_of(machine("x86_64", 1024), "bounce") == 64 * MIB + 768 * KIB
    assert part_of(machine("x86_64", 1024, max_memory=Size(GIB)), "bounce") == 0
    assert part_of(machine("x86_64", 8192, max_memory=Size(8 * GIB)), "bounce") > 64 * MIB
    assert part_of(machine("x86_64", 8192, cmdline="iommu=off"), "bounce") == 0
    assert part_of(machine("x86_64", 8192, cmdline="swiotlb=noforce"), "bounce") == 0


def test_arm64_has_a_small_bounce_buffer_until_memory_is_above_4_gib():
    """RAM starts at 1 GiB; 1 MiB for each GiB since 6.5, none before."""
    assert part_of(machine("aarch64", 1024), "bounce") == MIB + 12 * KIB
    assert part_of(machine("aarch64", 1024, release="6.1"), "bounce") == 0
    assert part_of(machine("aarch64", 3072), "bounce") < 5 * MIB
    assert part_of(machine("aarch64", 3074), "bounce") == 64 * MIB + 768 * KIB


def test_each_cpu_has_an_area_of_bounce_buffers():
    """swiotlb_adjust_nareas: 128 slabs of 2 KiB each at least, a power of two of them."""
    assert part_of(machine("aarch64", 1024, cpus=5), "bounce") == 8 * 128 * (2048 + 24)


def test_hash_tables_of_several_nodes_are_allocated_later():
    """fixup_hashdist: by vmalloc, from pages that count in MemTotal."""
    nodes = (Node(memory=Size(GIB)), Node(memory=Size(GIB)))
    assert part_of(machine("x86_64", 2048), "hash") == 3 * MIB
    assert part_of(machine("x86_64", 2048, nodes=nodes), "hash") == 0
    alone = (Node(memory=Size(2 * GIB)), Node(memory=Size(0)))
    assert part_of(machine("x86_64", 2048, nodes=alone), "hash") == 3 * MIB


def test_the_process_table_is_radixs():
    radix = part_of(machine("ppc64le", 1024), "page tables")
    assert radix - part_of(machine("ppc64le", 1024, mmu="hash"), "page tables") == 16 * MIB


def test_many_cpus_have_a_larger_log():
    """log_buf_add_cpu: beyond half of 128 KiB, at 4 KiB for each but the first."""
    assert part_of(machine("x86_64", 1024, cpus=17), "log") == 0
    assert part_of(machine("x86_64", 1024, cpus=18), "log") == 256 * KIB * 9 // 2
    assert part_of(machine("x86_64", 1024, cmdline="log_buf_len=4M"), "log") == 18 * MIB


@pytest.mark.parametrize(
    ("words", "memory", "size"),
    [
        ("crashkernel=256M", 2048, 256),
        ("crashkernel=1G-4G:128M,4G-:320M", 2048, 128),
        ("crashkernel=1G-4G:128M,4G-:320M", 8192, 320),
        ("crashkernel=4G-:320M", 2048, 0),
        ("crashkernel=1G-4G:128M,4G-:320M,high", 8192, 0),  # "unrecognized char: -"
        ("crashkernel=512M,high", 8192, 512 + 256),
        ("crashkernel=512M,high crashkernel=72M,low", 8192, 512 + 72),
        ("crashkernel=512M,high", 2048, 512),
        ("crashkernel=2G", 2048, 0),
        ("crashkernel=64M crashkernel=128M", 2048, 128),
        ("crashkernel=auto", 2048, 0),
        ("crashkernel=256M@64M", 2048, 256),
    ],
)
def test_crashkernel_reserves_what_it_says_where_it_fits(words, memory, size):
    assert part_of(machine("x86_64", memory, cmdline=words), "crashkernel") == size * MIB


def test_what_does_not_fit_below_4_gib_lies_above_with_some_below():
    made = machine("x86_64", 16384, platform="q35", cmdline="crashkernel=3G")
    assert part_of(made, "crashkernel") == 3 * GIB + 256 * MIB


def test_a_list_of_ranges_rounds_ram_to_128_mib():
    """parse_crashkernel_mem: the firmware keeps some of 4 GiB."""
    assert crash_kernel([("crashkernel", "4G-:1M")], 4 * GIB - 4096).size_bytes == MIB
    assert crash_kernel([("crashkernel", "-4G:1M")], 4 * GIB) is None


@pytest.mark.parametrize(
    ("text", "size", "rest"),
    [
        ("1G-2G", GIB, "-2G"),
        ("0x10k", 16 * KIB, ""),
        ("12,high", 12, ",high"),
        ("auto", None, "auto"),
    ],
)
def test_sizes_are_read_as_the_kernel_reads_them(text, size, rest):
    assert memparse(text) == (size, rest)


def test_hugepages_are_of_the_size_before_them():
    words = boot_words("hugepages=3 hugepagesz=1G hugepages=2 default_hugepagesz=2M")
    assert [(each.size_bytes, each.nr_pages) for each in huge_pages_at_boot(words)] == [
        (2 * MIB, 3),
        (GIB, 2),
    ]


def test_a_word_that_is_not_modelled_is_named():
    with pytest.raises(InputError, match=r"machine\.cmdline .memtest."):
        ModelMachine.start(machine("x86_64", 1024, cmdline="memtest=4"))


def test_room_below_boot_memory_is_refused():
    with pytest.raises(InputError, match=r"max_memory 0x40000000: need machine\.memory 0x80000000"):
        machine("x86_64", 2048, max_memory=Size(GIB))
