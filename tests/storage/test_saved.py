"""What was exported is read back: the same page, map by map."""

import dataclasses
import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from altmap.compare import compare
from altmap.errors import InputError
from altmap.model.machine import predict
from altmap.report.page import groups, map_builtins
from altmap.scenario import load_scenario
from altmap.storage import saved, trace_reader
from altmap.storage.export import export, trace_json
from altmap.storage.saved import is_saved, read_saved
from altmap.trace import Event

ROOT = Path(__file__).parents[2]


def predicted(name, policy):
    return predict(load_scenario(ROOT / f"scenarios/{name}.toml", [f"policy={policy}"]))


@pytest.mark.parametrize("name", ["hyperv-64MiB-second-half", "dimm-1GiB"])
def test_maps_of_an_export_are_those_of_the_run(name, tmp_path):
    traces = {policy: predicted(name, policy) for policy in ("opt-in", "rfc-2018")}
    export(traces, tmp_path / "out")
    assert is_saved(tmp_path / "out")
    read = read_saved(tmp_path / "out").traces
    before, after = (
        [map_builtins(group) for group in groups(some)] for some in (list(traces.values()), read)
    )
    assert before == after
    assert [t.scenario_sha256 for t in read] == [t.scenario_sha256 for t in traces.values()]
    assert all(t.scenario_sha256 for t in read)


@pytest.mark.parametrize(("name", "found"), [("", True), ("s/p", True), ("s/p/deeper", False)])
def test_an_export_is_found_as_deep_as_export_writes_it(name, found, tmp_path):
    export({name: predicted("dimm-1GiB", "opt-in")}, tmp_path / "out")
    assert is_saved(tmp_path / "out") == found
    assert bool(read_saved(tmp_path / "out").traces) == found


def test_a_trace_read_back_says_the_same(tmp_path):
    trace = predicted("zone-holes", "opt-in")
    export({"": trace}, tmp_path / "out")
    (read,) = read_saved(tmp_path / "out").traces
    assert trace_json(read) == trace_json(trace)


def test_messages_are_read_back(tmp_path):
    trace = predicted("dimm-1GiB", "opt-in")
    trace.steps[1].events.append(Event("driver", "says", message=b"\x00\xff"))
    path = tmp_path / "t.json"
    path.write_text(trace_json(trace))
    (read,) = read_saved(path).traces
    assert read.steps[1].events[-1].message == b"\x00\xff"
    path.write_text(trace_json(trace).replace('"00ff"', '"0x"'))
    with pytest.raises(
        InputError, match=r"t\.json: steps\[1\]\.events: a message: non-hexadecimal"
    ):
        read_saved(path)


def test_json_alone_has_traces_without_files(tmp_path):
    path = tmp_path / "traces.json"
    path.write_text(
        trace_json(predicted("dimm-1GiB", "opt-in"), predicted("dimm-1GiB", "existing"))
    )
    read = read_saved(path).traces
    assert [trace.policy for trace in read] == ["opt-in", "existing"]
    assert all(step.observation is None for trace in read for step in trace.steps)


def test_a_comparison_read_back_says_the_same(tmp_path):
    one, two = predicted("dimm-1GiB", "opt-in"), predicted("dimm-1GiB", "existing")
    made = compare(one, two)
    made.provenance = {"kernel": "6.12"}
    path = tmp_path / "c.json"
    path.write_bytes(msgspec.json.encode(made.to_builtins("dimm")))
    ((name, read),) = read_saved(path).comparisons
    assert name == "dimm"
    assert not read.equal
    assert dataclasses.asdict(read) == dataclasses.asdict(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x.json: Input data was truncated"),
        ("[1]", "x.json: Expected `object`, got `int` - at `$[0]`"),
        ("[{}]", "x.json: schema '': need altmap-trace or altmap-comparison"),
        ("[" * 100_000, "x.json: Expected `object`, got `array` - at `$[0]`"),
        ('{"x":' + "[" * 100_000, "x.json: is nested too deeply"),
        ('{"schema": "altmap-account"}', "x.json: schema 'altmap-account': need"),
        ('{"schema": "altmap-trace"}', "x.json: Object missing required field `scenario`"),
    ],
)
def test_what_is_not_ours_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_saved(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../elsewhere", "/", "..", ".", "", "proc", "00-a/b", "00-"])
def test_a_folder_outside_of_the_export_is_not_read(name, tmp_path):
    """A trace.json must not lead to files elsewhere."""
    export({"": predicted("dimm-1GiB", "opt-in")}, tmp_path / "out")
    path = tmp_path / "out/trace.json"
    made = json.loads(path.read_text())
    made["steps"][0]["folder"] = name
    path.write_text(json.dumps(made))
    with pytest.raises(InputError, match=rf"folder {re.escape(repr(name))}: need a name"):
        read_saved(tmp_path / "out")


def test_a_folder_of_a_step_that_is_a_link_is_not_followed(tmp_path):
    export({"": predicted("dimm-1GiB", "opt-in")}, tmp_path / "out")
    start = tmp_path / "out/00-start"
    start.rename(tmp_path / "elsewhere")
    start.symlink_to("../elsewhere")
    with pytest.raises(InputError, match="folder '00-start': is a symbolic link"):
        read_saved(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.update(steps=[]), "Expected `array` of length >= 1"),
        (lambda made: made["steps"][1]["result"].update(status="gone"), "Invalid enum value"),
        (lambda made: made["steps"][1]["action"].update(size="1 GiB"), "got `str` - at `$.size`"),
        (lambda made: made["steps"][1]["action"].update(size=-1), "Expected `int` >= 0"),
        (lambda made: made["steps"][1]["action"].update(size=(1 << 52) + 1), "Expected `int` <="),
        (lambda made: made["steps"][1]["action"].update(address=-5), "Expected `int` >= 0"),
        (lambda made: made["steps"][1]["action"].update(more_ranges=[{}]), "field `size`"),
        (lambda made: made["steps"][1]["action"].pop("id"), "plug needs the field 'id'"),
        (lambda made: made["steps"][1]["action"].pop("size"), "plug needs the field 'size'"),
        (
            lambda made: made["steps"][2].update(action={"do": "unplug"}),
            "steps[2].action: unplug needs the field 'id'",
        ),
        (
            lambda made: made["steps"][2].update(action={"do": "resize", "id": "a"}),
            "steps[2].action: resize needs the field 'size'",
        ),
    ],
)
def test_a_trace_has_steps_words_and_numbers_that_reports_can_use(change, message, tmp_path):
    with pytest.raises(InputError) as refused:
        read_saved(changed(change, tmp_path))
    assert message in str(refused.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "t.json"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"t\.json: need a regular file"):
        read_saved(path)


def changed(change, tmp_path):
    """Return the file of a trace with one value changed."""
    made = predicted("dimm-1GiB", "opt-in").to_builtins()
    change(made)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize(
    ("runs", "rule"),
    [
        ([[2, 1]], r"PFN range \[0x2, 0x1\): need 0 <= start <= end"),
        ([[-1, 1]], r"`int` >= 0"),
        ([[0, (1 << 40) + 1]], r"`int` <= 1099511627776"),
        ([[0, 1 << 38], [1 << 39, (1 << 39) + 1]], "0x4000000001 page frames in all: need at most"),
        ([[0, "1"]], "Expected `int`"),
    ],
)
@pytest.mark.parametrize("where", ["backed", "result", "events", "faults"])
def test_page_frames_that_no_machine_has_are_refused(where, runs, rule, tmp_path):
    def change(made):
        pages = {"nr_pages": 1, "nr_ranges": len(runs), "ranges": runs}
        step = made["steps"][0]
        step["backed"] = None
        fault = {"pfn": 0, "access": "write", "function": "f", "kind": "k", "pfns": pages}
        match where:
            case "backed":
                step["backed"] = pages
            case "result":
                step["result"]["pfns"] = pages
            case "events":
                step["events"].append({"kind": "k", "text": "t", "pfns": pages})
            case "faults":
                step["faults"].append(fault)
        for later in made["steps"][1:]:
            later["backed"], later["events"] = None, []

    with pytest.raises(InputError, match=rf"t\.json: .*{rule}"):
        read_saved(changed(change, tmp_path))


def test_as_many_page_frames_as_a_file_may_have_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_reader, "_MOST_PAGES", 1000)

    def change(made, nr_pages):
        for step in made["steps"]:
            step["backed"], step["events"] = None, []
        made["steps"][0]["backed"] = {"nr_ranges": 1, "ranges": [[7, 7 + nr_pages]]}

    path = changed(lambda made: change(made, 1000), tmp_path)
    assert len(read_saved(path).traces[0].steps[0].backed) == 1000
    path = changed(lambda made: change(made, 1001), tmp_path)
    with pytest.raises(InputError, match="0x3e9 page frames in all: need at most 0x3e8"):
        read_saved(path)


def test_a_trace_of_another_version_is_refused(tmp_path):
    path = changed(lambda made: made.update(version=2), tmp_path)
    with pytest.raises(InputError, match=r"2 - at `\$\.version`"):
        read_saved(path)


def test_a_file_that_is_too_long_is_refused(tmp_path, monkeypatch):
    path = changed(lambda made: None, tmp_path)
    size = path.stat().st_size
    monkeypatch.setattr(saved, "MOST_JSON_BYTES", size)
    assert read_saved(path).traces
    monkeypatch.setattr(saved, "MOST_JSON_BYTES", size - 1)
    with pytest.raises(InputError, match=rf"t\.json: need at most {size - 1} bytes"):
        read_saved(path)


def test_a_fault_is_read_back(tmp_path):
    trace = predicted("hyperv-64MiB-second-half", "rfc-2018")
    (fault,) = trace.steps[1].faults
    trace.steps[1].faults.append(dataclasses.replace(fault, access="read", what="other frames"))
    path = tmp_path / "t.json"
    path.write_text(trace_json(trace))
    (read,) = read_saved(path).traces
    assert [step.faults for step in read.steps] == [step.faults for step in trace.steps]
    assert any(step.faults for step in read.steps)
