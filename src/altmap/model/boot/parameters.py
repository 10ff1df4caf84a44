"""Words of the kernel's command line that size, divide or reserve boot memory.

Source: ``Documentation/admin-guide/kernel-parameters.txt``; ``kernel/crash_reserve.c``;
``kernel/dma/swiotlb.c: setup_io_tlb_npages``; ``kernel/printk/printk.c: log_buf_len_setup``;
``mm/mm_init.c: cmdline_parse_core``; ``kernel/dma/contiguous.c: early_cma``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from altmap.errors import InputError, one_of

__all__ = (
    "BOOT_WORDS",
    "CrashKernel",
    "HugePagesAtBoot",
    "boot_words",
    "cma_bytes",
    "core_nr_pages",
    "crash_kernel",
    "huge_pages_at_boot",
    "mem_limit_bytes",
    "memmap_words",
    "memparse",
    "numa_off",
)

#: Words that are modelled, each with what it does.
BOOT_WORDS = {
    "crashkernel": "keeps memory for a kernel that dumps this one",
    "swiotlb": "sets the size of the bounce buffers",
    "log_buf_len": "sets the size of the kernel's log",
    "hugepagesz": "sets the size of the huge pages that follow",
    "default_hugepagesz": "sets the size of huge pages",
    "hugepages": "allocates huge pages at boot",
    "iommu": "with off: there are no bounce buffers on x86",
    "mem": "uses less RAM than there is",
    "memmap": "on x86: takes a range out of RAM, or all above a size",
    "kernelcore": "leaves as much boot memory to kernel zones, the rest is movable",
    "movablecore": "makes as much boot memory movable",
    "cma": "keeps boot memory for contiguous allocations and movable pages",
    "numa": "with off: one node, and no addresses that memory can be added at are known",
}
_SUFFIXES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SIZE = re.compile(r"(?:0x[0-9a-f]+|\d+)([kmgtpe]?)", re.IGNORECASE)
_RAM_UNIT_BYTES = 128 << 20
_MIB, _GIB = 1 << 20, 1 << 30
_MOST = 1 << 64


@dataclass(frozen=True, slots=True)
class CrashKernel:
    """What ``crashkernel=`` asks for.

    Attributes
    ----------
    size_bytes : int
    high : bool
        Above 4 GiB if there is memory.
    low_bytes : int or None
        With *high*: what is kept below 4 GiB besides; ``None``: the architecture's default.
    fixed : bool
        The command line names the address.
    """

    size_bytes: int
    high: bool = False
    low_bytes: int | None = None
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class HugePagesAtBoot:
    """A pool that is filled at boot; *size_bytes* is ``None`` for the default size."""

    size_bytes: int | None
    nr_pages: int


def memparse(text: str) -> tuple[int | None, str]:
    """Return the size at the start of a text, and the rest (``lib/cmdline.c: memparse``)."""
    match = _SIZE.match(text)
    if match is None:
        return None, text
    digits = match[0][: len(match[0]) - len(match[1])]
    size = int(digits, 0 if digits[:2].lower() == "0x" else 10) << _SUFFIXES[match[1].lower()]
    return size % _MOST, text[match.end() :]


def boot_words(cmdline: str) -> list[tuple[str, str]]:
    """Return the names and values of a machine's words.

    Raises
    ------
    InputError
        If one is not modelled.
    """
    words = [word.partition("=") for word in cmdline.split()]
    for name, _, _ in words:
        if name not in BOOT_WORDS:
            raise InputError(f"machine.cmdline {name!r}: {one_of(name, BOOT_WORDS)}")
    return [(name, value) for name, _, value in words]


def crash_kernel(words: list[tuple[str, str]], ram_bytes: int) -> CrashKernel | None:
    """Return what is reserved for kdump; ``None`` if nothing is, or the kernel refuses the words.

    *ram_bytes* chooses from a list of ranges (``parse_crashkernel_mem``).
    """
    values = [value for name, value in words if name == "crashkernel"]
    plain = [each for each in values if not each.endswith((",high", ",low"))]
    if plain:
        value = plain[-1]
        size, rest = _of_ranges(value, ram_bytes) if ":" in value else memparse(value)
        fits = size and size < ram_bytes and (not rest or rest[0] in "@,")
        return CrashKernel(size, fixed="@" in rest) if size and fits else None
    high, low = (_with_suffix(values, suffix) for suffix in (",high", ",low"))
    if not high or high >= ram_bytes:
        return None
    return CrashKernel(high, True, low)


def _with_suffix(values: list[str], suffix: str) -> int | None:
    """Return the size of the last word that ends so (``parse_crashkernel_suffix``)."""
    last = next((each for each in reversed(values) if each.endswith(suffix)), "")
    size, rest = memparse(last)
    return size if rest == suffix else None


def _of_ranges(value: str, ram_bytes: int) -> tuple[int | None, str]:
    """Return the size that a list such as ``1G-4G:192M,4G-:256M`` has for this much RAM."""
    ram_bytes = -(-ram_bytes // _RAM_UNIT_BYTES) * _RAM_UNIT_BYTES
    ranges, at, address = value.partition("@")
    for each in ranges.split(","):
        extent, _, text = each.partition(":")
        start, rest = memparse(extent)
        end = memparse(rest[1:])[0] if len(rest) > 1 else _MOST
        size = memparse(text)[0]
        if start is None or end is None or size is None or not rest.startswith("-"):
            return None, ""
        if start <= ram_bytes < end:
            return size, at + address
    return None, ""


def huge_pages_at_boot(words: list[tuple[str, str]]) -> Iterator[HugePagesAtBoot]:
    """Yield the pools that ``hugepagesz=`` and ``hugepages=`` fill (``mm/hugetlb.c``)."""
    default = next((memparse(value)[0] for n, value in words if n == "default_hugepagesz"), None)
    size = default
    for name, value in words:
        if name == "hugepagesz":
            size = memparse(value)[0]
        elif name == "hugepages" and value.isdigit():
            yield HugePagesAtBoot(size, int(value))
            size = default


def mem_limit_bytes(words: list[tuple[str, str]]) -> int | None:
    """Return what ``mem=`` limits RAM to, ``None`` without one; a size of 0 is no limit."""
    sizes = [memparse(value)[0] for name, value in words if name == "mem"]
    return min((size for size in sizes if size), default=None)


def memmap_words(words: list[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges ``[start, end)`` that ``memmap=`` takes out of RAM.

    ``SIZE$START`` reserves, ``SIZE!START`` makes persistent memory, ``SIZE#START`` is ACPI's; a
    size alone takes all above it. Source: ``arch/x86/kernel/e820.c: parse_memmap_one``.
    """
    for each in (part for name, value in words if name == "memmap" for part in value.split(",")):
        size, rest = memparse(each)
        start = memparse(rest[1:])[0] if rest[:1] in ("$", "!", "#") else None
        if size and start is not None:
            yield start, start + size
        elif size and not rest:
            yield size, _MOST


def core_nr_pages(
    words: list[tuple[str, str]], name: str, page_size_bytes: int, total_nr_pages: int
) -> int:
    """Return what ``kernelcore=`` or ``movablecore=`` asks for, 0 if nothing, in pages.

    A percentage is one of all RAM; ``kernelcore=mirror`` needs mirrored memory, which machines here
    have not. Source: ``mm/mm_init.c: cmdline_parse_core, find_zone_movable_pfns_for_nodes``.
    """
    value = dict(words).get(name, "")
    percent = re.match(r"(\d+)%", value)
    if percent:
        return total_nr_pages * int(percent[1]) // 100
    return (memparse(value)[0] or 0) // page_size_bytes


def cma_bytes(words: list[tuple[str, str]]) -> int | None:
    """Return the size that ``cma=`` gives the area that all drivers share, ``None`` without one."""
    values = [memparse(value)[0] for name, value in words if name == "cma"]
    return values[-1] if values else None


def numa_off(words: list[tuple[str, str]]) -> bool:
    """Tell whether the kernel reads no nodes (``arch/x86/mm/numa.c: numa_setup``)."""
    return ("numa", "off") in words
