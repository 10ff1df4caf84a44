"""The table of memory blocks: the columns of util-linux' lsmem, and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altmap.errors import InputError
from altmap.linux.memory import Block, MemoryFolder

if TYPE_CHECKING:
    from altmap.host.blockers import Blocks

__all__ = ("BlockRow", "listing")

#: Columns by which ranges are kept apart; the others follow from the range.
_KEYS = ("STATE", "REMOVABLE", "NODE", "ZONES", "MEMMAP", "DRIVER", "DEVICE", "BLOCKERS")
_STATES = {"going-offline": "on->off"}
#: As lsmem names zones (``lsmem.c: zone_names``); a block in one that it does not know joins none.
_ZONES = {
    name.lower(): name
    for name in ("DMA", "DMA32", "Normal", "Highmem", "Movable", "Device", "None")
}
_UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class BlockRow:
    """Consecutive memory blocks that are equal in what keeps ranges apart.

    Attributes
    ----------
    first, last : int
        Block ids, both included.
    block_size_bytes : int
    values : dict
        Column to value: text, bool or int, ``None`` where nothing is to be said.
    """

    first: int
    last: int
    block_size_bytes: int
    values: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """Bytes of the range."""
        return (self.last - self.first + 1) * self.block_size_bytes


def listing(
    memory: MemoryFolder,
    columns: Sequence[str],
    split: Sequence[str] | None = None,
    blocks: Blocks | None = None,
    *,
    each: bool = False,
) -> list[BlockRow]:
    """Return the rows of the table.

    Parameters
    ----------
    memory : MemoryFolder
    columns : sequence of str
        Columns whose values are wanted.
    split : sequence of str, optional
        Columns that keep ranges apart; by default those of *columns*. RANGE, SIZE and BLOCK follow
        from the range and keep nothing apart (util-linux, ``sys-utils/lsmem.c:
        set_split_policy``).
    blocks : Blocks, optional
        Needed for MEMMAP, DRIVER, DEVICE and BLOCKERS.
    each : bool
        List every block by itself.
    """
    keys = [name for name in (columns if split is None else split) if name in _KEYS]
    wanted = list(dict.fromkeys([*keys, *(name for name in columns if name in _KEYS)]))
    makers = [(name, _maker(name, blocks)) for name in wanted]
    alike = not any(name in _OF_NUMBER for name in wanted)
    by_zones = "ZONES" in keys

    def joined(before: dict[str, Any], values: dict[str, Any]) -> bool:
        if by_zones and _UNKNOWN in (values["ZONES"] or ""):
            return False
        return before is values or all(before[name] == values[name] for name in keys)

    made: dict[int, dict[str, Any]] = {}  # by the block's identity: blocks that are alike are one
    rows: list[BlockRow] = []
    first, last, before = 0, -1, None
    for nr, block in memory.blocks.items():
        values = made.get(id(block)) if alike else None
        if values is None:
            values = {name: make(nr, block) for name, make in makers}
            made[id(block)] = values
        if before is None or each or nr != last + 1 or not joined(before, values):
            if before is not None:
                rows.append(BlockRow(first, last, memory.block_size_bytes, before))
            first, before = nr, values
        last = nr
    if before is not None:
        rows.append(BlockRow(first, last, memory.block_size_bytes, before))
    return rows


def _maker(name: str, blocks: Blocks | None) -> Callable[[int, Block], Any]:
    of_block = _OF_BLOCK.get(name)
    if of_block is not None:
        return lambda _, block: of_block(block)
    if blocks is None:
        raise InputError(f"column {name!r}: needs the other files of the machine")
    of_number = _OF_NUMBER[name]
    return lambda nr, _: of_number(blocks, nr)


def _zones(block: Block) -> str | None:
    zones = block.valid_zones
    return "/".join(_ZONES.get(zone.lower(), _UNKNOWN) for zone in zones or ()) or None


def _driver(blocks: Blocks, nr: int) -> str | None:
    device = blocks.device(nr)
    return None if device is None else device.driver


def _device(blocks: Blocks, nr: int) -> str | None:
    device = blocks.device(nr)
    return None if device is None else device.name


def _blockers(blocks: Blocks, nr: int) -> str | None:
    names = [blocker.name for blocker in blocks.blockers(nr)]
    if not blocks.sees_pages and blocks.is_online(nr):
        names.append("?")
    return ",".join(names) or None


_OF_BLOCK: dict[str, Callable[[Block], Any]] = {
    "STATE": lambda block: _STATES.get(block.state, block.state),
    "REMOVABLE": lambda block: bool(block.removable),
    "NODE": lambda block: block.nodes[0] if block.nodes else None,
    "ZONES": _zones,
}
_OF_NUMBER: dict[str, Callable[[Blocks, int], Any]] = {
    "MEMMAP": lambda blocks, nr: blocks.memmap(nr),
    "DRIVER": _driver,
    "DEVICE": _device,
    "BLOCKERS": _blockers,
}
