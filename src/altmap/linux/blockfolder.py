"""Memory blocks straight from a folder: only the files that a listing needs, of each block.

A machine of 16 TiB has a million files in ``sys/devices/system/memory``; to read them all takes
several times as long as to read what is shown.

Effects: files.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import weakref
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from altmap.errors import InputError
from altmap.linux import memory
from altmap.linux.memory import Block, MemoryFolder
from altmap.linux.paths import text_of, without_padding
from altmap.linux.reading import Problems

__all__ = ("OpenFolder", "has_blocks", "read_blocks", "read_total_kib", "unread_blocks")

T = TypeVar("T")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = re.compile("memory(0|[1-9][0-9]{0,14})")
_NODE = re.compile("node(0|[1-9][0-9]{0,9})")
_TOTAL = re.compile(rb"MemTotal: +([0-9]{1,20}) kB\n")
_MOST_BYTES = 4096  # sysfs gives a page at most


class _NotUnderstoodError(Exception):
    """A file does not hold what it should; *path* and *rule* as in :meth:`Problems.add`."""

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(path, rule)
        self.path, self.rule = path, rule


def read_blocks(
    root: Path, *, nodes: bool = True, zones: bool = True, problems: Problems | None = None
) -> MemoryFolder:
    """Return the memory blocks below *root*, as :func:`altmap.linux.memory.parse` would.

    Parameters
    ----------
    root : Path
        A folder that holds ``sys``, or holds the one folder that does; ``/`` is this machine.
    nodes, zones : bool
        Also find the nodes that blocks are linked to, and their ``valid_zones``.
    problems : Problems, optional
        Takes what is not understood; without it, that is an error. A block whose state is unknown
        is left out.

    Raises
    ------
    InputError
        If there are none, their size is not known, something is not understood, or a link or
        special file stands in place of a file.
    """
    found = Problems() if problems is None else problems
    names = ("state", "removable", "valid_zones") if zones else ("state", "removable")
    with _opened(root) as folder:
        blocks: dict[int, Block] = {}
        #: What blocks hold, and what that means; most are alike.
        alike: dict[tuple[tuple[bytes | None, ...], tuple[int, ...]], Block | None] = {}
        known = _nodes_by_block(folder) if nodes else {}
        has_devices = not os.fstatvfs(folder).f_flag & os.ST_NODEV
        for nr in _block_ids(root, folder):
            folder_name = f"memory{nr}"
            path = f"{folder_name}/"
            held = tuple([_held(folder, path + name, has_devices) for name in names])
            linked = known.get(folder_name, ())
            block = alike.get(key := (held, linked))
            if block is None:
                block = alike[key] = _understood(*held, nodes=linked)
            if block is None or (nodes and not linked):
                try:
                    block = _read_block(root, folder, nr, known, found, nodes=nodes, zones=zones)
                except FileNotFoundError:
                    continue  # blocks come and go
            if block is not None:
                blocks[nr] = block
        try:
            size = _value(root, folder, "block_size_bytes", memory.parse_block_size, found)
        except _NotUnderstoodError as error:
            raise InputError(f"{root}: {error.path}: {error.rule}") from error
        if problems is None:
            for text in found.by_path().values():
                raise InputError(f"{root}: {text}")
        return MemoryFolder(size, None, blocks)


class _UnknownStateError(InputError):
    """Neither ``state`` nor ``online`` of a block tells its state, or the block is gone."""


class OpenFolder:
    """An open folder, which is closed in the end."""

    def __init__(self, file: int) -> None:
        self.file = file
        weakref.finalize(self, os.close, file)


def unread_blocks(source: str, folder: OpenFolder, problems: Problems) -> dict[int, Block]:
    """Return the blocks of an open folder, each with files that are read when they are asked for.

    Going through all blocks leaves out those whose state is not understood, as
    :func:`read_blocks` does.

    Parameters
    ----------
    source : str
        What messages start with.
    folder : OpenFolder
        ``sys/devices/system/memory``.
    problems : Problems
        Takes what is not understood.

    Raises
    ------
    InputError
        Here if a block is no folder; when a block's state is asked for, if it is not understood.
    """
    files = _BlockFiles(source, folder, problems)
    return _UnreadBlocks({nr: _unread(files, nr) for nr in _block_ids(source, folder.file)})


class _BlockFiles:
    """The files of memory blocks below an open folder."""

    def __init__(self, source: str, folder: OpenFolder, problems: Problems) -> None:
        self._source = source
        self._folder = folder
        self._problems = problems
        self._known: dict[str, tuple[int, ...]] | None = None

    def read(self, nr: int, name: str) -> Any:
        """Return what the file behind one of a block's attributes says."""
        folder, block = self._folder.file, f"memory{nr}"
        if name == "nodes":
            if self._known is None:
                self._known = _nodes_by_block(folder)
            return self._known.get(block) or _nodes(folder, block)
        if name == "firmware_node":
            try:
                return os.readlink(f"{block}/{name}", dir_fd=folder)
            except OSError:
                return None
        try:
            if name != "state":
                path = f"{block}/{name}"
                return _optional(self._source, folder, path, _PARSERS[name], self._problems)
            state = _read_state(self._source, folder, block, self._problems)
        except OSError as error:
            if name != "state":
                return None
            path = f"{memory.ROOT}/{block}/state"
            raise _UnknownStateError(f"{path}: {error.strerror}") from error
        if state is None:
            raise _UnknownStateError(f"{memory.ROOT}/{block}: no file tells its state")
        return state


class _UnreadBlock(Block):
    """A block whose files are read when they are asked for, and then kept."""

    __slots__ = ("_files", "_nr")

    def __getattr__(self, name: str) -> Any:
        """Return what a file says that was not read yet: its slot is empty."""
        if name not in _FIELDS:
            raise AttributeError(name)
        value = self._files.read(self._nr, name)
        object.__setattr__(self, name, value)
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and _fields_of(self) == _fields_of(other)

    def __hash__(self) -> int:
        return hash(_fields_of(self))


class _UnreadBlocks(dict[int, Block]):
    """Blocks by id; going through them leaves out those whose state is not understood."""

    def _understood(self) -> dict[int, Block]:
        made = {}
        for nr, block in super().items():
            with contextlib.suppress(_UnknownStateError):
                if block.state:
                    made[nr] = block
        return made

    def items(self) -> ItemsView[int, Block]:  # type: ignore[override]  # a view of those left
        return self._understood().items()

    def values(self) -> ValuesView[Block]:  # type: ignore[override]  # a view of those left
        return self._understood().values()


_FIELDS = tuple(field.name for field in fields(Block))
_PARSERS: dict[str, Callable[[str], Any]] = {
    "phys_device": memory.parse_phys_device,
    "removable": memory.parse_removable,
    "valid_zones": memory.parse_zones,
}


def _fields_of(block: Block) -> tuple[object, ...]:
    return tuple(getattr(block, name) for name in _FIELDS)


def _unread(files: _BlockFiles, nr: int) -> Block:
    block = object.__new__(_UnreadBlock)
    object.__setattr__(block, "_files", files)
    object.__setattr__(block, "_nr", nr)
    return block


def has_blocks(root: Path) -> bool:
    """Tell whether :func:`read_blocks` finds the folder below *root*; sos archives have none."""
    try:
        with _opened(root):
            return True
    except InputError:
        return False


def read_total_kib(root: Path) -> int | None:
    """Return MemTotal below *root*, ``None`` if there is no ``proc/meminfo``."""
    try:
        file = os.open(root / "proc/meminfo", _FILE)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        match = _TOTAL.match(os.read(file, _MOST_BYTES))
    finally:
        os.close(file)
    return int(match[1]) if match else None


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not os.access("sys", os.F_OK, dir_fd=folder):
            folder = _enter(folder, _only_top(root, folder))
        for name in memory.ROOT.split("/"):
            folder = _enter(folder, name)
    except OSError as error:
        raise InputError(f"{root}: need a folder with {memory.ROOT}: {error.strerror}") from error
    try:
        yield folder
    except OSError as error:
        raise InputError(f"{root}: {error.filename}: {error.strerror}") from error
    finally:
        os.close(folder)


def _only_top(root: Path, folder: int) -> str:
    tops = [
        name
        for name in sorted(os.listdir(folder))
        if os.access(f"{name}/{memory.ROOT}", os.F_OK, dir_fd=folder)
    ]
    if len(tops) != 1:
        raise InputError(f"{root}: need {memory.ROOT}, here or below one folder")
    return tops[0]


def _enter(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    finally:
        os.close(folder)


def _block_ids(root: Path | str, folder: int) -> list[int]:
    ids = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := _BLOCK.fullmatch(entry.name):
                if not entry.is_dir(follow_symlinks=False):
                    raise InputError(f"{root}: {memory.ROOT}/{entry.name}: need a folder")
                ids.append(int(match[1]))
    return sorted(ids)


def _held(folder: int, path: str, has_devices: bool) -> bytes | None:
    """Return what a file holds, ``None`` if there is none; nothing if it needs a closer look.

    A device is not even opened: that alone may act. Where the mount has none, none can be.
    """
    try:
        if has_devices and not _is_regular(folder, path):
            return b""
        file = os.open(path, _FILE, dir_fd=folder)
        try:
            return os.read(file, _MOST_BYTES)
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError:
        return b""


def _understood(
    state: bytes | None,
    removable: bytes | None,
    zones: bytes | None = None,
    *,
    nodes: tuple[int, ...],
) -> Block | None:
    """Return the block whose files hold this, ``None`` if it needs a closer look."""
    if (
        not state
        or b"" in (removable, zones)
        or any(b"\0" in (raw or b"") for raw in (state, zones))
    ):
        return None
    try:
        return Block(
            memory.parse_state(text_of(state)),
            None,
            None if removable is None else memory.parse_removable(text_of(removable)),
            None if zones is None else memory.parse_zones(text_of(zones)),
            nodes,
        )
    except InputError:
        return None


def _read_block(
    root: Path,
    folder: int,
    nr: int,
    known: Mapping[str, tuple[int, ...]],
    problems: Problems,
    *,
    nodes: bool,
    zones: bool,
) -> Block | None:
    name = f"memory{nr}"
    state = _read_state(root, folder, name, problems)
    if state is None:
        return None
    return Block(
        state,
        None,
        _optional(root, folder, f"{name}/removable", memory.parse_removable, problems),
        _optional(root, folder, f"{name}/valid_zones", memory.parse_zones, problems)
        if zones
        else None,
        (known.get(name) or _nodes(folder, name)) if nodes else (),
    )


def _read_state(root: Path | str, folder: int, name: str, problems: Problems) -> str | None:
    """Return a block's state; ``online`` stands for it where ``state`` does not tell."""
    try:
        return _value(root, folder, f"{name}/state", memory.parse_state, problems)
    except FileNotFoundError:
        if not os.access(name, os.F_OK, dir_fd=folder):
            raise
        problems.add(f"{memory.ROOT}/{name}/state", "need this file in every memory block")
    except _NotUnderstoodError as error:
        problems.add(error.path, error.rule)
    return _optional(root, folder, f"{name}/online", memory.parse_online, problems)


def _nodes_by_block(folder: int) -> dict[str, tuple[int, ...]]:
    """Return the nodes that link to a block, by its folder's name: a few lists, not one each.

    There are other names besides those of blocks.
    """
    found: dict[str, tuple[int, ...]] = {}
    with contextlib.suppress(OSError), _folder("../node", folder) as above:
        matches = map(_NODE.fullmatch, os.listdir(above))  # noqa: PTH208  # a descriptor
        for node in sorted(int(match[1]) for match in matches if match):
            with _folder(f"node{node}", above) as inner:
                names = os.listdir(inner)  # noqa: PTH208
            again = {name: (*found[name], node) for name in found.keys() & names}
            found |= dict.fromkeys(names, (node,)) | again
    return found


@contextmanager
def _folder(name: str, above: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=above)
    try:
        yield folder
    finally:
        os.close(folder)


def _nodes(folder: int, name: str) -> tuple[int, ...]:
    with _folder(name, folder) as inner:
        matches = map(_NODE.fullmatch, os.listdir(inner))  # noqa: PTH208  # a descriptor
        return tuple(sorted(int(match[1]) for match in matches if match))


def _optional(
    root: Path | str, folder: int, path: str, parse: Callable[[str], T], problems: Problems
) -> T | None:
    try:
        return _value(root, folder, path, parse, problems)
    except FileNotFoundError:
        return None
    except _NotUnderstoodError as error:
        problems.add(error.path, error.rule)
        return None


def _value(
    root: Path | str, folder: int, path: str, parse: Callable[[str], T], problems: Problems
) -> T:
    # A device is not even opened: that alone may act.
    if not _is_regular(folder, path):
        raise InputError(f"{root}: {memory.ROOT}/{path}: need a regular file")
    file = os.open(path, _FILE, dir_fd=folder)
    try:
        raw = os.read(file, _MOST_BYTES)
    finally:
        os.close(file)
    if b"\0" in raw:
        raw = without_padding(raw)
        problems.add("sys", "files are padded with NUL bytes, which are cut off")
    try:
        return cast("T", _parsed(parse, raw))
    except InputError as error:
        raise _NotUnderstoodError(f"{memory.ROOT}/{path}", str(error)) from error


def _is_regular(folder: int, path: str) -> bool:
    return stat.S_ISREG(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)


@lru_cache(maxsize=256)
def _parsed(parse: Callable[[str], Any], raw: bytes) -> Any:
    """Parse; the blocks of a machine share a handful of texts."""
    return parse(text_of(raw))
