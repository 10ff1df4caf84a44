"""What happened: outcomes, events and faults, the same for a model and for a real kernel.

A trace is a list of steps; each step has one outcome, what was noticed on the way, and what the
machine looked like afterwards. Whoever compares two traces cannot tell which one was predicted.
"""

from __future__ import annotations

import errno as errno_module
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from altmap.linux.observation import Observation
from altmap.pfn import Pages, PfnRange, PfnSet, PfnStride

#: How sure a prediction is: ``certain``; ``likely`` where a real kernel may get there by chance;
#: ``unknown`` where nothing that is modelled decides it.
Certainty = Literal["certain", "likely", "unknown"]
__all__ = (
    "GUEST_TO_HOST",
    "HOST_TO_GUEST",
    "OK",
    "UNBACKED",
    "Certainty",
    "Event",
    "Fault",
    "Outcome",
    "StepRecord",
    "Trace",
)

#: How the text of a ``driver`` event starts that one side says to the other.
HOST_TO_GUEST, GUEST_TO_HOST = "host→guest: ", "guest→host: "

#: Runs of pfns written for one event; the rest is counted.
_MAX_RUNS = 256
_ERRNO_NAMES = {**errno_module.errorcode, 133: "EHWPOISON"}  # Python lacks the name


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended.

    Attributes
    ----------
    status : str
        ``ok``, ``refused`` (the kernel said no), ``fault`` (the kernel died) or ``not_reached``
        (an earlier fault ended the machine).
    errno : str or None
        Name of the error, such as ``EBUSY``.
    function : str or None
        The kernel function that refuses, or that touched the frame.
    why : str
        One sentence for people.
    pfns : PfnSet, PfnRange, PfnStride or None
        The page frames that are in the way.
    kind : str or None
        What they are, such as ``unmovable``, ``reserved``, ``fake-offline``, ``pinned``.
    certainty : str
        ``certain``, ``likely`` or ``unknown``.
    doubt : str
        Why it is not certain.
    """

    status: str
    errno: str | None = None
    function: str | None = None
    why: str = ""
    pfns: Pages | None = None
    kind: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""

    def __bool__(self) -> bool:
        return self.status == "ok"

    @classmethod
    def refused(
        cls,
        errno: int | str,
        function: str,
        why: str,
        *,
        pfns: Pages | None = None,
        kind: str | None = None,
    ) -> Outcome:
        """Return a refusal; *errno* is a number or a name."""
        name = errno if isinstance(errno, str) else _ERRNO_NAMES.get(errno, str(errno))
        return cls("refused", name, function, why, pfns, kind)

    def doubted(self, certainty: Certainty, doubt: str) -> Outcome:
        """Return the same outcome, less sure; *doubt* says why."""
        return replace(self, certainty=certainty, doubt=doubt)


OK = Outcome("ok")

UNBACKED = "frames touched are not backed"


@dataclass(frozen=True, slots=True)
class Event:
    """Something noticed while a step ran.

    Attributes
    ----------
    kind : str
        Such as ``memmap-placed``, ``write``, ``onlined``, ``fake-offline``, ``driver``.
    text : str
        One line for people.
    pfns : PfnSet, PfnRange, PfnStride or None
        The page frames concerned.
    function : str or None
        The kernel function at work.
    certainty : str
        ``certain``, ``likely`` or ``unknown``.
    doubt : str
        Why it is not certain.
    message : bytes or None
        What a host and its guest said to each other, byte for byte, where that is written down.
    """

    kind: str
    text: str
    pfns: Pages | None = None
    function: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""
    message: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """The kernel touched frames that the platform does not back.

    Attributes
    ----------
    pfn : int
        The first such frame.
    access : str
        ``write`` or ``read``.
    function : str
        The kernel function that touched it.
    pfns : PfnSet
        All such frames of the same touch.
    kind : str
        What the CPU makes of it, by platform.
    what : str
        What is wrong with the frames.
    """

    pfn: int
    access: str
    function: str
    pfns: PfnSet
    kind: str
    what: str = UNBACKED


@dataclass(slots=True)
class StepRecord:
    """One step of a trace.

    Attributes
    ----------
    name : str
        The step's name; ``start`` for the look before the first step.
    action : dict
        The step as the scenario gave it.
    outcome : Outcome
    events : list of Event
    faults : list of Fault
    observation : Observation or None
        The machine after the step; ``None`` when nobody looked or nobody could.
    backed : PfnSet or None
        The page frames that the platform backs after the step; ``None`` where nobody can tell, as
        on a real machine.
    """

    name: str
    action: dict[str, Any]
    outcome: Outcome
    events: list[Event] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    observation: Observation | None = None
    backed: PfnSet | None = None


@dataclass(slots=True)
class Trace:
    """A scenario as it ran on one target.

    Attributes
    ----------
    scenario, target, release, policy : str
        Which scenario; ``model`` or ``lab``; the kernel's release; the memmap policy.
    machine : dict
        The machine's parameters, as they were in force.
    steps : list of StepRecord
        The start first.
    notes : list of str
        What the reader must know: files that a sysroot lacked, assumptions made for want of them.
    scenario_sha256 : str
        Hash of the scenario as it was read, defaults filled in; empty if there was none.
    description : str
        The scenario's own words.
    """

    scenario: str
    target: str
    release: str
    policy: str
    machine: dict[str, Any]
    steps: list[StepRecord]
    notes: list[str] = field(default_factory=list)
    scenario_sha256: str = ""
    description: str = ""

    def __repr__(self) -> str:
        counts = Counter(step.outcome.status for step in self.steps[1:])
        ended = "".join(f", {number} {status}" for status, number in counts.items())
        policy = f", policy {self.policy}" if self.policy else ""
        return f"<Trace of {self.scenario!r} on {self.target} {self.release}{policy}{ended}>"

    def _repr_html_(self) -> str:
        from altmap import _html

        return _html(self)

    def folder_names(self) -> list[str]:
        """Return ``00-start``, ``01-<step>``, ...: one folder name for each step."""
        width = max(2, len(str(len(self.steps) - 1)))
        return [f"{index:0{width}d}-{step.name}" for index, step in enumerate(self.steps)]

    def to_builtins(self) -> dict[str, Any]:
        """Return the trace as JSON's types, without observations (those are files of their own)."""
        steps = zip(self.folder_names(), self.steps, strict=True)
        return {
            "schema": "altmap-trace",
            "version": 1,
            "scenario": self.scenario,
            "scenario_sha256": self.scenario_sha256,
            "description": self.description,
            "target": self.target,
            "release": self.release,
            "policy": self.policy,
            "machine": self.machine,
            "notes": self.notes,
            "steps": [
                {
                    "folder": folder,
                    "name": step.name,
                    "action": step.action,
                    "result": _result(step.outcome),
                    "events": [_event(event) for event in step.events],
                    "faults": [_fault(fault) for fault in step.faults],
                    "backed": None if step.backed is None else _pages(step.backed, None),
                }
                for folder, step in steps
            ],
        }


def _pages(pfns: Pages, most_runs: int | None = _MAX_RUNS) -> dict[str, Any]:
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


def _result(outcome: Outcome) -> dict[str, Any]:
    made: dict[str, Any] = {
        "status": outcome.status,
        "errno": outcome.errno,
        "function": outcome.function,
        "why": outcome.why,
    }
    if outcome.pfns is not None:
        made |= {"pfns": _pages(outcome.pfns), "kind": outcome.kind}
    return made | _doubt(outcome)


def _doubt(item: Outcome | Event) -> dict[str, Any]:
    """Return nothing for what is certain, so that traces without doubt stay as they were."""
    if item.certainty == "certain":
        return {}
    return {"certainty": item.certainty, "doubt": item.doubt}


def _event(event: Event) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": event.kind, "text": event.text, "function": event.function}
    if event.pfns is not None:
        made["pfns"] = _pages(event.pfns)
    if event.message is not None:
        made["message"] = event.message.hex()
    return made | _doubt(event)


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "pfn": fault.pfn,
        "access": fault.access,
        "function": fault.function,
        "kind": fault.kind,
        "what": fault.what,
        "pfns": _pages(fault.pfns),
    }
