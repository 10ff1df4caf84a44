"""Touches: which page frames a kernel step reads or writes, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.pfn import Pages
from altmap.trace import Fault

__all__ = ("Judge", "KernelFault", "Touch")


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
        What is accessed, for people: ``struct pages of the memmap``.
    """

    access: str
    pfns: Pages
    function: str
    what: str


#: Answers a touch: a fault if the platform does not back all of its frames.
Judge = Callable[[Touch], Fault | None]


class KernelFault(Exception):  # noqa: N818 (a trap, not an error of ours)
    """The modelled kernel died on a touch; unwinds the kernel function at work, as a trap does."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault
