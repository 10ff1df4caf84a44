"""Files and folders that appear whole or not at all.

Every module that keeps something on disk writes it with these functions: a full disk, a signal or a
crash leaves what was there before. ``tests/storage/test_whole_files.py`` names the few modules that
may do otherwise.

Effects: files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from altmap.errors import AltmapError, InputError

__all__ = (
    "append",
    "check_file",
    "check_new_folder",
    "new_folder",
    "private_files",
    "read_file",
    "read_regular",
    "remove_drafts",
    "sync_folder",
    "write_file",
    "write_folder",
)

_DRAFT = ".altmap-"
_CHUNK_BYTES = 1 << 16
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file; a pipe or a device is not waited for.

    Raises
    ------
    InputError
        If it is no regular file, cannot be read, or has more than *most_bytes*.
    """
    try:
        file = os.open(path, _READ)
        try:
            return read_regular(file, str(path), most_bytes)
        finally:
            os.close(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def read_regular(file: int, name: str, most_bytes: int) -> bytes:
    """Return what follows in an open file, which must be a regular one.

    Raises
    ------
    InputError
        If it is none, or has more than *most_bytes*; *name* starts the message.
    OSError
        If it cannot be read.
    """
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise InputError(f"{name}: need a regular file")
    parts = []
    left = most_bytes
    while chunk := os.read(file, _CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            raise InputError(f"{name}: need at most {most_bytes} bytes")
        parts.append(chunk)
    return b"".join(parts)


def write_file(path: Path, content: str | bytes, *, mode: int = 0o666, new: bool = False) -> None:
    """Write a file; a reader sees the old content or the new one, also after a crash.

    A symbolic link stays, and the file that it names is replaced. A device or a pipe is written
    to as it is.

    Parameters
    ----------
    path : Path
    content : str or bytes
        Text is written as UTF-8.
    mode : int
        Permissions of a new file, less the umask. A file that is replaced keeps its permissions.
    new : bool
        Refuse a file that exists.

    Raises
    ------
    InputError
        If the file cannot be written, or exists and must not; the message names it.
    """
    raw = content.encode() if isinstance(content, str) else content
    with _errors_name(path):
        if new and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        found = path.stat() if path.exists() else None
        if found is None or stat.S_ISREG(found.st_mode):
            permissions = None if found is None else stat.S_IMODE(found.st_mode)
            _write_whole(Path(os.path.realpath(path)), raw, mode, permissions, new=new)
        else:
            with path.open("wb") as file:
                file.write(raw)


def _write_whole(
    target: Path, raw: bytes, mode: int, permissions: int | None, *, new: bool
) -> None:
    draft = target.with_name(f"{_DRAFT}{os.urandom(8).hex()}")
    file = os.open(draft, _NEW, mode)
    try:
        try:
            if permissions is not None:
                os.fchmod(file, permissions)
            append(file, raw)
        finally:
            os.close(file)
        if new:
            # Unlike a rename, a link fails if another process has made the file meanwhile.
            os.link(draft, target)
        else:
            draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(target.parent)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Make new files and folders for their owner only while inside.

    They hold what the kernel shows to root alone, such as physical addresses. A file that is
    replaced keeps its permissions.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def append(file: int, raw: bytes) -> None:
    """Write to an open file at its position; the bytes are on disk when this returns.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    while raw:
        raw = raw[os.write(file, raw) :]
    os.fsync(file)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where its file system can do so."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # fsync(2): not supported by this file system
            raise
    finally:
        os.close(file)


def remove_drafts(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder that no other process writes to."""
    for draft in folder.glob(f"{_DRAFT}*"):
        draft.unlink()


def check_file(path: Path, *, new: bool = False) -> None:
    """Check that a file can be written, before what it will hold is computed.

    Parameters
    ----------
    path : Path
    new : bool
        Nothing may be there yet.

    Raises
    ------
    InputError
        Naming the file, and what is wrong with its name.
    """
    with _errors_name(path):
        if new and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not path.parent.is_dir():
            raise InputError(f"{path}: cannot be written: there is no folder {path.parent}")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def check_new_folder(folder: Path) -> None:
    """Check that a folder can be filled: it is new, or empty.

    Raises
    ------
    InputError
        Naming the folder and what it is instead.
    """
    with _errors_name(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"{folder}: need a new or empty folder, but it is a file")
        names = sorted(path.name for path in folder.iterdir())
        if names:
            raise InputError(f"{folder}: need a new or empty folder, but it holds {names[0]!r}")


def write_folder(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write a new folder with these files, by name; it appears complete or not at all.

    Raises
    ------
    InputError
        As :func:`new_folder`.
    """
    with new_folder(folder) as draft:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            (draft / name).write_bytes(raw)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes *folder* when the block ends without an error.

    The files in it are not synced one by one: a crash of the machine soon afterwards may leave
    some of them empty.

    Raises
    ------
    InputError
        If the folder is not new or empty, or it or a file in it cannot be written. Folders above
        that were made for it are removed again.
    """
    check_new_folder(folder)
    with _errors_name(folder):
        target = Path(os.path.realpath(folder))
        above = [parent for parent in target.parents if not parent.exists()]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=_DRAFT) as name:
                # A folder of its own, since the temporary one is for its owner only.
                draft = Path(name, "new")
                draft.mkdir()
                yield draft
                draft.rename(target)
            sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                for parent in above:
                    parent.rmdir()
            raise


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Name the path that the caller gave in every error of the disk, also of one below it."""
    try:
        yield
    except (OSError, AltmapError) as error:
        cause = error.__cause__ if isinstance(error, AltmapError) else error
        if not isinstance(cause, OSError):
            raise
        raise InputError(f"{path}: cannot be written: {cause.strerror or cause}") from error
