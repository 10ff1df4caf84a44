"""What was noticed while a step ran: events, and the faults that ended a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from altmap.pfn import Pages, PfnSet
from altmap.trace.outcome import Certainty

__all__ = ("GUEST_TO_HOST", "HOST_TO_GUEST", "UNBACKED", "Access", "Event", "Fault")

#: What a kernel does with page frames that it must not touch.
Access = Literal["read", "write", "free"]

#: How the text of a ``driver`` event starts that is a message from one side to the other.
HOST_TO_GUEST, GUEST_TO_HOST = "host→guest: ", "guest→host: "

UNBACKED = "frames touched are not backed"


@dataclass(frozen=True, slots=True)
class Event:
    """Something noticed while a step ran.

    Attributes
    ----------
    kind : str
        Such as ``memmap-placed``, ``write``, ``onlined``, ``fake-offline``, ``driver``.
    text : str
        One line for the reader.
    pfns : PfnSet, PfnRange, PfnStride or None
        The page frames concerned.
    function : str or None
        The kernel function at work.
    certainty : str
        ``certain``, ``likely`` or ``unknown``.
    doubt : str
        Why it is not certain.
    message : bytes or None
        A message between a host and its guest, byte for byte, where its format is defined.
    """

    kind: str
    text: str
    pfns: Pages | None = None
    function: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""
    message: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """The kernel touched frames that the platform does not back.

    Attributes
    ----------
    pfn : int
        The first such frame.
    access : str
        ``write``, ``read`` or ``free``.
    function : str
        The kernel function that touched it.
    pfns : PfnSet
        All such frames of the same touch.
    kind : str
        The exception that the CPU raises, by platform.
    what : str
        What is wrong with the frames.
    """

    pfn: int
    access: Access
    function: str
    pfns: PfnSet
    kind: str
    what: str = UNBACKED
