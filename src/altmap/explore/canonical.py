"""One state for all that differ in nothing that a step could tell: symmetries removed.

Frames of boot memory that hold memmaps, page tables or files are as good as any others of their
zone, so they are handed out anew in a fixed order. Lists whose order no rule asks for are sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.model.kernel.owners import reassign_boot_frames, sort_additions
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet

__all__ = ("SYMMETRIES", "Symmetry")


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One way in which states differ without a difference.

    Attributes
    ----------
    cells : tuple of str
        Where the difference is.
    remove : callable
        Brings a machine into the form that stands for its like, and tells whether it was in
        another; the second argument is what was in use at the start, which stays where it is.
    """

    cells: tuple[str, ...]
    remove: Callable[[ModelMachine, PfnSet], bool]


def _sort_devices(machine: ModelMachine, _boot_used: PfnSet) -> bool:
    additions, devices = machine.kernel.additions, machine.devices.by_id
    starts, names = [addition.pfns.start for addition in additions], list(devices)
    kept = [device for device in devices.values() if device.kept]
    if starts == sorted(starts) and names == sorted(names) and not kept:
        return False
    sort_additions(machine.kernel)
    ordered = sorted(devices.items())
    devices.clear()
    devices.update(ordered)
    for device in kept:
        device.kept = ""  # words for people
    return True


def _reassign_frames(machine: ModelMachine, boot_used: PfnSet) -> bool:
    return reassign_boot_frames(machine.kernel, boot_used)


#: Every symmetry that is removed.
SYMMETRIES: tuple[Symmetry, ...] = (
    Symmetry(("kernel.additions", "devices.by_id"), _sort_devices),
    Symmetry(("kernel.used",), _reassign_frames),
)
