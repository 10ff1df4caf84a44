"""Which memory blocks a step selects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from altmap.scenario.defaults import MOST_BLOCKS
from altmap.scenario.fields import FieldError

if TYPE_CHECKING:
    from altmap.scenario.schema import Selection, Veto

__all__ = ("part_of", "selected_blocks")

_BLOCKS = re.compile(r"(?:memory)?([0-9]{1,9})(?:-([0-9]{1,9}))?")
_MOST_ID = 10**9  # exclusive: as many digits as the pattern takes


def selected_blocks(step: Selection | Veto) -> list[int] | None:
    """Return the block ids that the step names itself, ``None`` if it names a device.

    Raises
    ------
    InputError
        If a name is no block: ``32``, ``"32-39"`` and ``"memory32"`` are.
    """
    if step.blocks is None:
        return None
    named = (step.blocks,) if isinstance(step.blocks, int | str) else step.blocks
    ids: list[int] = []
    for item in named:
        chosen = _ids(item)
        if len(ids) + len(chosen) > MOST_BLOCKS:
            raise FieldError(f"blocks {item!r}: need {MOST_BLOCKS} blocks at most")
        ids.extend(chosen)
    if not ids:
        raise FieldError("blocks []: need at least one block")
    return ids


def _ids(item: int | str) -> Sequence[int]:
    if isinstance(item, int):
        match, first, last = 0 <= item < _MOST_ID, item, item
    else:
        found = _BLOCKS.fullmatch(item)
        match = found is not None and int(found[2] or found[1]) >= int(found[1])
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not match:
        raise FieldError(f"blocks {item!r}: need a block id such as 32, '32-39' or 'memory32'")
    return range(first, last + 1)


def part_of(ids: Sequence[int], part: str) -> list[int]:
    """Return the blocks of a device that ``part`` selects: all, or the one it names."""
    chosen = {
        "all": ids,
        "first": ids[:1],
        "middle": ids[len(ids) // 2 :][:1],
        "last": ids[-1:],
    }
    return list(chosen[part])
