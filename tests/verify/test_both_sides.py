"""A scenario on both sides, where the real kernel's side is replayed from a recording."""

import re
from pathlib import Path

import pytest

from altmap.compare import Verdict
from altmap.errors import InputError
from altmap.scenario import load_scenario
from altmap.storage.recording import read_recording
from altmap.verify import both_sides
from altmap.verify.both_sides import (
    compare_with_lab,
    compare_with_trace,
    record_in_lab,
    run_on_both,
)

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz"
SCENARIO = ROOT / "scenarios/dimm-1GiB.toml"


@pytest.fixture
def recording():
    return read_recording(RECORDING)


@pytest.fixture
def guest(monkeypatch, recording):
    """Replace the guest with the recording, and return the calls of it."""
    calls = []

    def run_in_guest(scenario, progress, **options):
        calls.append((scenario.machine.release, options))
        steps = recording.trace.steps
        return recording.trace, [s.observation.render() for s in steps if s.observation]

    monkeypatch.setattr(both_sides, "run_in_guest", run_in_guest)
    return calls


def test_a_prediction_starts_from_the_files_of_the_real_start(recording):
    comparison = compare_with_trace(recording.scenario, recording.trace)
    predicted, observed = comparison.traces
    assert observed is recording.trace
    assert predicted.target == "model"
    assert predicted.steps[0].observation.cmdline == observed.steps[0].observation.cmdline
    start = {f.verdict for f in comparison.files if f.step == "00-start"}
    assert start == {Verdict.EQUAL}


def test_the_layout_of_a_synthetic_boot_state_is_compared_first(recording):
    comparison = compare_with_trace(recording.scenario, recording.trace)
    assert [file.file for file in comparison.files if file.step == "boot"] == [
        "proc/zoneinfo (layout)",
        "sys/devices/system/memory",
    ]
    assert [file.step for file in comparison.files[:3]] == ["boot", "boot", "00-start"]
    other = compare_with_trace(recording.scenario.with_machine(memory="2GiB"), recording.trace)
    assert {f.verdict for f in other.files if f.step == "boot"} == {Verdict.DIFFERENT}
    assert [f for f in other.files if f.step != "boot"] == [
        f for f in comparison.files if f.step != "boot"
    ]


def test_a_comparison_names_kernel_and_programs(recording):
    found = compare_with_trace(recording.scenario, recording.trace).provenance
    assert found["scenario"] == "dimm-1GiB"
    assert (found["release in the lab"], found["record of the model"]) == ("6.12", "6.12")
    assert found["kernel"].startswith("Linux version 6.12")
    assert "console" in found["command line"]
    assert found["qemu"].startswith("QEMU emulator")
    assert "linux-image-6.12" in found["packages"]
    assert "{" not in found["packages"]
    assert "memory_bytes 1073741824" in found["hardware"]
    assert not re.search(r"\[\]|None|, ,|\b0\b", found["hardware"])  # what the guest has not


def test_a_trace_without_its_start_cannot_be_predicted(recording):
    recording.trace.steps[0].observation = None
    with pytest.raises(InputError, match="'dimm-1GiB': has no files of its start"):
        compare_with_trace(recording.scenario, recording.trace)


@pytest.mark.parametrize(
    ("release", "own", "lab", "model"),
    [
        ("6.12", False, "6.12", "6.12"),
        ("6.1", False, "6.1", "6.1"),
        (None, False, "7.3", "7.3"),
        ("6.1", True, "6.1", "6.1"),
        (None, True, "7.3", "6.12"),  # the guest has reported its release
    ],
)
def test_a_release_is_that_of_the_argument_else_of_the_own_kernel_else_of_the_scenario(
    release, own, lab, model, guest
):
    scenario = load_scenario(SCENARIO, ["release=7.3"])
    kernel = object() if own else None
    comparison = compare_with_lab(scenario, release, print, kernel)
    assert guest == [(lab, {"own": kernel, "touched": False})]
    assert comparison.provenance["record of the model"] == model
    assert scenario.machine.release == "7.3"


def test_both_traces_of_a_scenario_are_returned_the_observed_first(guest):
    observed, predicted = run_on_both(load_scenario(SCENARIO), print, touched=True)
    assert (observed.target, predicted.target) == ("lab", "model")
    assert guest[0][1] == {"touched": True}


def test_a_recording_has_the_settings_and_the_release_of_the_guest(guest, tmp_path):
    target = tmp_path / "r.tar.xz"
    settings = ["memmap_on_memory=on", "release=6.1"]
    made = record_in_lab(SCENARIO, settings, target, print)
    read = read_recording(target)
    for recording in (made, read):
        assert recording.scenario.machine.release == "6.12"  # of the guest, the last of two
        assert recording.scenario.machine.memmap_on_memory == "on"
        assert len(recording.trace.steps) == 3
