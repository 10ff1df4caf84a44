"""Memory added by the file ``probe``, or as it would by the lab's module: Debian's kernels lack it.

The module (``guest_modules/add.c``) can do more than a scenario asks: any range, flags, node,
group and resource name, and page frames that it keeps out of the buddy.
"""

from __future__ import annotations

from altmap.lab.build import with_module
from altmap.lab.guest import Guest
from altmap.lab.hidden_dimm import back_frames, backable_pages
from altmap.lab.insmod import load_module
from altmap.lab.kernels import KernelFiles
from altmap.lab.state import write_file
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("ADD_MODULE", "command_add", "plug_by_probe", "with_adder")

ADD_MODULE = "altmap_add"
_DEVICE = "/dev/altmap-add"
_PROBE = "/sys/devices/system/memory/probe"
#: A block's pages go online within the write.
_ADD_SECONDS = 120.0


def with_adder(kernel: KernelFiles) -> KernelFiles:
    """Return a kernel with the module at hand.

    Raises
    ------
    LabError
        If it cannot be built.
    """
    return with_module(kernel, "add.c", ADD_MODULE)


def command_add(guest: Guest, command: str) -> int:
    """Give the module one of its commands; return 0 or the errno of the kernel.

    Raises
    ------
    LabError
        If the guest dies or does not answer.
    """
    load_module(guest, ADD_MODULE)
    return write_file(guest, _DEVICE, f'"{command}"', _ADD_SECONDS)


def plug_by_probe(guest: Guest, step: Plug, block_bytes: int, *, is_backed: bool) -> Outcome:
    """Back ``size`` bytes, and add the memory block that begins at their address.

    Memory that the guest has already *is backed*: then there is only the request.

    Raises
    ------
    InputError
        If QEMU cannot back them.
    """
    assert step.address is not None  # checked with the scenario
    if not is_backed:
        back_frames(guest, step.id, backable_pages(step.id, step.address, step.size))
    if guest.run(f"test -f {_PROBE}").status == 0:
        number = write_file(guest, _PROBE, f"{step.address:#x}", _ADD_SECONDS)
    else:
        number = command_add(guest, f"add {step.address:#x} {block_bytes:#x} {step.node or 0} 0")
    return Outcome.refused(number, "add_memory_resource", "") if number else OK
