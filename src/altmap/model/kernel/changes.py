"""What differs from the files that the machine showed at its start.

No rule of the kernel reads this; an observer renders anew what is named here, and keeps the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.pfn import PfnSet

__all__ = ("ChangedMemory",)


@dataclass(slots=True, eq=False)
class ChangedMemory:
    """Memory whose files or page flags have changed since the start.

    Attributes
    ----------
    blocks : PfnSet
        Ids of blocks that were added, onlined, offlined, or partly made fake-offline.
    pages : PfnSet
        Pages of other blocks whose flags have changed.
    """

    blocks: PfnSet = field(default_factory=PfnSet)
    pages: PfnSet = field(default_factory=PfnSet)
