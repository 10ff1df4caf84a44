"""Kernel modules loaded in a guest that has them at hand."""

from __future__ import annotations

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.modules import module_order

__all__ = ("load_module",)


def load_module(guest: Guest, name: str, parameters: str = "") -> None:
    """Load a module, and before it what it depends on; one that is built in is there already.

    Parameters
    ----------
    guest : Guest
        Of a kernel whose ``modules`` name it.
    name : str
    parameters : str
        Words such as ``force_bbm=1``.

    Raises
    ------
    LabError
        If the guest's kernel refuses the module.
    """
    order = module_order(guest.kernel, name)
    for needed in order:
        words = parameters if needed == order[-1] else ""
        load = f"insmod /lab/modules/{needed}.ko {words}"
        result = guest.run(f"test -d /sys/module/{needed} || {load}")
        if result.status:
            raise LabError(f"module {needed}: {result.text.strip()}")
