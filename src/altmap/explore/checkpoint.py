"""A search that ended early, as one file that a later run goes on from.

Effects: files.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import Any

import msgspec

from altmap import __version__
from altmap.errors import InputError
from altmap.explore.search import Found, SearchResult
from altmap.explore.share import Kept
from altmap.explore.space import Space
from altmap.scenario import Step
from altmap.storage.files import write_file

__all__ = ("read_checkpoint", "write_checkpoint")

_SCHEMA, _VERSION = "altmap-exploration", 1
_KEY_BYTES, _OWNER_BYTES = 16, 4


class _Found(msgspec.Struct):
    rule: str
    why: str
    steps: list[Step]


class _State(msgspec.Struct, array_like=True):
    values: bytes
    key: bytes
    way: list[tuple[int, bytes]]


class _CheckpointFile(msgspec.Struct):
    schema: str
    version: int
    digest: str
    depth: int
    nr_transitions: int
    found: list[_Found]
    steps: dict[int, Step]
    seen: bytes
    waiting: list[_State]


def _decode(wanted: type, value: Any) -> Any:
    """Return a size or address from the number that was written."""
    if not isinstance(value, int):
        raise ValueError(f"{value!r}: need a number")  # noqa: TRY004 (msgspec wants it)
    return wanted(value)


def _digest(space: Space) -> str:
    """Return what must be equal for a file to be of use: the exploration, the rules, the code."""
    parts: list[Any] = [
        __version__,
        _without_reach(space),
        [rule.name for rule in space.rules],
        list(space.cell_names),
        space.start.values,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _without_reach(space: Space) -> str:
    """Return the exploration but for how far it goes, which may grow."""
    built = msgspec.to_builtins(space.exploration, enc_hook=int)
    bounds = space.exploration.bounds
    built["bounds"] = {"devices": bounds.devices, "blocks": bounds.blocks}
    return repr(built)


def write_checkpoint(path: Path, space: Space, result: SearchResult, kept: list[Kept]) -> None:
    """Write what another run needs, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    seen = b"".join(
        key.to_bytes(_KEY_BYTES) + owner.to_bytes(_OWNER_BYTES)
        for part in kept
        for key, owner in part.seen.items()
    )
    waiting = [
        _State(
            array("Q", values).tobytes(),
            key.to_bytes(_KEY_BYTES),
            [(number, reached.to_bytes(_KEY_BYTES)) for number, reached in way],
        )
        for part in kept
        for values, key, way in part.waiting
    ]
    steps = {number: step for part in kept for number, step in part.steps.items()}
    found = [_Found(item.rule, item.why, list(item.steps)) for item in result.found]
    content = _CheckpointFile(
        _SCHEMA,
        _VERSION,
        _digest(space),
        result.depth,
        result.nr_transitions,
        found,
        steps | space.steps,
        seen,
        waiting,
    )
    write_file(path, msgspec.msgpack.encode(content, enc_hook=int))


def read_checkpoint(path: Path, space: Space) -> tuple[SearchResult, Kept]:
    """Return the result so far and what to go on from.

    Raises
    ------
    InputError
        If the file is none, or of another exploration.
    """
    try:
        content = msgspec.msgpack.decode(path.read_bytes(), type=_CheckpointFile, dec_hook=_decode)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(f"{path}: not what a search has kept: {error}") from error
    if (content.schema, content.version) != (_SCHEMA, _VERSION):
        raise InputError(f"{path}: schema {content.schema!r}: need {_SCHEMA} {_VERSION}")
    if content.digest != _digest(space):
        raise InputError(
            f"{path}: of another exploration: file, settings, rules and version must be the same"
        )
    found = [Found(item.rule, item.why, tuple(item.steps)) for item in content.found]
    result = SearchResult(found, depth=content.depth, nr_transitions=content.nr_transitions)
    size = _KEY_BYTES + _OWNER_BYTES
    seen = {
        int.from_bytes(content.seen[i : i + _KEY_BYTES]): int.from_bytes(
            content.seen[i + _KEY_BYTES : i + size]
        )
        for i in range(0, len(content.seen), size)
    }
    waiting = []
    for state in content.waiting:
        values = array("Q")
        values.frombytes(state.values)
        way = [(number, int.from_bytes(key)) for number, key in state.way]
        waiting.append((tuple(values), int.from_bytes(state.key), way))
    return result, Kept(seen, waiting, content.steps)
