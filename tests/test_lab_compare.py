"""The model against real kernels: every scenario, every exact field."""

from pathlib import Path

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.verify import compare_with_lab

SCENARIOS = Path(__file__).parent.parent / "scenarios"
RELEASES = ("6.1", "6.12")

SEQUENCES = [
    (f"dimm-sequence-{size}", (f"memmap_on_memory={mode}",))
    for size in ("128MiB", "384MiB", "640MiB", "1GiB")
    for mode in ("off", "on", "force")
]
OTHERS = [
    ("dimm-1GiB", ()),
    ("dimm-in-pieces", ()),
    ("q35-6GiB", ()),
    ("pc-4GiB-mixed-zones", ()),
    ("numa-node0", ()),
    ("numa-node1", ()),
    ("numa-memoryless", ()),
    ("auto-movable", ("auto_movable_ratio=50",)),
    ("auto-movable", ("auto_movable_ratio=301",)),
    ("auto-movable", ()),
    ("movable-node", ()),
    ("misaligned-dimm", ()),
    ("zone-holes", ()),
    ("movable-below-normal", ()),
    ("boot-memory-offline", ()),
    ("memmap-in-added-zone", ()),
    ("kernel-zone-from-boot", ()),
    ("small-guest-self-hosted", ()),
    ("policy-changes", ()),
]


@pytest.mark.lab
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("name", "settings"), SEQUENCES + OTHERS, ids=lambda value: "-".join(value) if value else ""
)
def test_prediction_equals_the_real_kernel(name, settings, release):
    scenario = load_scenario(SCENARIOS / f"{name}.toml", settings)
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)


@pytest.mark.lab
def test_a_failed_add_loses_what_it_took_on_6_1():
    # On 6.12 the same guest panics for want of memory, which is no prediction's business.
    scenario = load_scenario(SCENARIOS / "small-guest.toml")
    comparison = compare_with_lab(scenario, "6.1", lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)
