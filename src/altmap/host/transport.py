"""The seam through which a machine is read and written: this one here; guests have their own.

This module has effects: it reads files, and it alone writes to a machine.

Effects: files, processes.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

__all__ = ("LocalFiles", "Transport")

_MOST_BYTES = 1 << 20
_WRITE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Transport(Protocol):
    """A machine's files, by their path below ``/``."""

    def read(self, path: str) -> str | None:
        """Return a small file's text, ``None`` if it is not there or cannot be read."""

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
            with (self._root / path).open("rb") as file:
                return file.read(_MOST_BYTES).decode("utf-8", "backslashreplace")
        except OSError:
            return None

    def write(self, path: str, word: str) -> str | None:
        """Write a word; return the name of the errno, ``None`` if it was taken."""
        try:
            file = os.open(self._root / path, _WRITE)
            try:
                with _limit(self._limit_seconds):
                    os.write(file, word.encode())
            finally:
                os.close(file)
        except TimeoutError:
            return "EINTR"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error.errno))
        return None


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
