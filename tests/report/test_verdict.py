"""How runs end, a line each; the expectations are the tables that the same traces give."""

from dataclasses import replace
from pathlib import Path

import pytest

from altmap.model.machine import predict
from altmap.pfn import PfnRange, PfnSet
from altmap.report.text import side_by_side
from altmap.report.verdict import all_ok, verdict, verdict_lines
from altmap.scenario import load_scenario, parse_scenario
from altmap.trace import OK, Fault, Outcome, StepRecord, Trace

ROOT = Path(__file__).parents[2]
REFUSED = Outcome.refused("EBUSY", "offline_pages", "pages that cannot move")


def trace(*steps, scenario="s", policy="opt-in"):
    made = [StepRecord(f"n{nr}", {}, OK) for nr in range(1 + len(steps))]
    for record, (outcome, faults) in zip(made[1:], steps, strict=True):
        record.outcome, record.faults = outcome, faults
    return Trace(scenario, "model", "6.12", policy, {}, made)


def fault(start, end):
    pages = PfnSet([PfnRange(start, end)])
    return Fault(start, "write", "memmap_init_range", pages, "kernel page fault")


def test_every_step_ok_is_ok():
    one = trace((OK, []), (OK, []))
    assert (verdict(one), all_ok(one)) == ("ok", True)


def test_the_first_refusal_is_named_by_errno_function_and_step():
    one = trace((OK, []), (REFUSED, []), (Outcome.refused("EINVAL", "x", ""), []))
    assert (verdict(one), all_ok(one)) == ("refused EBUSY by offline_pages at step 2", False)


def test_a_refusal_that_is_not_certain_says_so():
    likely = REFUSED.doubted("likely", "a page of the kernel may lie there")
    assert verdict(trace((likely, []))) == "refused EBUSY by offline_pages at step 1 (likely)"


def test_a_refusal_without_a_function_is_the_kernels():
    one = trace((replace(REFUSED, function=None), []))
    assert verdict(one) == "refused EBUSY by the kernel at step 1"


def test_a_fault_counts_more_than_a_refusal_before_it():
    ended = Outcome("fault", function="memmap_init_range", why="kernel page fault")
    one = trace((REFUSED, []), (ended, [fault(0x100, 0x108)]), (Outcome("not_reached"), []))
    assert verdict(one) == "fault at step 2: write by memmap_init_range at [0x100, 0x108)"
    assert not all_ok(one)


def test_a_fault_without_frames_has_its_reason():
    assert verdict(trace((Outcome("fault", why="a trap"), []))) == "fault at step 1: a trap"


def test_the_case_of_2018_is_told_as_in_the_readme():
    path = ROOT / "scenarios/hyperv-64MiB-second-half.toml"
    runs = {p: predict(load_scenario(path, [f"policy={p}"])) for p in ("rfc-2018", "opt-in")}
    assert {policy: verdict(each) for policy, each in runs.items()} == {
        "rfc-2018": "fault at step 1: write by mark_vmemmap_pages at [0x100000, 0x100008)",
        "opt-in": "ok",
    }


def test_lines_are_columns():
    lines = verdict_lines([trace(policy="a"), trace((REFUSED, []), scenario="longer")])
    assert lines.splitlines() == [
        "s       a       ok",
        "longer  opt-in  refused EBUSY by offline_pages at step 1",
    ]


@pytest.mark.parametrize("width", [40, 41, 80])
def test_lines_are_wrapped_at_the_width_and_every_run_begins_at_the_margin(width):
    runs = [trace((REFUSED, []), scenario="x" * 20), trace((REFUSED, []))]
    lines = verdict_lines(runs, width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line for line in lines if not line.startswith(" ")] == [
        line for line in lines if line.startswith(("x", "s "))
    ]
    assert " ".join(verdict_lines(runs).split()) == " ".join(" ".join(lines).split())


def test_text_of_a_scenario_cannot_command_the_terminal():
    one = predict(parse_scenario('[[steps]]\ndo = "dump"\n', "s"))
    one.scenario = "a\x1b[31m\nb"
    assert verdict_lines([one]) == "a\\x1b[31m\\nb  opt-in  ok\n"


def test_a_step_that_does_not_end_has_no_errno():
    one = trace((Outcome("does_not_end", None, "offline_pages", "no room"), []))
    assert (verdict(one), all_ok(one)) == ("does not end by offline_pages at step 1", False)
    assert "does not end: offline_pages: no room" in side_by_side([one], "eject")
