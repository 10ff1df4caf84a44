"""Lists of CPUs, such as ``0-3,8``, counted."""

from __future__ import annotations

import re

__all__ = ("count_of",)

_MOST_CPUS = 8192
_MOST_CHARS = 4096


def count_of(text: str | None) -> int | None:
    """Return the number of CPUs in a list, ``None`` where it is none; ``^3`` takes one out."""
    if text is None or len(text) > _MOST_CHARS:
        return None
    found: set[int] = set()
    for part in re.split(r"[,;:]", text.replace(" ", "")):
        match = re.fullmatch(r"(\^?)([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if match is None:
            if part:
                return None
            continue
        first, last = int(match[2]), int(match[3] or match[2])
        if last >= _MOST_CPUS:
            return None
        span = set(range(first, last + 1))
        found = found - span if match[1] else found | span
    return len(found)
