"""The seam through which a machine is read and written: this one here; guests have their own.

This module has effects: it reads files, and it alone writes to a machine.

Effects: files, processes.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

__all__ = ("LocalFiles", "Transport")

_MOST_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Transport(Protocol):
    """A machine's files, by their path below ``/``."""

    def read(self, path: str) -> str | None:
        """Return a small file's text, ``None`` if it is not there or cannot be read."""

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, none if it is not there or cannot be read."""

    def write(self, path: str, word: str) -> str | None:
        """Write a word; return the name of the errno, ``None`` if it was taken."""


class LocalFiles:
    """The files below a folder: ``/`` is this machine.

    Parameters
    ----------
    root : Path
    limit_seconds : float
        Of one write. Taking memory offline retries indefinitely; a signal ends it with EINTR.
    """

    def __init__(self, root: Path, limit_seconds: float) -> None:
        self._root = root
        self._limit_seconds = limit_seconds

    def read(self, path: str) -> str | None:
        """Return a small file's text, ``None`` if it is not there or cannot be read."""
        try:
            file = os.open(self._root / path, _READ)
        except OSError:
            return None
        try:
            # Opening a device is harm enough; one that was opened is not read.
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            return _read(file, _MOST_BYTES).decode("utf-8", "backslashreplace")
        except OSError:
            return None
        finally:
            os.close(file)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, none if it is not there or cannot be read."""
        try:
            return [entry.name for entry in (self._root / path).iterdir()]
        except OSError:
            return []

    def write(self, path: str, word: str) -> str | None:
        """Write a word; return the name of the errno, ``None`` if it was taken."""
        try:
            file = os.open(self._root / path, _WRITE)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    return "EINVAL"
                with _limit(self._limit_seconds):
                    os.write(file, word.encode())
            finally:
                os.close(file)
        except TimeoutError:
            return "EINTR"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error.errno))
        return None


def _read(file: int, most_bytes: int) -> bytes:
    parts = []
    while most_bytes > 0 and (part := os.read(file, most_bytes)):
        parts.append(part)
        most_bytes -= len(part)
    return b"".join(parts)


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Interrupt what runs inside after a while; the main thread only."""

    def expired(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
