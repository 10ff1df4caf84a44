"""Traces on disk: one sysroot for each step, and ``trace.json``.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from altmap.linux.sysroot import Sysroot
from altmap.storage.files import new_folder
from altmap.trace import Trace

__all__ = ("export", "trace_json")


def trace_json(*traces: Trace) -> str:
    """Return a trace as JSON text, several as an array; observations are left out."""
    made = [trace.to_builtins() for trace in traces]
    raw = msgspec.json.encode(made[0] if len(made) == 1 else made)
    return msgspec.json.format(raw, indent=2).decode() + "\n"


def export(traces: Mapping[str, Trace], folder: Path, base: Sysroot | None = None) -> None:
    """Write ``NN-<step>/`` with ``proc/`` and ``sys/`` for each step, and ``trace.json``.

    A step that ended in a fault has no folder: the kernel had crashed.

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
    with new_folder(folder) as draft:
        for sub, trace in traces.items():
            _write(trace, draft / sub, base)


def _write(trace: Trace, folder: Path, base: Sysroot | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for step_folder, step in zip(trace.folder_names(), trace.steps, strict=True):
        if step.observation is not None:
            step.observation.render(base).write(folder / step_folder)
    (folder / "trace.json").write_text(trace_json(trace), encoding="utf-8")
