"""The page and the pictures: their texts, and equal bytes for equal traces."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from altmap.compare import Comparison, Difference, FileVerdict, Verdict, compare
from altmap.model.machine import predict
from altmap.report import step_report
from altmap.report.page import groups, page
from altmap.report.picture import svg
from altmap.report.states import STATES, PageState
from altmap.report.tiles import Facts, TileRow
from altmap.scenario import load_scenario
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST, OK, Event, StepRecord, Trace

ROOT = Path(__file__).parents[2]
charts = pytest.importorskip("vl_convert", reason="missing: vl-convert (altmap[report])")

VOID = {"meta", "input", "br", "line", "rect", "circle", "path"}


class Checker(HTMLParser):
    """Checks that every element is closed in order; collects ids and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    return checker


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</', html)[1])


def test_the_page_is_well_formed_and_references_nothing_outside(hyperv):
    made = page(hyperv, "Hyper-V", "1.0")
    checker = parsed(made)
    for tag, name, value in checker.attributes:
        assert name not in ("src", "href", "data", "srcset"), (tag, name, value)
        assert "url(" not in (value or "").replace("url(#", ""), value
    outside = set(re.findall(r"https?://[^\s\"'<)]+", made))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert policy(made)["default-src"] == ["'none'"]
    assert len(made) < 200_000


def policy(html):
    text = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    return {name: words for name, *words in (part.split() for part in text.split(";"))}


def test_the_policy_allows_one_script_and_one_style_by_hash(hyperv):
    """CSP level 3, 2.3: sha256 of what is between the tags, in base64."""
    made = page(hyperv, "Hyper-V", "1.0")
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", made, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy(made)[f"{tag}-src"] == [f"'sha256-{digest}'"]
    # Neither attributes of style nor handlers of events are allowed by a hash.
    for tag, name, value in parsed(made).attributes:
        assert name != "style", (tag, value)
        assert not name.startswith("on"), (tag, name, value)
    assert "style=" not in re.search(r"<script>(.*?)</script>", made, re.DOTALL)[1]


def test_verdicts_show_the_state_after_a_step(hyperv):
    crashed, running = (step_report.verdict(trace, 1) for trace in hyperv)
    assert (crashed.kind, crashed.headline) == ("fault", "the kernel crashes")
    assert "mark_vmemmap_pages writes pfn 0x100000" in crashed.detail
    assert (running.kind, running.headline) == ("ok", "the kernel keeps running")
    assert running.detail.startswith("requested 64 MiB")
    assert step_report.verdict(hyperv[0], 2).kind == "fault"  # also in later steps
    assert step_report.default_step(hyperv) == 1


def test_the_sizes_of_a_verdict_have_one_decimal():
    trace = predict(load_scenario(ROOT / "scenarios/xen-balloon.toml"))
    index = step_report.default_step([trace])
    assert step_report.verdict(trace, index).detail.startswith(
        "requested 270.5 MiB: MemTotal +270.5 MiB,"
    )


def test_a_refusal_is_a_verdict_and_a_highlighted_line():
    (trace,) = [predict(load_scenario(ROOT / "scenarios/misaligned-dimm.toml"))]
    refused = next(i for i, s in enumerate(trace.steps) if s.outcome.status == "refused")
    assert step_report.verdict(trace, refused).kind == "refused"
    assert step_report.event_log(trace.steps[refused])[-1].lane == "refusal"
    assert '<li class="refusal"' in page([trace], "x", "1.0")


def test_events_of_the_map_lead_to_lines_of_the_event_log(hyperv):
    made = page(hyperv, "x", "1.0")
    ids = set(parsed(made).ids)
    events = [e for trace in data_of(made)["groups"][0]["traces"] for e in trace["events"]]
    assert events
    assert {id_ for _, id_, _ in events} <= ids
    steps = [step for step, _, _ in data_of(made)["groups"][0]["traces"][0]["events"]]
    assert steps == sorted(steps)


def test_a_message_of_a_driver_is_shown_with_bytes_in_the_lane_of_its_sender(dimm):
    start, plug, *_ = dimm[0].steps
    raw = bytes.fromhex("060008000100")
    events = [
        Event("driver", f"{HOST_TO_GUEST}add", message=raw),
        Event("driver", f"{GUEST_TO_HOST}done", message=raw),
    ]
    lines = step_report.event_log(StepRecord("x", {}, OK, events))
    assert [line.lane for line in lines] == ["host", "driver"]
    steps = [start, replace(plug, events=events)]
    made = page([replace(dimm[0], steps=steps)], "x", "1")
    assert made.count("06000800 0100") == 2


def test_text_of_users_cannot_become_markup():
    scenario = load_scenario(ROOT / "scenarios/dimm-1GiB.toml")
    trace = predict(scenario)
    trace.scenario = trace.policy = "</script><script>alert(1)</script>"
    trace.notes = ["<b>bold</b>"]
    trace.steps[1].name = "<i>name</i>"
    made = page([trace], trace.scenario, "1.0")
    checker = parsed(made)
    assert made.count("<script") == 2
    assert "<b>bold" not in made
    assert "<i>" not in made
    assert data_of(made)["groups"][0]["steps"][1] == "<i>name</i>"
    assert ("script", "type", "application/json") in checker.attributes


def test_each_hidden_part_is_shown_at_one_step(hyperv):
    made = page(hyperv, "x", "1.0")
    steps = re.findall(r'class="chart" data-steps="([\d ]+)"', made)
    assert sorted(int(n) for text in steps for n in text.split()) == [0, 0, 1, 1, 2, 2]


def test_the_page_of_files_without_memory_blocks_has_no_map(dimm):
    bare = [replace(step, observation=None) for step in dimm[0].steps]
    trace = Trace("x", "model", "6.12", "opt-in", {}, bare)
    made = page([trace], "x", "1.0")
    assert "No map" in made
    parsed(made)


def shown_at(html, kind, step):
    """Return the texts of the parts of a kind that the page shows at a step."""
    parts = re.findall(
        rf'<(?:div class="{kind}"|{kind}) data-steps="([\d ]+)" hidden>(.*?)</(?:div|li)>', html
    )
    parts = [(steps, re.sub("<svg.*?</svg>", "", text)) for steps, text in parts]
    return [re.sub("<[^>]*>", "", text) for steps, text in parts if str(step) in steps.split()]


def test_the_legend_has_what_occurs_at_the_step(hyperv):
    made = page(hyperv, "x", "1.0")
    start, plugged = (
        [re.split(" – ", text)[0] for text in shown_at(made, "li", step)] for step in (0, 1)
    )
    assert start == ["hole", "free", "unmovable", "kernel zones"]
    assert {"unbacked", "fault", "fake-offline", "not backed"} <= set(plugged)
    assert not {"poisoned", "offline", "ZONE_MOVABLE", "node 0"} & set(plugged)


def test_the_bar_of_zones_has_their_ratio_and_what_is_offline(dimm):
    made = page(dimm, "x", "1.0")
    assert shown_at(made, "zones", 0) == ["kernel zones 1023.5 MiB, ZONE_MOVABLE is empty"]
    assert shown_at(made, "zones", 1) == ["kernel : movable 1023.5 MiB : 1 GiB (1 : 1.0)"]


def test_the_accounting_of_a_crashed_kernel_is_one_level_and_its_loss(hyperv):
    made = page(hyperv, "x", "1.0")
    crashed = re.findall(r'<div class="chart" data-steps="1 2" hidden>(.*?)</div>', made)
    assert re.findall(r'<li class="(\w+)">', crashed[0]) == ["level", "lost"]
    assert "the kernel crashed" in crashed[0]


def test_what_blocks_have_beyond_the_request_is_explained(hyperv):
    requested = step_report.accounting(hyperv[1], 1)[0]
    assert (requested.name, requested.size_bytes) == ("requested", 1088 << 20)
    (gain,) = requested.gains
    assert gain.size_bytes == 64 << 20
    assert "not requested" in gain.cause
    assert f"+ 64.0 MiB {gain.cause}" in page(hyperv, "x", "1.0")


def test_bars_of_all_policies_and_steps_have_one_scale(hyperv):
    made = page(hyperv, "x", "1.0")
    widths = {
        float(text.replace(",", "")): int(width)
        for text, width in re.findall(
            r'<li class="level"><b>[\w ]+</b> ([\d,.]+) MiB.*?<rect x="0" width="(\d+)"', made
        )
    }
    assert widths[1152.0] == 1000  # the most of any policy at any step
    assert widths[1088.0] == round(1000 * 1088 / 1152)
    assert all(abs(width - size * 1000 / 1152) < 1 for size, width in widths.items())


def test_the_first_step_shown_is_that_of_most_change(dimm, hyperv):
    assert step_report.default_step(dimm) == 1  # the plug; the unplug has as much
    assert step_report.default_step(hyperv) == 1  # the fault
    start, plug, unplug = dimm[0].steps
    small = replace(unplug, observation=plug.observation)  # changes nothing
    assert step_report.default_step([replace(dimm[0], steps=[start, start, plug, small])]) == 2
    assert step_report.default_step([replace(dimm[0], steps=[plug, small])]) == 1


def test_a_snapshot_has_no_slider_no_second_title_and_no_empty_section(dimm):
    trace = replace(dimm[0], steps=dimm[0].steps[:1], policy="", target="sysroot", release="6.12")
    made = page([trace], trace.scenario, "1.0")
    assert '<div class="control" hidden>' in made
    assert re.findall(r"<h\d>(.*?)</h\d>", made) == [
        trace.scenario,
        "Memory accounting",
        "Provenance",
    ]
    assert "as its files show it" in made
    assert "requested" not in made
    assert 'sysroot</b> <span class="soft">6.12<' in made


@pytest.mark.parametrize(
    ("size", "scale", "text"),
    [
        (1 << 30, 1 << 30, "1,024.0 MiB"),
        (10 << 30, (10 << 30) - 1, "10,240.0 MiB"),
        (10 << 30, 10 << 30, "10.000 GiB"),
        (1 << 19, 64 << 30, "0.5 MiB"),  # 0.000 GiB would say nothing
        (-(1 << 30), 64 << 30, "-1.000 GiB"),
    ],
)
def test_sizes_that_are_compared_have_one_unit(size, scale, text):
    assert step_report.size_text(size, scale) == text


@pytest.mark.parametrize(
    ("zones", "kind"),
    [
        ("DMA + DMA32", "kernel"),
        ("Normal, DMA32", "kernel"),
        ("Movable", "movable"),
        ("Normal + Movable", "both"),
        ("Movable, Normal", "both"),
        ("", ""),
    ],
)
def test_zones_are_of_the_kernel_movable_or_both(zones, kind):
    assert Facts("online", zones, "0", "").zone_kind == kind


# --- comparisons -----------------------------------------------------------------------------


@pytest.fixture
def comparison():
    bad = Difference("MemTotal", "1", "2", "mm/memory_hotplug.c: online_pages")
    near = Difference("MemFree", "3", "4", "mm/page_alloc.c", "±9: kB", within=True)
    return Comparison(
        "model 6.12",
        "lab 6.12",
        [
            FileVerdict("01-x", "proc/equal", Verdict.EQUAL, 7),
            FileVerdict("01-x", "proc/near", Verdict.TOLERATED, 2, (near,)),
            FileVerdict("01-x", "proc/bad", Verdict.DIFFERENT, 3, (bad,)),
        ],
        {"kernel": "Linux version 6.12"},
    )


def test_differences_precede_tolerated_fields_and_equal_files(comparison):
    made = page([], "x", "1.0", [("case", comparison)])
    parsed(made)
    order = ["1 fields differ", "proc/bad", "online_pages", "proc/near", "±9: kB", "proc/equal"]
    at = [made.index(word) for word in order]
    assert at == sorted(at)
    assert "Linux version 6.12" in made


def test_the_name_of_a_comparison_is_not_repeated_below_an_equal_title(comparison):
    for title, heading in (("case", "model 6.12 against"), ("other", "case: model 6.12 against")):
        assert f"<h2>{heading}" in page([], title, "1.0", [("case", comparison)])


def test_a_comparison_without_differences_has_the_verdict_equal(dimm):
    made = page(dimm, "x", "1.0", [("dimm", compare(dimm[0], dimm[0]))])
    assert "everything is equal" in made
    assert "What differs" not in made


# --- the same bytes --------------------------------------------------------------------------

MAKE = """
import hashlib, sys
from pathlib import Path
from altmap.model.machine import predict
from altmap.report.page import groups, page
from altmap.report.picture import png, svg
from altmap.scenario import load_scenario
path = Path("scenarios/hyperv-64MiB-second-half.toml")
traces = [predict(load_scenario(path, [f"policy={p}"])) for p in ("rfc-2018", "opt-in")]
html = page(traces, "x", "1").encode()
picture = svg(groups(traces)[0], "x")
print(hashlib.sha256(html + picture.encode() + png(picture)).hexdigest())
"""


@pytest.mark.slow
def test_the_same_traces_give_the_same_bytes_in_another_process(monkeypatch, capsys):
    """The other one has another seed of hashes and another time zone."""
    monkeypatch.chdir(ROOT)
    exec(MAKE, {})
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    env = os.environ | {"PYTHONHASHSEED": seed, "TZ": "UTC7"}
    done = subprocess.run([sys.executable, "-c", MAKE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == capsys.readouterr().out


def test_a_page_made_twice_in_one_process_is_the_same(hyperv):
    one, two = (hashlib.sha256(page(hyperv, "x", "1").encode()).digest() for _ in range(2))
    assert one == two


# --- pictures --------------------------------------------------------------------------------


def words(picture):
    root = ET.fromstring(picture)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_labels_fault_memmap_and_backing(hyperv):
    shown = words(svg(groups(hyperv)[0], "Hyper-V adds 64 MiB"))
    assert "Hyper-V adds 64 MiB" in shown
    assert "✖ rfc-2018: the kernel crashes" in shown
    assert "✔ opt-in: the kernel keeps running" in shown
    assert "not backed: 62 MiB" in shown
    assert "backed by the host: 64 MiB" in shown
    assert "✖ mark_vmemmap_pages writes here: general protection fault" in shown
    assert "memmap of added memory: 2 MiB, here" in shown
    assert "fake-offline: 64 MiB" in shown


MANY = """
[machine]
memmap_on_memory = "on"
auto_online_blocks = "online_movable"
nodes = [{ memory = "512MiB" }, { memory = "512MiB" }]
[[steps]]
do = "plug"
id = "a-device-with-a-long-name"
size = "10GiB"
node = 1
[[steps]]
do = "offline"
blocks = BLOCKS
[[steps]]
do = "online"
to = "online_kernel"
blocks = BLOCKS
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """80 blocks, in turn in ZONE_MOVABLE and in a kernel zone."""
    path = tmp_path_factory.mktemp("many") / "many.toml"
    path.write_text(MANY.replace("BLOCKS", str(list(range(33, 112, 2)))))
    return [predict(load_scenario(path))]


def test_a_picture_of_many_rows_is_not_a_tower(many):
    root = ET.fromstring(svg(groups(many)[0], "many " * 40, 3))
    assert len(groups(many)[0].tiles.rows) > 60
    assert float(root.get("height")) < 2 * float(root.get("width"))


def test_rows_that_look_alike_after_a_step_are_one_row_of_its_picture(many):
    (group,) = groups(many)
    before, after = (words(svg(group, "x", step)) for step in (1, 3))
    assert "memory32–111" in before
    assert {"memory32", "memory33", "memory111"} <= set(after)


def test_stripes_show_zones_and_nodes_and_the_legend_names_them(many, dimm):
    made = svg(groups(many)[0], "x", 1)
    shown = words(made)
    assert {"kernel zones", "ZONE_MOVABLE", "node 0", "node 1"} <= set(shown)
    assert 'fill="url(#slant)"' in made
    one_node = words(svg(groups(dimm)[0], "x", 1))
    assert "node 0" not in one_node
    assert "poisoned" not in one_node


def test_the_verdict_of_a_picture_has_kernel_and_movable_memory(dimm):
    shown = words(svg(groups(dimm)[0], "x", 1))
    assert "kernel : movable 1023.5 MiB : 1 GiB (1 : 1.0)" in shown


def test_the_names_of_many_blocks_do_not_reach_the_stripe(dimm):
    (group,) = groups(dimm)
    group.tiles.rows[-1] = TileRow(352264, 1, 172032)
    root = ET.fromstring(svg(group, "x", 1))
    space = "{http://www.w3.org/2000/svg}"
    (name,) = [e for e in root.iter(f"{space}text") if e.text == "memory352264–524295"]
    slant = [e for e in root.iter(f"{space}rect") if e.get("fill") == "url(#slant)"]
    # DejaVu Sans: 0.636 em a digit, and 4.3 em for "memory".
    end = float(name.get("x")) + 12 * (4.3 + 0.636 * (len(name.text) - 6))
    assert end <= float(slant[0].get("x"))


def test_a_long_title_is_wrapped(dimm):
    title = "word " * 40
    shown = [text for text in words(svg(groups(dimm)[0], title)) if text.startswith("word")]
    assert len(shown) > 1
    assert " ".join(shown).split() == title.split()


def test_panels_of_one_policy_name_what_they_were_run_on(hyperv):
    pair = [hyperv[0], replace(hyperv[0], target="lab", release="6.12+rfc-2018")]
    shown = words(svg(groups(pair)[0], "x"))
    assert "✖ model, 6.12, rfc-2018: the kernel crashes" in shown
    assert "✖ real kernel, 6.12+rfc-2018, rfc-2018: the kernel crashes" in shown


def test_text_stays_within_the_picture(hyperv, dimm, many):
    for traces in (hyperv, dimm, many):
        for step in range(3):
            root = ET.fromstring(svg(groups(traces)[0], "x", step))
            for element in root.iter("{http://www.w3.org/2000/svg}text"):
                x, size = float(element.get("x")), float(element.get("font-size"))
                width = len(element.text) * size * 0.6
                anchor = element.get("text-anchor")
                left = x - {"middle": width / 2, "end": width}.get(anchor, 0)
                assert left >= -1, element.text
                assert left + width <= 1010, element.text


def test_every_state_is_distinct_without_colour():
    """By its pattern or letter; the two states without either differ in lightness."""
    marks = [(info.pattern, info.letter) for info in STATES.values()]
    plain = [
        state for state, info in STATES.items() if (info.pattern, info.letter) == ("plain", "")
    ]
    assert plain == [PageState.HOLE, PageState.FREE]
    assert len(set(marks)) == len(marks) - 1
    assert len({info.colour for info in STATES.values()}) == len(STATES) - 1  # two are white


@pytest.mark.slow
def test_the_page_of_a_large_machine_is_small(tmp_path):
    """1 TiB in 8192 blocks, 300 of them offline at scattered places."""
    blocks = sorted({48 + (id_ * 7919) % 8192 for id_ in range(300)})
    path = tmp_path / "large.toml"
    path.write_text(
        '[machine]\nmemory = "4GiB"\nmemmap_on_memory = "on"\n'
        'auto_online_blocks = "online_movable"\n'
        f'[[steps]]\ndo = "plug"\nid = "d1"\nsize = "1TiB"\n'
        f'[[steps]]\ndo = "offline"\nblocks = {blocks}\n'
    )
    made = page([predict(load_scenario(path))], "large", "1")
    assert len(made) < 1_000_000  # bytes, of five million allowed
    assert len(data_of(made)["groups"][0]["rows"]) <= 96
    parsed(made)
