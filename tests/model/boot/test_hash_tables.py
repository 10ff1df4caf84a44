"""The hash tables of dentries and inodes: as Debian's kernels log them when they boot."""

import pytest

from altmap.model.arch import arch_named
from altmap.model.boot.hashtables import hash_tables_nr_pages

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("memory", "dentries", "inodes"),
    [  # dmesg of 6.12.118, amd64: "Dentry cache hash table entries: ... bytes"
        (256 * MIB, 262144, 131072),
        (2 * GIB, 2097152, 1048576),
        (4 * GIB, 4194304, 2097152),
        (16 * GIB, 16777216, 8388608),
        (64 * GIB, 67108864, 33554432),
    ],
)
def test_the_tables_are_those_that_the_kernel_logs(memory, dentries, inodes):
    found = hash_tables_nr_pages(arch_named("x86_64"), memory // 4096)
    assert found * 4096 == dentries + inodes


def test_above_64_gib_four_times_the_memory_has_twice_the_buckets():
    """ADAPT_SCALE_BASE, ADAPT_SCALE_SHIFT."""
    arch = arch_named("x86_64")
    small, large = (hash_tables_nr_pages(arch, size * GIB // 4096) for size in (64, 256))
    assert large == 2 * small


def test_the_size_of_a_page_does_not_decide():
    pages = {
        name: hash_tables_nr_pages(arch_named(name), 4 * GIB // arch_named(name).page_size_bytes)
        for name in ("aarch64", "aarch64-64k")
    }
    assert pages["aarch64"] == 16 * pages["aarch64-64k"]
