"""The JSON of a trace, read back: every value has its type, and page frames are bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import (
    UNBACKED,
    Access,
    Certainty,
    Event,
    Fault,
    Outcome,
    Status,
    StepRecord,
    Trace,
)

__all__ = ("TraceJson", "read_trace")

#: 4 PiB in pages of 4 KiB: no machine addresses more.
_MOST_PFN = 1 << 40
#: Pages of all sets of a trace. Their bitmaps need less than 1 GiB of memory.
_MOST_PAGES = 1 << 38

_MOST_BYTES = 1 << 52

_Pfn = Annotated[int, msgspec.Meta(ge=0, le=_MOST_PFN)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_PFN)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=_MOST_BYTES)]
#: As :meth:`altmap.trace.Trace.folder_names` makes them: ``NN-name``, below the trace's folder.
_FOLDER = re.compile(r"[0-9]{2,8}-[^/\0]{1,255}")


class _Pages(msgspec.Struct):
    """Runs ``[start, end)`` of page frames: the first ones, where there are many."""

    ranges: list[tuple[_Pfn, _Pfn]]
    nr_ranges: _Count


class _Result(msgspec.Struct):
    status: Status
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
    access: Access
    function: str
    kind: str
    pfns: _Pages
    what: str = UNBACKED


class _Part(msgspec.Struct):
    size: _Bytes


class _Action(msgspec.Struct):
    """What reports read of a step as the scenario gave it; the rest is shown as it is."""

    do: str = ""
    id: str | None = None
    driver: str | None = None
    size: _Bytes | None = None
    requested: _Bytes | None = None
    address: _Bytes | None = None
    more_ranges: list[_Part] = []


#: Fields that a step's verb is never without.
_NEEDED = {"plug": ("id", "size"), "resize": ("id", "size"), "unplug": ("id",)}


class _SavedStep(msgspec.Struct):
    folder: str
    name: str
    action: dict[str, Any]
    result: _Result
    events: list[_Event]
    faults: list[_Fault]
    backed: _Pages | None = None


class TraceJson(msgspec.Struct, tag_field="schema", tag="altmap-trace"):
    """A trace as ``Trace.to_builtins`` gives it."""

    scenario: str
    target: str
    release: str
    policy: str
    machine: dict[str, Any]
    notes: list[str]
    steps: Annotated[list[_SavedStep], msgspec.Meta(min_length=1)]
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
        If a value breaks a rule that its type does not state: a run ends before it starts, the
        sets of page frames are too large, a folder is not that of a step, a message is not
        hexadecimal; or if an observation cannot be read.
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
        [_step(nr, step, observe) for nr, step in enumerate(read.steps)],
        read.notes,
        read.scenario_sha256,
        read.description,
    )


def _all_pages(read: TraceJson) -> Iterator[_Pages]:
    for step in read.steps:
        found = [step.backed, step.result.pfns, *(event.pfns for event in step.events)]
        yield from (pages for pages in found if pages is not None)
        yield from (fault.pfns for fault in step.faults)


def _step(nr: int, read: _SavedStep, observe: Callable[[str], Observation | None]) -> StepRecord:
    if not _FOLDER.fullmatch(read.folder):
        raise InputError(f"steps[{nr}].folder {read.folder!r}: need a name such as '01-plug'")
    _check_action(nr, read.action)
    try:
        events = [_event(event) for event in read.events]
    except ValueError as error:
        raise InputError(f"steps[{nr}].events: a message: {error}") from error
    return StepRecord(
        read.name,
        read.action,
        _outcome(read.result),
        events,
        [_fault(fault) for fault in read.faults],
        observe(read.folder),
        _pages(read.backed),
    )


def _check_action(nr: int, given: dict[str, Any]) -> None:
    try:
        action = msgspec.convert(given, _Action)
    except msgspec.ValidationError as error:
        raise InputError(f"steps[{nr}].action: {error}") from error
    for name in _NEEDED.get(action.do, ()):
        if getattr(action, name) is None:
            raise InputError(f"steps[{nr}].action: {action.do} needs the field {name!r}")


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
