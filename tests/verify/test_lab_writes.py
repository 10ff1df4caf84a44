"""Writes that a kernel refuses: the same errno on the model and on real kernels."""

import pytest

from altmap.report.text import comparison_text
from altmap.scenario import Machine, Offline, Online, Plug, Scenario, Size, Write
from altmap.verify.both_sides import compare_with_lab

MEMORY, PARAMETERS = "/sys/devices/system/memory", "/sys/module/memory_hotplug/parameters"
MIB, GIB = 1 << 20, 1 << 30

pytestmark = pytest.mark.lab

WRITES = [
    (f"{MEMORY}/memory33/state", "foo"),
    (f"{MEMORY}/memory33/state", "offline"),
    (f"{MEMORY}/memory33/online", "maybe"),
    (f"{MEMORY}/memory33/online", "0"),
    (f"{MEMORY}/memory33/valid_zones", "2"),
    (f"{MEMORY}/memory999/state", "online"),
    (f"{MEMORY}/auto_online_blocks", "foo"),
    (f"{MEMORY}/block_size_bytes", "1"),
    (f"{MEMORY}/soft_offline_page", "page"),
    (f"{PARAMETERS}/memmap_on_memory", "1"),
    (f"{PARAMETERS}/online_policy", "foo"),
    (f"{PARAMETERS}/auto_movable_ratio", "-5"),
    (f"{PARAMETERS}/auto_movable_ratio", "08"),
    (f"{PARAMETERS}/auto_movable_ratio", "4294967296"),
    (f"{PARAMETERS}/auto_movable_numa_aware", "maybe"),
    (f"{PARAMETERS}/auto_movable_numa_aware", "nonsense"),
    (f"{PARAMETERS}/nothing", "1"),
    (f"{MEMORY}/memory33/state", "online_movable"),
]


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_a_real_kernel_answers_each_write_as_predicted(release):
    steps = [
        Plug(id="d", size=Size(256 * MIB)),
        Online(blocks=99),
        Offline(blocks=99),
        *(Write(file=file, word=word) for file, word in WRITES),
    ]
    machine = Machine(memory=Size(GIB), release=release, auto_online_blocks="offline")
    scenario = Scenario(name="writes", machine=machine, steps=steps)
    comparison = compare_with_lab(scenario, None, lambda _: None)
    assert comparison.equal, comparison_text(comparison, "writes")


@pytest.mark.parametrize("release", ["6.12"])
def test_a_real_kernel_refuses_an_address_of_probe_where_memory_is_already(release):
    machine = Machine(memory=Size(GIB), release=release, auto_online_blocks="offline")
    steps = [
        Plug(id="p1", driver="probe", size=Size(128 * MIB), address=4 * GIB),
        Plug(id="p2", driver="probe", size=Size(128 * MIB), address=4 * GIB),
        Plug(id="p3", driver="probe", size=Size(128 * MIB), address=512 * MIB),
    ]
    scenario = Scenario(name="taken", machine=machine, steps=steps)
    comparison = compare_with_lab(scenario, None, lambda _: None)
    assert comparison.equal, comparison_text(comparison, "taken")
    assert [step.outcome.errno for step in comparison.traces[1].steps[2:]] == ["EEXIST", "EEXIST"]
