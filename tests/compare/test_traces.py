"""Two traces: which steps, files and sides are compared, and how a verdict follows."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from alterations import OFFLINE, is_xen, reflag, see
from pairs import compared, differing, layout, start_and_last

from altmap.compare import Comparison, Difference, FileVerdict, Verdict, compare
from altmap.compare.counters import (
    shared_managed,
    shared_watermarks,
    unless_shared_before,
    zone_watermark,
)
from altmap.compare.tolerance import FREE_PAGES, page_kib
from altmap.compare.traces import _sides
from altmap.compare.verdict import value_text
from altmap.linux.observation import Observation, ZoneInfo
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import OK, Event, Outcome, StepRecord, Trace


def trace(*steps):
    return Trace("s", "lab", "6.12", "opt-in", {}, list(steps))


@pytest.fixture(scope="module")
def pair():
    return start_and_last("x86_64")


def verdicts(files):
    return {file.file: file.verdict for file in files}


# --- steps -----------------------------------------------------------------------------------


def test_traces_of_different_length_are_refused(pair):
    start, last = pair
    for one, other in (((start, last), (start,)), ((start,), (start, last))):
        with pytest.raises(ValueError, match="zip"):
            compare(trace(*one), trace(*other))


def test_the_start_has_no_result_and_every_other_step_has_one(pair):
    start, last = pair
    files = compare(trace(start, last, last), trace(start, last, last)).files
    assert [file.step for file in files if file.file == "result"] == [
        f"01-{last.name}",
        f"02-{last.name}",
    ]
    assert {file.step for file in files if file.file == "proc/meminfo"} == {
        "00-start",
        f"01-{last.name}",
        f"02-{last.name}",
    }


def test_files_are_not_compared_where_one_kernel_crashed_and_the_results_differ(pair):
    start, last = pair
    crashed = StepRecord(last.name, {}, Outcome("fault", None, "f", "why"))
    for mine, other in ((crashed, last), (last, crashed)):
        files = compared(start, mine, other)
        assert verdicts(files) == {"result": Verdict.DIFFERENT}


def test_files_are_not_compared_without_a_start_to_derive_tolerances_from(pair):
    start, last = pair
    unseen = replace(start, observation=None)
    files = compare(trace(start, last), trace(unseen, last)).files
    assert verdicts(files) == {"result": Verdict.EQUAL}


def test_the_prediction_comes_first(pair):
    start, last = pair
    meminfo = last.observation.meminfo
    total = meminfo["MemTotal"]
    other = see(last, meminfo={**meminfo, "MemTotal": total + 4})
    (item,) = differing(compared(start, last, other)).values()
    assert (item.predicted, item.observed) == (str(total), str(total + 4))
    result = compare(replace(trace(start), target="model", release="6.1"), trace(start))
    assert (result.predicted, result.observed) == ("model 6.1", "lab 6.12")


def test_frames_chosen_for_a_balloon_stay_so_in_later_steps():
    start, last = start_and_last("xen")
    assert is_xen(last)
    runs = [run for run in last.observation.kpageflags if run.flags & OFFLINE]
    page = runs[-1].start_pfn + runs[-1].nr_pages - 1
    chosen = Event("ballooned", "", PfnRange(page, page + 1))
    first = replace(last, events=[chosen])
    moved = reflag(last, lambda flags: flags == runs[-1].flags, 0)
    moved = reflag(moved, lambda flags: not flags & OFFLINE, OFFLINE)
    predicted, observed = trace(start, first, last), trace(start, last, moved)
    assert not differing(compare(predicted, observed).files)
    forgotten = trace(start, last, last)
    assert differing(compare(forgotten, observed).files)


def test_frames_of_a_memmap_in_existing_memory_are_chance_in_later_steps_too():
    """Such as offlining reads them; where they lie the real kernel decides."""
    touched = Event("touched", "", None)

    def step(name, *events):
        return StepRecord(name, {"do": name}, OK, events=[touched, *events])

    memmap, others = PfnRange(0x200400, 0x200600), PfnRange(0x210000, 0x210008)
    placed = Event("memmap-placed", "memmap of x: 512 pages of existing memory", memmap)
    start = StepRecord("start", {}, OK, observation=Observation())

    def read(pfns):
        return Event("read", "", pfns, function="has_unmovable_pages")

    observed = trace(start, step("plug"), step("offline", read(PfnRange(0x200A00, 0x200C00))))
    predicted = trace(start, step("plug", placed), step("offline", read(memmap)))
    assert not differing(compare(predicted, observed).files)
    other = trace(start, step("plug", placed), step("offline", read(others)))
    assert differing(compare(other, observed).files)


def test_the_layout_of_a_boot_state_is_its_zones_and_memory_blocks(pair):
    _, last = pair
    assert list(verdicts(layout(last, last))) == [
        "proc/zoneinfo (layout)",
        "sys/devices/system/memory",
    ]
    other = see(last, memory=replace(last.observation.memory, auto_online_blocks="other"))
    (item,) = differing(layout(last, other)).values()
    assert (item.field, item.observed) == ("auto_online_blocks", "other")


# --- tolerances ------------------------------------------------------------------------------


def test_a_tolerance_counts_the_larger_number_of_blocks_and_needs_none():
    empty = Observation()
    assert FREE_PAGES.derive(empty, empty)[0] == 512


def test_pages_are_of_4_kib_where_no_file_tells_their_size():
    assert page_kib(Observation()) == 4


# --- verdicts --------------------------------------------------------------------------------


NEAR = Difference("a", "1", "2", "f", "±1", within=True)
FAR = Difference("b", "1", "3", "f", "±1")


@pytest.mark.parametrize(
    ("nr_fields", "differences", "verdict"),
    [
        (0, (), "not compared"),
        (2, (), "equal"),
        (2, (NEAR,), "equal within tolerance"),
        (2, (NEAR, FAR), "different"),
        (1, (FAR,), "different"),
    ],
)
def test_the_verdict_on_a_file_is_that_of_its_worst_field(nr_fields, differences, verdict):
    assert FileVerdict.of("s", "f", nr_fields, differences).verdict == verdict


@pytest.mark.parametrize(
    ("kind", "equal"),
    [
        (Verdict.EQUAL, True),
        (Verdict.TOLERATED, True),
        (Verdict.MISSING, True),
        (Verdict.DIFFERENT, False),
    ],
)
def test_only_a_difference_beyond_its_tolerance_makes_traces_unequal(kind, equal):
    result = Comparison("a", "b", [FileVerdict("s", "f", kind, 1)], {"kernel": "k"})
    assert result.equal == equal
    built = result.to_builtins("name")
    assert built["equal"] == equal
    assert (built["schema"], built["version"], built["scenario"]) == (
        "altmap-comparison",
        1,
        "name",
    )
    assert built["provenance"] == {"kernel": "k"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "absent"),
        (0, "0"),
        ((), "none"),
        ((0, 1), "0 1"),
        ({}, "none"),
        (PfnSet(), "0 pages"),
        (PfnSet([PfnRange(1, 3)]), "2 pages [0x1, 0x3)"),
        (
            {"0x1": PfnSet([PfnRange(0, 1)]), "0x2": PfnSet()},
            "0x1: 1 pages [0x0, 0x1); 0x2: 0 pages",
        ),
        (PfnSet(PfnRange(n, n + 1) for n in (1, 3, 5)), "3 pages [0x1, 0x2) [0x3, 0x4) [0x5, 0x6)"),
        (
            PfnSet(PfnRange(n, n + 1) for n in (1, 3, 5, 7)),
            "4 pages [0x1, 0x2) [0x3, 0x4) [0x5, 0x6) …",
        ),
    ],
)
def test_a_value_is_shown_in_one_line(value, text):
    assert value_text(value) == text


def test_a_step_that_is_equal_needs_no_observation():
    step = StepRecord("s", {}, OK)
    assert verdicts(compare(trace(step, step), trace(step, step)).files) == {
        "result": Verdict.EQUAL
    }


def test_a_zone_without_a_line_of_managed_pages_counts_none():
    def side(*zones):
        seen = Observation(zoneinfo=[ZoneInfo(0, name, pages=pages) for name, pages in zones])
        return SimpleNamespace(shares_zones=True, seen=seen)

    assert list(shared_managed(side(("DMA", {}), ("Normal", {"managed": 7})))) == [((), 7)]


@pytest.mark.parametrize("free", [(190, 7986), (7986, 190)])
def test_a_zone_that_one_side_has_nearly_emptied_is_shared_on_both(free):
    def step(nr_free):
        zone = ZoneInfo(
            0, "Normal", pages={"free": nr_free, "spanned": 512}, tail={"start_pfn": 512}
        )
        return StepRecord("s", {}, OK, observation=Observation(zoneinfo=[zone], balloon={}))

    chosen = PfnSet.of(PfnRange(600, 700))
    mine, other = _sides(step(free[0]), step(free[1]), chosen)
    assert (mine.shares_zones, other.shares_zones) == (True, True)
    mine, other = _sides(step(7986), step(7986), chosen)
    assert (mine.shares_zones, other.shares_zones) == (False, False)


def test_watermarks_of_zones_that_shared_a_balloon_once_are_compared_as_a_sum_from_then_on():
    """They were set by the managed pages of that time; later steps may change neither."""
    marks = {"min": 3, "low": 4, "high": 5, "promo": 6}
    seen = Observation(zoneinfo=[ZoneInfo(0, name, pages=marks) for name in ("DMA32", "Normal")])
    step = StepRecord("s", {}, OK, observation=seen)
    for before, sums in ((True, [6, 8, 10, 12]), (False, [])):
        mine, other = _sides(step, step, shared_before=before)
        assert [total for _, total in shared_watermarks(mine)] == sums
        assert bool(list(unless_shared_before(zone_watermark("min"))(other))) is not before
