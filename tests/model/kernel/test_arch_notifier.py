"""arm64's own listener: it vetoes what would split a leaf of the vmemmap."""

from dataclasses import replace

import pytest

from altmap.model.arch import ARCHES
from altmap.model.kernel.memmap import block_memmap_nr_pages
from altmap.model.leaves import leaf_offset_bytes, splits_leaf
from altmap.model.machine import ModelMachine
from altmap.model.releases import RELEASES
from altmap.pfn import PfnRange
from altmap.scenario import Machine, Offline, Online, Plug, Size, Unplug, Veto

MIB, GIB = 1 << 20, 1 << 30
PAGES = {"aarch64": 4 << 10, "aarch64-16k": 16 << 10, "aarch64-64k": 64 << 10}


def populated(page_bytes, section_bytes, struct_bytes, sections):
    """Return the leaves of a vmemmap, (start, size) in bytes, as vmemmap_populate makes them."""
    leaves, leaf = set(), 2 * MIB if page_bytes == 4 << 10 else page_bytes
    per_section = section_bytes // page_bytes * struct_bytes
    for section in sections:
        at = section * per_section
        while at < (section + 1) * per_section:
            leaves.add((at - at % leaf, leaf))
            at = at - at % leaf + leaf
    return leaves


def splits(leaves, address):
    """Tell whether an address lies inside a leaf, as addr_splits_kernel_leaf walks to it."""
    return any(start < address < start + size for start, size in leaves)


@pytest.mark.parametrize("arch_name", PAGES)
@pytest.mark.parametrize("struct_bytes", [8, 32, 56, 64, 80])
@pytest.mark.parametrize("sections_per_block", [1, 2, 4, 64])
def test_an_edge_inside_a_leaf_is_vetoed_whatever_the_sizes(
    arch_name, struct_bytes, sections_per_block
):
    arch = replace(ARCHES[arch_name], struct_page_size_bytes=struct_bytes)
    page = PAGES[arch_name]
    section = (512 if page == 64 << 10 else 128) * MIB
    first = 8 * GIB // section
    for block in range(3):
        begin = first + block * sections_per_block
        sections = range(begin, begin + sections_per_block)
        leaves = populated(page, section, struct_bytes, sections)
        end = sections.stop * section // page
        for nr_hosted in (0, block_memmap_nr_pages(arch, end - begin * section // page)):
            start = begin * section // page + nr_hosted
            expected = splits(leaves, start * struct_bytes) or splits(leaves, end * struct_bytes)
            assert splits_leaf(arch, RELEASES["7.3"], PfnRange(start, end)) == expected


def test_the_memmap_of_a_block_ends_32_kib_inside_a_leaf():
    """Seen on arm64 7.2 and 7.3: [d8200000 e0000000] splits a leaf entry in vmemmap."""
    assert leaf_offset_bytes(ARCHES["aarch64"], 0xD8200) == 32 << 10
    assert leaf_offset_bytes(ARCHES["aarch64"], 0xE0000) == 0


def guest(release, arch="aarch64", **changes):
    machine = Machine(
        **{
            "arch": arch,
            "release": release,
            "memory": Size(2 * GIB),
            "memmap_on_memory": "on",
            "auto_online_blocks": "online_movable",
        }
        | changes
    )
    model = ModelMachine.start(machine)
    plug = Plug(id="d", driver="kmem", dax="cxl", address="16GiB", size=Size(2 * GIB), node=0)
    assert model.perform(plug).outcome
    return model


@pytest.mark.parametrize("release", ["7.2", "7.3"])
def test_a_self_hosted_block_of_arm64_never_goes_offline_since_7_1(release):
    model = guest(release)
    before = model.kernel.online_blocks.copy()
    for step in (Offline(id="d", part="first"), Offline(id="d", part="last")):
        outcome = model.perform(step).outcome
        assert (outcome.errno, outcome.function) == ("EPERM", "prevent_memory_remove_notifier")
    gone = model.perform(Unplug(id="d")).outcome
    assert gone.errno == ("EPERM" if release == "7.3" else "EBUSY")
    assert model.kernel.online_blocks == before


@pytest.mark.parametrize(
    ("release", "arch", "changes"),
    [
        ("6.12", "aarch64", {}),
        ("6.18", "aarch64", {}),
        ("7.3", "aarch64", {"memmap_on_memory": "off"}),
        ("7.3", "aarch64-16k", {"memmap_on_memory": "force"}),
        ("7.3", "aarch64-64k", {"memmap_on_memory": "force"}),
        ("7.3", "x86_64", {}),
        # A memmap of 32 MiB fills a leaf of the linear map of 16 KiB pages: such blocks host it.
        ("7.3", "aarch64-16k", {"block_size": Size(8 * GIB)}),
    ],
)
def test_other_blocks_go_offline(release, arch, changes):
    if "block_size" in changes:
        changes = changes | {"memory": Size(8 * GIB)}
        model = ModelMachine.start(
            Machine(
                arch=arch,
                release=release,
                memmap_on_memory="on",
                auto_online_blocks="online_movable",
                **changes,
            )
        )
        plug = Plug(id="d", driver="kmem", dax="cxl", address="16GiB", size=Size(8 * GIB), node=0)
        assert model.perform(plug).outcome
        assert model.kernel.self_hosted
    else:
        model = guest(release, arch, **changes)
    assert model.perform(Offline(id="d", part="first")).outcome


def test_arm64_is_asked_before_any_other_listener():
    """An early initcall registers it, modules come later (kernel/notifier.c keeps the order)."""
    model = guest("7.3")
    assert model.perform(Veto(on="going_offline", errno="ENOMEM")).outcome
    assert model.perform(Offline(id="d", part="first")).outcome.errno == "EPERM"
    record = model.perform(Offline(id="d", part="first"))
    assert "MEM_CANCEL_OFFLINE" in [e.text.split()[0] for e in record.events]


@pytest.mark.parametrize(
    ("release", "function"),
    [
        ("6.12", "prevent_bootmem_remove_notifier"),
        ("7.2", "prevent_memory_remove_notifier"),
        ("7.3", "prevent_memory_remove_notifier"),
    ],
)
def test_boot_memory_is_refused_by_the_listener_that_the_release_has(release, function):
    model = ModelMachine.start(Machine(arch="aarch64", memory=Size(2 * GIB), release=release))
    kernel = model.kernel
    taken = kernel.used | kernel.reserved
    free = next(b for b in kernel.online_blocks if not taken.count(kernel.block_pfns(b)))
    assert model.perform(Offline(blocks=free)).outcome.function == function


def test_onlining_is_not_its_concern():
    model = guest("7.3", auto_online_blocks="offline")
    assert model.perform(Online(id="d", to="online_movable")).outcome
