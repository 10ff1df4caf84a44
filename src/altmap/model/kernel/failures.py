"""Injected failures: errors that a scenario asks for, each used up by one add."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("InjectedFailures",)


@dataclass(slots=True, eq=False)
class InjectedFailures:
    """The failures that the next add runs into.

    Attributes
    ----------
    block_devices : bool
        The memory blocks of the next add cannot be created.
    allocation : int
        Which allocation of the next add fails, counted from 1; 0 for none.
    """

    block_devices: bool = False
    allocation: int = 0

    def inject(self, name: str, value: int) -> None:
        """Ask for a failure, by the name of its attribute."""
        setattr(self, name, value)

    def fails_block_devices(self) -> bool:
        """Tell whether creating the memory blocks of this add fails; the failure is used up."""
        fails, self.block_devices = self.block_devices, False
        return fails

    def fails_allocation(self) -> bool:
        """Tell whether this allocation of the add fails."""
        if not self.allocation:
            return False
        self.allocation -= 1
        return not self.allocation

    def end_add(self) -> None:
        """Drop a failure of an allocation that the add did not reach."""
        self.allocation = 0
