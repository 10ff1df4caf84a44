"""Recorded guests of other architectures: the model recognises each from its files alone.

That each step is predicted, ``test_recording.py`` shows for every recording.
"""

from functools import cache
from pathlib import Path

import pytest

from altmap.model.arch import ARCHES
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine
from altmap.storage.recording import read_recording
from altmap.units import format_size

RECORDINGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "recordings/traces").glob("*.tar.xz"))
    if not path.name.startswith("x86_64")
]
recorded = cache(read_recording)


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda path: path.name.partition(".tar")[0])
def recording(request):
    return recorded(request.param)


def test_there_are_recordings_of_each_architecture():
    arches = {recorded(path).scenario.machine.arch for path in RECORDINGS}
    assert arches == {"ppc64le", "ppc64le-64k", "aarch64", "aarch64-16k", "s390x"}


def test_the_files_alone_give_the_architecture_and_its_mmu(recording):
    machine = recording.scenario.machine
    model = ModelMachine.start(Machine(), recording.trace.steps[0].observation)
    assert model.kernel.arch.name == machine.arch
    # Where no file names the page size, what it is inferred from is the only note.
    size = format_size(model.kernel.arch.page_size_bytes)
    assert len(model.notes) <= 1
    assert all(note.startswith(f"the page size is {size} by ") for note in model.notes)
    as_by_default = model.kernel.arch.memmap_rule == ARCHES[machine.arch].memmap_rule
    assert as_by_default == (machine.mmu != "hash")


def test_an_adopted_machine_shows_what_was_adopted(recording):
    for step in recording.trace.steps:
        shown = ModelMachine.start(Machine(), step.observation).observe()
        for name in ("meminfo", "vmstat", "zoneinfo", "iomem", "memory", "nodes"):
            assert getattr(shown, name) == getattr(step.observation, name), (step.name, name)
