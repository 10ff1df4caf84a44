"""Memory that is backed in part, on real kernels: what drivers answer, what goes online, faults."""

from itertools import accumulate

import pytest

from altmap.pfn import PfnRange
from altmap.protocol.hyperv_messages import HotAddResponse, decode
from altmap.scenario import Address, Machine, Plug, Region, Resize, Scenario, Size
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


#: How far each vector lies from the previous one where a guest gets them all: regions of others do
#: not matter to a request.
APART = 0x40000


def shifted(requests, pfns):
    """Return the same requests that many page frames higher."""
    return [
        (start + pfns, mib, region and (region[0] + pfns, region[1]))
        for start, mib, region in requests
    ]


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


def online_pages(trace, step=-1):
    """Return by how many pages all zones' managed pages have grown until after a step."""
    first, last = (trace.steps[index].observation for index in (0, step))
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


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_all_vectors_in_one_guest(release):
    """Messages, backed and fake-offline pages, and all else that is compared, at each request."""
    every = []
    for number, (requests, _, _) in enumerate(VECTORS.values()):
        every += shifted(requests, number * APART)
    counts = [count for _, some, _ in VECTORS.values() for count in some]
    ends = accumulate(len(requests) for requests, _, _ in VECTORS.values())
    online = accumulate(nr_pages for _, _, nr_pages in VECTORS.values())
    assert len(every) == 17
    comparison = compare_with_lab(scenario_of(every), release, lambda _: None)
    _, observed = comparison.traces
    assert answers(observed) == counts
    for step, nr_pages in zip(ends, online, strict=True):
        assert online_pages(observed, step) == nr_pages
    assert comparison.equal


HALF = Plug(id="half", driver="hyperv", address=Address(0x104000 * PAGE), size=Size(64 * MIB))


def machine_of(policy):
    return Machine(
        memory=Size(1 << 30), memmap_on_memory="on", auto_online_blocks="online", policy=policy
    )


def both(scenario, release):
    """Return the traces of prediction and real kernel, compared as equal."""
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal
    return comparison.traces


def gained_kib(trace):
    """Return by how much the first step has raised MemTotal."""
    before, after = (step.observation.meminfo["MemTotal"] for step in trace.steps[:2])
    return after - before


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_a_memmap_in_frames_that_are_not_backed_ends_both_kernels(release):
    scenario = Scenario(
        name="forced", machine=machine_of("per-block"), steps=[HALF, Resize(id="balloon", size=1)]
    )
    for trace in both(scenario, release):
        step, after = trace.steps[1:]
        assert step.outcome.status == "fault"
        assert (step.faults[0].pfn, step.faults[0].access) == (0x100000, "write")
        assert step.faults[0].pfns.span().start == 0x100000
        assert len(step.faults[0].pfns) <= 512
        assert step.observation is None
        assert after.outcome.status == "not_reached"


def test_a_backed_memmap_ends_neither():
    first = Plug(id="half", driver="hyperv", address=Address(4 << 30), size=Size(64 * MIB))
    for trace in both(
        Scenario(name="backed", machine=machine_of("per-block"), steps=[first]), "6.12"
    ):
        assert trace.steps[1].outcome
        assert gained_kib(trace) == (64 - 2) * 1024


@pytest.mark.parametrize("policy", ["opt-in", "per-block"])
def test_the_file_probe_adds_a_block_and_refuses_a_part(policy):
    steps = [
        Plug(id="whole", driver="probe", address=Address(4 << 30), size=Size(128 * MIB)),
        Plug(id="part", driver="probe", address=Address((5 << 30) + 16 * MIB), size=Size(MIB * 2)),
    ]
    scenario = Scenario(name="probe", machine=machine_of(policy), steps=steps)
    for trace in both(scenario, "6.12"):
        added, refused = trace.steps[1:]
        assert added.outcome
        assert (refused.outcome.status, refused.outcome.errno) == ("refused", "EINVAL")
        # The struct pages of a block of 128 MiB fill 2 MiB.
        assert gained_kib(trace) == (128 - 2 * (policy == "per-block")) * 1024


@pytest.mark.parametrize("frames", [PfnRange(0x100000, 0x102000)])
def test_a_module_keeps_frames_that_it_is_not_told_out_of_the_buddy(frames):
    """Any driver's case on a stock kernel: a name, a group, page frames that are not backed."""
    from altmap.lab import Guest, fetch
    from altmap.lab.added import command_add, with_adder
    from altmap.lab.hidden_dimm import back_frames
    from altmap.lab.qemu import Hardware

    cmdline = "memory_hotplug.memmap_on_memory=1 memhp_default_state=online acpi_no_memhotplug"
    with Guest(with_adder(fetch("6.12")), Hardware(hidden_dimms=True), cmdline) as guest:
        back_frames(guest, "backed", frames)
        before = int(guest.run("grep MemTotal /proc/meminfo").text.split()[1])
        assert command_add(guest, "add 0x100000001 0x8000000 0 0") == 22
        assert command_add(guest, "nonsense 1 2") == 22
        assert command_add(guest, f"back {frames.start * PAGE:#x} {len(frames) * PAGE:#x}") == 0
        assert command_add(guest, "dynamic 0 0x8000") == 0
        group = guest.run("cat /sys/module/altmap_add/parameters/group").text.strip()
        name = "System RAM (mine)"
        assert command_add(guest, f"managed 0x100000000 0x8000000 {group} 5 {name}") == 0
        assert f"100000000-107ffffff : {name}" in guest.run("cat /proc/iomem").text
        after = int(guest.run("grep MemTotal /proc/meminfo").text.split()[1])
        assert after - before == len(frames) * PAGE // 1024
        # PageOffline frames have references, so the block cannot leave.
        assert command_add(guest, "offline-remove 0x100000000 0x8000000") == 16
