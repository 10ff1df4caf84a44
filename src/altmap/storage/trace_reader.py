"""The JSON of a trace, read back: every value has its type, and page frames are bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import UNBACKED, Certainty, Event, Fault, Outcome, StepRecord, Trace

__all__ = ("TraceJson", "read_trace")

#: 4 PiB in pages of 4 KiB: no machine addresses more.
_MOST_PFN = 1 << 40
#: Pages of all sets of a trace. Their bitmaps need less than 1 GiB of memory.
_MOST_PAGES = 1 << 38

_Pfn = Annotated[int, msgspec.Meta(ge=0, le=_MOST_PFN)]


class _Pages(msgspec.Struct):
    """Runs ``[start, end)`` of page frames: the first ones, where there are many."""

    ranges: list[tuple[_Pfn, _Pfn]]
    nr_ranges: int


class _Result(msgspec.Struct):
    status: str
    errno: str | None = None
    function: str | None = None
    why: str = ""
    pfns: _Pages | None = None
    kind: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""


class _Event(msgspec.Struct):
    kind: str
    text: str
    function: str | None = None
    pfns: _Pages | None = None
    message: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""


class _Fault(msgspec.Struct):
    pfn: _Pfn
    access: str
    function: str
    kind: str
    pfns: _Pages
    what: str = UNBACKED


class _SavedStep(msgspec.Struct):
    folder: str
    name: str
    action: dict[str, Any]
    result: _Result
    events: list[_Event]
    faults: list[_Fault]
    backed: _Pages | None = None


class TraceJson(msgspec.Struct):
    """A trace as ``Trace.to_builtins`` gives it."""

    scenario: str
    target: str
    release: str
    policy: str
    machine: dict[str, Any]
    notes: list[str]
    steps: list[_SavedStep]
    scenario_sha256: str = ""
    description: str = ""
    version: Literal[1] = 1


def read_trace(read: TraceJson, observe: Callable[[str], Observation | None]) -> Trace:
    """Return a trace.

    Parameters
    ----------
    read : TraceJson
    observe : callable
        Takes the folder name of a step and returns what the machine showed after it.

    Raises
    ------
    InputError
        If a run ends before it starts, the sets of page frames are too large, or an observation
        cannot be read.
    ValueError
        If the digits of a message are not hexadecimal.
    """
    nr_pages = sum(end - start for pages in _all_pages(read) for start, end in pages.ranges)
    if nr_pages > _MOST_PAGES:
        raise InputError(f"{nr_pages:#x} page frames in all: need at most {_MOST_PAGES:#x}")
    return Trace(
        read.scenario,
        read.target,
        read.release,
        read.policy,
        read.machine,
        [_step(step, observe(step.folder)) for step in read.steps],
        read.notes,
        read.scenario_sha256,
        read.description,
    )


def _all_pages(read: TraceJson) -> Iterator[_Pages]:
    for step in read.steps:
        found = [step.backed, step.result.pfns, *(event.pfns for event in step.events)]
        yield from (pages for pages in found if pages is not None)
        yield from (fault.pfns for fault in step.faults)


def _step(read: _SavedStep, observation: Observation | None) -> StepRecord:
    return StepRecord(
        read.name,
        read.action,
        _outcome(read.result),
        [_event(event) for event in read.events],
        [_fault(fault) for fault in read.faults],
        observation,
        _pages(read.backed),
    )


def _outcome(read: _Result) -> Outcome:
    return Outcome(
        read.status,
        read.errno,
        read.function,
        read.why,
        pfns=_pages(read.pfns),
        kind=read.kind,
        certainty=read.certainty,
        doubt=read.doubt,
    )


def _event(read: _Event) -> Event:
    return Event(
        read.kind,
        read.text,
        _pages(read.pfns),
        read.function,
        certainty=read.certainty,
        doubt=read.doubt,
        message=None if read.message is None else bytes.fromhex(read.message),
    )


def _fault(read: _Fault) -> Fault:
    pfns = _pages(read.pfns) or PfnSet()
    return Fault(read.pfn, read.access, read.function, pfns, read.kind, read.what)


def _pages(read: _Pages | None) -> PfnSet | None:
    if read is None:
        return None
    return PfnSet(PfnRange(start, end) for start, end in read.ranges)
