"""The text of a kernel's log, from a file or standard input, within limits.

Effects: files, terminal.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from altmap.errors import InputError

__all__ = ("LogText",)

#: More of a log is not read: of a file its end, of a stream its beginning.
_MOST_BYTES = 16 << 20
_MOST_LINES = 1 << 20
_MOST_LINE_BYTES = 1 << 16


class LogText:
    """A log that is read line by line.

    Parameters
    ----------
    path : str
        A file or pipe, ``-`` for standard input.

    Attributes
    ----------
    cut : str
        Which part was read, empty for all of it; known after the lines were read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.cut = ""

    def lines(self) -> Iterator[str]:
        """Yield the lines.

        Raises
        ------
        InputError
            If it is no file or pipe that can be read.
        """
        if self.path == "-":
            yield from self._lines(sys.stdin.buffer)
            return
        try:
            with self._opened(Path(self.path)) as file:
                yield from self._lines(file)
        except OSError as error:
            raise InputError(f"log {self.path}: {error.strerror}") from error

    def _opened(self, path: Path) -> BinaryIO:
        """Open a file at the part that is read, or a pipe."""
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise InputError(f"log {path}: need a file, or - for standard input (dmesg | ...)")
        file = path.open("rb")
        if stat.S_ISREG(mode):
            start = file.seek(0, os.SEEK_END) - _MOST_BYTES
            file.seek(max(0, start))
            if start > 0:
                file.readline(_MOST_LINE_BYTES)  # the rest of a line
                self.cut = f"only the last {_MOST_BYTES >> 20} MiB of the log were read"
        return file

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        nr_bytes = nr_lines = 0
        while line := file.readline(_MOST_LINE_BYTES):
            if nr_bytes >= _MOST_BYTES or nr_lines >= _MOST_LINES:
                self.cut = f"the log was read up to its line {nr_lines}"
                return
            nr_bytes += len(line)
            nr_lines += 1
            yield line.decode("utf-8", "replace")
