"""What happened: outcomes, events and faults, the same for a model and for a real kernel.

A trace is a list of steps; each step has one outcome, what was noticed meanwhile, and what the
machine showed afterwards. Model and lab give the same kind of trace.
"""

from altmap.trace.event import GUEST_TO_HOST, HOST_TO_GUEST, UNBACKED, Access, Event, Fault
from altmap.trace.outcome import OK, Certainty, Outcome, Status
from altmap.trace.steps import StepRecord, Trace

__all__ = (
    "GUEST_TO_HOST",
    "HOST_TO_GUEST",
    "OK",
    "UNBACKED",
    "Access",
    "Certainty",
    "Event",
    "Fault",
    "Outcome",
    "Status",
    "StepRecord",
    "Trace",
)
