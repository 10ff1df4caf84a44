"""virtio-mem against a real kernel that is looked at twice: from its start, and from a later step.

What the scenarios in ``conformance.toml`` show is not shown again here.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from altmap.compare import Verdict, compare
from altmap.lab import Guest, fetch
from altmap.lab.insmod import load_module
from altmap.lab.modules import module_files
from altmap.lab.target import run_in_guest
from altmap.lab.virtio_mem import MODULES
from altmap.model.machine import predict
from altmap.report.text import comparison_text
from altmap.scenario import Address, Device, Machine, Scenario, Size, load_scenario
from altmap.trace import Trace

SCENARIO = Path(__file__).parents[2] / "scenarios/virtio-mem-sub-blocks.toml"

pytestmark = pytest.mark.lab
#: About one guest in six finds a page in transit as it empties the last sub-blocks, and keeps one.
in_transit = pytest.mark.flaky(reruns=3)


@pytest.fixture(scope="module")
def scenario():
    return load_scenario(SCENARIO).with_machine(release="6.12")


@pytest.fixture
def observed(scenario):
    """A guest for each try: one page in transit keeps its sub-block, and that is chance."""
    trace, _ = run_in_guest(scenario, lambda _: None)
    return trace


def check(scenario, observed, start, machine):
    """Prove that a prediction from one of the looks equals all that was seen from there on."""
    steps = observed.steps[start:]
    rest = Scenario(name=scenario.name, machine=machine, steps=scenario.steps[start:])
    seen = Trace("s", "lab", observed.release, observed.policy, observed.machine, steps)
    comparison = compare(predict(rest, steps[0].observation), seen)
    assert comparison.equal, comparison_text(comparison, scenario.name)
    return comparison


@in_transit
def test_the_driver_asks_as_predicted_request_by_request(scenario, observed):
    comparison = check(scenario, observed, 0, scenario.machine)
    requests = [file for file in comparison.files if file.file == "requests of the driver"]
    assert len(requests) == 5  # a plug and four resizes
    assert sum(file.nr_fields for file in requests) > 60
    assert all(file.verdict is Verdict.EQUAL for file in requests)


@in_transit
def test_a_prediction_can_start_when_the_device_is_half_plugged(scenario, observed):
    device = Device(
        id="vm0",
        driver="virtio-mem",
        address=Address(4 << 30),
        size=Size(512 << 20),
        requested=Size(200 << 20),
    )
    check(scenario, observed, 2, Machine(devices=[device]))


@pytest.mark.parametrize(
    ("release", "names"),
    [
        (
            "6.1",
            [
                "virtio",
                "virtio_ring",
                "virtio_pci_legacy_dev",
                "virtio_pci_modern_dev",
                "virtio_pci",
                "virtio_mem",
            ],
        ),
        ("6.12", ["virtio_mem"]),  # the rest is built in
    ],
)
def test_modules_come_with_what_they_need_before_them(release, names):
    kernel = replace(fetch(release), modules=MODULES)
    files = module_files(kernel)
    assert sorted(files) == sorted(names)
    assert list(files).index("virtio_mem") == len(files) - 1
    assert all(content.startswith(b"\x7fELF") for content in files.values())
    assert module_files(kernel) == files  # from the cache


def test_a_module_loads_once_and_its_parameters_are_set():
    kernel = replace(fetch("6.12"), modules=MODULES)
    with Guest(kernel) as guest:
        for _ in range(2):
            load_module(guest, "virtio-mem", "force_bbm=Y")
        shown = guest.run("cat /sys/module/virtio_mem/parameters/force_bbm").text
    assert shown.strip() == "Y"
