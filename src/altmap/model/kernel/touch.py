"""Touches: which page frames a kernel step reads or writes, and the fault that may follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.pfn import Pages
from altmap.trace import Access, Fault

__all__ = ("AccessCheck", "KernelFault", "Touch")


@dataclass(frozen=True, slots=True)
class Touch:
    """One kernel step's access to page frames.

    Attributes
    ----------
    access : str
        ``write`` or ``read``.
    pfns : PfnSet, PfnRange or PfnStride
    function : str
        The kernel function at work.
    what : str
        What is accessed, as shown: ``struct pages of the memmap``.
    """

    access: Access
    pfns: Pages
    function: str
    what: str


#: Returns for a touch: a fault if the platform does not back all of its frames.
AccessCheck = Callable[[Touch], Fault | None]


class KernelFault(Exception):  # noqa: N818 (a trap, not an error of ours)
    """The modelled kernel crashed on a touch; unwinds the kernel functions, as a trap does."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault
