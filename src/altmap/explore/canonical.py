"""One canonical state for states that no step distinguishes: symmetry reduction.

Frames of boot memory that hold memmaps, page tables or files are interchangeable within a zone, so
they are reassigned in a fixed order. Lists whose order no rule reads are sorted. So is the order in
which memory went online, which decides where pages lie that are allocated later: a search takes
them from the lowest memory that is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.explore.spec import Exploration
from altmap.model.kernel.expected import forget_expected_movable
from altmap.model.kernel.owners import reassign_boot_frames, sort_additions, sort_onlined
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet

__all__ = ("SYMMETRIES", "Symmetry", "symmetries_of")


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One kind of difference that no step depends on.

    Attributes
    ----------
    cells : tuple of str
        The cells that differ.
    remove : callable
        Brings a machine into its canonical form and returns whether that changed it; the second
        argument is the set of pages in use at the start, which are not reassigned.
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
        device.kept = ""  # text for messages
    return True


def _reassign_frames(machine: ModelMachine, boot_used: PfnSet) -> bool:
    return reassign_boot_frames(machine.kernel, boot_used)


def _sort_onlined(machine: ModelMachine, _boot_used: PfnSet) -> bool:
    return sort_onlined(machine.kernel)


def _forget_expected_movable(machine: ModelMachine, _boot_used: PfnSet) -> bool:
    return forget_expected_movable(machine.kernel)


#: Symmetries that are removed whatever the operations are.
SYMMETRIES: tuple[Symmetry, ...] = (
    Symmetry(("kernel.additions", "devices.by_id"), _sort_devices),
    Symmetry(("kernel.used",), _reassign_frames),
    Symmetry(("kernel.onlined",), _sort_onlined),
)
#: Which pageblock processes use first: only huge pages depend on it.
_WITHOUT_HUGE_PAGES = Symmetry(("kernel.expected_movable",), _forget_expected_movable)


def symmetries_of(exploration: Exploration) -> tuple[Symmetry, ...]:
    """Return the differences between states that no operation of an exploration depends on."""
    if any(fill.kind.startswith("hugetlb") for fill in exploration.operations.fill):
        return SYMMETRIES
    return (*SYMMETRIES, _WITHOUT_HUGE_PAGES)
