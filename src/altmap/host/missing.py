"""What a machine did not show, and whether root would have seen it."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.linux.iomem import addresses_hidden
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot

__all__ = ("gaps",)


def gaps(sysroot: Sysroot, seen: Observation) -> Iterator[str]:
    """Yield one line for each file that is missing, unreadable, or without what it is read for."""
    for path in sysroot.unreadable:
        yield f"{path} could not be read: only root may"
    if addresses_hidden(seen.iomem or ()):
        yield "proc/iomem shows no addresses: only root sees them"
    for path in seen.missing:
        if path not in sysroot.unreadable:
            yield f"{path} is missing"
