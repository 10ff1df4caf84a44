"""The lab's plugin for QEMU, which tells the page frames that a guest's kernel reads and writes.

Its source is ``qemu_plugin/touches.c``. It is compiled once for each version of QEMU.

Effects: files, processes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources as resources
import mmap
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from altmap.errors import InputError, LabError
from altmap.lab.arches import GUESTS, GuestArch
from altmap.lab.kernels import cache_folder, disk_errors
from altmap.lab.qemu import Hardware
from altmap.lab.tools import first_error

__all__ = ("TouchFiles", "build_plugin", "plugin_for")

_SOURCE = "touches.c"
_FLAGS = ("-O2", "-Wall", "-shared", "-fPIC")
#: QEMU refuses plugins of interface versions that it does not know any more, or not yet.
_NEW_INTERFACE = 9
_VERSION = re.compile(r"version (\d+)\.")
#: struct control of the plugin: the guest runs while it is written, so the epoch is one store.
_EPOCH, _ADDRESSES = struct.Struct("<I"), struct.Struct("<IQQ")
_CONTROL_BYTES = _EPOCH.size + _ADDRESSES.size


def plugin_for(hardware: Hardware, version: str) -> Path:
    """Return the plugin for a guest of such hardware.

    Raises
    ------
    InputError
        If no such guest tells what it touches.
    LabError
        As :func:`build_plugin`.
    """
    guest = hardware.guest
    if not guest.tells_touches or hardware.dom0_bytes:
        possible = ", ".join(each.name for each in GUESTS.values() if each.tells_touches)
        raise InputError(f"touched frames: told of {possible} only, and not under Xen")
    return build_plugin(guest, version)


def build_plugin(guest: GuestArch, version: str, cache: Path | None = None) -> Path:
    """Return the plugin for a version of QEMU, compiled if the cache does not have it.

    Parameters
    ----------
    guest : GuestArch
    version : str
        What QEMU says of its version.
    cache : Path, optional
        Defaults to the user's cache folder.

    Raises
    ------
    LabError
        If this QEMU takes no plugins, or the compiler is missing or fails.
    """
    if not _takes_plugins(shutil.which(guest.program) or guest.program):
        raise LabError(f"{version}: takes no plugins; built without CONFIG_PLUGIN")
    cache = cache_folder() if cache is None else cache
    source = resources.files(__package__).joinpath("qemu_plugin", _SOURCE).read_bytes()
    digest = hashlib.sha256(repr((version, _FLAGS, source)).encode()).hexdigest()[:24]
    target = cache / "plugins" / f"{digest}.so"
    if target.is_file():
        return target
    if shutil.which("gcc") is None:
        raise LabError("gcc is missing: a plugin for QEMU is compiled here: apt install gcc")
    with disk_errors(cache, "a plugin for QEMU"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            place = Path(work)
            (place / _SOURCE).write_bytes(source)
            command = ["gcc", *_FLAGS, f"-DINTERFACE_VERSION={_interface(version)}"]
            _run([*command, "-o", "plugin.so", _SOURCE], place)
            (place / "plugin.so").replace(target)
    return target


@functools.lru_cache
def _takes_plugins(program: str) -> bool:
    """Ask QEMU's help; QEMU without plugins does not know the option."""
    known = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    return "\n-plugin " in known.stdout


def _interface(version: str) -> int:
    found = _VERSION.search(version)
    return 2 if found and int(found[1]) >= _NEW_INTERFACE else 1


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise LabError(f"the plugin for QEMU cannot be compiled: gcc: {first_error(done.stderr)}")


class TouchFiles:
    """What a plugin in a running QEMU writes to and is controlled by.

    Parameters
    ----------
    plugin : Path
    lines : file
        Empty, of no name; the plugin writes to it.
    stack : ExitStack
        Closes what is opened here.
    """

    def __init__(self, plugin: Path, lines: IO[bytes], stack: contextlib.ExitStack) -> None:
        self._plugin = plugin
        self.lines = lines
        self.control = tempfile.TemporaryFile()  # noqa: SIM115 -- the stack closes it
        stack.enter_context(self.control)
        self.control.truncate(mmap.PAGESIZE)
        self._shared = mmap.mmap(self.control.fileno(), mmap.PAGESIZE)
        stack.enter_context(self._shared)
        self._epoch = 0

    def arguments(self) -> list[str]:
        """Return QEMU's arguments; both files are handed over as descriptors."""
        out, control = self.lines.fileno(), self.control.fileno()
        # A comma in a path is written twice.
        path = str(self._plugin).replace(",", ",,")
        return ["-plugin", f"{path},out={out},control={control}"]

    def begin(self, first_ram: int, first_io: int) -> int:
        """Begin an epoch: from now on, every access counts as the first again; return its number.

        Parameters
        ----------
        first_ram, first_io : int
            The first addresses that count, of memory and of what is not backed, as QEMU tells them.
        """
        self.end()
        self._epoch += 1
        self._shared[_EPOCH.size : _CONTROL_BYTES] = _ADDRESSES.pack(0, first_ram, first_io)
        self._shared[: _EPOCH.size] = _EPOCH.pack(self._epoch)
        return self._epoch

    def end(self) -> None:
        """End the epoch: nothing counts until the next one."""
        self._shared[: _EPOCH.size] = _EPOCH.pack(0)
