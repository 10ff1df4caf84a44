"""A Xen domain's balloon: predicted from a recorded start, and compared with what it did.

``tests/recordings/xen``: one boot each of 6.1 and 6.12, at 512 MiB, grown to 600 and shrunk to 580
MiB. On 6.12 the domain grows into a new section, on 6.1 into RAM that it saw from its boot on.
"""

import re
import tarfile
from pathlib import Path

import pytest

from altmap.compare import compare
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine, predict
from altmap.report.text import comparison_text
from altmap.scenario import Machine, Resize, Scenario, Size
from altmap.trace import OK, StepRecord, Trace

RECORDINGS = Path(__file__).parents[1] / "recordings" / "xen"
MIB = 1 << 20
LOOKS = ("start", "grown", "shrunk")
STEPS = [
    Resize(id="balloon", name="grown", size=Size(600 * MIB)),
    Resize(id="balloon", name="shrunk", size=Size(580 * MIB)),
]
OFFLINE = 1 << 23


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def release(request):
    return request.param


@pytest.fixture(scope="module")
def archives(release):
    return [RECORDINGS / f"linux-{release}-xen-{look}.tar.xz" for look in LOOKS]


@pytest.fixture(scope="module")
def texts(archives):
    """The files of each look, read by the standard library."""

    def read(archive):
        with tarfile.open(archive) as tar:
            return {m.name: tar.extractfile(m).read().decode() for m in tar if m.isreg()}

    return dict(zip(LOOKS, map(read, archives), strict=True))


@pytest.fixture(scope="module")
def observed(archives):
    return [Observation.read(Sysroot.read(archive)) for archive in archives]


@pytest.fixture(scope="module")
def trace(observed):
    scenario = Scenario(name="xen", machine=Machine(xen_max_memory=Size(1024 * MIB)), steps=STEPS)
    return predict(scenario, observed[0])


@pytest.fixture(scope="module")
def predicted(trace):
    """The files that the prediction renders, as text, by look."""
    return {
        step.name: {p: raw.decode() for p, raw in step.observation.render().files.items()}
        for step in trace.steps
    }


def zones(text):
    """Return the numbers of each zone, found by a plain search."""
    found = {}
    for part in re.split(r"^Node ", text, flags=re.M)[1:]:
        name = re.match(r"\d+, zone +(\w+)", part)[1]
        names = ("min", "low", "high", "spanned", "present", "managed")
        found[name] = {n: int(re.search(rf"^        {n} +(\d+)$", part, re.M)[1]) for n in names}
    return found


@pytest.mark.parametrize("look", LOOKS)
def test_zones_are_as_they_were(texts, predicted, look):
    seen = zones(texts[look]["proc/zoneinfo"])
    assert zones(predicted[look]["proc/zoneinfo"]) == seen


@pytest.mark.parametrize("look", LOOKS)
def test_the_balloons_counters_are_as_they_were(texts, predicted, look):
    folder = "sys/devices/system/xen_memory/xen_memory0/"
    seen = {p: text for p, text in texts[look].items() if p.startswith(folder)}
    assert {p: text for p, text in predicted[look].items() if p.startswith(folder)} == seen
    assert len(seen) == 4


@pytest.mark.parametrize("look", LOOKS)
def test_memory_in_all_is_as_it_was(texts, predicted, look):
    pattern = re.compile(r"MemTotal: +(\d+) kB")
    seen = pattern.search(texts[look]["proc/meminfo"])[1]
    assert pattern.search(predicted[look]["proc/meminfo"])[1] == seen


@pytest.mark.parametrize("look", LOOKS)
def test_resources_are_the_same_to_the_byte(texts, predicted, look):
    assert predicted[look]["proc/iomem"] == texts[look]["proc/iomem"]


def offline_runs(files):
    rows = [line.split() for line in files["proc/kpageflags.runs"].splitlines()[1:]]
    runs = [(int(start, 16), int(nr)) for start, nr, flags in rows if int(flags, 16) & OFFLINE]
    merged = []
    for start, nr in runs:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + nr)
        else:
            merged.append((start, nr))
    return merged


def test_the_same_pages_are_ballooned_once_it_has_grown(texts, predicted, release):
    seen = offline_runs(texts["grown"])
    assert offline_runs(predicted["grown"]) == seen
    if release == "6.12":
        # 88 of 128 MiB are backed, from the end of the section down.
        assert seen == [(0x48000, 10240)]


def test_as_many_pages_are_ballooned_once_it_has_shrunk(texts, predicted):
    grown, shrunk = (sum(nr for _, nr in offline_runs(texts[n])) for n in ("grown", "shrunk"))
    assert shrunk - grown == 20 * MIB >> 12
    assert sum(nr for _, nr in offline_runs(predicted["shrunk"])) == shrunk


def test_all_that_is_compared_is_equal(release, trace, observed):
    steps = [
        StepRecord(name, {}, OK, observation=look)
        for name, look in zip(LOOKS, observed, strict=True)
    ]
    comparison = compare(trace, Trace("xen", "lab", release, "", {}, steps))
    assert comparison.equal, comparison_text(comparison, "xen")


def test_a_domain_is_known_by_its_files_and_nothing_of_it_is_a_guess(trace):
    assert [step.outcome.status for step in trace.steps] == ["ok"] * 3
    assert trace.notes == []


def test_what_the_domain_owns_is_backed_and_nothing_else(observed):
    for look in observed:
        machine = ModelMachine.start(Machine(), look)
        # Page 0 is the domain's, but is no RAM of its kernel's.
        assert len(machine.backing.backed) + 1 == look.balloon.current_kb // 4
        assert not machine.backing.backed & machine.kernel.fake_offline


def test_a_machine_that_is_no_domain_has_no_balloon():
    archive = RECORDINGS.parent / "files" / "linux-6.12-start.tar.xz"
    seen = Observation.read(Sysroot.read(archive))
    assert seen.balloon is None
    assert ModelMachine.start(Machine(), seen).observe().balloon is None
