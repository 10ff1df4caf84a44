"""One side of a comparison after one step, and what an extractor yields of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from altmap.linux.observation import Observation
from altmap.linux.zoneinfo import ZoneInfo
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import StepRecord

__all__ = ("UNKNOWN", "Key", "Side", "Values", "block_frames")

#: Free pages of a zone that a kernel may have in use or not by chance.
_NEARLY_EMPTY_PAGES = 1024


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
        The page frames of the memory blocks that the observed machine had at its start, and of
        memmaps that a step so far put into existing memory; of a step that adds or onlines memory,
        of all that were online before it too.
    shares_zones : bool
        Whether it is chance, on this side or on the other, how many of a balloon's pages each zone
        gave.
    shared_before : bool
        The same after this step or an earlier one: watermarks and reserves follow the managed pages
        that a zone had when they were set.
    ballooned : int, optional
        Pages of a Hyper-V balloon that was asked for more than the guest could give, by the
        messages of this side: it follows MemAvailable how many they are.
    """

    step: StepRecord
    page_kib: int
    chosen: PfnSet = field(default_factory=PfnSet)
    boot_memory: PfnSet = field(default_factory=PfnSet)
    shares_zones: bool = False
    shared_before: bool = False
    ballooned: int | None = None

    @property
    def online_memory(self) -> PfnSet:
        """The page frames of the memory blocks that are online after the step."""
        return block_frames(self.seen, self.page_kib, ("online", "going-offline"))

    @property
    def may_share_zones(self) -> bool:
        """Whether this side alone makes it chance how many of a balloon's pages each zone gave.

        A Hyper-V balloon takes large chunks, of which a zone has more or fewer. A Xen balloon takes
        single pages, all that the highest zone can give before others: only where it has pages of
        more zones than one, or has nearly emptied a zone, is its share of each chance.
        """
        if not self.chosen or self.seen.balloon is None:
            return bool(self.chosen)
        asked = [zone for zone in self.seen.zoneinfo or () if _has_some_of(zone, self.chosen)]
        return len(asked) > 1 or any(z.pages["free"] < _NEARLY_EMPTY_PAGES for z in asked)

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


def _has_some_of(zone: ZoneInfo, pages: PfnSet) -> bool:
    start, spanned = zone.start_pfn, zone.pages.get("spanned", 0)
    return start is not None and bool(pages.count(PfnRange(start, start + spanned)))


#: What tells the values of one field apart: node and zone, or the number of a memory block. Parts
#: stand in the order of the placeholders in the field's name.
Key = tuple[int | str, ...]
#: Takes one side and yields its values of one field. A value is ``None`` where the side has the
#: place but shows nothing there; it is :data:`UNKNOWN` where the side cannot tell it.
Values = Callable[[Side], Iterable[tuple[Key, Any]]]
#: The value of a side that cannot tell one: the field is not compared.
UNKNOWN: Final = object()
