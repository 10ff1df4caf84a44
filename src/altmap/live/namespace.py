"""A command in a mount namespace where the modelled machine's files stand for the host's.

``/sys`` as a whole is the machine's. In ``/proc`` the files about memory are the machine's, or
cannot be opened if the machine lacks them; ``/proc/sys`` and other folders that take writes are
read-only. Then every bind is checked, capabilities are dropped, and only then the command starts.

Effects: environment, files, processes, terminal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from altmap.errors import InputError

__all__ = ("run_in_machine",)

#: What :mod:`altmap.live.inside` answers before it becomes the command.
STARTED = "started"


def run_in_machine(
    root: Path, command: Sequence[str], *, capture: bool = False, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with the files of the machine that is mounted at *root*.

    Without root a user namespace is made, in which the user is root.

    Parameters
    ----------
    root : Path
    command : sequence of str
    capture : bool
        Return what it prints, instead of having it printed.
    timeout : float, optional
        Seconds after which it is killed.

    Raises
    ------
    InputError
        If there are no namespaces, or a file could not be bound: the command was not started.
    subprocess.TimeoutExpired
    """
    if shutil.which("unshare") is None:
        raise InputError("shell: unshare is missing (Debian: apt install util-linux)")
    words = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    words += ["--", sys.executable, "-m", "altmap.live.inside", str(root)]
    # A pipe tells a refusal from a command that ends with the same exit code.
    reader, writer = os.pipe()
    output = subprocess.PIPE if capture else None
    with os.fdopen(reader, encoding="utf-8") as answer:
        try:
            process = subprocess.Popen(
                [*words, str(writer), *command],
                pass_fds=(writer,),
                stdout=output,
                stderr=output,
                text=True,
            )
        finally:
            os.close(writer)
        out, err = _ended(process, timeout)
        told = answer.read()
    if told != STARTED:
        why = told or (err or "").strip() or "no namespace could be made"
        raise InputError(f"shell: {why}; the command did not run")
    code = process.returncode
    return subprocess.CompletedProcess(list(command), code if code >= 0 else 128 - code, out, err)


def _ended(process: subprocess.Popen[str], timeout: float | None) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=timeout)
        except KeyboardInterrupt:
            continue  # the command gets it too, and decides
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
