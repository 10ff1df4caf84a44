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
from altmap.storage.trace_reader import TraceJson, read_trace
from altmap.trace import Trace

__all__ = ("Saved", "is_saved", "read_saved")

_NAME = "trace.json"
#: ``DIR/SCENARIO/POLICY/trace.json`` is the deepest that export writes.
_DEPTH = 2
#: A JSON file that is decoded needs several times its size of memory.
_MOST_BYTES = 128 << 20


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


class _ComparisonJson(msgspec.Struct):
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
    """Return the traces of an exported folder, or what a JSON file written by altmap holds.

    Raises
    ------
    InputError
        If a file cannot be read, or altmap did not write it; the message names it and the place.
    """
    made = Saved([], [])
    for path in [source] if source.suffix == ".json" else _trace_files(source):
        raw = _decoded(path)
        for item in raw if isinstance(raw, list) else [raw]:
            _take(made, item, path)
    return made


def _decoded(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise InputError(f"{path}: need at most {_MOST_BYTES} bytes")
        return msgspec.json.decode(raw)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: {reason}") from error


def _take(made: Saved, item: Any, path: Path) -> None:
    schema = item.get("schema") if isinstance(item, dict) else None
    if schema not in ("altmap-trace", "altmap-comparison"):
        raise InputError(f"{path}: schema {schema!r}: need altmap-trace or altmap-comparison")
    try:
        if schema == "altmap-trace":
            made.traces.append(_trace(msgspec.convert(item, TraceJson), path.parent))
        else:
            read = msgspec.convert(item, _ComparisonJson)
            comparison = Comparison(read.predicted, read.observed, read.files, read.provenance)
            made.comparisons.append((read.scenario, comparison))
    except (InputError, ValueError) as error:  # of msgspec, or of hexadecimal digits
        raise InputError(f"{path}: {error}") from error


def _trace(read: TraceJson, folder: Path) -> Trace:
    def observe(name: str) -> Observation | None:
        if name in ("", ".", "..") or "/" in name:
            raise InputError(f"folder {name!r}: need a name in the folder of {_NAME}")
        step = folder / name
        return Observation.read(Sysroot.read(step)) if step.is_dir() else None

    return read_trace(read, observe)
