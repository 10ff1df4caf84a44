"""What is different between two looks at a machine's memory blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from altmap.linux.memory import Block, MemoryFolder

__all__ = ("BlockChange", "MemoryView", "Standing", "StandingRange", "changes", "ranges")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MemoryView:
    """One look at a machine.

    Attributes
    ----------
    memory : MemoryFolder
    mem_total_kib : int or None
        MemTotal; a balloon changes it without any event.
    """

    memory: MemoryFolder
    mem_total_kib: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a memory block stands.

    Attributes
    ----------
    state : str
    zone : str or None
        Where it is online, ``None`` while it is not; ``none`` if it spans several.
    nodes : tuple of int
    """

    state: str
    zone: str | None
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StandingRange:
    """Consecutive memory blocks that stand alike; both ids included."""

    first: int
    last: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class BlockChange:
    """What happened to consecutive memory blocks.

    Attributes
    ----------
    first, last : int
        Block ids, both included.
    before, after : Standing or None
        ``None`` where they are not there.
    """

    first: int
    last: int
    before: Standing | None
    after: Standing | None


def ranges(memory: MemoryFolder) -> list[StandingRange]:
    """Return the blocks, consecutive ones that stand alike together."""
    each = ((nr, _standing_of(block)) for nr, block in memory.blocks.items())
    return [StandingRange(first, last, standing) for first, last, standing in _joined(each)]


def changes(before: MemoryView, after: MemoryView) -> list[BlockChange]:
    """Return what happened to blocks in between, by block; no more can be told from two looks."""
    old, new = before.memory.blocks, after.memory.blocks
    each = (
        (nr, (_standing(old.get(nr)), _standing(new.get(nr))))
        for nr in sorted(old.keys() | new.keys())
        if old.get(nr) != new.get(nr)
    )
    return [
        BlockChange(first, last, *pair) for first, last, pair in _joined(each) if pair[0] != pair[1]
    ]


def _standing(block: Block | None) -> Standing | None:
    return None if block is None else _standing_of(block)


def _standing_of(block: Block) -> Standing:
    zone = block.valid_zones[0] if block.valid_zones and block.state == "online" else None
    return Standing(block.state, zone, block.nodes)


def _joined(each: Iterable[tuple[int, T]]) -> Iterator[tuple[int, int, T]]:
    first = last = -1
    value: T | None = None
    for nr, mine in each:
        if value is not None and nr == last + 1 and mine == value:
            last = nr
            continue
        if value is not None:
            yield first, last, value
        first, last, value = nr, nr, mine
    if value is not None:
        yield first, last, value
