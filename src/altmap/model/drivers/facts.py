"""What can be said about a driver in one row: the data of ``docs/drivers.md``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("DriverRecord",)


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """A way of adding memory, as a user compares it with others.

    Attributes
    ----------
    name : str
        What people call it.
    scenario : str
        How a scenario plugs it.
    adds : str
        In what pieces the kernel is asked to add memory.
    partly_backed : str
        Whether an added memory block may have pages that nobody backs.
    touches_offline : str
        Who may touch a page of an added block that is not online.
    opts_in : str
        Whether it asks for a memmap in the added memory itself (MHP_MEMMAP_ON_MEMORY), and since
        when.
    gives_back : str
        In what pieces memory goes again.
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
