"""A file of the kernel that is no plain content: what reading it shows, and what a write does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from altmap.live.machine import LiveMachine
from altmap.trace import Outcome

__all__ = ("Attribute", "Family", "Store")

#: Called with what was written, up to its first NUL.
Store = Callable[[str], Outcome]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A file.

    Attributes
    ----------
    show : callable or None
        Returns the content now; ``None`` for a file that cannot be read.
    store : callable or None
        Performs a write; ``None`` for a file that cannot be written.
    """

    show: Callable[[], bytes] | None = None
    store: Store | None = None

    @property
    def mode(self) -> int:
        """The permission bits, as sysfs derives them."""
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)


#: Returns the files of one part of the kernel, by their path below the root.
Family = Callable[[LiveMachine], Mapping[str, Attribute]]
