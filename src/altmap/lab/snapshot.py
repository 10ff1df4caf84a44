"""Guests that have booted already: one boot per kernel, hardware and command line, then copies.

A guest's memory lives in files that it shares with the snapshot's folder while it boots. Stopped,
all but its memory is written beside them (``x-ignore-shared``). A copy maps the same files
privately, so that it starts at once, shares what it does not change, and changes nothing.

Effects: clock, files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from altmap.errors import InputError, LabError
from altmap.lab.accelerator import TCG, remembered_accelerator
from altmap.lab.guest import CMDLINE, Guest
from altmap.lab.initramfs import archive
from altmap.lab.kernels import KernelFiles, cache_folder, disk_errors
from altmap.lab.modules import module_files
from altmap.lab.process import qemu_version
from altmap.lab.qemu import GIB, Hardware, Ram
from altmap.storage.locks import locked

__all__ = ("booted",)

#: Larger guests boot each time: their files would fill the cache.
_MOST_MEMORY_BYTES = 8 * GIB
#: With less space than this, guests boot each time: a guest dies of memory that has no disk.
_LEAST_DISK_BYTES = 2 * GIB
#: Snapshots kept; each takes what its guest has written, some 150 MB. The tests have some sixty
#: guests: with fewer kept than are used in turn, each would boot again.
_MOST_SNAPSHOTS = 96
#: Where the disk has less space than this, so many snapshots are kept.
_AMPLE_DISK_BYTES = 24 * GIB
_FEW_SNAPSHOTS = 16
#: A disk is full with less than this: what a guest could not write may be larger than a page.
_FULL_BYTES = 1 << 20
_STATE = "state"
_SAVE_SECONDS = 60.0
_POLL_SECONDS = 0.02


@contextlib.contextmanager
def booted(
    kernel: KernelFiles,
    hardware: Hardware,
    cmdline: str,
    cache: Path | None = None,
    *,
    plugin: Path | None = None,
    reboots: bool = False,
) -> Iterator[Guest]:
    """Yield a guest that has booted: a copy of the snapshot for its configuration, made if needed.

    Parameters
    ----------
    kernel : KernelFiles
    hardware : Hardware
    cmdline : str
    cache : Path, optional
        Defaults to the user's cache folder.
    plugin : Path, optional
        As for :class:`Guest`; a snapshot is made without it.
    reboots : bool
        It will boot again, which a copy of a snapshot cannot.

    Raises
    ------
    LabError
        If the guest does not boot, or dies.
    """
    accelerator = remembered_accelerator(hardware.guest.family)
    cache = cache_folder() if cache is None else cache
    emulated = plugin is None or accelerator == TCG
    unfit = (
        reboots
        or not emulated
        or not hardware.guest.snapshots
        or hardware.memory_bytes > _MOST_MEMORY_BYTES
        or hardware.cxl  # QEMU's device does not save its state
        or hardware.written  # its memory is not in files
    )
    if accelerator is None or unfit or shutil.disk_usage(cache).free < _LEAST_DISK_BYTES:
        how = TCG if plugin else None
        with Guest(kernel, hardware, cmdline, how, plugin=plugin) as guest:
            yield guest
        return
    folder = cache / "snapshots" / _key(kernel, hardware, cmdline, accelerator)
    with contextlib.ExitStack() as stack:
        guest = _copy(kernel, hardware, cmdline, folder, plugin)
        try:
            stack.enter_context(guest)
        except LabError:
            # Damaged, or dropped by another run a moment ago.
            shutil.rmtree(folder, ignore_errors=True)
            guest = stack.enter_context(_copy(kernel, hardware, cmdline, folder, plugin))
        yield guest


def _key(kernel: KernelFiles, hardware: Hardware, cmdline: str, accelerator: str) -> str:
    what = [
        kernel.versions,
        kernel.vmlinuz.stat().st_mtime_ns,
        asdict(hardware),
        CMDLINE,
        cmdline,
        accelerator,
        qemu_version(hardware.guest),
        hashlib.sha256(archive(kernel.busybox, module_files(kernel))).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def _copy(
    kernel: KernelFiles, hardware: Hardware, cmdline: str, folder: Path, plugin: Path | None
) -> Guest:
    """Return a copy of the snapshot, not yet entered; make the snapshot if there is none."""
    state = folder / _STATE
    with disk_errors(folder.parent, "a snapshot (about 200 MB)"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        with locked(folder.with_suffix(".lock")):
            if not state.exists():
                _make(kernel, hardware, cmdline, folder)
        folder.touch()  # the least recently used is dropped first
    return Guest(kernel, hardware, cmdline, ram=Ram(folder), state=state, plugin=plugin)


def _make(kernel: KernelFiles, hardware: Hardware, cmdline: str, folder: Path) -> None:
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
    try:
        new.mkdir()
        with Guest(kernel, hardware, cmdline, ram=Ram(new, kept=True)) as guest:
            _save(guest, new / _STATE)
        _drop_oldest(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    except LabError as error:
        # A guest whose memory has no disk dies by a signal, which tells nobody why.
        if shutil.disk_usage(folder.parent).free < _FULL_BYTES:
            raise LabError(f"no space left for a snapshot in {folder.parent}") from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _remove_leftovers(cache: Path) -> None:
    """Remove what runs left that were killed while they made a snapshot: their lock is free."""
    for new in cache.glob("*.new"):
        with contextlib.suppress(InputError), locked(new.with_suffix(".lock"), "in use"):
            shutil.rmtree(new, ignore_errors=True)


def _save(guest: Guest, state: Path) -> None:
    guest.qmp.execute("stop")
    guest.qmp.execute(
        "migrate-set-capabilities",
        capabilities=[{"capability": "x-ignore-shared", "state": True}],
    )
    guest.qmp.execute("migrate", uri=f"exec:cat >{shlex.quote(str(state))}")
    deadline = time.monotonic() + _SAVE_SECONDS
    while (status := guest.qmp.execute("query-migrate").get("status")) != "completed":
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            raise LabError(f"snapshot of a guest: QEMU says {status!r}", guest.console())
        time.sleep(_POLL_SECONDS)


def _drop_oldest(cache: Path) -> None:
    """Drop the least recently used, so that there is room for one more."""
    ample = shutil.disk_usage(cache).free >= _AMPLE_DISK_BYTES
    most = _MOST_SNAPSHOTS if ample else _FEW_SNAPSHOTS
    kept = sorted(cache.glob("*/" + _STATE), key=lambda state: state.parent.stat().st_mtime)
    for state in kept[: -most + 1]:
        # Guests that run from it keep the files mapped.
        shutil.rmtree(state.parent, ignore_errors=True)
        state.parent.with_suffix(".lock").unlink(missing_ok=True)
