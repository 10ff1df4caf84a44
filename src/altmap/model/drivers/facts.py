"""The facts about a driver in one row: the data of ``docs/drivers.md``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("DriverRecord",)


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """A driver that adds memory, as users compare it with others.

    Attributes
    ----------
    name : str
        Its usual name.
    scenario : str
        How a scenario plugs it.
    adds : str
        In what pieces the kernel is asked to add memory.
    partly_backed : str
        Whether an added memory block may have pages that are not backed.
    touches_offline : str
        Which accesses to an added block that is not online are possible.
    opts_in : str
        Whether it sets MHP_MEMMAP_ON_MEMORY, and since when.
    gives_back : str
        In what pieces memory is removed.
    group : str
        Its memory group, which the policy auto-movable counts.
    resource : str
        Its line in ``/proc/iomem``.
    lab : str
        Whether a guest in the lab can do it, and if not, why.
    sources : str
        Kernel files.
    """

    name: str
    scenario: str
    adds: str
    partly_backed: str
    touches_offline: str
    opts_in: str
    gives_back: str
    group: str
    resource: str
    lab: str
    sources: str
