"""Owners of pages in use, and the exchange of equivalent frames between states.

Any frame of boot memory serves a memmap, a page table or a file as well as any other of its zone,
so that states that differ only in the choice are equivalent.
"""

from __future__ import annotations

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.pfn import PfnSet

__all__ = ("reassign_boot_frames", "sort_additions", "sort_onlined")


def sort_onlined(kernel: Kernel) -> bool:
    """Let memory have gone online in the order of its addresses; return whether it had not."""
    if len(kernel.onlined) < 2:
        return False
    ordered = tuple(PfnSet(kernel.onlined).ranges())
    if ordered == kernel.onlined:
        return False
    kernel.onlined = ordered
    return True


def sort_additions(kernel: Kernel) -> None:
    """Sort the added ranges by address; no rule depends on their order."""
    kernel.additions.sort(key=lambda addition: addition.pfns.start)


def reassign_boot_frames(kernel: Kernel, boot_used: PfnSet) -> bool:
    """Move pages in use since boot to the highest frames of their zone, owner by owner.

    Nothing changes while some frames are special (pinned, huge, HWPoison), since their neighbours
    are then special too.

    Parameters
    ----------
    kernel : Kernel
    boot_used : PfnSet
        Pages in use at the start, which keep their frames.

    Returns
    -------
    bool
        Whether some frame changed.
    """
    taken = (kernel.used & kernel.boot_ram) - boot_used
    if not taken or kernel.pinned or kernel.hugetlb or kernel.poisoned:
        return False
    moved = False
    for zone in kernel.zones.values():
        pages = taken & zone.present
        if not pages:
            continue
        owners = _owners(kernel)
        if sum(owned.count(pages) for owned in owners) != len(pages):
            return moved  # an owner is not known: the frames stay
        moved = _reassign(kernel, zone, pages, boot_used, owners) or moved
    return moved


def _reassign(
    kernel: Kernel, zone: Zone, pages: PfnSet, boot_used: PfnSet, owners: list[PfnSet]
) -> bool:
    frames = ((kernel.managed(zone) & kernel.boot_ram) - boot_used).highest(len(pages))
    left, moved = frames.copy(), False
    for owned in owners:
        part = owned & pages
        if part:
            new = left.highest(len(part))
            left -= new
            if new != part:
                owned -= part
                owned |= new
                moved = True
    if moved:
        kernel.used -= pages
        kernel.used |= frames
        if kernel.movable.count(pages):
            kernel.movable -= pages
            kernel.movable |= frames & PfnSet.of(*kernel.files.values())
    return moved


def _owners(kernel: Kernel) -> list[PfnSet]:
    """Return the page sets that name the users of pages, in a fixed order."""
    allocations, files = kernel.kernel_allocations, kernel.files
    return [
        *(addition.host_pages for addition in (*kernel.additions, *kernel.failed_additions)),
        kernel.page_tables,
        *(allocations[name] for name in sorted(allocations)),
        *(files[name] for name in sorted(files)),
    ]
