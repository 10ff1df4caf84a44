"""Where a real kernel has its own pages in a new zone is taken from what it showed."""

from types import SimpleNamespace

import pytest

from altmap.linux.kpageflags import PageFlag
from altmap.linux.observation import Observation
from altmap.linux.pagewords import PageWords
from altmap.model.adopt.chance import KernelPages
from altmap.model.machine import ModelMachine, predict
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Plug, Scenario, Size, Unplug

FIRST, BLOCK = 0x100000, 0x8000


def shows(*slab):
    """Return what a kernel shows that has slab in some pages."""
    runs, end = [], 0
    for pfn in slab:
        runs += [(end, pfn - end, 0), (pfn, 1, PageFlag.SLAB)]
        end = pfn + 1
    return Observation(kpageflags=PageWords.of([*runs, (end, 16, 0)]))


@pytest.fixture
def kernel():
    model = ModelMachine.start(Machine(memory=Size(1 << 30), auto_online_blocks="online_kernel"))
    assert model.perform(Plug(id="d", size=Size(256 << 20))).outcome
    return model.kernel


def test_the_page_that_stands_for_them_makes_room_for_those_that_the_kernel_shows(kernel):
    assert kernel.expected_unmovable
    pages = KernelPages(kernel)
    pages.settle(shows(FIRST + 7, FIRST + BLOCK + 9))
    added = PfnSet.of(PfnRange(FIRST, FIRST + 2 * BLOCK))
    assert kernel.unmovable() & added == PfnSet.of(
        PfnRange(FIRST + 7, FIRST + 8), PfnRange(FIRST + BLOCK + 9, FIRST + BLOCK + 10)
    )
    assert not kernel.expected_unmovable
    pages.settle(shows(FIRST + 100))
    assert kernel.unmovable() & added == PfnSet.of(PfnRange(FIRST + 100, FIRST + 101))


def test_without_page_flags_the_page_stands_for_them(kernel):
    before = kernel.expected_unmovable.copy()
    for seen in (None, Observation()):
        KernelPages(kernel).settle(seen)
    assert kernel.expected_unmovable == before


def test_a_memmap_is_elsewhere_where_the_kernel_shows_pages_of_its_own(kernel):
    addition = kernel.additions[0]
    taken = PfnSet.of(PfnRange(FIRST + 20, FIRST + 30))
    addition.host_pages |= taken
    kernel.used |= taken
    nr_hosts, nr_used = len(addition.host_pages), len(kernel.used)
    KernelPages(kernel).settle(shows(FIRST + 25))
    assert len(addition.host_pages) == nr_hosts
    assert FIRST + 25 not in addition.host_pages
    assert len(kernel.used) == nr_used  # one page more of the kernel, one less that stood for it


def test_a_prediction_beside_a_trace_depends_on_where_its_kernel_has_pages():
    machine = Machine(memory=Size(1 << 30), auto_online_blocks="online_kernel")
    steps = [Plug(id="d", size=Size(128 << 20)), Unplug(id="d")]
    scenario = Scenario(name="s", machine=machine, steps=steps)
    for seen, status in ((shows(FIRST + 7), "refused"), (shows(7), "ok")):
        step = SimpleNamespace(observation=seen)
        beside = SimpleNamespace(steps=[step] * 3)
        assert predict(scenario, chance=beside).steps[-1].outcome.status == status
