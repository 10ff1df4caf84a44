"""The lines of /proc/meminfo and /proc/vmstat: the base's numbers and what was gained since."""

import pytest

from altmap.model.boot import boot
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.zone import Watermarks
from altmap.model.machine import ModelMachine
from altmap.model.observe.meminfo import meminfo_numbers, meminfo_shown
from altmap.model.observe.vmstat import vmstat_numbers, vmstat_shown
from altmap.model.observe.zoneinfo import zone_numbers
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Fill, Machine, Plug, SetTunables, Size

MIB, GIB = 1 << 20, 1 << 30


def kernel_of(**changes):
    return boot(Machine(memory=Size(GIB), **changes))[0]


def numbers(kernel):
    return meminfo_numbers(kernel, {z.key: zone_numbers(kernel, z) for z in kernel.zones.values()})


def shown(base, gains, **changes):
    start = {"MemTotal": 0, "Hugetlb": 0}
    return meminfo_shown(base, kernel_of(**changes), start, start | gains)


def test_a_number_gains_and_never_falls_below_0():
    base = {"MemFree": 100, "Active": 8, "MemTotal": 4000}
    assert shown(base, {"MemFree": 20, "MemTotal": -400}) == base | {
        "MemFree": 120,
        "MemTotal": 3600,
    }
    assert shown(base, {"MemFree": -101})["MemFree"] == 0
    assert meminfo_shown(None, kernel_of(), {}, {}) is None


@pytest.mark.parametrize(
    ("total", "huge", "gained", "gained_huge", "limit"),
    [
        (1000, 0, 1, 0, 500),
        (1001, 0, 1, 0, 501),
        (1001, 0, 2, 0, 501),
        (1001, 1, 1, 0, 500),
        (1000, 0, 512, 512, 500),
        (1000, 512, -100, -512, 450),
    ],
)
def test_the_commit_limit_is_half_of_all_pages_but_huge_ones(
    total, huge, gained, gained_huge, limit
):
    # mm/util.c: vm_commit_limit, in whole pages
    base = {"MemTotal": total * 4, "Hugetlb": huge * 4, "CommitLimit": (total - huge) // 2 * 4}
    gains = {"MemTotal": gained * 4, "Hugetlb": gained_huge * 4}
    assert shown(base, gains)["CommitLimit"] == limit * 4


def test_available_is_free_without_high_watermarks_and_reserves():
    kernel = kernel_of()
    for zone in kernel.zones.values():
        zone.watermarks = Watermarks(high=10, protection=(3, 7, 5))
    # Two zones have pages; no more than its managed pages is held back of any.
    assert numbers(kernel)["MemAvailable"] == (kernel.free_nr_pages() - 2 * 17) * 4


def test_huge_pages_are_counted_of_the_default_size_and_kib_of_all():
    kernel = kernel_of()
    pages = [PfnSet.of(PfnRange(at, at + 1024)) for at in (0x8000, 0x8400, 0x8800)]
    kernel.hugetlb[512] = HugePool(512, [pages[0]], pages[1], {0: 1})
    kernel.hugetlb[1024] = HugePool(1024, [pages[2]])
    kernel.used |= PfnRange(0x8000, 0x8C00)
    found = numbers(kernel)
    assert (found["HugePages_Total"], found["HugePages_Free"], found["HugePages_Surp"]) == (4, 2, 1)
    assert found["Hugetlb"] == 3 * 4096


def test_the_direct_map_has_leaves_of_1_gib_where_whole_ones_were_added():
    model = ModelMachine.start(Machine(memory=Size(GIB), memmap_on_memory="off"))
    before = model.observe().meminfo
    assert before["DirectMap2M"] == len(model.kernel.boot_ram) * 4
    model.perform(Plug(id="d", size=Size(GIB + 128 * MIB)))
    after = model.observe().meminfo
    assert after["DirectMap1G"] - before["DirectMap1G"] == 1 << 20
    assert after["DirectMap2M"] - before["DirectMap2M"] == 128 << 10
    model.kernel.tunables.direct_map_1g = model.kernel.tunables.direct_map_2m = False
    assert numbers(model.kernel)["DirectMap4k"] == (len(model.kernel.boot_ram) + 294912) * 4


def test_the_direct_map_of_a_failed_add_stays():
    model = ModelMachine.start(Machine(memory=Size(GIB), memmap_on_memory="off"))
    before = model.observe().meminfo
    model.perform(SetTunables(fail_allocation=1))
    assert not model.perform(Plug(id="d", size=Size(128 * MIB))).outcome
    gained = {name: kib - before[name] for name, kib in model.observe().meminfo.items()}
    assert not model.kernel.additions
    assert gained["DirectMap2M"] == 128 << 10


@pytest.mark.parametrize(
    ("arch", "gained"), [("ppc64le", 256 << 10), ("aarch64", None), ("s390x", None)]
)
def test_elsewhere_only_radix_shows_the_direct_map(arch, gained):
    model = ModelMachine.start(Machine(arch=arch, memory=Size(GIB)))
    before = numbers(model.kernel).get("DirectMap2M")
    model.perform(Plug(id="d", size=Size(256 * MIB)))
    after = numbers(model.kernel).get("DirectMap2M")
    assert (after if gained is None else after - before) == gained


def test_files_in_memory_are_cached_and_shared():
    model = ModelMachine.start(Machine(memory=Size(GIB)))
    before = model.observe().meminfo
    assert model.perform(Fill(id="f", kind="file", size=Size(8 * MIB))).outcome
    now = model.observe().meminfo
    for name, gained in (("Shmem", 8192), ("Cached", 8192), ("MemFree", -8192)):
        assert now[name] - before[name] == gained


def test_counters_of_vmstat_wrap_as_an_unsigned_long():
    base = {"nr_free_pages": 5, "nr_memmap_pages": 1, "other": 3}
    now = {"nr_free_pages": -7, "nr_memmap_pages": 2, "nr_balloon_pages": 1}
    assert vmstat_shown(base, {"nr_memmap_pages": 1}, now) == {
        "nr_free_pages": (1 << 64) - 2,
        "nr_memmap_pages": 2,
        "other": 3,
    }
    assert vmstat_shown(None, {}, now) is None


def test_a_balloons_pages_are_counted():
    kernel = kernel_of()
    kernel.ballooned |= PfnRange(0x8000, 0x8010)
    assert numbers(kernel)["Balloon"] == 64
    assert vmstat_numbers(kernel, {})["nr_balloon_pages"] == 16
