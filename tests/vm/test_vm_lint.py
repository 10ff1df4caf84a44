"""Each rule of lint: a definition that breaks it, and the same one mended."""

from dataclasses import replace

import pytest
from definitions import GIB, MIB, qemu, with_virtio_mem

from altmap.vm.answers import started, way_answer
from altmap.vm.definition import (
    DefinedBalloon,
    DefinedDevice,
    DefinedNode,
    HostBacking,
    Written,
)
from altmap.vm.lint import RULES, lint

MOVABLE = "memhp_default_state=online_movable"
POLICY = "memory_hotplug.online_policy=auto-movable"
TWO_NODES = (DefinedNode(0, 2 * GIB), DefinedNode(1, 2 * GIB))


def found(definition, ways=(), **keys):
    guest = started(definition, **keys)
    return lint(guest, [way_answer(guest, way) for way in guest.ways(ways)])


def dimm(size=GIB, **fields):
    return DefinedDevice("dimm", size, "d0", **fields)


def virtio_mem(size=8 * GIB, **fields):
    return with_virtio_mem(qemu(), size, **fields)


BALLOONED = qemu(growth=("balloon",), max_memory_bytes=None, balloon=DefinedBalloon(True, GIB))
#: The rule, what breaks it, and what does not, each with the kernel's keys.
CASES = [
    ("size-of-block", (qemu(devices=(dimm(200 * MIB),)), {}), (qemu(devices=(dimm(),)), {})),
    ("size-of-block", (virtio_mem(8 * GIB + 2 * MIB), {}), (virtio_mem(), {})),
    ("size-of-device", (qemu(devices=(dimm(GIB + MIB),)), {}), (qemu(devices=(dimm(),)), {})),
    ("size-of-device", (virtio_mem(requested=GIB + MIB), {}), (virtio_mem(requested=GIB), {})),
    ("large-blocks", (qemu(62 * GIB, max_memory_bytes=99 * GIB), {}), (qemu(), {})),
    ("no-maximum", (qemu(growth=(), max_memory_bytes=None), {}), (qemu(), {})),
    ("no-maximum", (qemu(growth=(), slots=0), {}), (qemu(), {})),
    ("beyond-addresses", (qemu(max_phys_bits=35), {}), (qemu(max_phys_bits=40), {})),
    ("small-boot", (qemu(256 * MIB), {"cmdline": MOVABLE}), (qemu(256 * MIB), {})),
    ("one-step", (qemu(256 * MIB), {}), (qemu(), {})),
    ("no-driver", (qemu(arch="aarch64", machine="virt"), {}), (qemu(), {})),
    ("stays-offline", (qemu(), {"release": "6.1"}), (qemu(), {"release": "6.12"})),
    # DLPAR onlines what it adds, whatever the policy for new blocks is.
    (
        "stays-offline",
        (virtio_mem(), {"release": "6.1"}),
        (qemu(arch="ppc64le", machine="pseries"), {"release": "6.12"}),
    ),
    # The way that is shown does not decide what the definition has.
    ("no-maximum", (BALLOONED, {"ways": ["balloon"]}), (virtio_mem(), {"ways": ["balloon"]})),
    ("not-returned", (qemu(), {}), (qemu(), {"cmdline": MOVABLE})),
    ("beyond-ratio", (qemu(), {"cmdline": MOVABLE}), (qemu(), {"cmdline": POLICY})),
    (
        "memmap-on-memory",
        (virtio_mem(), {"cmdline": "memory_hotplug.memmap_on_memory=1"}),
        (qemu(), {"cmdline": "memory_hotplug.memmap_on_memory=1"}),
    ),
    (
        "empty-node",
        (qemu(nodes=(DefinedNode(0, 4 * GIB), DefinedNode(1, 0))), {}),
        (qemu(nodes=TWO_NODES), {}),
    ),
    (
        "empty-node",
        (
            qemu(nodes=TWO_NODES, devices=(dimm(node=1), replace(dimm(node=1), node=2, name="x"))),
            {},
        ),
        (qemu(nodes=TWO_NODES, devices=(dimm(node=1),)), {}),
    ),
    (
        "host-memory",
        (virtio_mem(backing=HostBacking(prealloc=True)), {}),
        (virtio_mem(backing=HostBacking(prealloc=False)), {}),
    ),
    (
        "host-memory",
        (virtio_mem(block_bytes=2 * MIB, backing=HostBacking(hugepage_bytes=GIB)), {}),
        (virtio_mem(block_bytes=GIB, backing=HostBacking(hugepage_bytes=GIB)), {}),
    ),
    (
        "host-memory",
        (qemu(balloon=DefinedBalloon(True, GIB), backing=HostBacking(locked=True)), {}),
        (qemu(balloon=DefinedBalloon(True, GIB)), {}),
    ),
    (
        "at-next-start",
        (qemu(devices=(dimm(),)), {}),
        (qemu(devices=(dimm(),)), {"cmdline": MOVABLE}),
    ),
]


@pytest.mark.parametrize(("rule", "broken", "mended"), CASES)
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule, broken, mended):
    definition, keys = broken
    assert rule in {each.rule for each in found(definition, **keys)}
    definition, keys = mended
    assert rule not in {each.rule for each in found(definition, **keys)}


def test_every_rule_has_a_case_and_every_finding_a_rule():
    assert {rule for rule, _, _ in CASES} == set(RULES)
    for _, (definition, keys), _ in CASES[:16]:
        assert {each.rule for each in found(definition, **keys)} <= set(RULES)


def test_a_finding_names_the_line_of_the_file_and_the_line_as_it_should_be():
    definition = qemu(
        growth=(), max_memory_bytes=None, written={"memory_bytes": Written("-m 4G", 7)}
    )
    (finding,) = found(definition)
    assert finding.line == 7
    assert finding.change == "-m 4G,slots=16,maxmem=16G"
    (finding,) = [
        each
        for each in found(qemu(devices=(dimm(200 * MIB, line=9),)))
        if each.rule == "size-of-block"
    ]
    assert (finding.line, finding.change) == (9, "its size: 128MiB or 256MiB")


def test_a_larger_boot_memory_as_proposed_is_enough():
    definition = qemu(256 * MIB, max_memory_bytes=12 * GIB)
    (finding,) = [e for e in found(definition, cmdline=MOVABLE) if e.rule == "small-boot"]
    assert finding.change.startswith("-m 512M,")
    mended = replace(definition, memory_bytes=512 * MIB)
    assert not [e for e in found(mended, cmdline=MOVABLE) if e.rule == "small-boot"]
