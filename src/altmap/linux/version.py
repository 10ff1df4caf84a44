"""``/proc/version`` and ``uname -r``: which release runs, and on what machine if that shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from altmap.linux.lines import lines

__all__ = ("Version", "flavour_of", "parse", "render")

_VERSION = re.compile(r"(?:Linux version )?(([0-9]+\.[0-9]+)(?![0-9])\S*)(?: .*)?")
_FLAVOUR = re.compile(
    r"[-.](amd64|x86_64|arm64|aarch64|powerpc64le|ppc64le|s390x|riscv64)(?:[-+][0-9a-z]+)?$"
)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "powerpc64le": "ppc64le"}


@dataclass(frozen=True, slots=True)
class Version:
    """What ``/proc/version`` says.

    Attributes
    ----------
    text : str
        The whole line, without its newline.
    full : str
        As ``uname -r``: ``6.12.95+deb12-amd64``.
    release : str
        Its first two numbers: ``6.12``.
    machine : str or None
        As ``uname -m``, if the distribution names it in ``full``, as Debian and Red Hat do.
    """

    text: str
    full: str
    release: str
    machine: str | None


def parse(text: str) -> Version:
    """Return what the file, or the output of ``uname -r``, says."""
    first = next(lines(text or "\n"))
    match = _VERSION.fullmatch(first.text)
    if match is None:
        raise first.error("need 'Linux version X.Y...' or 'X.Y...'")
    return Version(first.text, match[1], match[2], flavour_of(match[1]))


def render(version: Version) -> str:
    """Return the file."""
    return f"{version.text}\n"


def flavour_of(full: str) -> str | None:
    """Return the machine that a release names, as ``uname -m``; ``None`` if it names none."""
    match = _FLAVOUR.search(full)
    return _MACHINES.get(match[1], match[1]) if match else None
