"""How the kernel reads what is written to a file: words, truth values and numbers.

Source: ``lib/string_helpers.c: sysfs_streq``; ``lib/kstrtox.c: kstrtobool, kstrtoull, kstrtouint``;
``kernel/sysctl.c: proc_get_long``; ``lib/kobject_uevent.c: kobject_synth_uevent``.
A reader returns ``None`` where the kernel returns an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

__all__ = (
    "boolean",
    "c_string",
    "number",
    "one_of",
    "signed_number",
    "sysctl_number",
    "uevent_action",
)

Word = TypeVar("Word", bound=str)
_TRUE, _FALSE = "yYtT1", "nNfF0"
_NUMBER = re.compile(
    r"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*))\n?"
)
_SIGNED = re.compile(r"(?P<minus>-?)(?P<number>.*)", re.DOTALL)
#: What stands behind the first number of a sysctl with one value is left unread.
_SYSCTL = re.compile(r"[ \t\n\v\f\r]*([0-9][0-9a-zA-Z]*)(?:[ \t\n].*)?", re.DOTALL)
_HEX = "[0-9a-fA-F]"
_UEVENT = re.compile(
    r"(?P<action>add|remove|change|move|online|offline|bind|unbind)"
    rf"(?: {_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?: [0-9a-zA-Z]+=[0-9a-zA-Z]+)*)?\n?"
)
_BASES = {"hex": 16, "octal": 8, "decimal": 10}


def c_string(raw: bytes) -> str:
    """Return what the kernel sees of a buffer: the bytes before the first NUL."""
    return raw.partition(b"\0")[0].decode("latin-1")


def one_of(text: str, words: Iterable[Word]) -> Word | None:
    """Return the word that the text is, but for one newline at its end."""
    found = text.removesuffix("\n")
    return next((word for word in words if word == found), None)


def boolean(text: str) -> bool | None:
    """Return a truth value by the first character, of ``on`` and ``off`` by the second."""
    first, second = text[:1], text[1:2]
    if first in ("o", "O"):
        return {"n": True, "N": True, "f": False, "F": False}.get(second)
    if first and first in _TRUE:
        return True
    return False if first and first in _FALSE else None


def number(text: str, bits: int = 64, base: int = 0) -> int | None:
    """Return an unsigned number of so many bits; base 0 reads hex after 0x and octal after 0."""
    if base == 10:
        match = re.fullmatch(r"\+?([0-9]+)\n?", text)
        value = int(match[1]) if match and len(text) < 80 else None
    else:
        match = _NUMBER.fullmatch(text)
        kind = match.lastgroup if match else None
        if match is None or kind is None or len(text) >= 80:
            return None
        value = int(match[kind], _BASES[kind])
    return value if value is not None and value >> bits == 0 else None


def signed_number(text: str) -> int | None:
    """Return a number of 64 bits that may be negative."""
    match = _SIGNED.fullmatch(text)
    value = number(match["number"]) if match else None
    return -value if value is not None and match is not None and match["minus"] else value


def sysctl_number(text: str) -> int | None:
    """Return the first unsigned number of what is written to a file of ``/proc/sys``."""
    match = _SYSCTL.fullmatch(text)
    return number(match[1]) if match else None


def uevent_action(text: str) -> str | None:
    """Return the action that a write to a file ``uevent`` announces.

    Behind it may stand a UUID, and behind that variables.
    """
    match = _UEVENT.fullmatch(text)
    return match["action"] if match else None
