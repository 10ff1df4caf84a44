"""Sizes and addresses as text and back.

A *size* and an *address* count bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from altmap.errors import InputError, one_of

__all__ = (
    "SizeUnit",
    "column_unit",
    "counted_size",
    "format_size",
    "parse_address",
    "parse_size",
    "rounded_size",
    "size_bytes",
)

_BINARY = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_UNITS = (
    {"B": 1}
    | {prefix: 1 << shift for prefix, shift in _BINARY.items() if prefix}
    | {f"{prefix}iB": 1 << shift for prefix, shift in _BINARY.items() if prefix}
    | {f"{p}B": 1000**n for n, p in enumerate("KMGTP", start=1)}
    | {"kB": 1000}
)
_PREFIXES = {shift: prefix for prefix, shift in _BINARY.items()}
#: Whole numbers from here on are read less easily than decimals.
_LONG = 10_000
_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*")
#: The widest physical address of the architectures: 52 bits.
_MOST_BYTES = 1 << 52


def parse_size(text: str) -> int:
    """Return the bytes of a size with a unit.

    ``128MiB`` and ``128M`` are binary; ``128MB`` is decimal; a number without a unit is refused,
    since tools disagree on it (QEMU: MiB, libvirt: KiB, the kernel: bytes).

    Raises
    ------
    InputError
        If the unit is missing or unknown, or the size is not a whole number of bytes, or is above
        4 PiB.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"size {text!r}: need a number and a unit, such as '128MiB'")
    number, unit = match.groups()
    if not unit:
        raise InputError(f"size {text!r}: need a unit, such as '{number}MiB'")
    if unit not in _UNITS:
        raise InputError(f"size {text!r}: unknown unit {unit!r}, {one_of(unit, _UNITS)}")
    product = Fraction(number) * _UNITS[unit]
    if product.denominator != 1:
        raise InputError(f"size {text!r}: need a whole number of bytes")
    return _addressable("size", text, int(product))


def size_bytes(value: int | str) -> int:
    """Return the bytes of a size: an integer, or text as for :func:`parse_size`.

    Raises
    ------
    InputError
        As :func:`parse_size`, or if the integer is below zero.
    """
    if isinstance(value, str):
        return parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"size {value!r}: need a number of bytes >= 0 or text such as '128MiB'")
    return _addressable("size", value, value)


def parse_address(value: int | str) -> int:
    """Return the bytes of an address: an integer, ``"0x..."``, or a size such as ``"4GiB"``.

    Raises
    ------
    InputError
        If the text is neither, or the address is below zero or above 4 PiB.
    """
    if isinstance(value, str):
        if re.fullmatch(r"\s*0[xX][0-9a-fA-F]+\s*", value):
            return _addressable("address", value, int(value, 16))
        return parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"address {value!r}: need a number of bytes >= 0 or text such as '0x1000'")
    return _addressable("address", value, value)


def _addressable(kind: str, given: object, value_bytes: int) -> int:
    if value_bytes > _MOST_BYTES:
        raise InputError(f"{kind} {given!r}: need 4 PiB at most, the widest physical address")
    return value_bytes


def format_size(nr_bytes: int) -> str:
    """Return the exact size in the binary unit that people read it in: ``"64 MiB"``.

    That is the largest unit that shows it with one decimal, as ``"25.5 GiB"``; with three if the
    number would have more than four digits otherwise: ``"237.375 GiB"`` for 243072 MiB.
    """
    whole = [shift for shift in _BINARY.values() if nr_bytes and nr_bytes % (1 << shift) == 0]
    shift = max(whole, default=0)
    decimals = 3 if nr_bytes >> shift >= _LONG else 1
    above = shift + 10
    is_short = above in _PREFIXES and 0 < nr_bytes >> above < _LONG
    if is_short and (nr_bytes >> shift) * 10**decimals % 1024 == 0:
        shown = f"{nr_bytes / (1 << above):.{decimals}f}".rstrip("0")
        return f"{shown} {_PREFIXES[above]}iB"
    return f"{nr_bytes >> shift} {_PREFIXES[shift]}{'iB' if shift else 'B'}"


@dataclass(frozen=True, slots=True)
class SizeUnit:
    """The one unit of a column of sizes.

    Attributes
    ----------
    name : str
    nr_bytes : int
    decimals : int
        How many each number has.
    """

    name: str
    nr_bytes: int
    decimals: int

    def number(self, size_bytes: int, sign: str = "") -> str:
        """Return a size in the unit, without its name: ``"1,152.844"``."""
        return f"{size_bytes / self.nr_bytes:{sign},.{self.decimals}f}"

    def text(self, size_bytes: int, sign: str = "") -> str:
        """Return a size with the unit's name; *sign* is as in a format specification."""
        return f"{self.number(size_bytes, sign)} {self.name}"


def column_unit(sizes_bytes: Iterable[int], decimals: int = 0) -> SizeUnit:
    """Return the unit of a column: MiB, or GiB with three decimals if a size has 10 GiB or more.

    Parameters
    ----------
    sizes_bytes : iterable of int
        The sizes of the column.
    decimals : int
        How many decimals MiB have.
    """
    if max(map(abs, sizes_bytes), default=0) >= 10 << 30:
        return SizeUnit("GiB", 1 << 30, 3)
    return SizeUnit("MiB", 1 << 20, decimals)


def counted_size(nr_kib: int, gained_kib: int | None = None) -> str:
    """Return a size that Linux counts in kB, rounded and as counted: ``"1.9 GiB (1954444 kB)"``.

    A gain follows in both: ``"1.9 GiB, +1008 MiB (1954444 kB, +1032192)"``.
    """
    shown = rounded_size(nr_kib << 10)
    if gained_kib is None:
        return f"{shown} ({nr_kib} kB)"
    gained = f", {'+' * (gained_kib > 0)}{rounded_size(gained_kib << 10)}" if gained_kib else ""
    return f"{shown}{gained} ({nr_kib} kB, {gained_kib:+d})"


def rounded_size(nr_bytes: int, like: int | None = None) -> str:
    """Return the size in the largest binary unit below it, with one decimal: ``"63.5 GiB"``.

    Parameters
    ----------
    nr_bytes : int
    like : int, optional
        Another size, whose unit is taken.
    """
    of = abs(nr_bytes if like is None else like)
    for prefix, shift in reversed(_BINARY.items()):
        if prefix and of >= 1 << shift:
            return f"{nr_bytes / (1 << shift):.1f}".removesuffix(".0") + f" {prefix}iB"
    return f"{nr_bytes} B"
