"""Traces as JSON: refusals by name, runs of page frames with their number."""

import errno
import json

from altmap.pfn import PfnRange, PfnSet, PfnStride
from altmap.trace import OK, Event, Fault, Outcome, StepRecord, Trace


def trace(steps):
    return Trace("s", "model", "6.12", "opt-in", {}, steps)


def step(*events, faults=(), outcome=OK):
    return StepRecord("x", {"do": "set"}, outcome, list(events), list(faults))


def test_page_frames_of_an_event_are_runs_with_their_number():
    for pages, expected in (
        (PfnRange(4, 8), (4, 1, [[4, 8]])),
        (PfnRange(4, 4), (0, 0, [])),
        (PfnStride(0, 32, 16, 2), (4, 2, [[0, 2], [16, 18]])),
        (PfnSet([PfnRange(1, 2), PfnRange(9, 12)]), (4, 2, [[1, 2], [9, 12]])),
    ):
        shown = trace([step(Event("k", "t", pages))]).to_builtins()
        pfns = shown["steps"][0]["events"][0]["pfns"]
        assert (pfns["nr_pages"], pfns["nr_ranges"], pfns["ranges"]) == expected


def test_many_runs_are_cut_and_still_counted():
    pages = PfnSet(PfnRange(pfn, pfn + 1) for pfn in range(0, 2000, 2))
    pfns = trace([step(Event("k", "t", pages))]).to_builtins()["steps"][0]["events"][0]["pfns"]
    assert (pfns["nr_pages"], pfns["nr_ranges"]) == (1000, 1000)
    assert len(pfns["ranges"]) == 256


def test_a_refusal_a_fault_and_an_event_are_json():
    pages = PfnSet([PfnRange(8, 10)])
    refused = Outcome.refused(errno.EBUSY, "offline_pages", "because")
    fault = Fault(8, "write", "memmap_init_range", pages, "general protection fault")
    made = trace([step(Event("k", "t"), faults=[fault], outcome=refused)])
    (shown,) = json.loads(json.dumps(made.to_builtins()))["steps"]
    assert shown["result"] == {
        "status": "refused",
        "errno": "EBUSY",
        "function": "offline_pages",
        "why": "because",
    }
    assert shown["faults"][0]["pfn"] == 8
    assert shown["events"] == [{"kind": "k", "text": "t", "function": None}]


def test_a_refusal_names_its_page_frames_and_a_doubt():
    pages = PfnSet([PfnRange(8, 10)])
    refused = Outcome.refused(errno.EBUSY, "f", "because", pfns=pages, kind="unmovable")
    refused = refused.doubted("likely", "chance")
    event = Event("settled", "t", pages, None, "likely", "chance")
    made = trace([step(event, outcome=refused)])
    (shown,) = json.loads(json.dumps(made.to_builtins()))["steps"]
    result = shown["result"]
    assert result["pfns"] == {"nr_pages": 2, "nr_ranges": 1, "ranges": [[8, 10]]}
    assert (result["kind"], result["certainty"], result["doubt"]) == (
        "unmovable",
        "likely",
        "chance",
    )
    assert (shown["events"][0]["certainty"], shown["events"][0]["doubt"]) == ("likely", "chance")
