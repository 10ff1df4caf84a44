"""Traces read back: ``trace.json`` and the sysroots beside it, as ``export`` wrote them.

Effects: files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from altmap.compare import Comparison, FileVerdict
from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import UNBACKED, Certainty, Event, Fault, Outcome, StepRecord, Trace

__all__ = ("Saved", "is_saved", "read_saved")

_NAME = "trace.json"
#: ``DIR/SCENARIO/POLICY/trace.json`` is the deepest that export writes.
_DEPTH = 2


class Saved(msgspec.Struct):
    """What a file or folder held.

    Attributes
    ----------
    traces : list of Trace
        Without observations if they were read from JSON alone.
    comparisons : list of (name, Comparison)
    """

    traces: list[Trace] = []
    comparisons: list[tuple[str, Comparison]] = []


class _Pages(msgspec.Struct):
    ranges: list[tuple[int, int]]
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
    pfn: int
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


class _Trace(msgspec.Struct):
    scenario: str
    target: str
    release: str
    policy: str
    machine: dict[str, Any]
    notes: list[str]
    steps: list[_SavedStep]
    scenario_sha256: str = ""
    description: str = ""


class _Comparison(msgspec.Struct):
    scenario: str
    predicted: str
    observed: str
    files: list[FileVerdict]
    provenance: dict[str, str] = {}


def is_saved(source: Path) -> bool:
    """Tell whether a path is JSON, or a folder with a ``trace.json`` in it or below it."""
    return source.suffix == ".json" or bool(_trace_files(source))


def _trace_files(folder: Path) -> list[Path]:
    patterns = ["/".join(["*"] * depth + [_NAME]) for depth in range(_DEPTH + 1)]
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def read_saved(source: Path) -> Saved:
    """Return the traces of an export's folder, or what a JSON file of ours holds.

    Raises
    ------
    InputError
        If the file cannot be read or is not ours; the message names it and the place.
    """
    made = Saved([], [])
    for path in [source] if source.suffix == ".json" else _trace_files(source):
        try:
            raw = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(f"{path}: {reason}") from error
        for item in raw if isinstance(raw, list) else [raw]:
            _take(made, item, path)
    return made


def _take(made: Saved, item: Any, path: Path) -> None:
    schema = item.get("schema") if isinstance(item, dict) else None
    try:
        if schema == "altmap-trace":
            made.traces.append(_trace(msgspec.convert(item, _Trace), path.parent))
        elif schema == "altmap-comparison":
            read = msgspec.convert(item, _Comparison)
            comparison = Comparison(read.predicted, read.observed, read.files, read.provenance)
            made.comparisons.append((read.scenario, comparison))
        else:
            raise InputError(f"{path}: schema {schema!r}: need altmap-trace or altmap-comparison")
    except ValueError as error:  # of msgspec, or of hexadecimal digits
        raise InputError(f"{path}: {error}") from error


def _trace(read: _Trace, folder: Path) -> Trace:
    return Trace(
        read.scenario,
        read.target,
        read.release,
        read.policy,
        read.machine,
        [_step(step, folder) for step in read.steps],
        read.notes,
        read.scenario_sha256,
        read.description,
    )


def _step(read: _SavedStep, folder: Path) -> StepRecord:
    where = folder / read.folder
    if where.parent != folder:
        raise InputError(f"{folder / _NAME}: folder {read.folder!r}: need a name in its folder")
    seen = Observation.read(Sysroot.read(where)) if where.is_dir() else None
    return StepRecord(
        read.name,
        read.action,
        _outcome(read.result),
        [_event(event) for event in read.events],
        [Fault(f.pfn, f.access, f.function, _pages(f.pfns), f.kind, f.what) for f in read.faults],
        seen,
        None if read.backed is None else _pages(read.backed),
    )


def _event(read: _Event) -> Event:
    pfns = None if read.pfns is None else _pages(read.pfns)
    message = None if read.message is None else bytes.fromhex(read.message)
    return Event(
        read.kind,
        read.text,
        pfns,
        read.function,
        certainty=read.certainty,
        doubt=read.doubt,
        message=message,
    )


def _outcome(read: _Result) -> Outcome:
    pfns = None if read.pfns is None else _pages(read.pfns)
    return Outcome(
        read.status,
        read.errno,
        read.function,
        read.why,
        pfns=pfns,
        kind=read.kind,
        certainty=read.certainty,
        doubt=read.doubt,
    )


def _pages(read: _Pages) -> PfnSet:
    return PfnSet(PfnRange(start, end) for start, end in read.ranges)
