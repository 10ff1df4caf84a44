"""Failures in the guest that its kernel cannot be asked for: vetoes that end, adds that fail.

Debian's kernels lack CONFIG_FAULT_INJECTION, and their module memory-notifier-error-inject vetoes
every block until it is told otherwise. The lab's module (``guest_modules/inject.c``) counts and
chooses.
"""

from __future__ import annotations

import errno

from altmap.errors import InputError, LabError
from altmap.lab.arches import GuestArch
from altmap.lab.build import with_module
from altmap.lab.guest import Guest
from altmap.lab.insmod import load_module
from altmap.lab.kernels import KernelFiles
from altmap.lab.state import write_file
from altmap.lab.veto import Vetoes, check_action
from altmap.scenario import Scenario, SetTunables, Step, Veto, selected_blocks

__all__ = (
    "INJECT_MODULE",
    "InjectedVetoes",
    "check_set",
    "fail_block_devices",
    "injects",
    "with_injector",
)

INJECT_MODULE = "altmap_inject"
_DEVICE = "/dev/altmap-inject"
_MOST_RANGES = 64
_PAGE_SHIFT = 12  # of x86_64


def injects(scenario: Scenario, guest: GuestArch) -> bool:
    """Tell whether a scenario asks for what only the lab's module does, and a guest can have it."""
    return guest.injects_failures and any(map(_needs_module, scenario.steps))


def check_set(step: SetTunables, guest: GuestArch) -> None:
    """Refuse a failure that cannot be injected into a guest.

    Raises
    ------
    InputError
        Naming its key.
    """
    if step.fail_allocation is not None:
        raise InputError("set fail_allocation: no allocation of a real kernel is made to fail")
    if step.fail_block_devices is not None and not guest.injects_failures:
        raise InputError(f"set fail_block_devices: not on {guest.name}: the module is for x86_64")


def _needs_module(step: Step) -> bool:
    if isinstance(step, SetTunables):
        return step.fail_block_devices is not None
    return isinstance(step, Veto) and (step.times is not None or step.blocks is not None)


def with_injector(kernel: KernelFiles) -> KernelFiles:
    """Return a kernel with the module at hand.

    Raises
    ------
    LabError
        If it cannot be built.
    """
    return with_module(kernel, "inject.c", INJECT_MODULE)


def fail_block_devices(guest: Guest, *, fails: bool) -> None:
    """Have the next add fail to create its memory blocks, once, or no longer.

    Raises
    ------
    LabError
        If the guest dies or refuses the module.
    """
    _command(guest, f"block-devices {int(fails)}")


class InjectedVetoes(Vetoes):
    """Vetoes of the lab's module: any blocks, in every step, and as often as a scenario says.

    Parameters
    ----------
    guest : Guest
        Its kernel has the module at hand.
    block_bytes : int
        Size of a memory block.
    """

    def __init__(self, guest: Guest, block_bytes: int) -> None:
        super().__init__(guest)
        self._block_nr_pages = block_bytes >> _PAGE_SHIFT

    def set(self, step: Veto) -> None:
        """Begin or end a veto.

        Raises
        ------
        InputError
            If the module does not know the action, or keeps fewer blocks.
        LabError
            If the guest dies or refuses the module.
        """
        check_action(step)
        blocks, pages = selected_blocks(step) or [], self._block_nr_pages
        if len(blocks) > _MOST_RANGES:
            raise InputError(f"veto of {len(blocks)} blocks: need {_MOST_RANGES} at most")
        number = 0 if step.errno == "none" else getattr(errno, step.errno)
        ranges = (f"{block * pages:#x} {(block + 1) * pages:#x}" for block in blocks)
        words = ("veto", step.on, str(number), str(step.times or 0), *ranges)
        _command(self._guest, " ".join(words))


def _command(guest: Guest, command: str) -> None:
    load_module(guest, INJECT_MODULE)
    number = write_file(guest, _DEVICE, f'"{command}"')
    if number:
        raise LabError(f"{_DEVICE}: {errno.errorcode.get(number, number)}", guest.console())
