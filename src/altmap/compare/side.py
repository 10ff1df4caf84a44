"""One side of a comparison after one step, and what an extractor yields of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from altmap.linux.observation import Observation
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import StepRecord

__all__ = ("UNKNOWN", "Key", "Side", "Values", "block_frames")


@dataclass(frozen=True, slots=True)
class Side:
    """The prediction or the observation of one step.

    Attributes
    ----------
    step : StepRecord
    page_kib : int
        Page size of the observed machine, on both sides: a wrong prediction must not change it.
    chosen : PfnSet
        The page frames that stand, in the prediction, for those that the buddy allocator gave to a
        balloon. Both sides of a comparison have the same set.
    boot_memory : PfnSet
        The page frames of the memory blocks that the observed machine had at its start.
    """

    step: StepRecord
    page_kib: int
    chosen: PfnSet = field(default_factory=PfnSet)
    boot_memory: PfnSet = field(default_factory=PfnSet)

    @property
    def online_memory(self) -> PfnSet:
        """The page frames of the memory blocks that are online after the step."""
        return block_frames(self.seen, self.page_kib, ("online", "going-offline"))

    @property
    def shares_zones(self) -> bool:
        """Whether a Hyper-V balloon has pages: which zones gave how many of them is chance.

        A Xen domain's balloon is not counted: it takes pages one by one and from one zone.
        """
        return bool(self.chosen) and self.seen.balloon is None

    @property
    def seen(self) -> Observation:
        """The machine after the step; without any file where it was not observed."""
        return self.step.observation or Observation()


def block_frames(seen: Observation, page_kib: int, states: Container[str]) -> PfnSet:
    """Return the page frames of the memory blocks in one of some states."""
    folder = seen.memory
    if folder is None:
        return PfnSet()
    size = folder.block_size_bytes // (page_kib << 10)
    ids = [id_ for id_, block in folder.blocks.items() if block.state in states]
    return PfnSet(PfnRange(id_ * size, (id_ + 1) * size) for id_ in ids)


#: What tells the values of one field apart: node and zone, or the number of a memory block. Parts
#: stand in the order of the placeholders in the field's name.
Key = tuple[int | str, ...]
#: Takes one side and yields its values of one field. A value is ``None`` where the side has the
#: place but shows nothing there; it is :data:`UNKNOWN` where the side cannot tell it.
Values = Callable[[Side], Iterable[tuple[Key, Any]]]
#: The value of a side that cannot tell one: the field is not compared.
UNKNOWN: Final = object()
