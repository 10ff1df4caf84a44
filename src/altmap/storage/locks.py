"""Locks between processes: flock(2), which the kernel releases when its holder ends.

Effects: files.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from altmap.errors import InputError

__all__ = ("lock", "locked")


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


def lock(file: int, busy: str | None = None) -> None:
    """Lock an open file until it is closed; parameters and errors as of :func:`locked`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise InputError(busy) from error
