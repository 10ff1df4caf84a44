"""What a file is that a command cannot read, and the command that reads it.

Effects: files.
"""

from __future__ import annotations

import argparse
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from altmap.errors import nearest

__all__ = ("FILE_KINDS", "LOG_LINE", "FileKind", "file_head", "instead", "kind_of")

_HEAD_BYTES = 1 << 14
#: Files of a folder among which the nearest name is looked for.
_MOST_NEIGHBOURS = 10_000
_M = re.MULTILINE
LOG_LINE = "altmap explain --log FILE"


class FileKind(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    name : str
        What a message calls it.
    pattern : re.Pattern
        Is found in the first bytes of such a file.
    readers : tuple of str
        Commands that read it; the first is the one that a message names.
    line : str
        What to type, ``FILE`` being the file.
    """

    name: str
    pattern: re.Pattern[str]
    readers: tuple[str, ...]
    line: str


_SYSROOTS = ("account", "ls", "explain", "plan", "snapshot", "export", "report", "mount", "shell")
_ON_MACHINE = "altmap snapshot, on the machine itself, packs what altmap reads"

#: The first that matches is taken.
FILE_KINDS: tuple[FileKind, ...] = (
    FileKind(
        "a domain XML of libvirt",
        re.compile(r"<domain(?:\s[^>]*)?>|<domainsnapshot\b"),
        ("vm",),
        "altmap vm FILE",
    ),
    FileKind(
        "a .vmx file of VMware",
        re.compile(
            r"^\.encoding *=|^config\.version *=|^virtualHW\.version *=", _M | re.IGNORECASE
        ),
        ("vm",),
        "altmap vm FILE",
    ),
    FileKind(
        "a command line of QEMU",
        re.compile(r"\bqemu-(?:system|kvm)\S*\s"),
        ("vm",),
        "altmap vm FILE",
    ),
    FileKind(
        "a plan of altmap",
        re.compile(r'"schema": *"altmap-plan"'),
        ("apply",),
        "altmap apply FILE",
    ),
    FileKind(
        "a result of altmap",
        re.compile(r'"schema": *"altmap-(?:trace|comparison)"'),
        ("report",),
        "altmap report FILE",
    ),
    FileKind(
        "JSON of daxctl",
        re.compile(r'\A\s*[\[{](?s:.)*"(?:chardev|daxregion_id|dax_region)"\s*:'),
        (),
        _ON_MACHINE,
    ),
    FileKind(
        "JSON of lsmem",
        re.compile(r'\A\s*\{\s*"memory"\s*:\s*\['),
        (),
        _ON_MACHINE,
    ),
    FileKind(
        "what lsmem prints",
        re.compile(r"\A\s*RANGE\s+SIZE\b|^Memory block size: ", _M),
        (),
        _ON_MACHINE,
    ),
    FileKind(
        "a kernel's log",
        re.compile(r"^(?:<[0-9]+>)?\[ *[0-9]+\.[0-9]+\] |^\S.* kernel: ", _M),
        ("explain",),
        LOG_LINE,
    ),
    FileKind(
        "a file of /proc",
        re.compile(r"\AMemTotal: +[0-9]+ kB|\ANode 0, zone "),
        (),
        "a sysroot is the folder that has proc and sys",
    ),
    FileKind(
        "an exploration",
        re.compile(r"^\[operations\]", _M),
        ("explore",),
        "altmap explore FILE",
    ),
    FileKind(
        "a grid", re.compile(r"^\[(?:requests|fleet)\]", _M), ("sweep",), "altmap sweep FILE -o DIR"
    ),
    FileKind(
        "cases of conform", re.compile(r"^\[\[case\]\]", _M), ("conform",), "altmap conform FILE"
    ),
    FileKind(
        "a scenario",
        re.compile(r"^\[machine\]|^\[\[steps\]\]", _M),
        ("run", "account", "report", "compare", "record", "mount", "shell", "explore", "sweep"),
        "altmap run FILE",
    ),
)
_OR_FROM = "altmap report FILE, or altmap run SCENARIO --from FILE"
_ARCHIVE = FileKind("an archive", re.compile(""), _SYSROOTS, _OR_FROM)
_FOLDER = FileKind("a folder", re.compile(""), _SYSROOTS, _OR_FROM)
#: gzip, bzip2, xz; a tar's mark is further back.
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_TAR_MARK = slice(257, 262)


def kind_of(raw: bytes) -> FileKind | None:
    """Return the kind of file that begins with these bytes, ``None`` if none is known."""
    if raw.startswith(_PACKED) or raw[_TAR_MARK] == b"ustar":
        return _ARCHIVE
    text = raw.decode("utf-8", errors="replace")
    return next((kind for kind in FILE_KINDS if kind.pattern.search(text)), None)


def instead(message: str, args: argparse.Namespace, called: str) -> str:
    """Return the end of a message: what the file is that it is about, and what reads it.

    Parameters
    ----------
    message : str
        Of an error; a file of the arguments is looked at if the message names it.
    args : argparse.Namespace
    called : str
        The command: nothing is said if it reads such files.
    """
    for path in _paths(args):
        if f"{path}: " in message and message.endswith("No such file or directory"):
            near = _neighbour(path)
            return "" if near is None else f"; did you mean {str(near)!r}?"
    for path in filter(_is_there, _paths(args)):
        if not re.search(rf"(?<![\w/.]){re.escape(str(path))}(?![\w/])", message):
            continue
        kind = _FOLDER if path.is_dir() else kind_of(file_head(path))
        if kind is not None and called.split()[0] not in kind.readers:
            return f"; it is {kind.name}: {kind.line.replace('FILE', str(path))}"
    return ""


#: Arguments that name what a command writes.
_WRITTEN = ("export", "keep", "output", "report", "rows", "textfile", "write")


def _paths(args: argparse.Namespace) -> Iterator[Path]:
    """Yield the arguments that may name what is read."""
    for name, value in vars(args).items():
        if name in _WRITTEN:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str | Path):
                yield Path(each)


def _neighbour(path: Path) -> Path | None:
    """Return the file of the same folder whose name is nearest, if one is like it."""
    try:
        names = [each.name for each in islice(path.parent.iterdir(), _MOST_NEIGHBOURS)]
    except (OSError, ValueError):
        return None
    near = nearest(path.name, names)
    return None if near is None else path.parent / near


def _is_there(path: Path) -> bool:
    """Tell whether it can be opened without waiting: a file or a folder."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def file_head(path: Path) -> bytes:
    """Return the first bytes of a file, none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
