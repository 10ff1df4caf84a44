"""A machine that is mounted for as long as a block of code runs, by a process of its own.

The server is another process, so that a program that holds the interpreter in a system call on the
mounted files never waits for itself.

Effects: files, processes, terminal.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.errors import InputError
from altmap.live.control import request
from altmap.live.namespace import run_in_machine
from altmap.live.server import check_tools
from altmap.scenario import Scenario, Step, plain_table, scenario_text

if TYPE_CHECKING:
    from _typeshed import StrPath

__all__ = ("MountedMachine", "mount_folder", "mounted")

_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class MountedMachine:
    """A machine whose files lie below a folder.

    Attributes
    ----------
    root : Path
        Holds ``proc`` and ``sys``.
    """

    root: Path

    def run(self, *command: str, timeout: float | None = 600.0) -> subprocess.CompletedProcess[str]:
        """Run a command for which the machine's files are the host's; return what it printed.

        Raises
        ------
        InputError
            If a file could not be bound: the command was not started.
        subprocess.TimeoutExpired
        """
        return run_in_machine(self.root, command, capture=True, timeout=timeout)

    def perform(self, *steps: Step) -> list[str]:
        """Perform steps of a scenario as the platform does; return how each ended, in one line.

        Raises
        ------
        InputError
            If a step is invalid on every kernel.
        """
        asked = {"do": "perform", "steps": [plain_table(step) for step in steps]}
        outcomes: list[str] = request(self.root, asked)["outcomes"]
        return outcomes

    def show(self) -> str:
        """Return the machine in a few lines."""
        return str(request(self.root, {"do": "show"})["text"])

    def explain(self, block: int) -> str:
        """Return whether a memory block would go offline now, and else why not."""
        return str(request(self.root, {"do": "explain", "block": block})["text"])

    def saved(self, name: str = "saved") -> str:
        """Return what was done so far as a scenario in TOML."""
        return str(request(self.root, {"do": "save", "name": name})["text"])

    @property
    def log(self) -> list[str]:
        """Steps and writes so far, each with its answer."""
        return (self.root / "altmap/log").read_text(encoding="utf-8").splitlines()

    @property
    def uevents(self) -> list[str]:
        """What the kernel has announced, such as ``online@/devices/system/memory/memory33``."""
        return (self.root / "altmap/uevents").read_text(encoding="utf-8").splitlines()


@contextmanager
def mounted(
    source: Scenario | StrPath,
    folder: StrPath | None = None,
    *,
    release: str | None = None,
    settings: Sequence[str] = (),
    record: StrPath | None = None,
) -> Iterator[MountedMachine]:
    """Mount a machine while a block runs; :func:`altmap.mount` says what it takes and raises."""
    check_tools()
    with tempfile.TemporaryDirectory(prefix="altmap-") as draft:
        path = Path(draft, "scenario.toml") if isinstance(source, Scenario) else Path(source)
        if isinstance(source, Scenario):
            path.write_text(scenario_text(source), encoding="utf-8")
        words = ["mount", "--until-eof", str(path.resolve())]
        words += [] if folder is None else [str(folder)]
        words += [] if release is None else ["--release", release]
        words += [word for setting in settings for word in ("--set", setting)]
        words += [] if record is None else ["--record", str(record)]
        process, root = _served(words)
    root = root if folder is None else Path(folder)
    try:
        yield MountedMachine(root)
    finally:
        _end(process)
        if folder is None:
            with contextlib.suppress(OSError):  # the server removes it, unless it was killed
                root.rmdir()


def _served(words: Sequence[str]) -> tuple[subprocess.Popen[str], Path]:
    """Run ``altmap mount`` up to its first line; return it and the folder that the line names.

    It ends with this process, however that ends: its standard input is a pipe from here.
    """
    process = subprocess.Popen(
        (sys.executable, "-m", "altmap", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C of a terminal is for the program that reads the files
    )
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
    except BaseException:
        _end(process)
        raise
    if not told:
        _, complaints = process.communicate()
        complaint = complaints.strip().splitlines() or ["altmap mount ended"]
        raise InputError(complaint[-1].removeprefix("altmap: "))
    return process, Path(told.partition(": ")[0])


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_SECONDS)


@contextmanager
def mount_folder(given: Path | None) -> Iterator[Path]:
    """Yield where to mount: a new folder is removed in the end, never what is mounted on it."""
    if given is not None:
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="altmap-"))
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()
