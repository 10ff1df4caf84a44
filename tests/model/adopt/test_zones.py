"""Zones of an adopted kernel: RAM, spans, present pages, counters and watermarks."""

from dataclasses import replace

import pytest
from small_machine import BLOCKS, DIMM, FIRST, GIB, RAM, RUNS, ZONES, files

from altmap.errors import InputError
from altmap.model.adopt import adopt
from altmap.model.kernel.watermarks import init_per_zone_wmark_min
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Size


def kernel_of(seen=None, devices=(DIMM,)):
    return adopt(files() if seen is None else seen, Machine(devices=list(devices))).kernel


def present(kernel):
    return {zone.name: len(zone.present) for zone in kernel.zones.values()}


def test_ram_is_the_whole_page_frames_of_every_line():
    ram = [(0x1001, 0x4FFF), (0x100000, GIB // 2), (4 * GIB, 4 * GIB + (1 << 27))]
    kernel = kernel_of(files(ram=ram))
    assert kernel.boot_ram == PfnSet([PfnRange(2, 4), PfnRange(0x100, 0x20000)])


@pytest.mark.parametrize(("end", "is_valid"), [(1 << 52, True), ((1 << 52) + 4096, False)])
def test_ram_ends_at_4_pib(end, is_valid):
    seen = files(ram=[*RAM, ((1 << 52) - 4096, end)])
    if is_valid:
        assert kernel_of(seen).max_pfn == 1 << 40
        return
    with pytest.raises(InputError, match=r"System RAM ends at 0x10000000001000, above 4 PiB$"):
        kernel_of(seen)


def test_without_ram_there_is_no_kernel():
    lines = tuple(line._replace(name="Reserved") for line in files().iomem)
    with pytest.raises(InputError, match="has no line 'System RAM'"):
        kernel_of(files(iomem=lines))


def test_blocks_exist_and_are_online_as_their_files_say():
    states = {33: "offline", 34: "going-offline"}
    blocks = BLOCKS | {id_: replace(BLOCKS[32], state=state) for id_, state in states.items()}
    kernel = kernel_of(files(blocks=blocks))
    assert list(kernel.added_blocks) == [0, 1, 2, 3, 32, 33, 34]
    assert list(kernel.online_blocks) == [0, 1, 2, 3, 32, 34]


def test_present_pages_are_those_of_zoneinfo():
    kernel = kernel_of()
    assert present(kernel) == {z.name: z.pages["present"] for z in ZONES if z.name != "Device"}
    assert kernel.zones[0, "Movable"].span == PfnRange(FIRST, FIRST + 32768)
    assert kernel.zones[0, "DMA"].span == PfnRange(1, 4096)
    assert not kernel.zones[0, "Normal"].span


def test_a_block_belongs_to_the_zone_that_its_file_names():
    # By the spans it would be of DMA32.
    blocks = BLOCKS | {3: replace(BLOCKS[3], valid_zones=("Movable",))}
    kernel = kernel_of(files(blocks=blocks))
    assert present(kernel) == {
        "DMA": 3998,
        "DMA32": 126976 - 32768,
        "Normal": 0,
        "Movable": 65536,
    }


@pytest.mark.parametrize(
    "block",
    [
        replace(BLOCKS[3], valid_zones=None),
        replace(BLOCKS[3], valid_zones=("none",)),
        replace(BLOCKS[3], valid_zones=("Movable",), nodes=(0, 1)),
    ],
)
def test_a_block_that_names_no_zone_belongs_to_the_span_that_has_it(block):
    assert present(kernel_of(files(blocks=BLOCKS | {3: block})))["DMA32"] == 126976


def test_pages_of_offline_blocks_are_of_no_zone():
    blocks = BLOCKS | {32: replace(BLOCKS[32], state="offline")}
    assert present(kernel_of(files(blocks=blocks)))["Movable"] == 0


def test_early_pages_and_pages_of_nodes_are_boot_memory():
    kernel = kernel_of()
    early = {zone.name: zone.early_nr_pages for zone in kernel.zones.values()}
    assert early == {"DMA": 3998, "DMA32": 126976, "Normal": 0, "Movable": 0}
    assert kernel.boot_node_pages == {0: kernel.boot_ram}


def test_cma_pages_are_those_of_zoneinfo():
    zones = (ZONES[0], replace(ZONES[1], pages=ZONES[1].pages | {"cma": 77}), *ZONES[2:])
    kernel = kernel_of(files(zoneinfo=zones))
    assert [zone.cma_nr_pages for zone in kernel.zones.values()] == [0, 77, 0, 0]


@pytest.mark.parametrize(
    ("beyond", "end"), [([], 0x108000), ([(0x108000, 0x8000, 1 << 20)], 0x110000)]
)
def test_max_pfn_is_the_end_of_kpageflags_or_of_ram(beyond, end):
    assert kernel_of(files(runs=[*RUNS, *beyond])).max_pfn == end


def booted(**changes):
    settings = {"memory": Size(2 * GIB), "release": "6.12", "auto_online_blocks": "online"}
    return ModelMachine.start(Machine(**settings | changes)).observe()


def with_min(seen, factor):
    def marks(zone):
        low = {"min": int(zone.pages["min"] * factor)}
        return replace(zone, pages=zone.pages | low)

    return replace(seen, zoneinfo=tuple(marks(zone) for zone in seen.zoneinfo))


@pytest.mark.parametrize(
    ("factor", "computes"), [(1, True), (1.01, True), (0.99, True), (1.1, False), (0.9, False)]
)
def test_watermarks_follow_the_rule_unless_another_minimum_is_in_force(factor, computes):
    seen = with_min(booted(), factor)
    kernel = adopt(seen, Machine()).kernel
    assert kernel.computes_watermarks == computes
    assert kernel.tunables.khugepaged or not computes
    shown = {zone.key: zone.pages["min"] for zone in seen.zoneinfo if zone.name != "Device"}
    assert {zone.key: zone.watermarks.min for zone in kernel.zones.values()} == shown


@pytest.mark.parametrize("sign", [1, -1])
def test_the_minimum_in_force_may_differ_by_a_fiftieth_and_a_page_for_each_zone(sign):
    seen = booted()
    kernel = adopt(seen, Machine()).kernel
    init_per_zone_wmark_min(kernel)
    computed = sum(zone.watermarks.min for zone in kernel.zones.values() if zone.name != "Movable")
    in_force = sum(z.pages["min"] for z in seen.zoneinfo if z.name in ("DMA", "DMA32", "Normal"))
    for beyond, computes in ((0, True), (1, False)):
        change = computed + sign * (computed // 50 + len(kernel.zones) + beyond) - in_force
        zones = tuple(
            replace(zone, pages=zone.pages | {"min": zone.pages["min"] + change})
            if zone.name == "DMA32"
            else zone
            for zone in seen.zoneinfo
        )
        adopted = adopt(replace(seen, zoneinfo=zones), Machine()).kernel
        assert adopted.computes_watermarks is computes


def test_watermarks_without_khugepaged_are_recognised():
    model = ModelMachine.start(Machine(memory=Size(2 * GIB), release="6.12"))
    model.kernel.tunables.khugepaged = False
    for zone in model.kernel.zones.values():
        zone.watermarks = Watermarks()
    init_per_zone_wmark_min(model.kernel)
    kernel = adopt(model.observe(), Machine()).kernel
    assert kernel.computes_watermarks
    assert not kernel.tunables.khugepaged


def test_zones_have_the_managed_pages_that_zoneinfo_shows():
    zones = (ZONES[0], replace(ZONES[1], pages=ZONES[1].pages | {"managed": 126900}), *ZONES[2:])
    kernel = kernel_of(files(zoneinfo=zones))
    assert kernel.nr_managed(kernel.zones[0, "DMA32"]) == 126900
    assert kernel.zones[0, "DMA32"].managed_offset == -76
    assert kernel.zones[0, "DMA"].managed_offset == 0


def test_marks_and_protection_are_those_of_zoneinfo():
    marks = {"min": 3, "low": 5, "high": 7, "promo": 9}
    zones = (
        replace(ZONES[0], pages=ZONES[0].pages | marks, protection=(0, 1, 2, 3, 4)),
        *ZONES[1:],
    )
    shown = kernel_of(files(zoneinfo=zones)).zones[0, "DMA"].watermarks
    assert (shown.min, shown.low, shown.high, shown.promo) == (3, 5, 7, 9)
    assert shown.protection == (0, 1, 2, 3, 4)
