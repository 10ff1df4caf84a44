"""One state for all that differ in nothing that a step could tell: symmetries removed.

Frames of boot memory that hold memmaps, page tables or files are as good as any others of their
zone, so they are handed out anew in a fixed order. Lists whose order no rule asks for are sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from altmap.model.kernel.state import Kernel
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
    additions.sort(key=lambda addition: addition.pfns.start)
    ordered = sorted(devices.items())
    devices.clear()
    devices.update(ordered)
    for device in kept:
        device.kept = ""  # words for people
    return True


def _hand_out_anew(machine: ModelMachine, boot_used: PfnSet) -> bool:
    """Give what was taken from boot memory the highest frames there, owner by owner."""
    kernel = machine.kernel
    taken = (kernel.used & kernel.boot_ram) - boot_used
    if not taken or kernel.pinned or kernel.hugetlb or kernel.poisoned:
        return False  # where some frames are special, those beside them are
    moved = False
    for zone in kernel.zones.values():
        mine = taken & zone.present
        if not mine:
            continue
        owners = _owners(kernel)
        if sum(owned.count(mine) for owned in owners) != len(mine):
            return moved  # somebody here is not known: leave the frames as they are
        anew = ((kernel.managed(zone) & kernel.boot_ram) - boot_used).highest(len(mine))
        left = anew.copy()
        for owned in owners:
            part = owned & mine
            if part:
                new = left.highest(len(part))
                left -= new
                if new != part:
                    owned -= part
                    owned |= new
                    moved = True
        if not moved:
            continue
        kernel.used -= mine
        kernel.used |= anew
        if kernel.movable.count(mine):
            kernel.movable -= mine
            kernel.movable |= anew & PfnSet.of(*kernel.files.values())
    return moved


def _owners(kernel: Kernel) -> list[PfnSet]:
    """Return the page sets that name what pages are used for, in a fixed order."""
    return [
        *(addition.host_pages for addition in (*kernel.additions, *kernel.leftovers)),
        kernel.page_tables,
        *(kernel.kernel_uses[name] for name in sorted(kernel.kernel_uses)),
        *(kernel.files[name] for name in sorted(kernel.files)),
    ]


#: Every symmetry that is removed.
SYMMETRIES: tuple[Symmetry, ...] = (
    Symmetry(("kernel.additions", "devices.by_id"), _sort_devices),
    Symmetry(("kernel.used",), _hand_out_anew),
)
