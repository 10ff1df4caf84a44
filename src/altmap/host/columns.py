"""The columns of ``altmap ls``: data that its help shows, apart from the modules that fill them."""

from __future__ import annotations

from collections.abc import Sequence

from altmap.errors import InputError, one_of

__all__ = ("COLUMNS", "DEFAULT_COLUMNS", "columns_named", "split_columns")

#: Column to what it shows; the first seven are lsmem's.
COLUMNS: dict[str, str] = {
    "RANGE": "start and end address of the memory range",
    "SIZE": "size of the memory range",
    "STATE": "online status of the memory range",
    "REMOVABLE": "what the kernel's legacy file says; it predicts nothing",
    "BLOCK": "memory block number or range of numbers",
    "NODE": "NUMA node of the memory",
    "ZONES": "valid zones; the first is the current or the default one",
    "MEMMAP": "where the memmap lies: self (this block) or existing (other memory)",
    "DRIVER": "driver that added it: acpi, virtio_mem, kmem; empty if unknown",
    "DEVICE": "the device of that driver",
    "BLOCKERS": "what keeps it from going offline; ? if page flags could not be read",
}
DEFAULT_COLUMNS = ("RANGE", "SIZE", "STATE", "REMOVABLE", "BLOCK")


def columns_named(text: str, default: Sequence[str] = DEFAULT_COLUMNS) -> list[str]:
    """Return the columns of a list such as ``RANGE,SIZE``; ``+NODE`` adds to the default.

    Raises
    ------
    InputError
        If there is no such column.
    """
    adds = text.startswith("+")
    names = [name.strip().upper() for name in text.removeprefix("+").split(",")]
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"column {name!r}: {one_of(name, COLUMNS)}")
    return list(dict.fromkeys([*default, *names] if adds else names))


def split_columns(text: str) -> list[str]:
    """Return the columns of a list for ``--split``; ``none`` joins whatever is consecutive."""
    return [] if text.strip().lower() == "none" else columns_named(text, ())
