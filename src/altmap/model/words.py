"""How the kernel reads what is written to a file: words, truth values and numbers.

Source: ``lib/string_helpers.c: sysfs_streq``; ``lib/kstrtox.c: kstrtobool, kstrtoull, kstrtouint``.
A reader returns ``None`` where the kernel returns an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

__all__ = ("boolean", "c_string", "number", "one_of", "signed_number")

Word = TypeVar("Word", bound=str)
_TRUE, _FALSE = "yYtT1", "nNfF0"
_NUMBER = re.compile(
    r"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*))\n?"
)
_SIGNED = re.compile(r"(?P<minus>-?)(?P<number>.*)", re.DOTALL)
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
