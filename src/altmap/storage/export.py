"""Traces on disk: one sysroot for each step, and ``trace.json``.

Effects: files.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.linux.sysroot import Sysroot
from altmap.trace import Trace

__all__ = ("check_export_folder", "export", "trace_json")


def trace_json(*traces: Trace) -> str:
    """Return a trace as JSON text, several as an array; observations are left out."""
    made = [trace.to_builtins() for trace in traces]
    raw = msgspec.json.encode(made[0] if len(made) == 1 else made)
    return msgspec.json.format(raw, indent=2).decode() + "\n"


def check_export_folder(folder: Path) -> None:
    """Check that traces can be exported to a folder: it is new, or empty.

    Raises
    ------
    InputError
        Naming the folder and what it is instead.
    """
    with _errors_name(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"export folder {folder}: is not a folder")
        if any(folder.iterdir()):
            raise InputError(f"export folder {folder}: is not empty")


def export(traces: Mapping[str, Trace], folder: Path, base: Sysroot | None = None) -> None:
    """Write ``NN-<step>/`` with ``proc/`` and ``sys/`` for each step, and ``trace.json``.

    A step without an observation (the kernel had crashed) has no folder.

    Parameters
    ----------
    traces : mapping of str to Trace
        By the folder below *folder* that a trace gets; ``""`` is *folder* itself.
    folder : Path
        New or empty. It appears complete or not at all.
    base : Sysroot, optional
        The captured sysroot that the traces started from; what the model does not know of it is
        carried over unchanged.

    Raises
    ------
    InputError
        If the folder is not empty, or cannot be written.
    """
    check_export_folder(folder)
    made_parents = [parent for parent in folder.parents if not parent.exists()]
    try:
        with _errors_name(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".altmap-") as name:
                new = Path(name) / "export"
                for sub, trace in traces.items():
                    _write(trace, new / sub, base)
                if folder.exists():
                    folder.rmdir()
                new.rename(folder)
    except InputError:
        with contextlib.suppress(OSError):
            for parent in made_parents:
                parent.rmdir()
        raise


def _write(trace: Trace, folder: Path, base: Sysroot | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for step_folder, step in zip(trace.folder_names(), trace.steps, strict=True):
        if step.observation is not None:
            step.observation.render(base).write(folder / step_folder)
    (folder / "trace.json").write_text(trace_json(trace), encoding="utf-8")


@contextlib.contextmanager
def _errors_name(folder: Path) -> Iterator[None]:
    """Name the folder that was asked for in whatever goes wrong below it."""
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or str(cause)
        raise InputError(f"export folder {folder}: {reason}") from error
