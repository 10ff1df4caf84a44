"""Locks between processes: flock(2), which the kernel releases when its holder ends.

Effects: files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from altmap.errors import InputError

__all__ = ("lock", "locked", "locked_folder")


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs; it is made if it is not there, and stays.

    Parameters
    ----------
    path : Path
    busy : str, optional
        The error if another process holds it; without one, wait for that process.

    Raises
    ------
    InputError
        With the text *busy*.
    OSError
        If the file cannot be opened or locked.
    """
    with path.open("w") as file:
        lock(file.fileno(), busy)
        yield


@contextlib.contextmanager
def locked_folder(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock of a folder that exists, while the block runs; nothing is written.

    Raises
    ------
    InputError
        With the text *busy*, if another process holds it.
    OSError
        If the folder cannot be opened or locked.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(folder, busy)
        yield
    finally:
        os.close(folder)


def lock(file: int, busy: str | None = None) -> None:
    """Lock an open file until it is closed; parameters and errors as of :func:`locked`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise InputError(busy) from error
