"""Words of the command line that size and divide boot memory, against zones of Debian's 6.12."""

import pytest

from altmap.errors import InputError
from altmap.model.arch import arch_named
from altmap.model.boot.layout import ram_in_use
from altmap.model.kernel.allocator import available_nr_pages
from altmap.model.machine import ModelMachine
from altmap.scenario import Address, Device, Machine, Node, Plug, Size

MIB, GIB = 1 << 20, 1 << 30


def booted(arch, memory, cmdline, nodes=(), **keys):
    made = Machine(
        arch=arch,
        release="6.12",
        memory=Size(memory),
        cmdline=cmdline,
        nodes=tuple(Node(memory=Size(size)) for size in nodes),
        **keys,
    )
    return ModelMachine.start(made, pages=False)


def zones_of(model):
    return {
        (zone.node, zone.name): (len(zone.span), len(zone.present), zone.cma_nr_pages)
        for zone in model.kernel.zones.values()
        if zone.present
    }


@pytest.mark.parametrize(
    ("arch", "memory", "cmdline", "nodes", "zones", "total_kib"),
    [  # spanned, present and cma of /proc/zoneinfo, and MemTotal, observed in QEMU
        (
            *("x86_64", 2 * GIB, "movablecore=1G", ()),
            {
                (0, "DMA"): (4095, 3998, 0),
                (0, "DMA32"): (258048, 258048, 0),
                (0, "Movable"): (262112, 262112, 0),
            },
            1952904,
        ),
        (  # only memory above 4 GiB is cut from
            *("x86_64", 5 * GIB, "kernelcore=2G", ()),
            {
                (0, "DMA"): (4095, 3998, 0),
                (0, "DMA32"): (1044480, 782304, 0),
                (0, "Movable"): (524288, 524288, 0),
            },
            5040260,
        ),
        (
            *("x86_64", 5 * GIB, "movablecore=30%", (3 * GIB, 2 * GIB)),
            {
                (0, "DMA"): (4095, 3998, 0),
                (0, "DMA32"): (782304, 782304, 0),
                (1, "Movable"): (393216, 393216, 0),
                (1, "Normal"): (131072, 131072, 0),
            },
            5052376,
        ),
        (  # addresses, not the amount: there is a hole below 4 GiB
            *("x86_64", 6 * GIB, "mem=5G", ()),
            {
                (0, "DMA"): (4095, 3998, 0),
                (0, "DMA32"): (1044480, 782304, 0),
                (0, "Normal"): (262144, 262144, 0),
            },
            4014212,
        ),
        (
            *("x86_64", 2 * GIB, "mem=1000M", ()),
            {(0, "DMA"): (4095, 3998, 0), (0, "DMA32"): (251904, 251904, 0)},
            897804,
        ),
        (
            *("x86_64", 4 * GIB, "memmap=512M!1G", ()),
            {
                (0, "DMA"): (4095, 3998, 0),
                (0, "DMA32"): (1044480, 651232, 0),
                (0, "Normal"): (262144, 262144, 0),
            },
            3498120,
        ),
        (
            *("x86_64", 3 * GIB, "memmap=100M$1G,1G!2G", ()),
            {(0, "DMA"): (4095, 3998, 0), (0, "DMA32"): (520192, 494592, 0)},
            1850636,
        ),
        (
            *("x86_64", 2 * GIB, "numa=off", (GIB, GIB)),
            {(0, "DMA"): (4095, 3998, 0), (0, "DMA32"): (520160, 520160, 0)},
            2019212,
        ),
        ("aarch64", 2 * GIB, "mem=1G", (), {(0, "DMA"): (262144, 262144, 16384)}, 991436),
        (
            *("aarch64", 2 * GIB, "kernelcore=1G", ()),
            {(0, "DMA"): (262144, 262144, 0), (0, "Movable"): (262144, 262144, 16384)},
            2019004,
        ),
        ("aarch64", GIB, "cma=256M", (), {(0, "DMA"): (262144, 262144, 65536)}, 991436),
    ],
)
def test_boot_memory_is_divided_as_on_the_real_kernel(
    arch, memory, cmdline, nodes, zones, total_kib
):
    model = booted(arch, memory, cmdline, nodes)
    assert zones_of(model) == zones
    total = model.kernel.total_ram_nr_pages() * 4
    assert abs(total - total_kib) <= (256 if nodes else 8)


@pytest.mark.parametrize(
    ("arch", "words", "ranges"),
    [
        ("x86_64", "memmap=1G", [(MIB, GIB)]),
        ("x86_64", "memmap=1G#512M mem=1792M", [(MIB, GIB // 2), (3 * GIB // 2, 7 * GIB // 4)]),
        ("x86_64", "memmap=512M$1G,1G$1280M", [(MIB, GIB)]),
        # QEMU keeps 128 KiB at the end for ACPI.
        ("x86_64", "memmap=512M@1G memmap=exactmap memmap=5%1G", [(MIB, 2 * GIB - MIB // 8)]),
        ("ppc64le", "memmap=1G", [(0, 2 * GIB)]),
    ],
)
def test_memmap_takes_ranges_out_of_ram_on_x86(arch, words, ranges):
    made = Machine(arch=arch, memory=Size(2 * GIB), cmdline=words)
    assert [each for each in ram_in_use(made, arch_named(arch)) if each[1] > MIB] == ranges


def test_the_kernels_image_is_below_zone_movable():
    """Managed pages of DMA32 and Movable, observed."""
    kernel = booted("x86_64", 2 * GIB, "movablecore=1G").kernel
    managed = [kernel.nr_managed(kernel.zones[0, name]) for name in ("DMA32", "Movable")]
    assert managed == [248441, 235946]


def test_what_the_kernel_allocates_after_boot_is_below_zone_movable():
    kernel = booted("x86_64", 2 * GIB, "movablecore=1G").kernel
    assert kernel.used
    assert not kernel.used & kernel.zones[0, "Movable"].present


@pytest.mark.parametrize("cmdline", ["kernelcore=4G", "kernelcore=100%", "kernelcore=mirror"])
def test_without_memory_beyond_the_kernels_there_is_no_zone_movable(cmdline):
    assert (0, "Movable") not in zones_of(booted("x86_64", 2 * GIB, cmdline))


def test_the_larger_of_both_words_is_the_kernels():
    def movable(cmdline):
        return zones_of(booted("x86_64", 8 * GIB, cmdline))[0, "Movable"][1] * 4096

    assert movable("movablecore=3G kernelcore=2G") == 3 * GIB
    assert movable("movablecore=3G kernelcore=6G") == 2 * GIB - 4 * MIB  # whole chunks


def test_movable_node_overrides_both_words():
    assert (0, "Movable") not in zones_of(
        booted("x86_64", 2 * GIB, "movablecore=1G", movable_node=True)
    )


def test_memory_that_mem_leaves_out_keeps_its_addresses():
    """QEMU places a DIMM behind all RAM that it has given."""
    model = booted("x86_64", 8 * GIB, "mem=2G")
    assert model.perform(Plug(id="d", driver="dimm", size=Size(GIB))).outcome
    assert max(model.observe().memory.blocks) == 10 * GIB // (128 * MIB) - 1


@pytest.mark.parametrize(("cmdline", "nr_blocks"), [("mem=8G", 32), ("mem=9G", 32 + 8)])
def test_a_dimm_above_mem_is_refused_while_the_kernel_boots(cmdline, nr_blocks):
    dimm = Device(id="d", driver="dimm", address=Address(8 * GIB), size=Size(GIB))
    model = booted("x86_64", 4 * GIB, cmdline, devices=(dimm,))
    assert len(model.kernel.added_blocks) == nr_blocks
    refused = any("E2BIG by register_memory_resource" in note for note in model.notes)
    assert refused == (nr_blocks == 32)
    with pytest.raises(InputError, match="overlap"):  # QEMU has it, whatever the kernel does
        model.perform(Plug(id="e", driver="dimm", size=Size(GIB), address=Address(8 * GIB)))


def test_a_mem_that_leaves_too_little_is_refused():
    with pytest.raises(InputError, match="'mem=64M': leaves less than 128 MiB"):
        booted("x86_64", GIB, "mem=64M")


def test_the_kernel_gets_no_page_of_the_cma_area():
    small, large = (booted("aarch64", GIB, f"cma={mib}M").kernel for mib in (0, 256))
    assert available_nr_pages(small) - available_nr_pages(large) == 256 * MIB // 4096


def test_an_area_that_does_not_fit_is_not_reserved():
    """CMA_MIN_ALIGNMENT_BYTES is a pageblock: 512 MiB with pages of 64 KiB."""
    assert zones_of(booted("aarch64", GIB, "cma=2G"))[0, "DMA"][2] == 0
    of_64k = {mib: booted("aarch64-64k", mib * MIB, None) for mib in (1024, 2048)}
    assert [zones_of(model)[0, "DMA"][2] for model in of_64k.values()] == [0, 8192]
