"""Watermarks and reserves agree with those of real guests, computed from their managed pages."""

from dataclasses import replace
from pathlib import Path

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.kernel.page_offline import set_fake_offline
from altmap.model.kernel.watermarks import (
    adopt_watermarks,
    init_per_zone_wmark_min,
    totalreserve_nr_pages,
)
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Plug, Size

FILES = Path(__file__).parents[2] / "recordings" / "files"
NAMES = ("min", "low", "high", "promo")


def recorded(name):
    seen = Observation.read(Sysroot.read(FILES / f"{name}.tar.xz"))
    return {info.name: info for info in seen.zoneinfo}


def kernel_with(managed, release):
    """Return a kernel whose zones manage so many pages, and have no watermarks yet."""
    kernel = ModelMachine.start(Machine(memory=Size(1 << 30), release=release)).kernel
    kernel.reserved, kernel.used = PfnSet(), PfnSet()
    for index, zone in enumerate(kernel.zones.values()):
        start = index << 24
        zone.present = PfnSet([PfnRange(start, start + managed.get(zone.name, 0))])
        zone.watermarks = type(zone.watermarks)()
    return kernel


# DMA and DMA32 of a guest of 1 GiB; Normal and Movable of one block each.
GUESTS = {"6.1": (3840, 225015, 32768), "6.12": (3840, 226776, 32256)}


@pytest.mark.parametrize("release", GUESTS)
def test_reserves_are_the_managed_pages_of_the_zones_above_by_the_ratio_below(release):
    dma, dma32, block = GUESTS[release]
    kernel = kernel_with({"DMA": dma, "DMA32": dma32, "Normal": block, "Movable": block}, release)
    init_per_zone_wmark_min(kernel)
    found = recorded(f"linux-{release}-dimm")
    for zone in kernel.zones.values():
        assert zone.watermarks.protection == found[zone.name].protection[:4], zone.name


@pytest.mark.parametrize("release", GUESTS)
def test_marks_settle_on_those_of_a_real_guest(release):
    """The high marks in force enter the next ones, so a guest's are those of a few steps."""
    dma, dma32, block = GUESTS[release]
    kernel = kernel_with({"DMA": dma, "DMA32": dma32, "Normal": block, "Movable": block}, release)
    for _ in range(4):
        init_per_zone_wmark_min(kernel)
    found = recorded(f"linux-{release}-dimm")
    for zone in kernel.zones.values():
        pages = found[zone.name].pages
        shown = {name: pages[name] for name in NAMES if name in pages}
        assert {name: getattr(zone.watermarks, name) for name in shown} == shown, zone.name


def test_movable_counts_as_low_memory_on_6_1_and_is_capped_on_6_12():
    managed = {"DMA": 3840, "DMA32": 226776, "Normal": 32256, "Movable": 1 << 20}
    for release, least in (("6.1", None), ("6.12", 128)):
        kernel = kernel_with(managed, release)
        init_per_zone_wmark_min(kernel)
        movable = kernel.zones[0, "Movable"].watermarks
        if least:
            assert movable.min == least
        else:
            normal = kernel.zones[0, "Normal"].watermarks
            assert movable.min == pytest.approx(normal.min * (1 << 20) / 32256, rel=0.01)
    kernel = kernel_with(managed | {"Movable": 32256}, "6.12")
    init_per_zone_wmark_min(kernel)
    assert kernel.zones[0, "Movable"].watermarks.min == 32


def test_marks_are_evenly_spaced_and_at_least_by_a_thousandth():
    kernel = kernel_with({"DMA32": 1 << 18, "Movable": 1 << 22}, "6.12")
    init_per_zone_wmark_min(kernel)
    for name, managed in (("DMA32", 1 << 18), ("Movable", 1 << 22)):
        marks = kernel.zones[0, name].watermarks
        steps = {marks.low - marks.min, marks.high - marks.low, marks.promo - marks.high}
        assert len(steps) == 1
        assert steps.pop() >= managed * 10 // 10000


def test_a_zone_whose_pages_a_driver_withholds_counts_for_khugepaged():
    """mm/khugepaged.c: set_recommended_min_free_kbytes asks for_each_populated_zone (present)."""

    def min_free(withheld):
        machine = ModelMachine.start(Machine(memory=Size(2 << 30), auto_online_blocks="online"))
        if withheld:
            machine.kernel.online_page_callback = lambda pages: PfnSet()
            machine.perform(Plug(id="d1", size=Size(128 << 20)))
        return sum(z.watermarks.min for z in machine.kernel.zones.values() if z.name != "Movable")

    # Eleven pageblocks for each kernel zone, less what rounding takes from each.
    assert 2 * 11 * 512 - 2 <= min_free(withheld=False) <= 2 * 11 * 512
    assert 3 * 11 * 512 - 3 <= min_free(withheld=True) <= 3 * 11 * 512


def test_a_zone_whose_marks_no_file_shows_has_none():
    """A zone that memory is added to later: zoneinfo lists it, with zeros, or does not."""
    kernel = ModelMachine.start(Machine(memory=Size(1 << 30))).kernel
    marks = kernel.zones[0, "Normal"].watermarks
    assert (marks.min, marks.low, marks.high, marks.promo, sum(marks.protection)) == (0,) * 5
    for zone in kernel.zones.values():
        zone.watermarks = replace(zone.watermarks, min=7)
    adopt_watermarks(kernel, {})
    for zone in kernel.zones.values():
        marks = zone.watermarks
        assert (marks.min, marks.low, marks.high, marks.promo, marks.protection) == (0, 0, 0, 0, ())


@pytest.mark.parametrize(("release", "follows"), [("6.12", False), ("7.3", True)])
def test_what_is_reserved_is_summed_up_when_reserves_are_set(release, follows):
    """A vetoed shrink of virtio-mem on Debian's 6.12 (arm64): MemAvailable lacks it still."""
    machine = Machine(memory=Size(1 << 30), release=release, auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    model.perform(Plug(id="d", size=Size(256 << 20)))
    kernel = model.kernel
    movable = kernel.zones[0, "Movable"]
    before = totalreserve_nr_pages(kernel)
    set_fake_offline(kernel, movable.present.copy())
    assert not kernel.nr_managed(movable)
    assert (totalreserve_nr_pages(kernel) < before) is follows
