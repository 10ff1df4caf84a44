"""The memory blocks of a guest: which exist, and writes to their states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import shorten

from altmap.errors import LabError
from altmap.lab.balloon import AFTER_A_LOOK, wait_for_balloon
from altmap.lab.guest import Guest
from altmap.lab.state import write_block_state, write_block_states
from altmap.lab.veto import Vetoes
from altmap.trace import OK, Outcome

__all__ = ("GuestBlocks",)

_MEMORY = "/sys/devices/system/memory"


class GuestBlocks:
    """The memory blocks of a guest.

    Parameters
    ----------
    guest : Guest

    Attributes
    ----------
    size_bytes : int
        Of each block.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.size_bytes = _hexadecimal(guest, f"{_MEMORY}/block_size_bytes")
        self._at_first = self.ids()

    def exists(self, block: int) -> bool:
        """Tell whether the kernel has a block of that number."""
        return self._guest.run(f"test -d {_MEMORY}/memory{block}").status == 0

    def ids(self) -> set[int]:
        """Return the numbers of the blocks that the kernel has."""
        names = self._guest.run(f"ls {_MEMORY}").text.split()
        return {int(name[6:]) for name in names if re.fullmatch(r"memory[0-9]+", name)}

    def added(self) -> set[int]:
        """Return the blocks that the guest has now and did not have at first."""
        return self.ids() - self._at_first

    def write_states(self, blocks: Sequence[int], word: str, vetoes: Vetoes) -> Outcome:
        """Write a word to the state of each block, up to the first write that is refused.

        Blocks of a Xen domain go online by one command: a balloon's thread runs between two.

        Raises
        ------
        LabError
            If the guest dies or does not answer.
        """
        if not blocks:
            return Outcome.refused("ENOENT", "", "no memory blocks")
        if self._guest.hypervisor is not None and word != "offline":
            result = write_block_states(self._guest, blocks, word, AFTER_A_LOOK)
            wait_for_balloon(self._guest)
            return _written(*result)
        for block in blocks:
            with vetoes.around(block):
                outcome = _written(write_block_state(self._guest, block, word), block)
            if not outcome:
                return outcome
        return OK


def _written(number: int, block: int) -> Outcome:
    """Return how a write to a block's state ended."""
    return Outcome.refused(number, "", f"memory{block}") if number else OK


def _hexadecimal(guest: Guest, path: str) -> int:
    text = guest.run(f"cat {path}").text
    try:
        return int(text, 16)
    except ValueError as error:
        raise LabError(f"{path}: {shorten(ascii(text), 40)}: no number", guest.console()) from error
