"""What is chance in a real kernel, taken from what it showed: its own pages in a new zone."""

from __future__ import annotations

from altmap.linux.kpageflags import PageFlag
from altmap.linux.observation import Observation
from altmap.model.kernel.expected import settle_kernel_pages
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnSet

__all__ = ("KernelPages",)


class KernelPages:
    """The kernel's own pages in zones of added memory that serve it first.

    One page stands for them by chance (``expected_unmovable``). A real kernel's kpageflags tell
    where slab and page tables lie; of its other pages no file tells.

    Parameters
    ----------
    kernel : Kernel
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._own = PfnSet()

    def settle(self, seen: Observation | None) -> None:
        """Put the pages where a real kernel has them at the end of the next step.

        Without kpageflags of that time nothing changes.
        """
        if seen is not None and seen.kpageflags:
            shown = seen.kpageflags.sets(_is_own).get(True, PfnSet())
            self._own = settle_kernel_pages(self._kernel, shown, self._own)


def _is_own(flags: int) -> bool | None:
    return bool(flags & (PageFlag.SLAB | PageFlag.PGTABLE)) or None
