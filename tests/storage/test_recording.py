"""Recordings of real kernels: the model against each, and what is not a recording."""

import io
import json
import lzma
import re
import tarfile
from functools import cache
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.storage.export import trace_json
from altmap.storage.recording import Recording, read_archive, read_recording, write_recording
from altmap.verify.both_sides import compare_with_trace, record_in_lab

RECORDINGS = sorted((Path(__file__).parents[1] / "recordings/traces").glob("*.tar.xz"))
recorded = cache(read_recording)  # each is read once for all tests that do not change it


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_prediction_equals_the_recorded_kernel(path):
    recording = recorded(path)
    comparison = compare_with_trace(recording.scenario, recording.trace)
    assert comparison.equal, comparison_text(comparison, recording.scenario.name)


def test_there_are_recordings_of_each_release():
    releases = {recorded(path).trace.release for path in RECORDINGS}
    assert {"6.1", "6.12", "7.3"} <= releases


def test_a_recording_tells_where_it_comes_from():
    machine = recorded(RECORDINGS[0]).trace.machine
    assert any(name.startswith("linux-image-") for name in machine["packages"])
    assert machine["qemu"].startswith("QEMU emulator version")


def members(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}


def write(path, files):
    with tarfile.open(path, "w:xz") as tar:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def without_trace(files):
    return {name: raw for name, raw in files.items() if name != "trace.json"}


def another_version(files):
    head = json.loads(files["trace.json"]) | {"version": 2}
    return files | {"trace.json": json.dumps(head).encode()}


def another_schema(files):
    head = json.loads(files["trace.json"]) | {"schema": "other"}
    return files | {"trace.json": json.dumps(head).encode()}


def no_start(files):
    return {name: raw for name, raw in files.items() if not name.startswith("00-start/")}


DAMAGE = {
    "has no trace.json": without_trace,
    "version 2: need": another_version,
    "schema 'other' version 1: need": another_schema,
    "malformed|trunc|byte": lambda files: files | {"trace.json": b"{"},
    "not TOML": lambda files: files | {"scenario.toml": b"= 1"},
    "need a number|meminfo": lambda files: files | {"00-start/proc/meminfo": b"MemTotal: x kB\n"},
    r"\.\.": lambda files: files | {"../00-start/proc/meminfo": b""},
    "has no files of its start": no_start,
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_what_is_not_a_recording_is_refused_in_one_line(rule, tmp_path, capsys):
    path = write(tmp_path / "r.tar.xz", DAMAGE[rule](members(RECORDINGS[0])))
    assert cli.main(["compare", "--recording", str(path)]) == cli.FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rule, error)


def test_a_recording_read_back_says_the_same(tmp_path):
    path = Path(__file__).parents[2] / "scenarios/hyperv-64MiB-second-half.toml"
    trace = predict(load_scenario(path, ["policy=rfc-2018"]))
    sysroots = [step.observation.render() for step in trace.steps if step.observation]
    backwards = [Sysroot(dict([*s.files.items()][::-1]), s.links) for s in sysroots]
    written = [tmp_path / name for name in ("r.tar.xz", "again.tar.xz")]
    for target, files in zip(written, (sysroots, backwards), strict=True):
        write_recording(target, path.read_text(), ["policy=rfc-2018"], trace, files)
    read = read_recording(written[0])
    assert read.scenario.machine.policy == "rfc-2018"
    assert trace_json(read.trace) == trace_json(trace)
    assert any(step.faults for step in read.trace.steps)
    assert [step.observation for step in read.trace.steps] == [
        step.observation and Observation.read(step.observation.render()) for step in trace.steps
    ]
    assert written[0].read_bytes() == written[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(written)


def test_an_archive_of_one_sysroot_is_no_recording(tmp_path):
    archive = RECORDINGS[0].parents[1] / "files/linux-6.12-start.tar.xz"
    assert isinstance(read_archive(RECORDINGS[0]), Recording)
    assert read_archive(archive) == Sysroot.read(archive)
    with pytest.raises(InputError, match="need a whole tar archive"):
        read_archive(Path(__file__))


def test_an_archive_of_several_sysroots_without_a_trace_is_none_of_them(tmp_path):
    path = write(tmp_path / "two.tar.xz", {"a/proc/meminfo": b"", "b/proc/meminfo": b""})
    with pytest.raises(InputError, match="holds more than one sysroot, in 'a' and 'b'"):
        read_archive(path)


def test_a_truncated_recording_is_refused(tmp_path):
    path = tmp_path / "r.tar.xz"
    path.write_bytes(RECORDINGS[0].read_bytes()[:5000])
    with pytest.raises(InputError, match=r"r\.tar\.xz: need a whole tar archive"):
        read_recording(path)


def test_a_changed_number_is_a_difference(tmp_path, capsys):
    """The replay is no mere reading: what the kernel did not do shows."""
    files = members(RECORDINGS[0])
    last = max(name for name in files if name.endswith("/proc/zoneinfo"))
    text = files[last].decode()
    changed = files | {last: text.replace("present  ", "present  1", 1).encode()}
    path = write(tmp_path / "r.tar.xz", changed)
    assert cli.main(["compare", "--recording", str(path)]) == cli.DIFFERENT
    assert "present" in capsys.readouterr().out


def test_nothing_is_recorded_over_a_file_or_under_another_name(tmp_path):
    scenario = Path(__file__).parents[2] / "scenarios/dimm-1GiB.toml"
    there = tmp_path / "r.tar.xz"
    there.write_bytes(lzma.compress(b""))
    with pytest.raises(InputError, match="exists already"):
        record_in_lab(scenario, (), there, print)
    with pytest.raises(InputError, match=r"ends in \.tar\.xz"):
        record_in_lab(scenario, (), tmp_path / "r.zip", print)


def test_compare_needs_something_to_compare(capsys):
    assert cli.main(["compare"]) == cli.FAILED
    assert "SCENARIO or a --recording" in capsys.readouterr().err


@pytest.mark.lab
def test_a_scenario_is_recorded_and_compared_again(tmp_path, capsys):
    scenario = Path(__file__).parents[2] / "scenarios/dimm-1GiB.toml"
    path = tmp_path / "r.tar.xz"
    assert cli.main(["record", str(scenario), "-o", str(path), "--release", "6.12"]) == cli.EQUAL
    assert [p.name for p in tmp_path.iterdir()] == ["r.tar.xz"]
    assert cli.main(["compare", "--recording", str(path)]) == cli.EQUAL
