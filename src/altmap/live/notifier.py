"""The kernel's module memory-notifier-error-inject, as debugfs shows it while it is loaded.

The module vetoes an action for every block. It is taken as loaded, so that the kernel's own
selftest runs as a whole.
Source: ``lib/memory-notifier-error-inject.c``; ``lib/notifier-error-inject.c: debugfs_errno_set``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import partial
from typing import get_args

from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine
from altmap.model.control_files import invalid
from altmap.model.words import signed_number
from altmap.scenario import Veto, VetoErrno, VetoOn
from altmap.trace import Outcome

__all__ = ("notifier_files",)

_FOLDER = "sys/kernel/debug/notifier-error-inject/memory/actions"
_ACTIONS: dict[str, VetoOn] = {
    "MEM_GOING_ONLINE": "going_online",
    "MEM_GOING_OFFLINE": "going_offline",
}
_MAX_ERRNO = 4095
#: What a scenario's veto can be, by its number.
_ERRNOS = {0: "none"} | {
    getattr(errno, name): name for name in get_args(VetoErrno) if name != "none"
}


def notifier_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the file ``error`` of each action."""
    return {
        f"{_FOLDER}/{action}/error": Attribute(
            partial(_show, machine, on), partial(_store, machine, on)
        )
        for action, on in _ACTIONS.items()
    }


def _show(machine: LiveMachine, on: VetoOn) -> bytes:
    veto = getattr(machine.model.kernel.notifier, on)
    number = 0 if veto is None else getattr(errno, veto.errno)
    return f"{-number}\n".encode()


def _store(machine: LiveMachine, on: VetoOn, text: str) -> Outcome:
    value = signed_number(text)
    if value is None:
        return invalid("debugfs_errno_set", text, "an errno as a negative number, or 0")
    name = _ERRNOS.get(-min(0, max(-_MAX_ERRNO, value)))
    if name is None:
        known = ", ".join(f"-{number}" for number in _ERRNOS if number)
        return invalid("debugfs_errno_set", text, f"0 or one that a scenario has: {known}")
    return machine.perform(Veto(on=on, errno=name))
