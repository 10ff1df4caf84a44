"""The files of a folder that are opened when they are asked for.

Effects: files.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Callable, Iterator, MutableMapping

from altmap.linux.intake import Intake
from altmap.linux.paths import PADDED, is_padded, without_padding

__all__ = ("UnreadFiles", "open_below")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_below(root: int, path: str) -> int:
    """Return a descriptor of the regular file at *path* below an open folder; no link is followed.

    Raises
    ------
    OSError
        If it cannot be opened, or is something else by now.
    """
    *names, last = path.split("/")
    folder = root
    try:
        for name in names:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            if folder != root:
                os.close(folder)
            folder = inner
        if not stat.S_ISREG(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(f"{path} is no regular file")
        return os.open(last, _FILE, dir_fd=folder)
    finally:
        if folder != root:
            os.close(folder)


class UnreadFiles(MutableMapping[str, bytes]):
    """Contents of files by path; a file is read when its content is asked for, and then kept.

    A file that cannot be read counts as one that is not there.

    Parameters
    ----------
    intake : Intake
        Its ``unread`` paths are those of files that are not read yet; its limits hold.
    root : int
        A descriptor of the folder, which this object closes in the end.
    """

    def __init__(self, intake: Intake, root: int) -> None:
        self._intake = intake
        self._root = root
        self._nr_padded = 0
        self._makers: dict[str, Callable[[], bytes]] = {}
        weakref.finalize(self, os.close, root)

    def later(self, path: str, make: Callable[[], bytes]) -> None:
        """Take in a file whose content is made when it is asked for."""
        self._makers[path] = make
        self._intake.unread.add(path)

    def __getitem__(self, path: str) -> bytes:
        if path in self._intake.unread:
            self._intake.unread.discard(path)
            self._read(path)
        return self._intake.files[path]

    def _read(self, path: str) -> None:
        if path in self._makers:
            self._intake.files[path] = self._makers[path]()
            return
        try:
            file = open_below(self._root, path)
        except OSError:
            return
        try:
            self._intake.file(path, lambda nr_bytes: os.read(file, nr_bytes))
        except OSError:
            return
        finally:
            os.close(file)
        raw = self._intake.files[path]
        if is_padded(path, raw):
            self._intake.files[path] = without_padding(raw)
            self._nr_padded += 1
            self._intake.notes["sys"] = PADDED.format(self._nr_padded)

    def __setitem__(self, path: str, content: bytes) -> None:
        self._intake.unread.discard(path)
        self._intake.files[path] = content

    def __delitem__(self, path: str) -> None:
        if path in self._intake.unread:
            self._intake.unread.discard(path)
        else:
            del self._intake.files[path]

    def __contains__(self, path: object) -> bool:
        return path in self._intake.unread or path in self._intake.files

    def __iter__(self) -> Iterator[str]:
        return iter([*self._intake.files, *self._intake.unread])

    def __len__(self) -> int:
        return len(self._intake.files) + len(self._intake.unread)
