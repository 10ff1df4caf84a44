"""Outcomes, events and faults as JSON's types."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from altmap.pfn import Pages, PfnRange, PfnSet, PfnStride
from altmap.trace.event import Event, Fault
from altmap.trace.outcome import Outcome

__all__ = ("event_builtins", "fault_builtins", "outcome_builtins", "pages_builtins")

#: Runs of page frames written for one event; the rest is counted.
_MAX_RUNS = 256


def pages_builtins(pfns: Pages, most_runs: int | None = _MAX_RUNS) -> dict[str, Any]:
    """Return the number of pages and of runs, and the first runs as ``[start, end]``."""
    match pfns:
        case PfnRange():
            runs: Iterable[PfnRange] = [pfns] if pfns else []
            nr_ranges = len(list(runs))
        case PfnStride():
            starts = range(pfns.start, pfns.end, pfns.step)
            runs = (PfnRange(start, start + pfns.nr_pages) for start in starts)
            nr_ranges = len(starts)
        case PfnSet():
            runs, nr_ranges = pfns.ranges(), pfns.nr_ranges()
    ranges = [[run.start, run.end] for run in islice(runs, most_runs)]
    return {"nr_pages": len(pfns), "nr_ranges": nr_ranges, "ranges": ranges}


def outcome_builtins(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome; page frames and their kind only where there are any."""
    made: dict[str, Any] = {
        "status": outcome.status,
        "errno": outcome.errno,
        "function": outcome.function,
        "why": outcome.why,
    }
    if outcome.pfns is not None:
        made |= {"pfns": pages_builtins(outcome.pfns), "kind": outcome.kind}
    return made | _doubt(outcome)


def event_builtins(event: Event) -> dict[str, Any]:
    """Return an event; page frames and the message only where there are any."""
    made: dict[str, Any] = {"kind": event.kind, "text": event.text, "function": event.function}
    if event.pfns is not None:
        made["pfns"] = pages_builtins(event.pfns)
    if event.message is not None:
        made["message"] = event.message.hex()
    return made | _doubt(event)


def fault_builtins(fault: Fault) -> dict[str, Any]:
    """Return a fault."""
    return {
        "pfn": fault.pfn,
        "access": fault.access,
        "function": fault.function,
        "kind": fault.kind,
        "what": fault.what,
        "pfns": pages_builtins(fault.pfns),
    }


def _doubt(item: Outcome | Event) -> dict[str, Any]:
    """Return nothing for what is certain."""
    if item.certainty == "certain":
        return {}
    return {"certainty": item.certainty, "doubt": item.doubt}
