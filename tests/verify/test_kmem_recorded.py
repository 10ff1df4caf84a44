"""dax/kmem against real kernels: what they did with a PMEM device, replayed on the model."""

from functools import cache
from pathlib import Path

import pytest

from altmap.compare import compare
from altmap.model.machine import predict
from altmap.report.text import comparison_text
from altmap.storage.recording import read_recording

RECORDINGS = sorted((Path(__file__).parents[1] / "recordings/kmem").glob("*.tar.xz"))
recorded = cache(read_recording)


def test_every_release_was_recorded():
    assert {recorded(path).trace.release for path in RECORDINGS} == {"6.1", "6.12", "7.2", "7.3"}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_prediction_equals_the_recorded_kernel(path):
    """Only the steps: no synthetic boot state has the layout that kernel parameters give."""
    recording = recorded(path)
    predicted = predict(recording.scenario, recording.trace.steps[0].observation)
    comparison = compare(predicted, recording.trace)
    assert comparison.equal, comparison_text(comparison, path.name)


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_an_online_block_did_keep_the_memory_until_reboot(release):
    (path,) = (p for p in RECORDINGS if p.name == f"x86_64-{release}-kmem-pmem-online.tar.xz")
    last = recorded(path).trace.steps[-1]
    assert last.outcome.errno == "EBUSY"
    assert "cannot be hotremoved until the next reboot" in last.events[-1].text


def test_7_3_did_offline_the_blocks_itself():
    (path,) = (p for p in RECORDINGS if p.name == "x86_64-7.3-kmem-pmem-online.tar.xz")
    last = recorded(path).trace.steps[-1]
    assert last.outcome
    assert 34 not in last.observation.memory.blocks


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_a_machine_that_has_the_device_already_is_known_by_its_iomem(path):
    """The model carries on after the plug: the device is named, and can be given back."""
    recording = recorded(path)
    if not recording.trace.steps[1].outcome:
        pytest.skip("the kernel refused the device")
    plugged = recording.trace.steps[1].observation
    scenario = recording.scenario
    predicted = predict(scenario.with_steps(scenario.steps[1:]), plugged)
    assert [bool(step.outcome) for step in predicted.steps[1:]] == [
        bool(step.outcome) for step in recording.trace.steps[2:]
    ]


@pytest.mark.parametrize(
    ("release", "errno", "of_unplug"),
    [("6.12", None, None), ("7.2", "EPERM", "EBUSY"), ("7.3", "EPERM", "EPERM")],
)
def test_arm64_keeps_a_block_with_its_memmap_online_since_it_refuses_to_split_leaves(
    release, errno, of_unplug
):
    (path,) = (p for p in RECORDINGS if p.name == f"aarch64-{release}-kmem-self-hosted.tar.xz")
    steps = {step.name: step for step in recorded(path).trace.steps}
    assert steps["offline-dax0.0-first"].outcome.errno == errno
    assert steps["unplug-dax0.0"].outcome.errno == of_unplug
