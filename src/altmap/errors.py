"""Errors that a user can act on, each one line: the value, then the rule it broke.

::

    AltmapError            anything we report instead of a traceback
    ├── InputError         a scenario, size, file or sysroot that cannot be accepted
    ├── UserCodeError      a mistake in a policy or rule of the user's own module
    └── LabError           the real kernel could not be asked (QEMU, guest, network, disk)

A refusal by a kernel, modelled or real, is not an error: it is a result in the trace.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable

__all__ = (
    "AltmapError",
    "InputError",
    "LabError",
    "UserCodeError",
    "missing_extra",
    "nearest",
    "one_of",
    "printable",
    "raised_by",
    "unknown",
)


class AltmapError(Exception):
    """Base of every error that the command line prints without a traceback."""


class InputError(AltmapError):
    """Input that cannot be accepted; the message names the value and the rule."""


class UserCodeError(AltmapError):
    """A user's policy or rule raised an exception, or returned what it must not.

    It is no InputError: what a search or a sweep tries may be impossible, code may not be wrong.
    """


def missing_extra(need: str, error: ImportError, extra: str) -> InputError:
    """Return the error that names a missing Python module, and the extra that installs it.

    Parameters
    ----------
    need : str
        What needs the module, with its verb, such as ``sweep: needs``.
    error : ImportError
    extra : str
    """
    return InputError(f"{need} the Python module {error.name!r}: pip install 'altmap[{extra}]'")


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


#: Files whose lines say nothing about a mistake in a user's file.
_NOT_USERS = ("<", f"{__file__.rpartition('/')[0]}/", f"{sysconfig.get_paths()['stdlib']}/")


def raised_by(error: Exception) -> str:
    """Return the place, type and message of an exception from a user's Python file, in one line.

    The place is the innermost line that belongs neither to altmap nor to Python itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(_NOT_USERS)]
    where = f"{users[-1].filename}:{users[-1].lineno}: " if users else ""
    message = " ".join(str(error).split())
    return f"{where}{type(error).__name__}{': ' if message else ''}{message}"


def nearest(value: object, known: Iterable[str]) -> str | None:
    """Return the word that a mistyped one is most like, ``None`` if none is like it."""
    import difflib

    words = {word.lower(): word for word in known}
    found = difflib.get_close_matches(str(value).lower(), words, 1)
    return words[found[0]] if found else None


def one_of(value: object, known: Iterable[str], more: str = "") -> str:
    """Return the rule of a message for a wrong word: the valid ones, then the nearest of them.

    *more* follows the valid ones.
    """
    words = list(known)
    near = nearest(value, words)
    hint = "" if near is None else f"; did you mean {near!r}?"
    return f"need one of {', '.join(words)}{more}{hint}"


def unknown(word: str, known: Iterable[str]) -> str:
    """Return the hint for a name that does not exist: the nearest one, else those that do."""
    words = list(known)
    near = nearest(word, words)
    return one_of(word, words) if near is None else f"did you mean {near!r}?"


def printable(text: str) -> str:
    """Return the text in one line, with everything that a terminal would act on escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
