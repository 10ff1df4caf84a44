"""Which page frames of an adopted Xen domain the hypervisor backs."""

from __future__ import annotations

from altmap.linux.observation import Observation
from altmap.model.kernel.state import Kernel
from altmap.model.platform.backing import Backing

__all__ = ("take_domain",)


def take_domain(kernel: Kernel, seen: Observation, backing: Backing) -> None:
    """Remove from the backing what a Xen domain does not own; other machines stay as they are.

    Ballooned pages are PageOffline. RAM beyond what the domain has at boot may be set aside for
    other drivers instead: reserved pages at the end of boot memory, as many as the domain's pages
    leave over. Page 0 is the domain's, but not System RAM.
    """
    if seen.balloon is None:
        return
    backing.write_fault = "page fault"
    backing.backed -= kernel.fake_offline
    owned = seen.balloon.current_kb * 1024 // kernel.arch.page_size_bytes
    offline = kernel.pages_of(kernel.added_blocks - kernel.online_blocks)
    surplus = len(backing.backed - offline) + 1 - owned
    if surplus > 0:
        # Holes of a pageblock are reserved too, and no RAM.
        reserved = kernel.reserved & backing.backed
        backing.backed -= reserved.highest(min(surplus, len(reserved)))
    backing.backed -= offline
