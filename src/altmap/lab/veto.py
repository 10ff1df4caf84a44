"""A veto in the guest: the kernel's module memory-notifier-error-inject.

It vetoes an action for every memory block, so a veto of some blocks is written only while one
of them is on its way online or offline.
Source: ``lib/memory-notifier-error-inject.c``, ``lib/notifier-error-inject.c`` (6.1, 6.12, 7.3).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from altmap.errors import InputError, LabError
from altmap.lab.guest import Guest
from altmap.lab.insmod import load_module
from altmap.lab.state import write_file
from altmap.scenario import Veto, selected_blocks

__all__ = ("VETO_MODULE", "Vetoes", "check_action", "check_veto")

#: What a guest needs at hand; it is loaded at the first veto, so that it is asked last.
VETO_MODULE = "memory_notifier_error_inject"
_DEBUG = "/sys/kernel/debug"
_ACTIONS = f"{_DEBUG}/notifier-error-inject/memory/actions"
_MOUNTED = f"mountpoint -q {_DEBUG} || mount -t debugfs debugfs {_DEBUG}"


def check_action(step: Veto) -> None:
    """Refuse an action that no module vetoes.

    Raises
    ------
    InputError
        If it is none of the two.
    """
    if step.on not in ("going_online", "going_offline"):
        raise InputError(f"veto {step.on}: a real kernel's can be going_online and going_offline")


def check_veto(step: Veto) -> None:
    """Refuse what the kernel's module cannot veto.

    Raises
    ------
    InputError
        If the action is none of its two, or the veto is to end by itself.
    """
    check_action(step)
    if step.times is not None:
        raise InputError(f"veto {step.on}: times {step.times}: {VETO_MODULE} does not count")


class Vetoes:
    """The vetoes that hold in a guest.

    Parameters
    ----------
    guest : Guest
        Its kernel has the module at hand.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._loaded = False
        #: Vetoes of some blocks only, by the action.
        self._partial: dict[str, tuple[str, frozenset[int]]] = {}

    def set(self, step: Veto) -> None:
        """Begin or end a veto.

        Raises
        ------
        InputError
            If the kernel's module cannot do it.
        LabError
            If the kernel has no such module.
        """
        check_veto(step)
        self._load()
        blocks = selected_blocks(step)
        self._partial.pop(step.on, None)
        if blocks is not None and step.errno != "none":
            self._partial[step.on] = step.errno, frozenset(blocks)
        self._write(step.on, "none" if blocks is not None else step.errno)

    def check_no_partial(self, what: str) -> None:
        """Refuse a step in which the kernel goes through blocks by itself, some of them vetoed.

        Raises
        ------
        InputError
            If a veto holds for some blocks only.
        """
        if self._partial:
            raise InputError(
                f"{what}: a veto holds for some blocks only, and the kernel's module vetoes all"
            )

    @contextmanager
    def around(self, block: int) -> Iterator[None]:
        """Let vetoes of some blocks hold if this is one of them."""
        armed = [(on, name) for on, (name, blocks) in self._partial.items() if block in blocks]
        for on, name in armed:
            self._write(on, name)
        try:
            yield
        finally:
            for on, _ in armed:
                self._write(on, "none")

    def _load(self) -> None:
        if self._loaded:
            return
        load_module(self._guest, VETO_MODULE)
        if self._guest.run(f"({_MOUNTED}) && test -d {_ACTIONS}").status:
            raise LabError(
                f"veto: this kernel has no module {VETO_MODULE}"
                " (CONFIG_MEMORY_NOTIFIER_ERROR_INJECT)",
                self._guest.console(),
            )
        self._loaded = True

    def _write(self, on: str, name: str) -> None:
        number = 0 if name == "none" else -getattr(errno, name)
        path = f"{_ACTIONS}/MEM_{on.upper()}/error"
        failed = write_file(self._guest, path, str(number))
        if failed:
            raise LabError(f"{path}: {errno.errorcode.get(failed, failed)}", self._guest.console())
