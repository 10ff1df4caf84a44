"""A trace on disk: one sysroot for each step, and ``trace.json``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.linux.sysroot import Sysroot
from altmap.trace import Trace

__all__ = ("export", "trace_json")


def trace_json(trace: Trace) -> str:
    """Return the trace as JSON text, observations left out."""
    return msgspec.json.format(msgspec.json.encode(trace.to_builtins()), indent=2).decode() + "\n"


def export(trace: Trace, folder: Path, base: Sysroot | None = None) -> None:
    """Write ``NN-<step>/`` with ``proc/`` and ``sys/`` for each step, and ``trace.json``.

    A step after which nobody could look (the kernel was dead) has no folder.

    Parameters
    ----------
    trace : Trace
    folder : Path
        New or empty. It appears complete or not at all.
    base : Sysroot, optional
        The captured sysroot that the trace started from; what the model does not know of it is
        carried over unchanged.

    Raises
    ------
    InputError
        If the folder is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"export folder {folder}: exists already and is not empty")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".altmap-") as name:
            new = Path(name) / "export"
            new.mkdir()
            for step_folder, step in zip(trace.folder_names(), trace.steps, strict=True):
                if step.observation is not None:
                    step.observation.render(base).write(new / step_folder)
            (new / "trace.json").write_text(trace_json(trace), encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            shutil.move(new, folder)
    except OSError as error:
        raise InputError(f"export folder {folder}: {error.strerror or error}") from error
