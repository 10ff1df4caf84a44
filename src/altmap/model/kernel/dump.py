"""A dump of the running kernel: every present page of online blocks is read."""

from __future__ import annotations

from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnSet
from altmap.trace import OK, Outcome

__all__ = ("read_dump",)


def read_dump(kernel: Kernel, *, exclude_offline: bool) -> Outcome:
    """Read every present page of online blocks, as a dump of the running kernel does.

    Source: ``fs/proc/kcore.c: read_kcore``.

    Parameters
    ----------
    kernel : Kernel
    exclude_offline : bool
        The reader leaves out pages of type Offline, as makedumpfile can since v5.1's
        "mm/kdump: allow to exclude pages that are logically offline".
    """
    pages = PfnSet()
    for zone in kernel.zones.values():
        pages |= zone.present
    if exclude_offline:
        pages -= kernel.fake_offline
    kernel.touch("read", pages, "read_kcore", "the pages of online blocks")
    return OK
