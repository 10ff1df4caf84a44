"""virtio-mem against real kernels: every exact field, and every request of the driver in order."""

from pathlib import Path

import pytest

from altmap.compare import Verdict, compare
from altmap.lab.target import run_in_guest
from altmap.machine import predict
from altmap.report.text import comparison_text
from altmap.scenario import Address, Device, Machine, Scenario, Size, load_scenario
from altmap.trace import Trace

SCENARIOS = Path(__file__).parent.parent / "scenarios"
REQUESTS = "requests of the driver"

pytestmark = pytest.mark.lab


def observe(name, release):
    scenario = load_scenario(SCENARIOS / f"virtio-mem-{name}.toml")
    scenario.machine.release = release
    return scenario, run_in_guest(scenario, lambda _: None)


def check(scenario, observed, start=0, machine=None):
    """Prove that a prediction from one of the looks equals all that was seen from there on."""
    steps = observed.steps[start:]
    seen = steps[0].observation
    rest = Scenario(
        name=scenario.name, machine=machine or scenario.machine, steps=scenario.steps[start:]
    )
    comparison = compare(predict(rest, seen), tail(observed, start))
    assert comparison.equal, comparison_text(comparison, scenario.name)
    return comparison


def tail(trace, start):
    return Trace(
        trace.scenario,
        trace.target,
        trace.release,
        trace.policy,
        trace.machine,
        trace.steps[start:],
    )


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("grow-and-shrink", "6.1"),
        ("grow-and-shrink", "7.3"),
        ("big-blocks", "6.12"),
        ("auto-movable", "6.1"),
        ("offline-threshold", "7.3"),
        ("offline-unplug", "6.12"),
    ],
)
def test_prediction_equals_the_real_kernel(name, release):
    comparison = check(*observe(name, release))
    requests = [file for file in comparison.files if file.file == REQUESTS]
    assert requests
    assert all(file.verdict is Verdict.EQUAL for file in requests)


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_sub_blocks_and_a_start_in_the_middle(release):
    """The same guest once more, from its files after a step: what it shows then is enough."""
    scenario, observed = observe("sub-blocks", release)
    check(scenario, observed)
    device = Device(
        id="vm0",
        driver="virtio-mem",
        address=Address(4 << 30),
        size=Size(512 << 20),
        requested=Size(200 << 20),
    )
    check(scenario, observed, start=2, machine=Machine(devices=[device]))
