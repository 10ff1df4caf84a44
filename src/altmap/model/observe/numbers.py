"""Arithmetic on lines of numbers, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from altmap.model.kernel.state import Kernel

__all__ = ("gained", "kib", "total")


def gained(start: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return what each number has gained since the start; one that was missing was 0."""
    return {name: value - start.get(name, 0) for name, value in now.items()}


def kib(kernel: Kernel, nr_pages: int) -> int:
    """Return the size of pages in KiB."""
    return nr_pages * kernel.arch.page_size_bytes // 1024


def total(rows: Iterable[Mapping[str, int]], name: str) -> int:
    """Return the sum of one number over rows."""
    return sum(row[name] for row in rows)
