"""``/proc/vmstat`` as the modelled kernel shows it."""

from __future__ import annotations

from collections.abc import Mapping

from altmap.model.kernel.state import Kernel
from altmap.model.observe.numbers import gained, total

__all__ = ("vmstat_numbers", "vmstat_shown")

#: Counters are unsigned longs of the kernel, which wrap.
_WRAP = 1 << 64


def vmstat_shown(
    base: dict[str, int] | None, start: Mapping[str, int], now: Mapping[str, int]
) -> dict[str, int] | None:
    """Return the base's lines with what was gained."""
    if base is None:
        return None
    gains = gained(start, now)
    return {name: (value + gains.get(name, 0)) % _WRAP for name, value in base.items()}


def vmstat_numbers(
    kernel: Kernel, zones: Mapping[tuple[int, str], Mapping[str, int]]
) -> dict[str, int]:
    """Return the kernel's own lines, in pages; *zones* are its zones' pages."""
    return {
        "nr_free_pages": total(zones.values(), "free"),
        "nr_memmap_pages": kernel.memmap_nr_pages(),
        "nr_memmap_boot_pages": kernel.boot_memmap_nr_pages(),
        "nr_balloon_pages": len(kernel.ballooned),
    }
