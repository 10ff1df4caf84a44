"""``/sys/devices/system/memory``: the memory blocks, and their links to and from nodes.

``online`` and ``phys_index`` of a block say nothing that its state and id do not; they are checked
or ignored when read and derived when rendered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from altmap.errors import InputError
from altmap.linux import lsmem
from altmap.linux.lines import Line
from altmap.linux.paths import is_lsmem
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

__all__ = (
    "ROOT",
    "Block",
    "MemoryFolder",
    "block_files",
    "owns",
    "parse",
    "parse_block_size",
    "parse_online",
    "parse_removable",
    "parse_state",
    "parse_zones",
    "render",
)

ROOT = "sys/devices/system/memory"
_NODE_ROOT = "sys/devices/system/node"

_ID = "(0|[1-9][0-9]{0,14})"
_BLOCK = re.compile(f"{ROOT}/memory{_ID}")
_BLOCK_PATH = re.compile(f"{ROOT}/memory{_ID}/(.+)")
_NODE_LINK = re.compile(f"{ROOT}/memory{_ID}/node{_ID}")
_BACK_LINK = re.compile(f"{_NODE_ROOT}/node{_ID}/memory{_ID}")
_HEX = re.compile(r"[0-9a-f]{1,16}")

_BLOCK_FILES = ("state", "online", "phys_index", "phys_device", "removable", "valid_zones")
_STATES = ("online", "offline", "going-offline")


@dataclass(frozen=True, slots=True)
class Block:
    """One ``/sys/devices/system/memory/memoryN``; a file that is missing is ``None``."""

    state: str
    phys_device: int | None = None
    removable: bool | None = None
    valid_zones: tuple[str, ...] | None = None
    nodes: tuple[int, ...] = ()
    firmware_node: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryFolder:
    """``/sys/devices/system/memory``: blocks by id, and the folder's own files."""

    block_size_bytes: int
    auto_online_blocks: str | None
    blocks: dict[int, Block]


def parse(sysroot: Reader) -> MemoryFolder | None:
    """Return what the folder says, ``None`` if the sysroot has no memory blocks at all.

    Without the folder, what lsmem printed stands for it, as in an archive of sos. Blocks whose
    state neither ``state`` nor ``online`` tells are left out.

    Raises
    ------
    InputError
        If the blocks' size is not known.
    """
    ids = _block_ids(sysroot)
    size_bytes = sysroot.parse(f"{ROOT}/block_size_bytes", parse_block_size)
    if size_bytes is None:
        if ids:
            raise InputError(f"{ROOT}/block_size_bytes: need this file beside memory blocks")
        return _parse_lsmem(sysroot)
    nodes = _nodes_by_block(sysroot)
    return MemoryFolder(
        size_bytes,
        sysroot.parse(f"{ROOT}/auto_online_blocks", _parse_word),
        {
            nr: block
            for nr in ids
            if (block := _parse_block(sysroot, nr, nodes.get(nr, set()))) is not None
        },
    )


def _parse_lsmem(sysroot: Reader) -> MemoryFolder | None:
    path = next(filter(is_lsmem, sysroot.files), None)
    rows = sysroot.parse(path, lsmem.parse) if path is not None else None
    if path is None or not rows:
        return None
    size = rows[0].block_size_bytes
    if size & (size - 1):
        raise InputError(f"{path}: blocks of {size} bytes: need a power of two")
    blocks: dict[int, Block] = {}
    for row in rows:
        if row.state not in _STATES:
            raise InputError(f"{path}: {row.state[:80]!r}: need one of {', '.join(_STATES)}")
        nodes = () if row.node is None else (row.node,)
        block = Block(row.state, None, row.removable, row.zones, nodes)
        blocks |= dict.fromkeys(range(row.first, row.last + 1), block)
    return MemoryFolder(size, None, blocks)


def render(folder: MemoryFolder) -> Sysroot:
    """Return the folder's files and links, and the nodes' links back."""
    sysroot = Sysroot()
    sysroot.files[f"{ROOT}/block_size_bytes"] = b"%x\n" % folder.block_size_bytes
    if folder.auto_online_blocks is not None:
        sysroot.files[f"{ROOT}/auto_online_blocks"] = f"{folder.auto_online_blocks}\n".encode()
    for nr, block in folder.blocks.items():
        base = f"{ROOT}/memory{nr}"
        for name, text in block_files(nr, block):
            sysroot.files[f"{base}/{name}"] = f"{text}\n".encode()
        for node in block.nodes:
            sysroot.links[f"{base}/node{node}"] = f"../../node/node{node}"
            sysroot.links[f"{_NODE_ROOT}/node{node}/memory{nr}"] = f"../../memory/memory{nr}"
        if block.firmware_node is not None:
            sysroot.links[f"{base}/firmware_node"] = block.firmware_node
    return sysroot


def owns(path: str, folder: MemoryFolder) -> bool:
    """Tell whether *folder* replaces what another sysroot has at *path*.

    It replaces what it can state, and everything of a block that it does not have.
    """
    if path in (f"{ROOT}/block_size_bytes", f"{ROOT}/auto_online_blocks"):
        return path.endswith("size_bytes") or folder.auto_online_blocks is not None
    if _BACK_LINK.fullmatch(path) or is_lsmem(path):
        return True
    match = _BLOCK_PATH.fullmatch(path)
    if match is None:
        return False
    stated = match[2] in (*_BLOCK_FILES, "firmware_node") or _NODE_LINK.fullmatch(path)
    return bool(stated) or int(match[1]) not in folder.blocks


def _block_ids(sysroot: Reader) -> list[int]:
    for path in (*sysroot.files, *sysroot.links):
        if _BLOCK.fullmatch(path):
            raise InputError(f"{path}: need a folder")
    matches = map(_BLOCK_PATH.fullmatch, sysroot.files)
    return sorted({int(match[1]) for match in matches if match and match[2] in _BLOCK_FILES})


def _nodes_by_block(sysroot: Reader) -> dict[int, set[int]]:
    nodes: dict[int, set[int]] = {}
    for path in sysroot.links:
        if match := _NODE_LINK.fullmatch(path):
            nodes.setdefault(int(match[1]), set()).add(int(match[2]))
        elif match := _BACK_LINK.fullmatch(path):
            nodes.setdefault(int(match[2]), set()).add(int(match[1]))
    return nodes


def _parse_block(sysroot: Reader, nr: int, nodes: set[int]) -> Block | None:
    base = f"{ROOT}/memory{nr}"
    state = sysroot.parse(f"{base}/state", parse_state)
    if state is None:
        sysroot.problems.add(f"{base}/state", "need this file in every memory block")
        state = sysroot.parse(f"{base}/online", parse_online)
    if state is None:
        return None
    sysroot.parse(f"{base}/phys_index", partial(_check_phys_index, nr))
    return Block(
        state,
        sysroot.parse(f"{base}/phys_device", _parse_phys_device),
        sysroot.parse(f"{base}/removable", parse_removable),
        sysroot.parse(f"{base}/valid_zones", parse_zones),
        tuple(sorted(nodes)),
        sysroot.links.get(f"{base}/firmware_node"),
    )


def parse_block_size(text: str) -> int:
    """Return the bytes that ``block_size_bytes`` says."""
    word = _parse_word(text)
    value = int(word, 16) if _HEX.fullmatch(word) else 0
    if not value or value & (value - 1):
        raise InputError(f"{word[:80]!r}: need a power of two in hex")
    return value


def _parse_word(text: str) -> str:
    return text.removesuffix("\n")


def parse_state(text: str) -> str:
    """Return the word of a block's ``state``."""
    word = _parse_word(text)
    if word not in _STATES:
        raise InputError(f"{word[:80]!r}: need one of {', '.join(_STATES)}")
    return word


def parse_online(text: str) -> str:
    """Return the state that a block's ``online`` stands for (``drivers/base/core.c: online_show``).

    A block that is going offline counts as online.
    """
    return "online" if parse_removable(text) else "offline"


def _check_phys_index(nr: int, text: str) -> None:
    word = _parse_word(text)
    if not _HEX.fullmatch(word) or int(word, 16) != nr:
        raise InputError(f"{word[:80]!r}: need {nr:08x}, as the folder's name says")


def _parse_phys_device(text: str) -> int:
    word = _parse_word(text)
    return Line(1, word).number(word)


def parse_removable(text: str) -> bool:
    """Return what a block's ``removable`` says."""
    word = _parse_word(text)
    if word not in ("0", "1"):
        raise InputError(f"{word[:80]!r}: need 0 or 1")
    return word == "1"


def parse_zones(text: str) -> tuple[str, ...]:
    """Return the names in a block's ``valid_zones``."""
    return tuple(text.split())


def block_files(nr: int, block: Block) -> Iterator[tuple[str, str]]:
    """Yield the names of a block's files with what each shows, without the newline."""
    yield "online", "0" if block.state == "offline" else "1"
    yield "phys_index", f"{nr:08x}"
    yield "state", block.state
    if block.phys_device is not None:
        yield "phys_device", str(block.phys_device)
    if block.removable is not None:
        yield "removable", "1" if block.removable else "0"
    if block.valid_zones is not None:
        yield "valid_zones", " ".join(block.valid_zones)
