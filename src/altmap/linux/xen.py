"""``/sys/devices/system/xen_memory/xen_memory0``: what the Xen balloon driver counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

__all__ = ("ROOT", "BalloonFolder", "parse", "render")

ROOT = "sys/devices/system/xen_memory/xen_memory0"
_FILES = {
    "target_kb": "target_kb",
    "current_kb": "info/current_kb",
    "low_kb": "info/low_kb",
    "high_kb": "info/high_kb",
}
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BalloonFolder:
    """The balloon's counters, in KiB.

    Attributes
    ----------
    target_kb : int
        What the domain is to have.
    current_kb : int
        What it has: page frames that the hypervisor backs.
    low_kb, high_kb : int
        Ballooned pages, below and in ZONE_HIGHMEM: page frames that are not backed, which the
        driver can have backed.
    """

    target_kb: int
    current_kb: int
    low_kb: int
    high_kb: int = 0


def parse(sysroot: Reader) -> BalloonFolder | None:
    """Return what the folder says, ``None`` if the sysroot has none of its files.

    Raises
    ------
    InputError
        If some of the files are missing, or hold no number.
    """
    numbers = {}
    for name, path in _FILES.items():
        number = sysroot.parse(f"{ROOT}/{path}", _parse_number)
        if number is not None:
            numbers[name] = number
    if not numbers:
        return None
    if len(numbers) < len(_FILES):
        missing = next(path for name, path in _FILES.items() if name not in numbers)
        raise InputError(f"sysroot: {ROOT}/{missing} is missing, while other files of it are there")
    return BalloonFolder(**numbers)


def render(folder: BalloonFolder) -> Sysroot:
    """Return the folder's files."""
    return Sysroot(
        {f"{ROOT}/{path}": f"{getattr(folder, name)}\n".encode() for name, path in _FILES.items()}
    )


def _parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise InputError(f"{text.strip()[:80]!r}: need a number of KiB")
    return int(text)
