"""The process behind a mounted machine: it serves files and requests until it is told to end.

Effects: clock, environment, files, network, processes, randomness.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from altmap.errors import InputError
from altmap.live.attribute import Attribute
from altmap.live.control import controlled
from altmap.live.filesystem import LiveFiles, Recorder
from altmap.live.machine import LiveMachine
from altmap.live.tree import Tree

__all__ = ("MARKER", "TOKEN", "check_tools", "serve")

#: A file that says that this is a modelled machine, and which one.
MARKER = "sys/altmap"
TOKEN = "altmap/token"
_FUSERMOUNT = "fusermount3"
_NEEDS = "needs FUSE 3 (Debian: apt install fuse3) and mfusepy (pip install altmap[mount])"


def check_tools() -> None:
    """Check that a file system can be mounted here.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    try:
        import mfusepy  # type: ignore[import-untyped]
    except ImportError as error:  # the package, or libfuse that it loads
        raise InputError(f"mount: {error}: {_NEEDS}") from error
    if mfusepy.fuse_version_major != 3:
        raise InputError(f"mount: libfuse is of version {mfusepy.fuse_version_major}: {_NEEDS}")
    if shutil.which(_FUSERMOUNT) is None:
        raise InputError(f"mount: {_FUSERMOUNT} is missing: {_NEEDS}")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise InputError("mount: /dev/fuse cannot be opened: need the kernel's module fuse")


def serve(
    machine: LiveMachine,
    folder: Path,
    ready: Callable[[], None],
    record: Path | None = None,
    *,
    until_eof: bool = False,
) -> None:
    """Mount a machine at a folder, until SIGTERM, SIGINT or an unmount.

    Parameters
    ----------
    machine : LiveMachine
    folder : Path
        An empty folder. What a server that was killed left mounted there is unmounted first.
    ready : callable
        Called once when the files can be read.
    record : Path, optional
        Gets one line of JSON for each read and write.
    until_eof : bool
        End when standard input does, too.

    Raises
    ------
    InputError
        If the folder cannot be mounted on.
    """
    check_tools()
    import mfusepy

    _clean(folder)
    lock = threading.RLock()
    with _socket_path() as path, _recorder(record) as recorder, controlled(machine, path, lock):
        tree = Tree(machine, _extra_files(machine, path))
        files = LiveFiles(machine, tree, lock, recorder, ready)
        if until_eof:
            threading.Thread(target=_end_with_input, daemon=True).start()
        try:
            mfusepy.FUSE(
                files,
                str(folder),
                foreground=True,
                nothreads=True,
                auto_unmount=True,
                fsname="altmap",
                subtype="altmap",
            )
        except RuntimeError as error:
            if not files.is_ready:  # libfuse has said why; later it only tells which signal came
                raise InputError(f"{folder}: cannot be mounted on") from error


def _end_with_input() -> None:
    """Send SIGTERM to this process when standard input ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _extra_files(machine: LiveMachine, path: Path) -> dict[str, Attribute]:
    token = f"{secrets.token_hex(16)}\n".encode()
    return {
        "altmap/socket": Attribute(lambda: f"{path}\n".encode()),
        "altmap/log": Attribute(lambda: _text(machine.log)),
        "altmap/uevents": Attribute(lambda: _text(machine.uevents)),
        "altmap/absent": Attribute(),
        TOKEN: Attribute(lambda: token),
        MARKER: Attribute(lambda: token),
    }


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _clean(folder: Path) -> None:
    """Unmount what a killed server left, and check that the folder is an empty one."""
    try:
        names = list(folder.iterdir())
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise InputError(f"{folder}: {error.strerror}: need an empty folder") from error
        subprocess.run((_FUSERMOUNT, "-u", "-z", "--", str(folder)), check=False)
        names = list(folder.iterdir())
    if names:
        raise InputError(f"{folder}: is not empty: need an empty folder")


@contextmanager
def _socket_path() -> Iterator[Path]:
    """Yield where the socket of this process is; what killed servers left is removed."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    prefix = f"altmap-{os.geteuid()}-"
    for left in folder.glob(f"{prefix}*.socket"):
        if not _answers(left):
            with contextlib.suppress(OSError):
                left.unlink()
    yield folder / f"{prefix}{os.getpid()}.socket"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


@contextmanager
def _recorder(into: Path | None) -> Iterator[Recorder | None]:
    """Yield what appends to a file of JSON lines."""
    if into is None:
        yield None
        return
    try:
        file = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"{into}: {error.strerror}") from error

    def record(operation: str, path: str, data: bytes, answer: int | str) -> None:
        line = {
            "time_seconds": round(time.time(), 6),
            "operation": operation,
            "path": path,
            "text": data.decode("utf-8", "backslashreplace"),
            "answer": answer,
        }
        os.write(file, json.dumps(line).encode() + b"\n")

    try:
        yield record
    finally:
        os.close(file)
