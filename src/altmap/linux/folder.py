"""A sysroot in a folder: read without leaving it, and written whole or not at all.

Effects: files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from altmap.errors import AltmapError, InputError
from altmap.linux.contents import Content, chunks
from altmap.linux.intake import Intake, Leave
from altmap.linux.paths import (
    BLOCKS,
    PAGE_RUNS,
    check_tree,
    is_configuration,
    leads_on,
    matters,
)
from altmap.linux.unread import UnreadFiles

__all__ = ("find_cgroups", "has_cgroups", "read", "write")

_MOST_CGROUPS = 1 << 20
_CGROUP_FOLDERS = ("sys/fs/cgroup", "sys/fs/cgroup/memory")
#: Of kernfs; a folder that was copied has another.
_ROOT_INODE = 1

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Where memory blocks are, and nodes' links to them.
_HOLDS_BLOCKS = re.compile(f"{re.escape(BLOCKS)}/|sys/devices/system/node/node[0-9]+/")
# A device or block that went away while its folder was read.
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


def read(source: Path, skips: frozenset[str] = frozenset(), leave: Leave = "nothing") -> Intake:
    """Return what matters of the folder, which may be ``/`` of this machine.

    Only real folders are entered, so no link is ever followed. What may not be read is listed in
    ``unreadable``; files that *skips* names are left out.

    Parameters
    ----------
    source : Path
    skips : frozenset of str
    leave : str
        What stays on disk until it is asked for: ``pages`` are the files with a word for each page
        frame, ``files`` are all; then no file is opened, and of memory blocks no folder.

    Raises
    ------
    InputError
        If a link leaves the folder, or something else than files, folders and links is there.
    """
    intake = Intake(str(source), skips, leave=leave)
    try:
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{source}: need a folder that can be read: {error.strerror}") from error
    try:
        top = _find_top(intake, root)
        if top:
            root, outer = os.open(top, _FOLDER, dir_fd=root), root
            os.close(outer)
        _read_folder(intake, root, "")
        intake.finish()
        if leave == "files":
            intake.contents = UnreadFiles(intake, os.dup(root))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    finally:
        os.close(root)
    return intake


def _find_top(intake: Intake, root: int) -> str:
    """Return the name of the only folder that holds proc or sys, empty if *root* does."""
    names = os.listdir(root)
    if {"proc", "sys"} & set(names):
        return ""
    tops = [name for name in sorted(names) if _holds_sysroot(root, name)]
    if len(tops) > 1:
        raise InputError(
            f"{intake.source}: holds more than one sysroot, such as {tops[0]!r} and {tops[1]!r}: "
            "name one of them"
        )
    return tops[0] if tops else ""


def _holds_sysroot(root: int, name: str) -> bool:
    try:
        folder = os.open(name, _FOLDER, dir_fd=root)
    except OSError:
        return False
    try:
        return bool({"proc", "sys"} & set(os.listdir(folder)))  # noqa: PTH208  # a descriptor
    except OSError:
        return False
    finally:
        os.close(folder)


def _read_folder(intake: Intake, folder: int, prefix: str) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    if intake.leave == "files" and _HOLDS_BLOCKS.fullmatch(prefix):
        names = [name for name in names if not (name[:6] == "memory" and name[6:].isdecimal())]
    for name in sorted(names):
        path = prefix + name
        if not (matters(path) or leads_on(path)) or path in intake.skips:
            continue
        intake.count(path)
        try:
            _read_entry(intake, folder, name, path)
        except OSError as error:
            if error.errno not in _GONE:
                intake.unreadable.append(path)


def _read_entry(intake: Intake, folder: int, name: str, path: str) -> None:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            _read_folder(intake, inner, f"{path}/")
            if intake.leave == "files" and path == BLOCKS:
                from altmap.linux.blockfolder import OpenFolder, unread_blocks

                intake.blocks = partial(unread_blocks, intake.source, OpenFolder(os.dup(inner)))
        finally:
            os.close(inner)
    elif leads_on(path) and not (stat.S_ISLNK(mode) and is_configuration(path)):
        raise intake.error(path, "need a folder")
    elif stat.S_ISLNK(mode):
        intake.link(path, os.readlink(name, dir_fd=folder))
    elif not stat.S_ISREG(mode):
        raise intake.error(path, "need a regular file, folder or symbolic link")
    elif mode & 0o444:
        _read_file(intake, folder, name, path)


def _read_file(intake: Intake, folder: int, name: str, path: str) -> None:
    if path in PAGE_RUNS and intake.leave != "nothing":
        if not _may_read(folder, name):
            raise PermissionError(errno.EACCES, path)
        # NumPy, which most folders of memory blocks are read without.
        from altmap.linux.pagefile import PageFile

        above = os.dup(folder)
        intake.pages[path] = PageFile(lambda: os.open(name, _FILE, dir_fd=above))
        weakref.finalize(intake.pages[path], os.close, above)
        return
    if intake.leave == "files":
        if not _may_read(folder, name):
            raise PermissionError(errno.EACCES, path)
        intake.unread.add(path)
        return
    file = os.open(name, _FILE, dir_fd=folder)
    try:
        intake.file(path, lambda nr_bytes: os.read(file, nr_bytes))
    finally:
        os.close(file)


def _may_read(folder: int, name: str) -> bool:
    return os.access(name, os.R_OK, dir_fd=folder, effective_ids=True)


def write(files: Mapping[str, Content], links: Mapping[str, str], target: Path) -> None:
    """Write files and symbolic links below *target*, which appears complete or not at all.

    Raises
    ------
    InputError
        If the target exists and is not an empty folder, or a name is not one of a sysroot.
    AltmapError
        If the disk refuses.
    """
    check_tree(files, links)
    target = Path(os.path.realpath(target))
    _require_empty(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as parent:
            # A folder of its own, since the temporary one is for the owner only.
            draft = Path(parent, "sysroot")
            _fill(files, links, draft)
            draft.rename(target)
    except OSError as error:
        raise AltmapError(f"{target}: cannot be written: {error.strerror}") from error


def _require_empty(target: Path) -> None:
    try:
        names = sorted(path.name for path in target.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target}: need a folder to write into: {error.strerror}") from error
    if names:
        raise InputError(f"{target}: need an empty or new folder, but it holds {names[0]!r}")


def _fill(files: Mapping[str, Content], links: Mapping[str, str], draft: Path) -> None:
    draft.mkdir()
    for parent in sorted({path.rpartition("/")[0] for path in (*files, *links)}):
        (draft / parent).mkdir(parents=True, exist_ok=True)
    base = str(draft)
    for path, content in files.items():
        with open(f"{base}/{path}", "wb") as file:  # noqa: PTH123  # Path costs more than the file
            file.writelines(chunks(content))
    for path, destination in links.items():
        os.symlink(destination, f"{base}/{path}")  # noqa: PTH211  # as above


def find_cgroups(root: Path) -> list[tuple[int, str]]:
    """Return inode and path of each cgroup that accounts memory, below a machine's root.

    No link is followed. A copy of the folders has other inodes, so that it says nothing.

    Raises
    ------
    InputError
        If there are more than a million.
    """
    top = _cgroup_folder(root)
    return [] if top is None else list(_walk(top))


def has_cgroups(root: Path) -> bool:
    """Tell whether :func:`find_cgroups` finds one."""
    return _cgroup_folder(root) is not None


def _cgroup_folder(root: Path) -> Path | None:
    for name in reversed(_CGROUP_FOLDERS):
        top = root / name
        try:
            if top.is_symlink() or top.stat().st_ino != _ROOT_INODE:
                continue
            if not (top / "cgroup.procs").is_file():
                continue
        except OSError:
            continue
        return top
    return None


def _walk(top: Path) -> Iterator[tuple[int, str]]:
    base = str(top)
    for number, (folder, _, _) in enumerate(os.walk(base)):
        if number == _MOST_CGROUPS:
            raise InputError(f"{top}: need at most {_MOST_CGROUPS} cgroups")
        try:
            inode = os.stat(folder, follow_symlinks=False).st_ino  # noqa: PTH116
        except OSError:
            continue  # ended meanwhile
        yield inode, folder[len(base) :] or "/"
