"""The synthetic boot state: zones and blocks are those that real guests of that size show."""

import pytest

from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Node, Size

MIB, GIB = 1 << 20, 1 << 30


def zones(**changes):
    kernel = ModelMachine.start(Machine(**changes)).kernel
    return {
        key: (zone.span.start, len(zone.span), len(zone.present))
        for key, zone in kernel.zones.items()
        if zone.present
    }


def test_a_guest_of_1_gib_has_the_zones_of_a_real_one():
    # From /proc/zoneinfo of such a guest (QEMU pc, SeaBIOS).
    assert zones(memory=Size(GIB)) == {
        (0, "DMA"): (1, 4095, 3998),
        (0, "DMA32"): (4096, 258016, 258016),
    }


def test_a_guest_of_two_nodes_has_the_zones_of_a_real_one():
    # From /proc/zoneinfo of such a guest: 2 GiB and 4 GiB, memory split at 3 GiB.
    nodes = [Node(memory=Size(2 * GIB)), Node(memory=Size(4 * GIB))]
    assert zones(memory=Size(6 * GIB), nodes=nodes) == {
        (0, "DMA"): (1, 4095, 3998),
        (0, "DMA32"): (4096, 520192, 520192),
        (1, "DMA32"): (524288, 524288, 262112),
        (1, "Normal"): (1048576, 786432, 786432),
    }


@pytest.mark.parametrize(
    ("mib", "platform", "ids"),
    [
        (1024, "pc", [*range(8)]),
        (1000, "pc", [*range(8)]),
        (4096, "pc", [*range(24), *range(32, 40)]),
        (4096, "q35", [*range(16), *range(32, 48)]),
    ],
)
def test_every_block_with_memory_is_there_and_online(mib, platform, ids):
    model = ModelMachine.start(Machine(memory=Size(mib * MIB), platform=platform))
    assert list(model.kernel.added_blocks) == ids
    assert {block.state for block in model.observe().memory.blocks.values()} == {"online"}


def test_block_size_follows_the_end_of_boot_memory_unless_it_is_given():
    def block_size(**changes):
        model = ModelMachine.start(Machine(**changes), pages=False)
        return model.observe().memory.block_size_bytes

    assert block_size(memory=Size(GIB)) == 128 * MIB
    assert block_size(memory=Size(62 * GIB), platform="q35") == 2 * GIB
    assert block_size(memory=Size(64 * GIB), platform="pc") == GIB
    assert block_size(memory=Size(GIB), block_size=Size(GIB)) == GIB


@pytest.mark.parametrize(("release", "word"), [("6.1", "offline"), ("6.12", "online")])
def test_auto_online_is_what_debians_kernel_is_built_with(release, word):
    model = ModelMachine.start(Machine(memory=Size(GIB), release=release))
    assert model.observe().memory.auto_online_blocks == word
