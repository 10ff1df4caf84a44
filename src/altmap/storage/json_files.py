"""JSON that is read: into a type that is known, within a size, and every refusal is one line.

Effects: files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from altmap.errors import InputError
from altmap.storage.files import read_file

__all__ = ("MOST_JSON_BYTES", "decode_json", "read_json")

#: What is decoded takes up to 20 times its size of memory.
MOST_JSON_BYTES = 32 << 20

_Decoded = TypeVar("_Decoded")


def read_json(path: Path, kind: type[_Decoded], most_bytes: int = MOST_JSON_BYTES) -> _Decoded:
    """Return what a file holds.

    Raises
    ------
    InputError
        If it is no regular file, cannot be read, is too large, or holds something else; the message
        names the file and the place in it.
    """
    made: _Decoded = decode_json(read_file(path, most_bytes), kind, str(path))
    return made


def decode_json(raw: bytes | msgspec.Raw, kind: Any, name: str) -> Any:
    """Return what JSON text says.

    Parameters
    ----------
    raw : bytes
    kind : type
        A struct or another type of msgspec's.
    name : str
        Starts the message of an error.

    Raises
    ------
    InputError
        If it is too large, no JSON, nested too deeply, or of another kind.
    """
    size_bytes = memoryview(raw).nbytes
    if size_bytes > MOST_JSON_BYTES:
        raise InputError(f"{name}: {size_bytes} bytes: need at most {MOST_JSON_BYTES}")
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: {error}") from error
