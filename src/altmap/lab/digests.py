"""Digests of the files in a folder of the cache: what changed since they were fetched is found.

``sha256sums`` has a line for each file, as sha256sum(1) writes and checks it. apt checks a package
when it is downloaded; a disk that was full, a crash or a copy may damage a file later.

Effects: files.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from altmap.errors import InputError
from altmap.storage.files import read_file, sync_folder, write_file

__all__ = ("damage_of", "seal")

_SUMS = "sha256sums"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\s]{1,255})")
_MOST_BYTES = 1 << 16


def seal(folder: Path) -> None:
    """Write the digests of the files in a folder, and have all of it on disk.

    Folders in it are synced too, without digests: headers have thousands of files.

    Raises
    ------
    InputError
        If the file of digests cannot be written.
    OSError
        If the disk refuses.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != _SUMS]
    for path in files:
        _sync(path)
    if any(path.is_dir() for path in folder.iterdir()):
        os.sync()
    text = "".join(f"{_digest_of(path)}  {path.name}\n" for path in files)
    write_file(folder / _SUMS, text)
    sync_folder(folder)


def damage_of(folder: Path) -> str | None:
    """Return what of a folder is not as it was when it was sealed, ``None`` if all is."""
    try:
        sums = dict(_sums(folder))
        for path in folder.iterdir():
            if path.is_file() and path.name not in (*sums, _SUMS):
                return f"{_SUMS} lacks {path.name}"
        for name, digest in sums.items():
            if _digest_of(folder / name) != digest:
                return f"{name} is damaged"
    except (InputError, OSError) as error:
        return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
    return None


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        *lines, rest = read_file(folder / _SUMS, _MOST_BYTES).decode().split("\n")
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"has no {_SUMS}") from error
    for line in (*lines, *filter(None, [rest])):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{_SUMS} is damaged")
        yield match[2], match[1]


def _digest_of(path: Path) -> str:
    facts = path.stat()
    return _digest(path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, *_: int) -> str:
    """Return the digest of a file; a process reads it once for each inode, size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
