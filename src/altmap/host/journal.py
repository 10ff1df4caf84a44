"""The journal of an apply: what was intended and what came of it, on disk before the next step.

Each line is JSON; a line that was cut off by a crash is the last one, and counts as not written.

Effects: files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from altmap.errors import AltmapError, InputError
from altmap.storage.json_files import decode_json
from altmap.storage.lines import LineFile

__all__ = ("Entry", "Journal", "JournalError", "check_order")

#: How the first line of every journal starts, as :class:`Entry` is encoded.
_FIRST = b'{"event":"begin","plan":"'


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


class JournalError(AltmapError):
    """A line could not be written: what was begun can be continued when there is space again."""


class Journal:
    """A journal file, locked against a second apply while it is open.

    Nothing in the file is changed before an entry is added.

    Parameters
    ----------
    path : Path
    new : bool
        Whether it must not be there yet, or must. One in which not even the first line is whole is
        taken for a new one: nothing was done.

    Attributes
    ----------
    entries : list of Entry

    Raises
    ------
    InputError
        If it is or is not there, is no journal, or another apply has it open.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self._path = path
        busy = f"journal {path}: another apply is at work on it"
        try:
            self._file = LineFile(path, busy, flags=os.O_CREAT if new else 0, mode=0o600)
        except InputError as error:
            raise InputError(f"journal {str(error).removeprefix('journal ')}") from error
        except OSError as error:
            raise InputError(f"journal {path}: {error.strerror}") from error
        try:
            self.entries = self._begin() if new else self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.entries:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Append an entry; it is on disk when this returns.

        Raises
        ------
        JournalError
            If the disk refuses.
        """
        try:
            self._file.add(msgspec.json.encode(entry))
        except OSError as error:
            raise JournalError(f"journal {self._path}: {error.strerror}") from error
        self.entries.append(entry)

    def _begin(self) -> list[Entry]:
        start = _FIRST[: len(self._file.rest)]
        if self._file.lines or self._file.rest[: len(_FIRST)] != start:
            raise InputError(
                f"journal {self._path}: is there already: --resume or --rollback what it began, or "
                "remove it"
            )
        return []

    def _read(self) -> list[Entry]:
        name = f"journal {self._path}"
        entries: list[Entry] = [
            decode_json(line, Entry, f"{name}: line {nr}")
            for nr, line in enumerate(self._file.lines, start=1)
        ]
        if not entries or entries[0].event != "begin":
            raise InputError(f"{name}: need a line 'begin' first")
        return entries


def check_order(entries: Sequence[Entry], nr_steps: int) -> None:
    """Check that entries can be those of a plan with so many steps.

    Raises
    ------
    InputError
        Naming the line and the rule.
    """
    done = intended = 0
    open_entry: Entry | None = None
    undoing = False
    for nr, entry in enumerate(entries, start=1):
        if entry.event in ("begin", "end"):
            if (entry.event == "begin") != (nr == 1) or entry.step:
                raise InputError(f"journal: line {nr}: need one 'begin', first, and no step in it")
            if entry.event == "end" and nr != len(entries):
                raise InputError(f"journal: line {nr}: need nothing after 'end'")
            continue
        if not 1 <= entry.step <= nr_steps:
            raise InputError(f"journal: line {nr}: step {entry.step}: need 1 to {nr_steps}")
        if entry.event == "done":
            if open_entry is None or (open_entry.step, open_entry.undo) != (entry.step, entry.undo):
                raise InputError(f"journal: line {nr}: need the step's 'intend' before 'done'")
            open_entry = None
            done += not entry.undo and entry.errno is None
            continue
        undoing = undoing or entry.undo
        in_order = entry.step <= intended if entry.undo else entry.step == done + 1
        if not in_order or (undoing and not entry.undo):
            raise InputError(f"journal: line {nr}: step {entry.step}: need the steps in order")
        if not entry.undo:
            intended = entry.step
        open_entry = entry
