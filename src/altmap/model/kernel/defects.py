"""Defects of the patches of November 2018 as switches of the policy ``rfc-2018``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("DEFECTS", "Defect")


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that the patches do otherwise than their text says.

    Attributes
    ----------
    id : str
        ``D1`` to ``D8`` are those of November 2018; ``F1`` is of the patches of 2017 that they
        were made of.
    what : str
        What the code does.
    shows : str
        What the model shows with the switch on; empty if it cannot hold the defect.
    reason : str
        Why it cannot.
    """

    id: str
    what: str
    shows: str = ""
    reason: str = ""


#: Every defect by id.
DEFECTS: dict[str, Defect] = {
    defect.id: defect
    for defect in (
        Defect(
            "D1",
            "The flag is an unparenthesised `1<<1`: where s390x vetoes it, the flag for memory "
            "blocks is cleared as well",
            shows="on s390x memory is added, but no memory block appears",
        ),
        Defect(
            "D2",
            "The altmap on the stack is not zeroed, and `reserve` is never set",
            reason="what happens depends on what the stack held before: any offset, or EINVAL",
        ),
        Defect(
            "D3",
            "Onlining starts behind the memmap with chunks of the highest order, whatever the "
            "alignment there",
            shows="with an odd number of sections, chunks of order 10 that start at order 9; with "
            "`debug_vm` the kernel stops at the first",
        ),
        Defect(
            "D4",
            "Marks of memmap pages survive a remove, and a new memmap is not zeroed",
            shows="memory that kept its contents and is added again in a smaller piece loses the "
            "pages that were marked before; with `debug_vm` it does not",
        ),
        Defect(
            "D5",
            "powerpc does not unmap marked pages when memory leaves",
            reason="the model holds no page tables of powerpc, and a mapping that is left over "
            "shows in no file",
        ),
        Defect(
            "D6",
            "A variable of 32 bits holds the pfn at which a section ends, which overflows at "
            "16 TiB",
            shows="above that the memmap is not found, and is freed to the buddy allocator",
        ),
        Defect(
            "D7",
            "`test_pages_isolated` looks for the mark before it knows that there is a page",
            reason="a block with holes, the only kind without backing, is refused before that "
            "function is reached",
        ),
        Defect(
            "D8",
            "The memmap goes when a count of sections, kept in its first page, reaches zero, and "
            "a global variable says which one is at work: a remove of other units than were "
            "added breaks both",
            reason="every driver here removes what it added, as a whole",
        ),
        Defect(
            "F1",
            "The patches of 2017 free the memmap of a range forwards, its own description first",
            shows="a remove of two or more sections faults",
        ),
    )
}
