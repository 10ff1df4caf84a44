"""Recordings: a scenario as a real kernel ran it, to be compared with predictions.

A recording is one archive: the scenario as it was run, ``trace.json``, and the sysroot of each step
that the guest survived.

Effects: archives, files.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.linux.archive import Contents, read_several
from altmap.linux.intake import Intake
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Scenario, parse_scenario
from altmap.storage.files import write_file
from altmap.storage.json_files import decode_json
from altmap.storage.trace_reader import TraceJson, read_trace
from altmap.trace import Trace

__all__ = ("Recording", "read_archive", "read_recording", "write_recording")

_SCHEMA, _VERSION = "altmap-recording", 1
_SCENARIO, _TRACE = "scenario.toml", "trace.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """A scenario and its trace on a real kernel.

    Attributes
    ----------
    scenario : Scenario
    trace : Trace
        Its machine names the kernel and the QEMU.
    """

    scenario: Scenario
    trace: Trace


class _Head(msgspec.Struct):
    schema: str
    version: int
    settings: list[str]
    trace: msgspec.Raw


def write_recording(
    target: Path,
    scenario_text: str,
    settings: Sequence[str],
    trace: Trace,
    sysroots: Sequence[Sysroot],
) -> None:
    """Write a recording; the file appears complete or not at all, for its owner only.

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
        What the guest showed after each step that it survived, in order.

    Raises
    ------
    InputError
        If the file exists or cannot be written.
    """
    raw = msgspec.Raw(msgspec.json.encode(trace.to_builtins()))
    head = _Head(_SCHEMA, _VERSION, list(settings), raw)
    members = {
        _SCENARIO: scenario_text.encode(),
        _TRACE: msgspec.json.format(msgspec.json.encode(head), indent=1) + b"\n",
    }
    observed = (
        folder
        for folder, step in zip(trace.folder_names(), trace.steps, strict=True)
        if step.observation is not None
    )
    links: dict[str, str] = {}
    for folder, sysroot in zip(observed, sysroots, strict=True):
        members |= {f"{folder}/{path}": raw for path, raw in sysroot.files.items()}
        links |= {f"{folder}/{path}": to for path, to in sysroot.links.items()}
    write_file(target, _archive(members, links), mode=0o600, new=True)


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
        If it is no recording, or is damaged; the message names the place.
    """
    if not source.is_file():
        raise InputError(f"recording {source}: no such file")
    return _recording(source, read_several(source))


def read_archive(source: Path) -> Recording | Sysroot:
    """Return what an archive holds: a recording if it has a trace, else one sysroot.

    Raises
    ------
    InputError
        If it is neither, or is damaged; the message names the place.
    """
    contents = read_several(source)
    if _TRACE in contents.beside:
        return _recording(source, contents)
    names = list(contents.sysroots)
    if len(names) > 1:
        raise InputError(f"{source}: holds more than one sysroot, in {names[0]!r} and {names[1]!r}")
    if not names:
        raise InputError(f"{source}: need a file of a sysroot, such as proc/meminfo")
    return _sysroot(contents.sysroots[names[0]])


def _recording(source: Path, contents: Contents) -> Recording:
    beside = contents.beside
    for name in (_SCENARIO, _TRACE):
        if name not in beside:
            raise InputError(f"recording {source}: has no {name}")
    try:
        head = decode_json(beside[_TRACE], _Head, _TRACE)
        _check(head)
        observations = {
            folder: Observation.read(_sysroot(taken)) for folder, taken in contents.sysroots.items()
        }
        _check_whole(observations.values())
        trace = read_trace(decode_json(head.trace, TraceJson, _TRACE), observations.get)
        scenario = parse_scenario(_text(beside[_SCENARIO]), trace.scenario, head.settings)
    except InputError as error:
        raise InputError(f"recording {source}: {error}") from error
    return Recording(scenario, trace)


def _check_whole(observations: Iterable[Observation]) -> None:
    """Refuse files that are not understood: those of a running kernel are whole."""
    for seen in observations:
        for problem in seen.problems.values():
            raise InputError(problem)


def _sysroot(taken: Intake) -> Sysroot:
    return Sysroot(taken.files, taken.links, pages=taken.pages, notes=taken.notes)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{_SCENARIO}: not UTF-8 text") from error


def _check(head: _Head) -> None:
    if (head.schema, head.version) != (_SCHEMA, _VERSION):
        raise InputError(
            f"schema {head.schema!r} version {head.version}: need {_SCHEMA!r} version {_VERSION}"
        )
