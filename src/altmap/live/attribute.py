"""A file of the kernel that is no plain content: what reading it shows, and what a write does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from altmap.live.machine import LiveMachine
from altmap.model.control_files import invalid
from altmap.model.words import uevent_action
from altmap.trace import OK, Outcome

__all__ = ("Attribute", "Family", "Store", "uevent_file")

#: Called with what was written, up to its first NUL.
Store = Callable[[str], Outcome]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A file.

    Attributes
    ----------
    show : callable or None
        Returns the content now; ``None`` for a file that cannot be read.
    store : callable or None
        Performs a write; ``None`` for a file that cannot be written.
    """

    show: Callable[[], bytes] | None = None
    store: Store | None = None

    @property
    def mode(self) -> int:
        """The permission bits, as sysfs derives them."""
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)


#: Returns the files of one part of the kernel, by their path below the root.
Family = Callable[[LiveMachine], Mapping[str, Attribute]]


def uevent_file(machine: LiveMachine, folder: str) -> Attribute:
    """Return the file by which an action of a device is announced again, as udevadm trigger has it.

    Source: ``lib/kobject_uevent.c: kobject_synth_uevent``.
    """

    def store(text: str) -> Outcome:
        action = uevent_action(text)
        if action is None:
            return invalid("uevent_store", text, "an action such as change")
        machine.uevents.append(f"{action}@/{folder.removeprefix('sys/')}")
        return OK

    return Attribute(lambda: b"", store)
