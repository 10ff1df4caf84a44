"""Memory blocks out of the table that util-linux' ``lsmem`` printed.

Archives of sos hold no ``sys/devices/system/memory`` but the output of
``lsmem -a -o RANGE,SIZE,STATE,REMOVABLE,ZONES,NODE,BLOCK`` (sos, ``report/plugins/memory.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from altmap.errors import InputError
from altmap.linux.lines import Line, lines

__all__ = ("LsmemRow", "parse")

_RANGE = re.compile(r"0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})")
_BLOCK = re.compile(r"([0-9]{1,15})(?:-([0-9]{1,15}))?")
_NEEDED = ("RANGE", "STATE", "BLOCK")
_STATES = {"on->off": "going-offline"}
_ZONES = {"None": "none", "Highmem": "HighMem"}
_REMOVABLE = {"yes": True, "no": False, "": None}
#: 64 TiB in blocks of 128 MiB; a row that says more is none of lsmem's.
_MOST_BLOCKS = 1 << 19


class LsmemRow:
    """Consecutive memory blocks of one row; both ids included.

    Attributes
    ----------
    first, last : int
    block_size_bytes : int
    state : str
        As in sysfs.
    removable : bool or None
    zones : tuple of str or None
    node : int or None
    """

    def __init__(self, line: Line, cells: dict[str, str]) -> None:
        span, ids = _RANGE.fullmatch(cells["RANGE"]), _BLOCK.fullmatch(cells["BLOCK"])
        if span is None or ids is None:
            raise line.error("need a range of addresses and one of blocks, as lsmem prints them")
        start, size = int(span[1], 16), int(span[2], 16) - int(span[1], 16) + 1
        self.first, self.last = int(ids[1]), int(ids[2] or ids[1])
        count = self.last - self.first + 1
        if not 0 < count <= _MOST_BLOCKS or size <= 0 or size % count:
            raise line.error("need as many blocks as the range has")
        self.block_size_bytes = size // count
        if start != self.first * self.block_size_bytes:
            raise line.error("need the range that belongs to the blocks")
        self.state = _STATES.get(cells["STATE"], cells["STATE"])
        if cells.get("REMOVABLE", "") not in _REMOVABLE:
            raise line.error("REMOVABLE: need yes, no or nothing")
        self.removable = _REMOVABLE[cells.get("REMOVABLE", "")]
        zones = cells.get("ZONES", "")
        self.zones = tuple(_ZONES.get(name, name) for name in zones.split("/")) if zones else None
        node = cells.get("NODE", "")
        self.node = line.number(node) if node else None


def parse(text: str) -> list[LsmemRow]:
    """Return the table's rows.

    Raises
    ------
    InputError
        If it is no such table, or a row contradicts itself or another one.
    """
    every = list(lines(text))
    if not every or not set(_NEEDED) <= set(every[0].text.split()):
        raise InputError(f"need the table of lsmem with the columns {', '.join(_NEEDED)}")
    rows = list(_rows(every))
    if len({row.block_size_bytes for row in rows}) > 1:
        raise InputError("need blocks of one size")
    if sum(row.last - row.first + 1 for row in rows) > _MOST_BLOCKS:
        raise InputError(f"need at most {_MOST_BLOCKS} blocks in all")
    seen = -1
    for row in rows:
        if row.first <= seen:
            raise InputError(f"block {row.first} is given twice, or not in order")
        seen = row.last
    return rows


def _rows(every: list[Line]) -> Iterator[LsmemRow]:
    # All columns but RANGE are aligned to the right, so they end where their heading ends.
    heads = list(re.finditer(r"\S+", every[0].text))
    if heads[0][0] != "RANGE":
        raise every[0].error("need RANGE as the first column")
    for line in every[1:]:
        if not line.text.strip():
            return  # the sums follow
        cells = {"RANGE": line.text.split(" ", 1)[0]}
        start = len(cells["RANGE"])
        for head in heads[1:]:
            cells[head[0]] = line.text[start : head.end()].strip()
            start = max(start, head.end())
        yield LsmemRow(line, cells)
