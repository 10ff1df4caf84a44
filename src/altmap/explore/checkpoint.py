"""A search that ended early, as one file from which a later run continues.

Effects: files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from altmap import __version__
from altmap.errors import InputError
from altmap.explore.search import Found, SearchResult
from altmap.explore.share import SavedShare
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
    route: list[tuple[int, bytes]]


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


def _decode(kind: type, value: Any) -> Any:
    """Return a size or address from the number that was written."""
    if not isinstance(value, int):
        raise ValueError(f"{value!r}: need a number")  # noqa: TRY004 (msgspec catches ValueError)
    return kind(value)


def _digest(space: Space) -> str:
    """Return the hash of what a file depends on: the exploration, the rules, the version."""
    parts: list[Any] = [
        __version__,
        _without_limits(space),
        space.policy.name if space.policy else None,
        [rule.name for rule in space.rules],
        list(space.cell_names),
        space.start.values,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _without_limits(space: Space) -> str:
    """Return the exploration without the bounds that a later run may raise."""
    built = msgspec.to_builtins(space.exploration, enc_hook=int)
    bounds = space.exploration.bounds
    built["bounds"] = {"devices": bounds.devices, "blocks": bounds.blocks}
    return repr(built)


def write_checkpoint(
    path: Path, space: Space, result: SearchResult, shares: list[SavedShare]
) -> None:
    """Write the search for another run, completely or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    seen = b"".join(
        key.to_bytes(_KEY_BYTES) + owner.to_bytes(_OWNER_BYTES)
        for part in shares
        for key, owner in part.seen.items()
    )
    waiting = [
        _State(
            numbers,
            key.to_bytes(_KEY_BYTES),
            [(number, reached.to_bytes(_KEY_BYTES)) for number, reached in route],
        )
        for part in shares
        for numbers, key, route in part.waiting
    ]
    steps = {number: step for part in shares for number, step in part.steps.items()}
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


def read_checkpoint(path: Path, space: Space) -> tuple[SearchResult, SavedShare]:
    """Return the result so far and the search to continue.

    Raises
    ------
    InputError
        If the file is not a saved search, or belongs to another exploration.
    """
    try:
        content = msgspec.msgpack.decode(path.read_bytes(), type=_CheckpointFile, dec_hook=_decode)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(f"{path}: not a saved search: {error}") from error
    if (content.schema, content.version) != (_SCHEMA, _VERSION):
        raise InputError(f"{path}: schema {content.schema!r}: need {_SCHEMA} {_VERSION}")
    if content.digest != _digest(space):
        raise InputError(
            f"{path}: belongs to another exploration: file, settings, rules and version differ"
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
    nr_bytes = 8 * len(space.start.values)
    waiting = []
    for state in content.waiting:
        if len(state.values) != nr_bytes:
            raise InputError(f"{path}: not a saved search: {len(state.values)} bytes of a state")
        route = [(number, int.from_bytes(key)) for number, key in state.route]
        waiting.append((state.values, int.from_bytes(state.key), route))
    return result, SavedShare(seen, waiting, content.steps)
