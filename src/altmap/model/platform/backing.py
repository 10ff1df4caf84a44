"""What is backed, and what becomes of a touch of the rest: ``fault = touched - backed``."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.model.kernel.touch import Touch
from altmap.pfn import PfnSet, PfnStride
from altmap.trace import Fault

__all__ = ("Backing", "write_fault_of")

#: What a CPU makes of a write that nothing answers, by architecture family.
_WRITE_FAULTS = {"s390x": "addressing exception"}
_WRITE_FAULT = "general protection fault"


def write_fault_of(family: str) -> str:
    """Return the name of the trap of a write to an unbacked frame."""
    return _WRITE_FAULTS.get(family, _WRITE_FAULT)


@dataclass(slots=True)
class Backing:
    """The page frames that the platform backs.

    Attributes
    ----------
    backed : PfnSet
        May be read and written.
    unbacked_reads : str
        ``fault``, or ``allowed`` where the platform answers reads of unbacked frames.
    write_fault : str
        What the CPU makes of a write to an unbacked frame.
    """

    backed: PfnSet = field(default_factory=PfnSet)
    unbacked_reads: str = "fault"
    write_fault: str = _WRITE_FAULT

    def check_access(self, touch: Touch) -> Fault | None:
        """Return the fault that a touch causes, ``None`` if all its frames are backed."""
        if touch.access == "read" and self.unbacked_reads == "allowed":
            return None
        if isinstance(touch.pfns, PfnStride) and self.backed.covers(touch.pfns.hull()):
            return None
        unbacked = PfnSet.of(touch.pfns) - self.backed
        if not unbacked:
            return None
        kind = self.write_fault if touch.access == "write" else "read of an unbacked frame"
        return Fault(unbacked.min(), touch.access, touch.function, unbacked, kind)
