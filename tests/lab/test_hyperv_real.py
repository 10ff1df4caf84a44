"""Debian's hv_balloon on real kernels: what it answers and onlines, beside the model."""

import pytest

from altmap.protocol.hyperv_messages import HotAddResponse, decode
from altmap.scenario import Address, Machine, Plug, Region, Scenario, Size
from altmap.verify.both_sides import compare_with_lab

pytestmark = pytest.mark.lab

MIB, PAGE = 1 << 20, 4096
#: Requests as (first pfn, MiB, first pfn and MiB of the region if the host names one), the page
#: counts of the answers, and how many pages are online in the end. The counts are those that the
#: source of hv_balloon gives by hand, oddities included.
VECTORS = {
    "half and half": (
        [(0x100000, 64, None), (0x104000, 64, None)],
        [0x4000, 0x4000],
        0x8000,
    ),
    "second half first": (
        [(0x104000, 64, None), (0x100000, 64, None)],
        [0x4000, 0x4000],
        0x4000,
    ),
    "length rounded from the count alone": ([(0x104000, 128, None)], [0x8000], 0x4000),
    "a gap": ([(0x100000, 32, None), (0x104000, 32, None)], [0x2000, 0x2000], 0x4000),
    "a block and a half": ([(0x100000, 192, None)], [0xC000], 0xC000),
    "beyond the region": (
        [(0x100000, 64, None), (0x104000, 128, None)],
        [0x4000, 0x8000],
        0xC000,
    ),
    "a region on demand": (
        [(0x100000, 64, (0x100000, 256)), (0x104000, 64, None), (0x108000, 64, None)],
        [0x4000, 0x4000, 0x4000],
        0xC000,
    ),
    "a gap in a named region": (
        [(0x100000, 64, (0x100000, 256)), (0x108000, 64, (0x100000, 256))],
        [0x4000, 0x4000],
        0x4000,
    ),
    "as QEMU's host": (
        [(0x100000, 128, (0x100000, 128)), (0x108000, 128, (0x108000, 128))],
        [0x8000, 0x8000],
        0x10000,
    ),
}


def scenario_of(requests):
    steps = [
        Plug(
            id=f"hv{number}",
            driver="hyperv",
            address=Address(start * PAGE),
            size=Size(mib * MIB),
            region=None
            if region is None
            else Region(address=Address(region[0] * PAGE), size=Size(region[1] * MIB)),
        )
        for number, (start, mib, region) in enumerate(requests)
    ]
    machine = Machine(memory=Size(1 << 30), memmap_on_memory="on", auto_online_blocks="online")
    return Scenario(name="vector", machine=machine, steps=steps)


def answers(trace):
    """Return the page counts of hot-add responses, in their order."""
    events = [event for step in trace.steps for event in step.events if event.message]
    messages = [decode(event.message) for event in events]
    return [message.page_count for message in messages if isinstance(message, HotAddResponse)]


def online_pages(trace):
    """Return by how many pages all zones' managed pages have grown."""
    first, last = (trace.steps[index].observation for index in (0, -1))
    return sum(
        zone.pages["managed"] * sign
        for sign, seen in ((1, last), (-1, first))
        for zone in seen.zoneinfo
    )


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("release", ["6.12"])
def test_a_vector(name, release):
    requests, counts, nr_online = VECTORS[name]
    comparison = compare_with_lab(scenario_of(requests), release, lambda _: None)
    _, observed = comparison.traces
    assert answers(observed) == counts
    assert online_pages(observed) == nr_online
    assert comparison.equal
