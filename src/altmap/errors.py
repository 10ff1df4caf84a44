"""Errors that a user can act on, each one line: the value, then the rule it broke.

::

    AltmapError            anything we report instead of a traceback
    ├── InputError         a scenario, size, file or sysroot that cannot be accepted
    └── LabError           the real kernel could not be asked (QEMU, guest, network, disk)

A refusal by a kernel, modelled or real, is not an error: it is a result in the trace.
"""

from __future__ import annotations

__all__ = ("AltmapError", "InputError", "LabError", "printable")


class AltmapError(Exception):
    """Base of every error that the command line prints without a traceback."""


class InputError(AltmapError):
    """Input that cannot be accepted; the message names the value and the rule."""


class LabError(AltmapError):
    """A real kernel could not be asked.

    Parameters
    ----------
    message : str
        The error, in one line.
    console : str
        The last lines of the guest's console, empty when there was no guest.
    """

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console

    def __str__(self) -> str:
        message: str = self.args[0]
        if not self.console:
            return message
        tail = "\n".join(f"  | {line}" for line in self.console.splitlines())
        return f"{message}\nlast lines of the guest's console:\n{tail}"


def printable(text: str) -> str:
    """Return the text in one line, with everything that a terminal would act on escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
