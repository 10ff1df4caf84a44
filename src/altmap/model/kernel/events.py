"""The event log: what the kernel and its drivers did during a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.pfn import Pages
from altmap.trace import Certainty, Event

__all__ = ("EventLog",)


@dataclass(slots=True, eq=False)
class EventLog:
    """Events in the order in which they happened.

    Attributes
    ----------
    enabled : bool
        Events are recorded; off where only the final state counts.
    events : list of Event
        Since the last :meth:`take`.
    """

    enabled: bool = True
    events: list[Event] = field(default_factory=list)

    def note(
        self,
        kind: str,
        text: str,
        pfns: Pages | None = None,
        function: str | None = None,
        message: bytes | None = None,
        *,
        doubt: str = "",
    ) -> None:
        """Record an event; with a doubt it is likely, not certain."""
        if not self.enabled:
            return
        certainty: Certainty = "likely" if doubt else "certain"
        self.events.append(Event(kind, text, pfns, function, certainty, doubt, message))

    def take(self) -> list[Event]:
        """Return the events since the last call, and clear the log."""
        events, self.events = self.events, []
        return events

    def disable(self) -> None:
        """Record no further events."""
        self.enabled = False
