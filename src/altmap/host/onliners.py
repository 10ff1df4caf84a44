"""Who else puts new memory blocks online: the kernel itself, and rules of udev."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot

__all__ = ("Onliner", "onliners_of")

#: Where udev looks, the first wins for a file of one name (udev(7)).
_FOLDERS = ("etc", "run", "usr/lib", "lib")
_WRITE = re.compile(r'ATTR\{(?:\[[^]]*\])?state\}\s*=\s*"([a-z_]+)"')
_RUN = re.compile(r'RUN(?:\{[a-z]+\})?\s*\+?=\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Onliner:
    """Someone who acts when a memory block appears.

    Attributes
    ----------
    name : str
        The file, by its path.
    word : str
        What is written to the block's ``state``; ``?`` if a program decides.
    """

    name: str
    word: str


def onliners_of(sysroot: Sysroot, seen: Observation) -> list[Onliner]:
    """Return who onlines added blocks on this machine, the kernel first."""
    found = []
    word = seen.memory.auto_online_blocks if seen.memory else None
    if word and word != "offline":
        found.append(Onliner("sys/devices/system/memory/auto_online_blocks", word))
    return [*found, *_rules(sysroot)]


def _rules(sysroot: Sysroot) -> Iterator[Onliner]:
    for path in _in_force(sysroot):
        text = (sysroot.text(path) or "").replace("\\\n", " ")
        for line in text.splitlines():
            if line.lstrip().startswith("#") or '"memory"' not in line:
                continue
            if match := _WRITE.search(line):
                yield Onliner(path, match[1])
            elif (match := _RUN.search(line)) and "online" in match[1]:
                yield Onliner(path, "?")


def _in_force(sysroot: Sysroot) -> Iterator[str]:
    """Yield the rules' files in udev's order, those that another one masks left out."""
    seen: set[str] = set()
    found = []
    for top in _FOLDERS:
        prefix = f"{top}/udev/rules.d/"
        for path in sysroot.files:
            name = path.removeprefix(prefix)
            if path.startswith(prefix) and name not in seen:
                found.append((name, path))
        seen |= {name for name, _ in found}
    return (path for _, path in sorted(found))
