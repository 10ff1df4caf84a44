"""Sizes and addresses as text and back.

A *size* and an *address* count bytes.
"""

from __future__ import annotations

import re
from fractions import Fraction

from altmap.errors import InputError

__all__ = ("format_size", "parse_address", "parse_size")

_BINARY = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_UNITS = (
    {"B": 1}
    | {prefix: 1 << shift for prefix, shift in _BINARY.items() if prefix}
    | {f"{prefix}iB": 1 << shift for prefix, shift in _BINARY.items() if prefix}
    | {f"{p}B": 1000**n for n, p in enumerate("KMGTP", start=1)}
    | {"kB": 1000}
)
_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*")
#: What the widest architecture can address.
_MOST_BYTES = 1 << 52


def parse_size(text: str) -> int:
    """Return the bytes that a size with a unit stands for.

    ``128MiB`` and ``128M`` are binary; ``128MB`` is decimal; a bare number is refused, since the
    field's tools disagree on its unit (QEMU: MiB, libvirt: KiB, the kernel: bytes).

    Raises
    ------
    InputError
        If the unit is missing or unknown, or the size is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"size {text!r}: need a number and a unit, such as '128MiB'")
    number, unit = match.groups()
    if not unit:
        raise InputError(f"size {text!r}: need a unit, such as '{number}MiB'")
    if unit not in _UNITS:
        raise InputError(f"size {text!r}: unknown unit {unit!r}, need one of {', '.join(_UNITS)}")
    size_bytes = Fraction(number) * _UNITS[unit]
    if size_bytes.denominator != 1:
        raise InputError(f"size {text!r}: need a whole number of bytes")
    return _addressable("size", text, int(size_bytes))


def _addressable(kind: str, given: object, value_bytes: int) -> int:
    if value_bytes > _MOST_BYTES:
        raise InputError(f"{kind} {given!r}: no machine addresses more than 4 PiB")
    return value_bytes


def parse_address(value: int | str) -> int:
    """Return the bytes of an address: an integer, ``"0x..."``, or a size such as ``"4GiB"``."""
    if isinstance(value, str):
        if re.fullmatch(r"\s*0[xX][0-9a-fA-F]+\s*", value):
            return _addressable("address", value, int(value, 16))
        return parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"address {value!r}: need a number of bytes >= 0 or text such as '0x1000'")
    return _addressable("address", value, value)


def format_size(size_bytes: int) -> str:
    """Return the size in the largest binary unit that shows it exactly: ``"64 MiB"``."""
    for prefix, shift in reversed(_BINARY.items()):
        if prefix and size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift} {prefix}iB"
    return f"{size_bytes} B"
