"""Debian's package tools, run as programs, their failures in one line.

Effects: archives, files, processes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, cast

from altmap.errors import LabError

__all__ = ("extract_first", "first_error", "run_tool")

_ERROR = re.compile(r"(?:fatal )?error: (.*)")
_COMPLAINT = re.compile(r"^(?:E|dpkg-deb: error|tar): *(.*)$", re.MULTILINE)


def run_tool(*command: str, folder: Path | None = None) -> str:
    """Run one of Debian's package tools and return its standard output.

    Raises
    ------
    LabError
        If the tool is missing or fails; the message holds the tool's own complaint.
    """
    if shutil.which(command[0]) is None:
        raise LabError(f"{command[0]} is missing: kernels are taken with Debian's apt and dpkg")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise LabError(f"{command[0]} failed: {_complaint(done.stderr)}")
    return done.stdout


def extract_first(deb: Path, patterns: Iterable[str], to: Path) -> None:
    """Write the package's first file whose path matches a shell pattern, to a path of ours.

    Raises
    ------
    LabError
        If the package has no such file.
    """
    command = ("dpkg-deb", "--fsys-tarfile", str(deb))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpack:
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
                member = next(
                    m for m in archive if m.isreg() and any(fnmatch(m.name, p) for p in patterns)
                )
                content = archive.extractfile(member)
                with to.open("wb") as file:
                    shutil.copyfileobj(cast(IO[bytes], content), file)
        except (StopIteration, tarfile.TarError) as error:
            raise LabError(f"package {deb.name}: no file {' or '.join(patterns)}") from error
        finally:
            unpack.kill()  # the rest of the package is not needed


def first_error(stderr: str) -> str:
    """Return what a compiler or linker says first is wrong, in one line."""
    found = _ERROR.search(stderr)
    return found[1] if found else (stderr.strip() or "no message").splitlines()[-1]


def _complaint(stderr: str) -> str:
    if "No space left" in stderr or "enough free space" in stderr:
        return "no space left on the disk that holds the cache"
    # The first error names the cause, later ones sum up.
    complaints = _COMPLAINT.findall(stderr) or stderr.strip().splitlines()
    return complaints[0] if complaints else "no message"
