"""``/proc/meminfo``: name to number, in kB except for counts of huge pages."""

from __future__ import annotations

import re

from altmap.linux.lines import Line, add, lines

__all__ = ("format_line", "parse", "parse_line", "reclaimable_slab_kib", "render")

_LINE = re.compile(r"([^\s:]+): *(\d+)( kB)?", re.ASCII)

# meminfo_proc_show() and hugetlb_report_meminfo() print values right-aligned to this column.
_END = 24
_NAMES_END = 16
_COUNT_NAMES_END = 19


def parse(text: str) -> dict[str, int]:
    """Return the numbers by name, in file order."""
    table: dict[str, int] = {}
    for line in lines(text):
        parse_line(table, line, line.text)
    return table


def render(table: dict[str, int]) -> str:
    """Return the file, aligned as the kernel does."""
    return "".join(f"{format_line(name, value)}\n" for name, value in table.items())


def parse_line(table: dict[str, int], line: Line, text: str) -> None:
    """Put ``Name:   123 kB`` into *table*; *text* is the part of *line* to read."""
    match = _LINE.fullmatch(text)
    if match is None:
        raise line.error("need 'Name: number kB'")
    name, value, unit = match.groups()
    if bool(unit) is _is_count(name):
        raise line.error("need the unit kB, and none for HugePages_*")
    add(table, line, name, line.number(value))


def format_line(name: str, value: int, count_names_end: int = _COUNT_NAMES_END) -> str:
    """Return one line without its newline.

    Parameters
    ----------
    name, value : str, int
    count_names_end : int
        Column in which the five digits of ``HugePages_*`` start; a node's file has its own.
    """
    if _is_count(name):
        return f"{name + ':':<{count_names_end}}{value:>5}"
    names_end = max(_NAMES_END, len(name) + 2)
    return f"{name + ':':<{names_end}}{str(value).rjust(_END - names_end)} kB"


def reclaimable_slab_kib(table: dict[str, int]) -> int:
    """Return what of slab and other kernel memory can be reclaimed; before 4.20 of slab alone."""
    return table.get("KReclaimable", table.get("SReclaimable", 0))


def _is_count(name: str) -> bool:
    return name.startswith("HugePages_")
