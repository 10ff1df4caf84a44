"""A file of lines that grows: locked while it is open, each line on disk when it is added.

A crash may cut the last line off. It counts as not written: it is removed when the next line is
added. Until then nothing is changed, so that a file of another kind can be told apart and stays.

Effects: files.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from altmap.errors import InputError
from altmap.storage.files import append, read_regular, sync_folder
from altmap.storage.locks import lock

__all__ = ("MOST_LINES_BYTES", "LineFile")

MOST_LINES_BYTES = 64 << 20


class LineFile:
    """An open file of lines.

    Parameters
    ----------
    path : Path
        A symbolic link in its place is not followed.
    busy : str
        The error if another process has the file open.
    flags : int
        Of open(2): ``O_CREAT`` for a file that may exist, also ``O_EXCL`` for one that must not, 0
        for one that must.
    mode : int
        Permissions of a new file, less the umask.

    Attributes
    ----------
    path : Path
    lines : list of bytes
        The whole lines that were in the file when it was opened, without their ends.
    rest : bytes
        What followed them: part of a line that was cut off.

    Raises
    ------
    InputError
        With the text *busy*; or if it is no regular file, or a large one.
    OSError
        If the file cannot be opened or read.
    """

    def __init__(self, path: Path, busy: str, *, flags: int = 0, mode: int = 0o666) -> None:
        self.path = path
        self._file = _opened(path, flags, mode)
        try:
            lock(self._file, busy)
            raw = read_regular(self._file, str(path), MOST_LINES_BYTES)
            *self.lines, self.rest = raw.split(b"\n")
            self._end = len(raw) - len(self.rest)
            sync_folder(path.absolute().parent)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._file)

    def add(self, line: bytes) -> None:
        """Write a line, given without its end, behind the others.

        Raises
        ------
        OSError
            If the disk refuses; the file may then end in part of the line, which the next one
            replaces.
        """
        os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)
        append(self._file, line + b"\n")
        self._end += len(line) + 1


def _opened(path: Path, flags: int, mode: int) -> int:
    always = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, always | flags, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a symbolic link, which is not followed") from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise InputError(f"{path}: need a regular file") from error
        raise
