"""Devices that are plugged at the start: those of the scenario, or all that the files show."""

from dataclasses import replace

import pytest
from small_machine import BLOCK, BLOCKS, DIMM, FIRST, GIB, RUNS, files

from altmap.linux.observation import Resource
from altmap.model.adopt import adopt
from altmap.scenario import Machine

FOUR = 4 * GIB


def shown(*lines, blocks=BLOCKS):
    """Return the devices found with these lines of /proc/iomem behind the boot memory."""
    iomem = tuple(Resource(0, start, end, "System RAM") for start, end in [(0x100000, GIB // 2)])
    seen = files(blocks=blocks, iomem=iomem + tuple(Resource(*line) for line in lines))
    made = adopt(replace(seen, kpageflags=None), Machine())
    devices = {id_: made.drivers[id_] for id_ in made.devices}
    devices |= {region.id: region.driver for region in made.regions}
    return devices, made


def test_the_scenarios_devices_are_all_there_are():
    blocks = BLOCKS | {32: replace(BLOCKS[32], firmware_node="/devices/LNXSYSTM:00/PNP0C80:01")}
    made = adopt(files(blocks=blocks), Machine(devices=[DIMM]))
    assert made.drivers == {"d": "dimm"}


def test_a_blocks_firmware_node_names_its_dimm():
    node = "/devices/LNXSYSTM:00/LNXSYBUS:00/PNP0C80:"
    blocks = BLOCKS | {
        id_: replace(BLOCKS[32], nodes=(nr // 2,), firmware_node=f"{node}0{nr // 2}")
        for nr, id_ in enumerate((32, 33, 34))
    }
    devices, made = shown((0, FOUR, FOUR + 3 * BLOCK, "System RAM"), blocks=blocks)
    assert devices == {"PNP0C80:00": "dimm", "PNP0C80:01": "dimm"}
    pfns = [(add.pfns.start - FIRST, len(add.pfns), add.node) for add in made.kernel.additions]
    assert pfns == [(0, 65536, 0), (65536, 32768, 1)]
    assert made.notes[1:] == []


def test_the_line_above_memory_of_kmem_names_the_dax_device():
    blocks = BLOCKS | {id_: replace(BLOCKS[32], nodes=(1,)) for id_ in (32, 34, 36, 38)}
    devices, made = shown(
        (0, FOUR, FOUR + 5 * BLOCK, "dax0.0"),
        (1, FOUR, FOUR + BLOCK, "System RAM (kmem)"),
        (1, FOUR + 2 * BLOCK, FOUR + 3 * BLOCK, "System RAM (kmem)"),
        (0, FOUR + 6 * BLOCK, FOUR + 7 * BLOCK, "dax1.0"),
        (1, FOUR + 6 * BLOCK, FOUR + 7 * BLOCK, "System RAM (kmem)"),
        (0, FOUR + 4 * BLOCK, FOUR + 5 * BLOCK, "dax0.0"),
        (1, FOUR + 4 * BLOCK, FOUR + 5 * BLOCK, "System RAM (kmem)"),
        blocks=blocks,
    )
    assert list(devices) == ["dax0.0", "dax0.0:1", "dax1.0", "dax0.0:2"]
    assert set(devices.values()) == {"kmem"}
    assert {add.node for add in made.kernel.additions} == {1}
    assert {add.resource_name for add in made.kernel.additions} == {"System RAM (kmem)"}
    assert made.notes[1:] == []


def test_a_virtio_mem_region_is_a_device_on_the_node_of_its_blocks():
    blocks = {id_: block for id_, block in BLOCKS.items() if id_ < 4}
    blocks |= {33: replace(BLOCKS[32], nodes=(1,)), 41: replace(BLOCKS[32], nodes=(2,))}
    devices, made = shown(
        (0, FOUR, FOUR + 4 * BLOCK, "virtio0"),
        (1, FOUR + BLOCK, FOUR + 2 * BLOCK, "System RAM (virtio_mem)"),
        (0, FOUR + 8 * BLOCK, FOUR + 9 * BLOCK + BLOCK // 2, "virtio12"),
        (0, FOUR + 9 * BLOCK, FOUR + 10 * BLOCK, "virtio0x"),
        blocks=blocks,
    )
    assert devices == {"virtio0": "virtio-mem", "virtio12": "virtio-mem"}
    assert [(region.size, region.node) for region in made.regions] == [
        (4 * BLOCK, 1),
        (BLOCK + BLOCK // 2, 2),
    ]
    assert not [note for note in made.notes if "driver-managed" in note]


@pytest.mark.parametrize(
    ("lines", "noted"),
    [
        ([(0, FOUR, FOUR + BLOCK, "System RAM (hv_balloon)")], True),
        ([(0, FOUR, FOUR + BLOCK, "System RAM")], False),
        (
            [
                (0, FOUR, FOUR + BLOCK, "virtio0"),
                (1, FOUR, FOUR + BLOCK, "System RAM (virtio_mem)"),
            ],
            False,
        ),
        (
            [
                (0, FOUR, FOUR + BLOCK // 2, "virtio0"),
                (0, FOUR, FOUR + BLOCK, "System RAM (virtio_mem)"),
            ],
            True,
        ),
    ],
)
def test_driver_managed_memory_of_no_device_is_boot_memory_with_a_note(lines, noted):
    _, made = shown(*lines)
    assert (
        any(note.startswith("driver-managed System RAM counts as") for note in made.notes) == noted
    )


def test_page_flags_do_not_change_which_devices_there_are():
    assert adopt(files(runs=RUNS), Machine()).drivers == {}
