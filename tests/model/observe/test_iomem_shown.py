"""The lines of /proc/iomem: one for each DIMM, joined for drivers that merge."""

import pytest

from altmap.linux.observation import Resource
from altmap.model.boot import boot
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.state import Addition, MemoryGroup
from altmap.model.machine import ModelMachine
from altmap.model.observe.iomem import iomem_shown
from altmap.pfn import PfnRange
from altmap.scenario import Address, Machine, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online_movable",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def lines(seen):
    return [(line.start >> 20, line.end >> 20) for line in seen.iomem if line.start >= 4 * GIB]


def test_each_dimm_is_a_resource_and_what_hyperv_adds_merges():
    model = guest()
    for index in range(2):
        model.perform(Plug(id=f"d{index}", size=Size(128 * MIB)))
    assert lines(model.observe()) == [(4096, 4224), (4224, 4352)]
    model = guest()
    for index in (1, 0, 3):
        address = Address(4 * GIB + index * 128 * MIB)
        model.perform(Plug(id=f"h{index}", driver="hyperv", size=Size(128 * MIB), address=address))
    assert lines(model.observe()) == [(4096, 4352), (4480, 4608)]


def test_the_resource_goes_with_the_device():
    model = guest()
    before = model.observe()
    model.perform(Plug(id="d", size=Size(256 * MIB)))
    assert lines(model.observe()) == [(4096, 4352)]
    assert model.perform(Unplug(id="d")).outcome
    assert model.observe().iomem == before.iomem


@pytest.fixture
def kernel():
    return boot(Machine(memory=Size(GIB)))[0]


def added(kernel, mib, size, group=None, name="System RAM", *, merges=False):
    pfns = PfnRange(mib << 8, mib + size << 8)
    kernel.additions.append(
        Addition(pfns, 0, Memmap(kernel.arch, pfns), group, name, merges=merges)
    )
    return kernel.additions[-1]


def shown(kernel, base, start=(), regions=()):
    """Return depth, MiB and name of the lines shown from a base that has the start's adds."""
    resources = tuple(Resource(depth, s << 20, e << 20, name) for depth, s, e, name in base)
    return [
        (line.depth, line.start >> 20, line.end >> 20, line.name)
        for line in iomem_shown(resources, kernel, start, regions)
    ]


RAM = "System RAM"


def test_a_removed_range_is_cut_out_of_a_longer_line(kernel):
    middle = added(kernel, 4224, 128)
    kernel.additions.clear()
    base = [(0, 0, 1024, RAM), (0, 4096, 4480, RAM), (0, 4224, 4352, "PCI")]
    assert shown(kernel, base, [middle]) == [
        (0, 0, 1024, RAM),
        (0, 4096, 4224, RAM),
        (0, 4352, 4480, RAM),
        (0, 4224, 4352, "PCI"),
    ]


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [(4096, 4224, [(4224, 4480)]), (4352, 4480, [(4096, 4352)]), (4096, 4480, [])],
)
def test_a_range_at_an_edge_shortens_its_line(kernel, start, end, left):
    gone = added(kernel, start, end - start)
    kernel.additions.clear()
    lines = shown(kernel, [(0, 4096, 4480, RAM), (0, 4480, 4608, RAM)], [gone])
    assert lines == [(0, *ends, RAM) for ends in left] + [(0, 4480, 4608, RAM)]


def test_a_line_goes_below_the_innermost_line_that_contains_it(kernel):
    base = [(0, 0, 1024, RAM), (1, 16, 32, "Kernel code"), (0, 4096, 8192, "PCI Bus")]
    base += [(1, 4096, 6144, "Persistent Memory"), (1, 7168, 7424, "0000:00:01.0")]
    added(kernel, 4096, 128, name="System RAM (kmem)")
    added(kernel, 6144, 128)
    added(kernel, 9216, 128)
    added(kernel, 2048, 128)
    assert shown(kernel, base) == [
        (0, 0, 1024, RAM),
        (1, 16, 32, "Kernel code"),
        (0, 2048, 2176, RAM),
        (0, 4096, 8192, "PCI Bus"),
        (1, 4096, 6144, "Persistent Memory"),
        (2, 4096, 4224, "System RAM (kmem)"),
        (1, 6144, 6272, RAM),
        (1, 7168, 7424, "0000:00:01.0"),
        (0, 9216, 9344, RAM),
    ]


def test_regions_that_drivers_reserved_since_are_parents_of_what_they_add(kernel):
    kernel.regions += [
        (PfnRange(4096 << 8, 8192 << 8), "old"),
        (PfnRange(8192 << 8, 9216 << 8), "virtio1"),
    ]
    added(kernel, 8192, 128, name="System RAM (virtio_mem)", merges=True)
    assert shown(kernel, [(0, 4096, 8192, "old")], (), kernel.regions[:1]) == [
        (0, 4096, 8192, "old"),
        (0, 8192, 9216, "virtio1"),
        (1, 8192, 8320, "System RAM (virtio_mem)"),
    ]


def test_a_region_that_was_given_back_has_no_line(kernel):
    region = PfnRange(4096 << 8, 8192 << 8)
    base = [(0, 4096, 8192, "dax0.0"), (0, 4096, 8192, "other"), (0, 8192, 9216, "dax0.0")]
    assert shown(kernel, base, (), [(region, "dax0.0")]) == base[1:]


def test_neighbours_of_one_driver_and_group_join_if_both_merge(kernel):
    one, other = MemoryGroup(), MemoryGroup()
    for mib, group, name, merges in (
        (4096, one, RAM, True),
        (4224, one, RAM, True),
        (4352, other, RAM, True),
        (4480, other, "System RAM (virtio_mem)", True),
        (4608, other, "System RAM (virtio_mem)", False),
        (4736, other, "System RAM (virtio_mem)", False),
        (4992, None, RAM, True),
        (5248, None, RAM, True),
    ):
        added(kernel, mib, 128, group, name, merges=merges)
    assert [line[1:3] for line in shown(kernel, [])] == [
        (4096, 4352),
        (4352, 4480),
        (4480, 4608),
        (4608, 4736),
        (4736, 4864),
        (4992, 5120),
        (5248, 5376),
    ]


def test_a_line_that_merges_is_made_anew_when_a_neighbour_comes_or_goes(kernel):
    base = [(0, 4096, 4352, RAM), (0, 5120, 5248, "System RAM (kmem)")]
    start = [added(kernel, mib, 128, merges=True) for mib in (4096, 4224)]
    start.append(added(kernel, 5120, 128, name="System RAM (kmem)"))
    assert shown(kernel, base, start) == base
    added(kernel, 4352, 128, merges=True)
    assert shown(kernel, base, start) == [(0, 4096, 4480, RAM), base[1]]
    kernel.additions.remove(start[1])
    assert shown(kernel, base, start) == [(0, 4096, 4224, RAM), (0, 4352, 4480, RAM), base[1]]


def test_lines_of_drivers_that_do_not_merge_stay_as_the_base_has_them(kernel):
    # Two DIMMs that one line of the base covers, as firmware may show them.
    start = [added(kernel, mib, 128) for mib in (4096, 4224)]
    added(kernel, 5120, 128, merges=True)
    base = [(0, 4096, 4352, RAM)]
    assert shown(kernel, base, start) == [(0, 4096, 4352, RAM), (0, 5120, 5248, RAM)]
    assert iomem_shown(None, kernel, start, 0) is None
