"""Files of a sysroot, read as far as they are understood: what is not becomes a note.

A capture may be cut off, damaged, or of a kernel that prints more than is known here. Whether that
matters is for the question that is asked: it names what it needs, and the rest ends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from altmap.errors import InputError
from altmap.linux.lines import understood
from altmap.linux.paths import text_of
from altmap.linux.sysroot import Sysroot

__all__ = ("Problems", "Reader")

T = TypeVar("T")
_NUMBER = re.compile("[0-9]+")


class Problems:
    """What could not be read, once for all files that differ in numbers only.

    Files of a thousand memory blocks that are damaged in the same way make one note.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}
        self._more: dict[str, int] = {}

    def add(self, path: str, text: str) -> None:
        """Note what is wrong with a file; *text* may begin with a path in it."""
        kind = _NUMBER.sub("N", path)
        if kind in self._first:
            self._more[kind] = self._more.get(kind, 0) + 1
        else:
            self._first[kind] = path, text

    def by_path(self) -> dict[str, str]:
        """Return the notes, with the path in front, by the path of the first file of each."""
        return {
            path: (text if text.startswith(path) else f"{path}: {text}")
            + _and_more(self._more.get(kind, 0), "files of this kind")
            for kind, (path, text) in self._first.items()
        }


class Reader:
    """Reads the files of one sysroot.

    Parameters
    ----------
    sysroot : Sysroot

    Attributes
    ----------
    files, links : mapping
        As in the sysroot.
    problems : Problems
    """

    def __init__(self, sysroot: Sysroot) -> None:
        self.files: Mapping[str, bytes] = sysroot.files
        self.links: Mapping[str, str] = sysroot.links
        self.problems = Problems()

    def text(self, path: str) -> str | None:
        """Return a file's text, ``None`` if it is not there."""
        raw = self.files.get(path)
        return None if raw is None else text_of(raw)

    def parse(self, path: str, parser: Callable[[str], T]) -> T | None:
        """Return what *parser* makes of a file's text, ``None`` if it is missing or damaged.

        Lines that the parser does not understand are left out.
        """
        raw = self.files.get(path)
        if raw is None:
            return None
        try:
            made, skipped = understood(text_of(raw), parser)
        except InputError as error:
            self.problems.add(path, str(error))
            return None
        if skipped:
            more = _and_more(len(skipped) - 1, "lines")
            self.problems.add(path, f"{skipped[0]}: left out{more}")
        return made

    def attempt(self, path: str, read: Callable[[], T]) -> T | None:
        """Return what *read* gives, ``None`` if it raises ``InputError``, which is noted."""
        try:
            return read()
        except InputError as error:
            self.problems.add(path, str(error))
            return None


def _and_more(number: int, what: str) -> str:
    return f" (and {number} more {what})" if number > 0 else ""
