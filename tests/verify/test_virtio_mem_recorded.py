"""A guest with a virtio-mem device, before and after a request to shrink it.

The recordings ``before`` and ``after`` (``tests/recordings/virtio-mem/README.md``) are two looks at
one real kernel. The prediction starts from the first and is judged by the second, which is read
here by the standard library.
"""

import re
import tarfile
from pathlib import Path

import pytest

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import Address, Device, Machine, Resize, Scenario, Size

RECORDINGS = Path(__file__).parents[1] / "recordings" / "virtio-mem"
MIB = 1 << 20
OFFLINE = 1 << 23  # include/linux/kernel-page-flags.h


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def release(request):
    return request.param


def archive(release, name):
    return RECORDINGS / f"linux-{release}-virtio-mem-{name}.tar.xz"


@pytest.fixture(scope="module")
def texts(release):
    def read(name):
        with tarfile.open(archive(release, name)) as tar:
            return {m.name: tar.extractfile(m).read().decode() for m in tar if m.isreg()}

    return {name: read(name) for name in ("before", "after")}


@pytest.fixture(scope="module")
def seen(release):
    return Observation.read(Sysroot.read(archive(release, "before")))


@pytest.fixture(scope="module")
def trace(seen):
    return predict(Scenario(name="s", steps=[Resize(id="virtio0", size=Size(60 * MIB))]), seen)


@pytest.fixture(scope="module")
def predicted(trace):
    rendered = trace.steps[-1].observation.render()
    return {path: raw.decode() for path, raw in rendered.files.items()}


def zones(text):
    """Return the numbers of each zone, without a boost, which comes and goes by itself."""
    found = {}
    for part in re.split(r"^Node ", text, flags=re.M)[1:]:
        node, name = re.match(r"(\d+), zone +(\w+)", part).groups()
        names = ("min", "low", "high", "spanned", "present", "managed")
        numbers = {n: int(re.search(rf"^        {n} +(\d+)$", part, re.M)[1]) for n in names}
        boost = re.search(r"^        boost +(\d+)$", part, re.M)
        for mark in ("min", "low", "high"):
            numbers[mark] -= int(boost[1]) if boost else 0
        protection = re.search(r"protection: \(([0-9, ]+)\)", part)[1]
        start = re.search(r"^  start_pfn: +(\d+)$", part, re.M)
        found[int(node), name] = (numbers, protection, start and start[1])
    return found


def offline_pages(text):
    """Return the runs of PageOffline pages with their flags."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [tuple(row) for row in rows if int(row[2], 16) & OFFLINE]


def test_the_size_is_reached(trace):
    assert [step.outcome.status for step in trace.steps] == ["ok", "ok"]


def test_zones_become_what_they_became(texts, predicted):
    after = zones(texts["after"]["proc/zoneinfo"])
    assert zones(predicted["proc/zoneinfo"]) == after
    assert zones(texts["before"]["proc/zoneinfo"]) != after


def test_fake_offline_pages_are_the_same_with_the_same_flags(texts, predicted):
    runs = "proc/kpageflags.runs"
    assert offline_pages(predicted[runs]) == offline_pages(texts["after"][runs])
    # Before, 56 MiB that were never online: PageDirty too. After, 68 MiB taken from the buddy.
    assert offline_pages(texts["before"][runs]) == [("0x10c800", "14336", "0x800010")]
    assert offline_pages(texts["after"][runs]) == [("0x103c00", "17408", "0x800000")]


def test_resources_above_4_gib_are_the_same(texts, predicted):
    def above(files):
        lines = files["proc/iomem"].splitlines()
        return [line for line in lines if int(line.strip().partition("-")[0], 16) >= 4 << 30]

    shown = above(predicted)
    assert shown == above(texts["after"])
    assert "100000000-13fffffff : virtio0" in shown
    assert "  100000000-107ffffff : System RAM (virtio_mem)" in shown


def test_block_files_are_the_same_to_the_byte(texts, predicted):
    def block_files(files):
        names = ("state", "online", "valid_zones", "phys_index")
        pattern = re.compile(rf"sys/devices/system/memory/memory\d+/({'|'.join(names)})")
        return {path: text for path, text in files.items() if pattern.fullmatch(path)}

    shown = block_files(predicted)
    assert shown == block_files(texts["after"])
    assert "sys/devices/system/memory/memory32/state" in shown
    assert "sys/devices/system/memory/memory33/state" not in shown


def test_free_memory_gets_the_removed_block_s_memmap_back(texts, predicted):
    """A block's memmap is 2 MiB; free memory moves by itself, but not by as much."""

    def free(files):
        waiting = re.findall(r"^ +count: +(\d+)$", files["proc/zoneinfo"], re.M)
        shown = int(re.search(r"MemFree: +(\d+) kB", files["proc/meminfo"])[1])
        return shown + 4 * sum(map(int, waiting))

    assert abs(free(predicted) - free(texts["after"])) < 1024


def test_total_memory_becomes_what_it_became(texts, predicted):
    paths = ("proc/meminfo", "sys/devices/system/node/node0/meminfo")
    for path in paths:
        totals = [
            re.search(r"MemTotal: +(\d+) kB", f[path])[1] for f in (predicted, texts["after"])
        ]
        assert totals[0] == totals[1]


def test_the_device_is_found_with_what_is_plugged(seen):
    machine = ModelMachine.start(Machine(), seen)
    host = machine._drivers["virtio-mem"].hosts["virtio0"]
    assert (host.address, host.size_bytes) == (4 << 30, 1 << 30)
    assert (host.plugged_bytes, host.requested_bytes) == (200 * MIB, 200 * MIB)
    assert machine.backing.backed.count(host.pfns) == 200 * MIB // 4096
    assert any("assumed to have its requested size" in note for note in machine.notes)


def given(**changes):
    keys = {"id": "vm0", "address": Address(4 << 30), "size": Size(1 << 30)}
    return Machine(devices=[Device(driver="virtio-mem", **keys | changes)])


def test_a_named_device_grows_on_where_it_is(seen):
    scenario = Scenario(
        name="s",
        machine=given(requested=Size(200 * MIB), block=Size(4 * MIB)),
        steps=[Resize(id="vm0", size=Size(260 * MIB))],
    )
    trace = predict(scenario, seen)
    assert trace.steps[-1].outcome
    requests = [event.text for event in trace.steps[-1].events if "PLUG" in event.text]
    assert requests == [
        "guest→host: PLUG 0x10c800000 - 0x10fffffff",
        "guest→host: PLUG 0x110000000 - 0x1103fffff",
    ]
    (line,) = [r for r in trace.steps[-1].observation.iomem if "virtio_mem" in r.name]
    assert (line.start, line.end - line.start) == (4 << 30, 384 * MIB)


def test_a_size_that_is_requested_and_not_reached_is_worked_on_when_it_is_requested_again(seen):
    scenario = Scenario(
        name="s",
        machine=given(requested=Size(300 * MIB)),
        steps=[Resize(id="vm0", size=Size(300 * MIB))],
    )
    assert predict(scenario, seen).steps[1].outcome.status == "ok"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block": Size(3 * MIB)}, "power of two"),
        ({"block": Size(256 * MIB), "requested": Size(256 * MIB)}, "no multiple of the block"),
        ({"requested": Size(2 << 30)}, "need at most the device's size"),
        ({"address": Address((4 << 30) + MIB)}, "need a multiple of the block"),
    ],
)
def test_a_device_that_qemu_could_not_have_made_is_one_clear_error(seen, changes, words):
    with pytest.raises(InputError, match=words):
        ModelMachine.start(given(**changes), seen)
