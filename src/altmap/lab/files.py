"""A guest's files, read and written one at a time: a transport that plans are carried out on."""

from __future__ import annotations

import errno

from altmap.lab.guest import Guest
from altmap.lab.state import write_file

__all__ = ("GuestFiles",)


class GuestFiles:
    """The files of a guest, by their path below ``/``.

    Parameters
    ----------
    guest : Guest
    limit_seconds : float
        Of one write.
    """

    def __init__(self, guest: Guest, limit_seconds: float = 30.0) -> None:
        self._guest = guest
        self._limit_seconds = limit_seconds

    def read(self, path: str) -> str | None:
        """Return a small file's text, ``None`` if it is not there or cannot be read."""
        result = self._guest.run(f"cat /{path} 2>/dev/null")
        return None if result.status else result.text

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, none if it is not there or cannot be read."""
        return self._guest.run(f"ls -a /{path} 2>/dev/null").text.split()

    def write(self, path: str, word: str) -> str | None:
        """Write a word; return the name of the errno, ``None`` if it was taken."""
        number = write_file(self._guest, f"/{path}", word, self._limit_seconds)
        return errno.errorcode.get(number, str(number)) if number else None
