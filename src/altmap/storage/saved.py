"""Traces read back: ``trace.json`` and the sysroots beside it, as ``export`` wrote them.

Effects: files.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from altmap.compare import Comparison, FileVerdict
from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.storage.files import read_file
from altmap.storage.json_files import MOST_JSON_BYTES, decode_json
from altmap.storage.trace_reader import TraceJson, read_trace
from altmap.trace import Trace

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


class _Schema(msgspec.Struct):
    schema: str = ""


class _ComparisonJson(msgspec.Struct, tag_field="schema", tag="altmap-comparison"):
    scenario: str
    predicted: str
    observed: str
    files: list[FileVerdict]
    provenance: dict[str, str] = {}


_KINDS = ("altmap-trace", "altmap-comparison")


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
        for item in _items(path):
            _take(made, item, path)
    return made


def _items(path: Path) -> list[TraceJson | _ComparisonJson]:
    raw = read_file(path, MOST_JSON_BYTES)
    heads: list[_Schema] | _Schema = decode_json(raw, list[_Schema] | _Schema, str(path))
    for head in heads if isinstance(heads, list) else [heads]:
        if head.schema not in _KINDS:
            raise InputError(f"{path}: schema {head.schema!r}: need {' or '.join(_KINDS)}")
    kind = TraceJson | _ComparisonJson
    if isinstance(heads, list):
        items: list[TraceJson | _ComparisonJson] = decode_json(raw, list[kind], str(path))
        return items
    return [decode_json(raw, kind, str(path))]


def _take(made: Saved, item: TraceJson | _ComparisonJson, path: Path) -> None:
    if isinstance(item, _ComparisonJson):
        comparison = Comparison(item.predicted, item.observed, item.files, item.provenance)
        made.comparisons.append((item.scenario, comparison))
        return
    try:
        made.traces.append(_trace(item, path.parent))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _trace(read: TraceJson, folder: Path) -> Trace:
    def observe(name: str) -> Observation | None:
        step = folder / name
        if step.is_symlink():
            raise InputError(f"folder {name!r}: is a symbolic link, which is not followed")
        return Observation.read(Sysroot.read(step)) if step.is_dir() else None

    return read_trace(read, observe)
