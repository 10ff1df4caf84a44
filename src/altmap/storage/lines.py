"""A file of lines that grows: locked while it is open, each line on disk when it is added.

A crash may cut the last line off. It counts as not written: the next process that opens the file
removes it.

Effects: files.
"""

from __future__ import annotations

import os
from pathlib import Path

from altmap.storage.files import append, sync_folder
from altmap.storage.locks import lock

__all__ = ("LineFile",)

_CHUNK_BYTES = 1 << 16


class LineFile:
    """An open file of lines.

    Parameters
    ----------
    path : Path
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

    Raises
    ------
    InputError
        With the text *busy*.
    OSError
        If the file cannot be opened, read or cut.
    """

    def __init__(self, path: Path, busy: str, *, flags: int = 0, mode: int = 0o666) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, mode)
        try:
            lock(self._file, busy)
            self.lines = self._whole_lines()
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
            If the disk refuses; the file may then end in part of the line.
        """
        append(self._file, line + b"\n")

    def _whole_lines(self) -> list[bytes]:
        raw = bytearray()
        while chunk := os.read(self._file, _CHUNK_BYTES):
            raw += chunk
        end = raw.rfind(b"\n") + 1
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return bytes(raw[:end]).split(b"\n")[:-1]
