"""Where struct pages live: which geometries can host themselves, and in which frames."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.model.arch import ARCHES
from altmap.model.kernel.memmap import AddRequest, Memmap, memmap_on_memory_nr_pages
from altmap.model.kernel.placements import ExistingMemory, OptIn, WholeRange
from altmap.model.releases import RELEASES
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

MIB, GIB = 1 << 20, 1 << 30

# Architecture, block, sizeof(struct page), pages with "Y", pages with "force"; 0: not supported.
# By hand from mm/memory_hotplug.c: mhp_supports_memmap_on_memory (6.12).
TABLE = [
    ("x86_64", 128 * MIB, 64, 512, 512),
    ("x86_64", 2 * GIB, 64, 8192, 8192),
    ("x86_64", 128 * MIB, 80, 0, 0),  # 640 pages: no pageblock; 2.5 MiB: no PMD, padded or not
    ("x86_64", 2 * GIB, 80, 10240, 10240),
    ("aarch64", 128 * MIB, 64, 512, 512),
    ("aarch64-16k", 128 * MIB, 64, 0, 0),
    ("aarch64-64k", 512 * MIB, 64, 0, 0),  # forced, the memmap would be the whole block
    ("ppc64le-64k", 256 * MIB, 64, 0, 32),
    ("ppc64le-64k", 1 * GIB, 64, 0, 32),
    ("ppc64le-64k", 2 * GIB, 64, 32, 32),
    ("ppc64le", 256 * MIB, 64, 1024, 1024),
    ("ppc64le", 16 * MIB, 64, 0, 0),
    ("s390x", 256 * MIB, 64, 1024, 1024),
]


@pytest.mark.parametrize(("arch", "block", "struct_page", "on", "force"), TABLE)
def test_only_some_geometries_can_host_their_memmap(arch, block, struct_page, on, force):
    sizes = replace(ARCHES[arch], struct_page_size_bytes=struct_page)
    block_nr_pages = block // sizes.page_size_bytes
    found = [
        memmap_on_memory_nr_pages(sizes, RELEASES["6.12"], block_nr_pages, mode)
        for mode in ("on", "force", "off")
    ]
    assert found == [on, force, 0]


def test_a_memmap_that_would_take_the_whole_block_is_none():
    sizes = replace(ARCHES["aarch64-64k"], memmap_rule="any")
    assert memmap_on_memory_nr_pages(sizes, RELEASES["6.12"], 8192, "force") == 0
    assert memmap_on_memory_nr_pages(sizes, RELEASES["6.12"], 16384, "force") == 8192


def test_s390x_with_sections_of_128_mib_hosts_two_mib():
    sizes = replace(ARCHES["s390x"], section_size_bytes=128 * MIB)
    assert memmap_on_memory_nr_pages(sizes, RELEASES["7.3"], 32768, "on") == 512


def test_an_architecture_that_says_never_never_does():
    hash_mmu = replace(ARCHES["ppc64le-64k"], memmap_rule="never")
    for mode in ("on", "force"):
        assert memmap_on_memory_nr_pages(hash_mmu, RELEASES["6.12"], 32768, mode) == 0


@pytest.mark.parametrize(("arch", "block", "struct_page", "on", "force"), TABLE)
def test_on_6_1_x86_and_arm64_host_their_memmap_unpadded_and_nobody_else(
    arch, block, struct_page, on, force
):
    del force
    sizes = replace(ARCHES[arch], struct_page_size_bytes=struct_page)
    block_nr_pages = block // sizes.page_size_bytes
    selected = arch.startswith(("x86_64", "aarch64"))
    found = memmap_on_memory_nr_pages(sizes, RELEASES["6.1"], block_nr_pages, "on")
    assert found == (on if selected else 0)


def place(release, nr_blocks, *, asks=True, mode="on", placement=None, arch="x86_64"):
    pfns = PfnRange(0x100000, 0x100000 + nr_blocks * 32768)
    request = AddRequest(pfns, asks, 32768, mode)
    return (placement or OptIn()).place(ARCHES[arch], RELEASES[release], request)


@pytest.mark.parametrize(
    ("release", "nr_blocks", "hosted"),
    [
        ("4.20", 1, 0),
        ("5.13", 1, 512),
        ("6.1", 1, 512),
        ("6.6", 1, 512),
        ("6.6", 8, 0),
        ("6.8", 8, 512),
        ("6.12", 1, 512),
        ("6.12", 8, 512),
        ("7.3", 8, 512),
    ],
)
def test_what_one_altmap_serves_depends_on_the_release(release, nr_blocks, hosted):
    memmap = place(release, nr_blocks)
    assert memmap.hosted_nr_pages == hosted
    assert len(memmap.hosted()) == hosted * nr_blocks


@pytest.mark.parametrize("release", ["5.13", "6.1"])
def test_until_6_5_asking_for_what_is_not_supported_fails_the_add(release):
    for refused in (place(release, 8), place(release, 1, mode="off")):
        assert isinstance(refused, Outcome)
        assert (refused.status, refused.errno) == ("refused", "EINVAL")
    assert not place(release, 8, asks=False).self_hosted


@pytest.mark.parametrize("release", ["6.6", "6.12"])
def test_since_6_6_it_falls_back_to_existing_memory(release):
    assert not place(release, 1, mode="off").self_hosted
    assert not place(release, 1, asks=False).self_hosted


def test_the_design_of_2018_puts_the_whole_memmap_at_the_start_of_the_request():
    memmap = place("6.12", 8, asks=False, mode="off", placement=WholeRange())
    assert PfnSet.of(memmap.hosted()) == PfnSet([PfnRange(0x100000, 0x100000 + 4096)])
    assert not place("6.12", 8, placement=WholeRange(), arch="s390x").self_hosted
    assert not place("6.12", 8, placement=ExistingMemory()).self_hosted


def test_the_memmap_of_a_block_of_x86_holds_its_own_struct_pages_in_eight_frames():
    memmap = Memmap(ARCHES["x86_64"], PfnRange(0x100000, 0x108000), 32768, 512)
    own = memmap.frames_of(PfnRange(0x100000, 0x100200))
    assert own == PfnSet([PfnRange(0x100000, 0x100008)])
    assert memmap.frames_of(PfnRange(0x100000, 0x108000)) == PfnSet.of(memmap.hosted())


def test_with_64k_pages_four_sections_share_a_frame():
    memmap = Memmap(ARCHES["ppc64le-64k"], PfnRange(0x1000, 0x2000), 4096, 32)
    for section in range(16):
        start = 0x1000 + section * 256
        frames = memmap.frames_of(PfnRange(start, start + 256))
        assert list(frames) == [0x1000 + section // 4]


@given(st.integers(0, 199), st.integers(0, 199), st.sampled_from([56, 64, 80]), st.integers(1, 4))
def test_frames_are_those_of_each_struct_page(start, nr_pages, struct_page, nr_units):
    arch = replace(ARCHES["x86_64"], struct_page_size_bytes=struct_page)
    unit = 200 // nr_units
    memmap = Memmap(arch, PfnRange(1000, 1000 + unit * nr_units), unit, 16)
    pfns = PfnRange(1000 + start, 1000 + start + nr_pages)
    expected = set()
    for pfn in range(pfns.start, min(pfns.end, memmap.described.end)):
        at = pfn - (pfn - 1000) % unit
        first = (pfn - at) * struct_page
        expected |= {at + byte // 4096 for byte in (first, first + struct_page - 1)}
    assert set(memmap.frames_of(pfns)) == expected
