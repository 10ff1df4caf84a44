"""The design of 2018 on a real kernel: where its memmap lies, how it is counted, how it leaves."""

import re

import pytest

from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Machine, Online, Plug, Scenario, Size, Unplug
from altmap.verify.both_sides import compare_with_lab
from built import skip_unless_built

pytestmark = pytest.mark.lab

RELEASE = "6.12+rfc-2018"
MIB = 1 << 20
BLOCK = 128 * MIB
FIRST = 0x100000


@pytest.fixture(autouse=True)
def built():
    skip_unless_built(RELEASE)


def scenario_of(policy, steps, **machine):
    made = Machine(memory=Size(1 << 30), auto_online_blocks="offline", policy=policy, **machine)
    return Scenario(name="design", machine=made, steps=steps)


def both(scenario, **how):
    comparison = compare_with_lab(scenario, RELEASE, lambda _: None, **how)
    assert comparison.equal
    return comparison.traces


def written(step):
    found = PfnSet()
    for event in step.events:
        if event.kind == "write" and event.function and event.pfns is not None:
            found |= PfnSet.of(event.pfns)
    return found


def gained(trace, step, name):
    return trace.steps[step].observation.meminfo[name] - trace.steps[0].observation.meminfo[name]


@pytest.mark.parametrize(
    ("policy", "hidden_mib"),
    [("rfc-2018", 4), ("rfc-2018+merged", 4), ("rfc-2018+total", 0)],
)
def test_both_memmaps_lie_in_the_first_block_and_are_counted_as_the_policy_says(policy, hidden_mib):
    """Eight frames are marked for each section, and each block's struct pages are 512 frames."""
    steps = [
        Plug(id="d1", size=Size(2 * BLOCK)),
        Online(id="d1", part="last", to="online_movable"),
        Online(id="d1", part="first", to="online_movable"),
        Unplug(id="d1"),
    ]
    for trace in both(scenario_of(policy, steps), touched=True):
        add, last, _, gone = trace.steps[1:]
        assert written(add) == PfnSet([PfnRange(FIRST, FIRST + 16)])
        frames = PfnRange(FIRST + 512, FIRST + 1024)
        assert not PfnSet([frames]) - written(last)
        assert gained(trace, 3, "MemTotal") == (256 - hidden_mib) * 1024
        assert gained(trace, 4, "MemTotal") == 0
        assert gone.outcome


def test_a_block_of_nothing_but_memmap_goes_online_without_pages():
    steps = [
        Plug(id="d1", size=Size(64 * BLOCK)),
        Online(id="d1", part="first", to="online_movable"),
        Unplug(id="d1"),
    ]
    for trace in both(scenario_of("rfc-2018", steps)):
        assert trace.steps[2].outcome
        assert gained(trace, 2, "MemTotal") == 0
        assert trace.steps[3].outcome


def test_the_file_probe_of_the_kernel_adds_a_block():
    steps = [Plug(id="p1", driver="probe", address=Address(FIRST * 4096), size=Size(BLOCK))]
    for trace in both(scenario_of("rfc-2018", steps)):
        assert trace.steps[1].outcome
        assert written(trace.steps[1]) == PfnSet([PfnRange(FIRST, FIRST + 8)])


@pytest.mark.parametrize(("policy", "ends"), [("rfc-2018", True), ("opt-in", False)])
def test_frames_that_are_not_backed_end_the_kernel_of_the_design_only(policy, ends):
    steps = [
        Plug(
            id="hv1",
            driver="hyperv",
            address=Address(FIRST * 4096 + 64 * MIB),
            size=Size(64 * MIB),
        )
    ]
    for trace in both(scenario_of(policy, steps)):
        step = trace.steps[1]
        assert (step.outcome.status == "fault") is ends
        for fault in step.faults:
            assert (fault.pfn, fault.access) == (FIRST, "write")
            assert fault.function == "mark_vmemmap_pages"
            assert fault.pfns == PfnSet([PfnRange(FIRST, FIRST + 8)])


def test_a_part_of_what_was_added_cannot_be_removed():
    from altmap.lab import Guest, kernel_of, write_file
    from altmap.lab.added import command_add, with_adder
    from altmap.lab.hidden_dimm import back_frames
    from altmap.lab.qemu import Hardware

    start = FIRST * 4096
    cmdline = "memhp_default_state=offline acpi_no_memhotplug"
    with Guest(with_adder(kernel_of(RELEASE)), Hardware(hidden_dimms=True), cmdline) as guest:
        write_file(guest, "/sys/module/memory_hotplug/parameters/memmap_from_range", "Y")
        before = guest.run("grep nr_memmap_pages /proc/vmstat").text
        back_frames(guest, "backed", PfnRange(FIRST, FIRST + 0x10000))
        assert command_add(guest, f"add {start:#x} {2 * BLOCK:#x} 0 0") == 0
        for at, size in ((start, BLOCK), (start + BLOCK, BLOCK)):
            assert command_add(guest, f"remove {at:#x} {size:#x}") == 22
        names = guest.run("ls /sys/devices/system/memory").text
        assert {"memory32", "memory33"} <= set(re.findall(r"memory\d+", names))
        assert command_add(guest, f"remove {start:#x} {2 * BLOCK:#x}") == 0
        assert guest.run("grep nr_memmap_pages /proc/vmstat").text == before
