"""Sizes as each hypervisor writes them, in bytes; none above the widest physical address."""

from __future__ import annotations

import re
from fractions import Fraction

from altmap.errors import InputError

__all__ = (
    "MIB",
    "bounded",
    "cloud_hypervisor_size",
    "libvirt_size",
    "mebibytes",
    "qemu_number",
    "qemu_size",
    "quantity",
    "whole",
)

MIB = 1 << 20
#: The widest physical address of the architectures has 52 bits.
_MOST_BYTES = 1 << 52
_DIGITS = 20

_LETTERS = "kmgtpe"
_NUMBER = re.compile(r"\+?([0-9]{1,20})(?:\.([0-9]{0,20}))?")
_FRACTION = re.compile(r"\+?([0-9]{0,20})(?:\.([0-9]{0,20}))?([A-Za-z]*)")
_QUANTITY = re.compile(
    r"\+?([0-9]{0,30}(?:\.[0-9]{0,30})?)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]{0,2}))"
)
_SUFFIXES = (
    {"": Fraction(1), "m": Fraction(1, 1000), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}
    | {f"{letter}i": Fraction(1 << 10 * n) for n, letter in enumerate("KMGTPE", 1)}
    | {letter: Fraction(1000**n) for n, letter in enumerate("kMGTPE", 1)}
)


def bounded(value_bytes: int, given: object) -> int:
    """Return a size.

    Raises
    ------
    InputError
        If it is below zero or above 4 PiB.
    """
    if value_bytes < 0:
        raise InputError(f"{_short(given)}: need a size of 0 or more")
    if value_bytes > _MOST_BYTES:
        raise InputError(f"{_short(given)}: need 4 PiB at most, the widest physical address")
    return value_bytes


def whole(given: object, most: int = 1 << 64) -> int:
    """Return a whole number, given as text or number; text may be hexadecimal (``0x``).

    Raises
    ------
    InputError
        If it is none, is below zero, or above *most*.
    """
    value = given
    if isinstance(given, str):
        text = given.strip()
        if re.fullmatch(r"[0-9]{1,20}", text):
            value = int(text)
        elif re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
            value = int(text, 16)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{_short(given)}: need a whole number")
    if not 0 <= value <= most:
        raise InputError(f"{_short(given)}: need a whole number from 0 to {most}")
    return value


def mebibytes(given: object) -> int:
    """Return the bytes of a whole number of MiB (Proxmox, Firecracker, VMware)."""
    return bounded(whole(given) * MIB, given)


def libvirt_size(text: str, unit: str | None) -> int:
    """Return the bytes of a size of libvirt's, rounded up to KiB as libvirt does.

    libvirt, src/conf/domain_conf.c: virDomainParseMemory; src/util/virutil.c: virScaleInteger.
    No unit is KiB; a letter alone and ``iB`` are binary, ``B`` after a letter is decimal, and case
    does not matter.
    """
    number = text.strip()
    if not re.fullmatch(rf"\+?[0-9]{{1,{_DIGITS}}}", number):
        raise InputError(f"{_short(text)}: need a whole number of {unit or 'KiB'}")
    name = (unit or "KiB").lower()
    if name in ("b", "byte", "bytes"):
        scale = 1
    elif name[0] in _LETTERS and name[1:] in ("", "ib", "b"):
        base = 1000 if name[1:] == "b" else 1024
        scale = base ** (_LETTERS.index(name[0]) + 1)
    else:
        raise InputError(f"unit {_short(unit)}: need a unit of libvirt's, such as KiB, MiB or GiB")
    return -(-bounded(int(number) * scale, f"{number} {unit or 'KiB'}") // 1024) * 1024


def qemu_size(given: object, without_suffix: int = 1) -> int:
    """Return the bytes of a size of QEMU's.

    QEMU, util/cutils.c: do_strtosz. ``b k M G T P E`` in either case are binary, fractions need
    one, hexadecimal takes none; a number without suffix counts *without_suffix* bytes (1, or a MiB
    for ``-m`` and ``-numa mem``). A number of JSON counts bytes.
    """
    if not isinstance(given, str):
        return bounded(whole(given), given)
    text = given.strip()
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return bounded(int(text, 16) * without_suffix, given)
    match = _FRACTION.fullmatch(text)
    if match is None or not (match[1] or match[2]) or match[3].lower() not in ("b", *_LETTERS, ""):
        raise InputError(f"{_short(given)}: need a size of QEMU's, such as 4G or 512M")
    suffix = match[3].lower()
    scale = (
        without_suffix
        if not suffix
        else 1
        if suffix == "b"
        else 1 << 10 * _LETTERS.find(suffix) + 10
    )
    value = Fraction(f"{match[1] or '0'}.{match[2] or '0'}") * scale
    return bounded(int(value + Fraction(1, 2)), given)


def qemu_number(given: object) -> int:
    """Return a whole number of QEMU's: an address, a node; text may be hexadecimal."""
    return whole(given, (1 << 64) - 1)


def cloud_hypervisor_size(given: object) -> int:
    """Return the bytes of a size of cloud-hypervisor's (option_parser: ByteSized): K, M, G."""
    if not isinstance(given, str):
        return bounded(whole(given), given)
    match = re.fullmatch(r"\s*\+?([0-9]{1,20})([KMG]*)\s*", given)
    if match is None:
        raise InputError(f"{_short(given)}: need a size with K, M or G, such as 512M")
    scale = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2][-1:]]
    return bounded(int(match[1]) * scale, given)


def quantity(given: object) -> int:
    """Return the bytes of a quantity of Kubernetes (``64Mi``, ``1.5G``, ``1e9``), rounded up.

    Kubernetes, apimachinery/pkg/api/resource/quantity.go: ParseQuantity.
    """
    if not isinstance(given, str):
        if isinstance(given, float) and not isinstance(given, bool):
            given = repr(given)
        else:
            return bounded(whole(given), given)
    match = _QUANTITY.fullmatch(given.strip())
    number = match[1] if match else ""
    if match is None or number in ("", ".") or (match[3] or "") not in _SUFFIXES:
        raise InputError(f"{_short(given)}: need a quantity of Kubernetes, such as 2Gi or 512M")
    scale = Fraction(10) ** int(match[2]) if match[2] else _SUFFIXES[match[3] or ""]
    whole_part, _, rest = number.partition(".")
    value = Fraction(f"{whole_part or '0'}.{rest or '0'}") * scale
    return bounded(-(-value.numerator // value.denominator), given)


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:36]}...'"
