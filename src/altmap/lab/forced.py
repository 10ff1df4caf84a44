"""A memmap in the added memory for every driver, on a kernel where a driver has to ask for it.

The lab's module sets the flag at each add (``guest_modules/force.c``), so that a real kernel
follows the policy ``per-block``.
"""

from __future__ import annotations

from altmap.errors import InputError
from altmap.lab.arches import GUESTS, guest_arch
from altmap.lab.build import with_module
from altmap.lab.kernels import KernelFiles
from altmap.scenario import Machine

__all__ = ("FORCED_POLICY", "FORCE_MODULE", "check_forced", "with_forced")

FORCED_POLICY = "per-block"
FORCE_MODULE = "altmap_force"


def check_forced(machine: Machine) -> None:
    """Refuse a machine on which the flag changes nothing.

    Raises
    ------
    InputError
        If the kernel's parameter is off, or the module is not for the architecture.
    """
    if machine.arch is not None and not guest_arch(machine.arch).forces_memmap:
        possible = ", ".join(guest.name for guest in GUESTS.values() if guest.forces_memmap)
        raise InputError(f"machine.policy {FORCED_POLICY!r}: a real kernel on {possible} only")
    if machine.memmap_on_memory not in ("on", "force"):
        raise InputError(
            f"machine.policy {FORCED_POLICY!r}: a real kernel needs memmap_on_memory = 'on'"
        )


def with_forced(kernel: KernelFiles) -> KernelFiles:
    """Return a kernel with the module at hand.

    Raises
    ------
    LabError
        If it cannot be built.
    """
    return with_module(kernel, "force.c", FORCE_MODULE)
