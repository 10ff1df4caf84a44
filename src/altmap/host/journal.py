"""The journal of an apply: what was intended and what came of it, on disk before the next step.

Each line is JSON; a line that was cut off by a crash is the last one, and counts as not written.

Effects: files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from altmap.errors import AltmapError, InputError
from altmap.storage.lines import LineFile

__all__ = ("Entry", "Journal")


class Entry(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """One line.

    Attributes
    ----------
    event : str
        ``begin``, then for each write ``intend`` and ``done``; ``end`` when the apply is over.
    step : int
        Number of the plan's step, from 1; 0 where none is meant.
    undo : bool
        The write takes the step back.
    path, value : str
        What is written where.
    errno : str or None
        How the kernel refused, of a ``done``.
    found : str
        What differed from the prediction, empty if nothing did; of an ``end`` the result.
    plan : str
        Hash of the plan, in ``begin``.
    boot_id : str
        Which boot of the machine, in ``begin``.
    """

    event: Literal["begin", "intend", "done", "end"]
    step: int = 0
    undo: bool = False
    path: str = ""
    value: str = ""
    errno: str | None = None
    found: str = ""
    plan: str = ""
    boot_id: str = ""
    schema: str = "altmap-journal"
    version: int = 1


class Journal:
    """A journal file, locked against a second apply while it is open.

    Parameters
    ----------
    path : Path
    new : bool
        Whether it must not be there yet, or must.

    Raises
    ------
    InputError
        If it is or is not there, is no journal, or another apply has it open.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self._path = path
        flags = os.O_CREAT | os.O_EXCL if new else 0
        busy = f"journal {path}: another apply is at work on it"
        try:
            self._file = LineFile(path, busy, flags=flags, mode=0o600)
        except FileExistsError as error:
            raise InputError(
                f"journal {path}: is there already: --resume or --rollback what it began, or "
                "remove it"
            ) from error
        except OSError as error:
            raise InputError(f"journal {path}: {error.strerror}") from error
        try:
            self.entries = [] if new else self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Append an entry; it is on disk when this returns."""
        try:
            self._file.add(msgspec.json.encode(entry))
        except OSError as error:
            raise AltmapError(f"journal {self._path}: {error.strerror}") from error
        self.entries.append(entry)

    def _read(self) -> list[Entry]:
        entries = []
        for nr, line in enumerate(self._file.lines, start=1):
            try:
                entries.append(msgspec.json.decode(line, type=Entry))
            except msgspec.MsgspecError as error:
                raise InputError(f"journal {self._path}: line {nr}: {error}") from error
        if not entries or entries[0].event != "begin":
            raise InputError(f"journal {self._path}: need a line 'begin' first")
        return entries
