"""The model against real kernels: every scenario, every exact field."""

from pathlib import Path

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.verify import compare_with_lab

SCENARIOS = Path(__file__).parent.parent / "scenarios"
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
    ("policy-changes", ()),
    ("file-migrated", ()),
]


#: Scenarios whose outcome on 7.3 does not hang on where its slab happens to allocate.
ON_7_3 = (
    "dimm-1GiB",
    "q35-6GiB",
    "pc-4GiB-mixed-zones",
    "auto-movable",
    "movable-node",
    "misaligned-dimm",
    "boot-memory-offline",
    "file-migrated",
)

CASES = [
    pytest.param(name, settings, release, id="-".join((name, *settings, release)))
    for name, settings in SEQUENCES + OTHERS
    for release in ("6.1", "6.12", "7.3")
    if release != "7.3" or (name in ON_7_3 and not settings)
]


@pytest.mark.lab
@pytest.mark.parametrize(("name", "settings", "release"), CASES)
def test_prediction_equals_the_real_kernel(name, settings, release):
    scenario = load_scenario(SCENARIOS / f"{name}.toml", settings)
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)
