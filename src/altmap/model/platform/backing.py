"""What is backed, and which touches are faults: ``fault = touched - backed``."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.model.kernel.touch import Touch
from altmap.pfn import PfnSet, PfnStride
from altmap.trace import Fault

__all__ = ("Backing",)


@dataclass(slots=True)
class Backing:
    """The page frames that the platform backs.

    Attributes
    ----------
    backed : PfnSet
        May be read and written.
    unbacked_reads : str
        ``fault``, or ``allowed`` where the platform completes reads of unbacked frames.
    write_fault : str
        The exception that a write to an unbacked frame raises.
    """

    backed: PfnSet = field(default_factory=PfnSet)
    unbacked_reads: str = "fault"
    write_fault: str = "general protection fault"

    def check_access(self, touch: Touch) -> Fault | None:
        """Return the fault that a touch causes, ``None`` if all its frames are backed."""
        if touch.access == "read" and self.unbacked_reads == "allowed":
            return None
        if isinstance(touch.pfns, PfnStride) and self.backed.covers(touch.pfns.hull()):
            return None
        pages = PfnSet.of(touch.pfns)
        if pages.issubset(self.backed):
            return None
        unbacked = pages - self.backed
        if not unbacked:
            return None
        kind = self.write_fault if touch.access == "write" else "read of an unbacked frame"
        return Fault(unbacked.min(), touch.access, touch.function, unbacked, kind)
