"""``/sys/devices/system/node``: which nodes there are, each node's ``meminfo`` and huge pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from altmap.errors import InputError
from altmap.linux import meminfo
from altmap.linux.lines import lines
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

__all__ = (
    "ROOT",
    "NodeFolder",
    "block_names",
    "no_such_block",
    "owns",
    "parse",
    "parse_list",
    "parse_meminfo",
    "render",
    "render_list",
    "render_meminfo",
)

ROOT = "sys/devices/system/node"

_LIST_PATH = re.compile(f"{ROOT}/(online|possible|has_[a-z_]+)")
_MEMINFO_PATH = re.compile(f"{ROOT}/node(0|[1-9][0-9]{{0,9}})/meminfo")
_HUGE_PAGES_PATH = re.compile(
    f"{ROOT}/node(0|[1-9][0-9]{{0,9}})/hugepages/"
    "(hugepages-[1-9][0-9]{0,9}kB/(?:nr|free|surplus)_hugepages)"
)
_COUNT = re.compile(r"[0-9]{1,16}\n?", re.ASCII)
_MEMINFO_LINE = re.compile(r"Node ([0-9]{1,10}) (.*)")
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_MAX_NODES = 1 << 16
#: Ranges of memory blocks that are named.
_SHOWN_BLOCKS = 4
# hugetlb_report_node_meminfo() leaves two columns less than /proc/meminfo has.
_COUNT_NAMES_END = 17

_FILE_PAGES = ("FileHugePages", "FilePmdMapped")
_FILE_PAGES_LINE = re.compile(rf"Node [0-9]+ (?:{'|'.join(_FILE_PAGES)}):( +)([0-9]+) kB")


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """``/sys/devices/system/node``.

    Attributes
    ----------
    lists : dict of str to tuple of int
        The list files (``online``, ``possible``, ...) by name.
    meminfo : dict of int to dict
        Each node's ``meminfo``: name to number as in the file, in file order.
    narrow_file_pages : bool
        Whether ``meminfo`` has ``FileHugePages`` and ``FilePmdMapped`` one column further left, as
        6.1 does and 6.12 does not. Not part of equality.
    huge_pages : dict of int to dict
        Each node's files below ``hugepages``, such as ``hugepages-2048kB/nr_hugepages``.
    """

    lists: dict[str, tuple[int, ...]]
    meminfo: dict[int, dict[str, int]] = field(default_factory=dict)
    narrow_file_pages: bool = field(default=False, compare=False)
    huge_pages: dict[int, dict[str, int]] = field(default_factory=dict)


def parse(sysroot: Reader) -> NodeFolder | None:
    """Return what the folder says, ``None`` if the sysroot has none of its files."""
    lists: dict[str, tuple[int, ...]] = {}
    tables: dict[int, dict[str, int]] = {}
    huge_pages: dict[int, dict[str, int]] = {}
    narrow = False
    for path in sorted(sysroot.files):
        if match := _LIST_PATH.fullmatch(path):
            ids = sysroot.parse(path, parse_list)
            lists |= {} if ids is None else {match[1]: ids}
        elif match := _MEMINFO_PATH.fullmatch(path):
            node = int(match[1])
            tables[node] = sysroot.parse(path, partial(parse_meminfo, node)) or {}
            narrow |= _is_narrow(sysroot.text(path) or "")
        elif match := _HUGE_PAGES_PATH.fullmatch(path):
            count = sysroot.parse(path, _parse_count)
            huge_pages.setdefault(int(match[1]), {}).update(
                {} if count is None else {match[2]: count}
            )
    return NodeFolder(lists, tables, narrow, huge_pages) if lists or tables else None


def render(folder: NodeFolder) -> Sysroot:
    """Return the folder's files."""
    sysroot = Sysroot()
    for name, nodes in folder.lists.items():
        sysroot.files[f"{ROOT}/{name}"] = render_list(nodes).encode()
    for node, table in folder.meminfo.items():
        text = render_meminfo(node, table, narrow_file_pages=folder.narrow_file_pages)
        sysroot.files[f"{ROOT}/node{node}/meminfo"] = text.encode()
    for node, counts in folder.huge_pages.items():
        for name, count in counts.items():
            sysroot.files[f"{ROOT}/node{node}/hugepages/{name}"] = f"{count}\n".encode()
    return sysroot


def owns(path: str, folder: NodeFolder) -> bool:
    """Tell whether *folder* replaces what another sysroot has at *path*."""
    if match := _LIST_PATH.fullmatch(path):
        return match[1] in folder.lists
    if match := _HUGE_PAGES_PATH.fullmatch(path):
        return match[2] in folder.huge_pages.get(int(match[1]), {})
    match = _MEMINFO_PATH.fullmatch(path)
    return match is not None and int(match[1]) in folder.meminfo


def _parse_count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise InputError(f"{text.strip()[:80]!r}: need a number of huge pages")
    return int(text)


def parse_list(text: str) -> tuple[int, ...]:
    """Return the ids of a list such as ``0-1,3``, none for an empty line."""
    ids: list[int] = []
    for word in filter(None, text.strip().split(",")):
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not (ids[-1] if ids else -1) < first <= last < _MAX_NODES:
            raise InputError(f"{text.strip()[:80]!r}: need ascending ids such as '0-1,3'")
        ids.extend(range(first, last + 1))
    return tuple(ids)


def render_list(ids: Iterable[int]) -> str:
    """Return the file that lists *ids*, ascending."""
    runs: list[list[int]] = []
    for nr in ids:
        if runs and nr == runs[-1][1] + 1:
            runs[-1][1] = nr
        else:
            runs.append([nr, nr])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs) + "\n"


def block_names(blocks: Iterable[int]) -> str:
    """Return memory blocks as ranges: ``memory32-39,41``; of many ranges the first and last."""
    ids = sorted(set(blocks))
    parts = render_list(ids).strip().split(",")
    if len(parts) > _SHOWN_BLOCKS:
        parts = [*parts[: _SHOWN_BLOCKS - 1], f"…,{parts[-1]} ({len(ids)} blocks)"]
    return f"memory{','.join(parts)}"


def no_such_block(where: str, nr: int, blocks: Iterable[int]) -> InputError:
    """Return the error that names a memory block that does not exist, and those that do."""
    rule = f"need one of {block_names(blocks)}"
    return InputError(f"{where}memory{nr}: there is no such memory block: {rule}")


def parse_meminfo(node: int, text: str) -> dict[str, int]:
    """Return the numbers of ``nodeN/meminfo`` by name, in file order."""
    table: dict[str, int] = {}
    for line in lines(text):
        match = _MEMINFO_LINE.fullmatch(line.text)
        if match is None or int(match[1]) != node:
            raise line.error(f"need 'Node {node} Name: number kB'")
        meminfo.parse_line(table, line, match[2])
    return table


def render_meminfo(node: int, table: dict[str, int], *, narrow_file_pages: bool = False) -> str:
    """Return ``nodeN/meminfo``, aligned as the kernel does."""
    texts = []
    for name, value in table.items():
        text = meminfo.format_line(name, value, _COUNT_NAMES_END)
        if narrow_file_pages and name in _FILE_PAGES:
            text = text.replace(": ", ":", 1)
        texts.append(f"Node {node} {text}\n")
    return "".join(texts)


def _is_narrow(text: str) -> bool:
    match = _FILE_PAGES_LINE.search(text)
    return match is not None and len(match[1]) == 1 + max(0, 8 - len(match[2]))
