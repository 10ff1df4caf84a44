"""Boot memory: RAM of the firmware's map, shares of nodes, zones, and sizes that QEMU takes."""

import pytest

from altmap.errors import InputError
from altmap.model.boot import boot
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Node, Size

MIB, GIB = 1 << 20, 1 << 30


def kernel_of(mib=1024, **changes):
    return boot(Machine(memory=Size(mib * MIB), **changes))[0]


@pytest.mark.parametrize(
    ("mib", "platform", "ranges"),
    [
        (128, "pc", [(1, 0x9F), (0x100, 0x8000 - 0x20)]),
        (1024, "q35", [(1, 0x9F), (0x100, 0x40000 - 0x21)]),
        (4096, "pc", [(1, 0x9F), (0x100, 0xC0000 - 0x20), (0x100000, 0x140000)]),
    ],
)
def test_ram_of_a_pc_is_the_firmwares_map_without_page_0(mib, platform, ranges):
    ram = kernel_of(mib, platform=platform).boot_ram
    assert ram == PfnSet(PfnRange(start, end) for start, end in ranges)


@pytest.mark.parametrize(
    ("arch", "start"), [("aarch64", 0x40000), ("ppc64le", 0), ("s390x", 0), ("aarch64-64k", 0x4000)]
)
def test_elsewhere_ram_is_one_range(arch, start):
    kernel = kernel_of(1024, arch=arch)
    nr_pages = GIB // kernel.arch.page_size_bytes
    assert kernel.boot_ram == PfnSet.of(PfnRange(start, start + nr_pages))
    assert kernel.max_pfn == start + nr_pages


@pytest.mark.parametrize("mib", [0, 126, 127, 129])
def test_memory_is_a_multiple_of_2_mib_and_128_mib_at_least(mib):
    assert kernel_of(128)
    assert kernel_of(130)
    with pytest.raises(InputError, match=rf"^machine.memory {mib * MIB:#x}: need a multiple of 2"):
        kernel_of(mib)


def test_memory_of_a_node_is_whole_mib():
    nodes = [Node(memory=Size(512 * MIB + 4096)), Node(memory=Size(512 * MIB - 4096))]
    with pytest.raises(InputError, match=r"^machine.nodes\[0\].memory 0x20001000: need whole MiB"):
        kernel_of(nodes=nodes)


def test_nodes_follow_each_other_in_the_order_of_addresses():
    nodes = [Node(memory=Size(size * MIB)) for size in (1024, 3072, 1024)]
    shares = boot(Machine(nodes=nodes))[0].boot_node_pages.items()
    assert {node: [(run.start, run.end) for run in pages.ranges()] for node, pages in shares} == {
        0: [(1, 0x9F), (0x100, 0x40000)],
        1: [(0x40000, 0xC0000 - 0x20), (0x100000, 0x140000)],
        2: [(0x140000, 0x180000)],
    }


def test_a_node_without_memory_is_not_online_at_boot():
    kernel = kernel_of(nodes=[Node(memory=Size(GIB)), Node(memory=Size(0))])
    assert kernel.boot_nodes == {0}
    assert {node for node, _ in kernel.zones} == {0, 1}


def test_zones_follow_each_other_and_all_their_pages_are_early():
    kernel = kernel_of(6144)
    spans = {zone.name: (zone.span.start, zone.span.end) for zone in kernel.zones.values()}
    assert spans == {
        "DMA": (1, 0x1000),
        "DMA32": (0x1000, 0x100000),
        "Normal": (0x100000, 0x1C0000),
        "Movable": (0, 0),
    }
    for zone in kernel.zones.values():
        assert zone.early_nr_pages == len(zone.present)


def test_nodes_are_refused_where_debians_kernel_has_none():
    with pytest.raises(InputError, match=r"^machine.nodes: .* for s390x has no NUMA nodes$"):
        kernel_of(arch="s390x", nodes=[Node(memory=Size(GIB))])
    assert boot(Machine(arch="s390x"))[2].nodes is None
    assert boot(Machine(arch="ppc64le"))[2].nodes is not None
