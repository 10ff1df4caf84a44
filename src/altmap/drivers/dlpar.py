"""ppc64 dynamic LPAR: ``arch/powerpc/platforms/pseries/hotplug-memory.c``."""

from __future__ import annotations

from altmap.kernel.hotplug import add_memory_resource, memory_block_online
from altmap.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.trace import OK, Outcome

__all__ = ("add",)


def add(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome:
    """Add a range one logical memory block at a time, and online each whatever the policy says.

    A block that is refused ends the request (``dlpar_memory_add_by_ic``).
    """
    for block in kernel.block_ids(pfns):
        lmb = kernel.block_pfns(block)
        outcome = add_memory_resource(kernel, lmb, node, asks=kernel.release.dlpar_asks)
        if outcome and not kernel.nr_online(lmb):
            outcome = memory_block_online(kernel, lmb, "online")
        if not outcome:
            return outcome
    return OK
