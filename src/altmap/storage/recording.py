"""Recordings: what a real kernel did with a scenario, kept to be compared with again.

A recording is one archive: the scenario as it was run, ``trace.json``, and a sysroot for each step,
as the guest showed it.

Effects: archives, files.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.linux.archive import read_several
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Scenario, parse_scenario
from altmap.storage.files import write_file
from altmap.trace import Event, Outcome, StepRecord, Trace

__all__ = ("Recording", "is_recording", "read_recording", "write_recording")

_SCHEMA, _VERSION = "altmap-recording", 1
_SCENARIO, _TRACE = "scenario.toml", "trace.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """A scenario, and what a real kernel did with it.

    Attributes
    ----------
    scenario : Scenario
    trace : Trace
        Its machine tells which kernel ran, in which QEMU.
    """

    scenario: Scenario
    trace: Trace


class _Head(msgspec.Struct):
    schema: str
    version: int
    settings: list[str]
    trace: dict[str, Any]


def write_recording(
    target: Path,
    scenario_text: str,
    settings: Sequence[str],
    trace: Trace,
    sysroots: Sequence[Sysroot],
) -> None:
    """Write a recording; the file appears complete or not at all.

    Parameters
    ----------
    target : Path
        A new file, named ``*.tar.xz``.
    scenario_text : str
        The scenario file.
    settings : sequence of str
        ``key=value`` that were set beside it.
    trace : Trace
    sysroots : sequence of Sysroot
        What the guest showed after each step that it survived.

    Raises
    ------
    InputError
        If the file exists or cannot be written.
    """
    head = _Head(_SCHEMA, _VERSION, list(settings), trace.to_builtins())
    members = {
        _SCENARIO: scenario_text.encode(),
        _TRACE: msgspec.json.format(msgspec.json.encode(head), indent=1) + b"\n",
    }
    seen = (
        (folder, step)
        for folder, step in zip(trace.folder_names(), trace.steps, strict=True)
        if step.observation is not None
    )
    links: dict[str, str] = {}
    for (folder, _), sysroot in zip(seen, sysroots, strict=True):
        members |= {f"{folder}/{path}": raw for path, raw in sysroot.files.items()}
        links |= {f"{folder}/{path}": to for path, to in sysroot.links.items()}
    write_file(target, _archive(members, links), new=True)


def _archive(members: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    # The same recording is the same bytes: no times, no owners.
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz", preset=9, format=tarfile.PAX_FORMAT) as tar:
        for name in sorted({**members, **links}):
            info = tarfile.TarInfo(name)
            if name in links:
                info.type, info.linkname = tarfile.SYMTYPE, links[name]
                tar.addfile(info)
            else:
                info.size = len(members[name])
                tar.addfile(info, io.BytesIO(members[name]))
    return made.getvalue()


def read_recording(source: Path) -> Recording:
    """Return a recording.

    Raises
    ------
    InputError
        If it is not one, or is damaged; the message names the place.
    """
    if not source.is_file():
        raise InputError(f"recording {source}: no such file")
    several, beside = read_several(source)
    for name in (_SCENARIO, _TRACE):
        if name not in beside:
            raise InputError(f"recording {source}: has no {name}")
    try:
        head = msgspec.json.decode(beside[_TRACE], type=_Head)
        _check(head)
        observations = {
            folder: Observation.read(Sysroot(taken.files, taken.links))
            for folder, taken in several.items()
        }
        trace = _trace(head.trace, observations)
        text = beside[_SCENARIO].decode()
        scenario = parse_scenario(text, trace.scenario, head.settings)
    except (InputError, msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"recording {source}: {error}") from error
    return Recording(scenario, trace)


def is_recording(source: Path) -> bool:
    """Tell whether an archive has what makes it a recording rather than one sysroot."""
    if not source.is_file():
        return False
    try:
        _, beside = read_several(source)
    except InputError:
        return False
    return _TRACE in beside


def _check(head: _Head) -> None:
    if (head.schema, head.version) != (_SCHEMA, _VERSION):
        raise InputError(
            f"schema {head.schema!r} version {head.version}: need {_SCHEMA!r} version {_VERSION}"
        )


def _trace(head: Mapping[str, Any], observations: Mapping[str, Observation]) -> Trace:
    steps = [
        StepRecord(
            step["name"],
            step["action"],
            Outcome(**step["result"]),
            [Event(event["kind"], event["text"]) for event in step["events"]],
            observation=observations.get(step["folder"]),
        )
        for step in head["steps"]
    ]
    return Trace(
        head["scenario"],
        head["target"],
        head["release"],
        head["policy"],
        dict(head["machine"]),
        steps,
        list(head["notes"]),
    )
