"""What a step touches, and the end of a guest that touches a frame that is not backed.

The plugin tells the touched frames, QEMU's log those that are not backed. The first access that
counts as a fault ends the guest by a machine check.

Effects: clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.touch_log import FunctionTouches, TouchLog
from altmap.lab.unbacked import UnbackedWatch, device_region, fault_of, inject_machine_check
from altmap.trace import Event, Fault

__all__ = ("FaultWatch", "StepTouches")

#: A machine check is taken within milliseconds, a panic told within a second.
_PANIC_SECONDS = 60.0
#: A function that touches one frame that is not backed touches all that it will within this time.
_RUN_SECONDS = 1.0
_POLL_SECONDS = 0.02


class StepTouches:
    """The frames that each step touches, as far as a guest tells them.

    Parameters
    ----------
    guest : Guest
        One without the plugin tells nothing.
    reads_fault : bool
        Whether a read of a frame that is not backed is a fault; a write always is.
    """

    def __init__(self, guest: Guest, *, reads_fault: bool) -> None:
        self._log = TouchLog(guest, guest.touches, device_region(guest)) if guest.touches else None
        self._reads_fault = reads_fault

    def begin(self) -> None:
        """Begin a step."""
        if self._log is not None:
            self._log.begin()

    def look_at_devices(self) -> None:
        """Note where memory devices are."""
        if self._log is not None:
            self._log.look_at_devices()

    def fault(self) -> tuple[FunctionTouches | None, bool]:
        """Return the first fault of the step, and whether its function has gone on from there.

        Without a plugin it is not known, and taken to be over at once.
        """
        if self._log is None:
            return None, True
        return self._log.fault(reads_fault=self._reads_fault)

    def end(self) -> Iterator[Event]:
        """End a step, and yield what it touched, after an event that says that it is known."""
        if self._log is None:
            return
        touches = self._log.end()
        yield Event("touched", f"{len(touches)} functions touch frames of added memory")
        for each in touches:
            text = f"{each.function} {each.access}s frames of added memory"
            yield Event(each.access, text, each.pfns, each.function)


class FaultWatch:
    """Ends a guest at its first fault; closed by :meth:`close`.

    Parameters
    ----------
    guest : Guest
        Its memory devices are DIMMs of which it is not told.
    touches : StepTouches
        Of the guest.
    reads_fault : bool
        Whether a read of a frame that is not backed is a fault; a write always is.
    """

    def __init__(self, guest: Guest, touches: StepTouches, *, reads_fault: bool) -> None:
        self._guest = guest
        self._touches = touches
        self._watch = UnbackedWatch(
            guest.access_log, device_region(guest), self._end_guest, reads_fault=reads_fault
        )

    def close(self) -> None:
        """End the watch; may be called again."""
        self._watch.close()

    def fault_during(self, perform: Callable[[], None]) -> Fault | None:
        """Perform a step; return the fault that ended the guest, if one did.

        Raises
        ------
        LabError
            If the guest ends otherwise, or does not answer.
        """
        try:
            perform()
            if self._watch.look().first is not None:
                self._guest.run("sleep 1000", _PANIC_SECONDS)  # until the machine check is taken
        except LabError:
            touches, _ = self._touches.fault()
            fault = fault_of(self._watch.look(), self._guest.console_text(), touches)
            if fault is None:
                raise
            return fault
        return None

    def _end_guest(self, address: int) -> None:
        """End the guest by a machine check, once the function that touched the frame is done."""
        deadline = time.monotonic() + _RUN_SECONDS
        while time.monotonic() < deadline:
            _, is_over = self._touches.fault()
            if is_over:
                break
            time.sleep(_POLL_SECONDS)
        inject_machine_check(self._guest, address)
