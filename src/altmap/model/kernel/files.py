"""Files in memory (tmpfs): pages that processes use, movable unless they are pinned."""

from __future__ import annotations

from altmap.model.kernel.allocator import free_pages
from altmap.model.kernel.single_pages import find_movable_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zonelists import node_order, zones_of_nodes
from altmap.pfn import PfnSet

__all__ = ("migrate_pages", "pin_file", "remove_file", "write_file")


def write_file(kernel: Kernel, name: str, nr_pages: int, *, long_term: bool = False) -> bool:
    """Allocate pages for a file in memory; false, and nothing changed, if there are too few.

    Pages that are pinned for long are moved out of ZONE_MOVABLE first (``mm/gup.c:
    check_and_migrate_movable_pages``) and so end in kernel zones. Other user pages come from the
    movable zone first, then from kernel zones, the first CPU's node before others
    (``include/linux/gfp.h: GFP_HIGHUSER_MOVABLE``).
    """
    nodes = node_order(kernel, min(kernel.cpu_nodes))
    zones = zones_of_nodes(kernel, nodes, below_movable=long_term)
    taken = find_movable_pages(kernel, zones, nr_pages)
    if len(taken) < nr_pages:
        return False
    kernel.files[name] = taken
    kernel.used |= taken
    kernel.movable |= taken
    kernel.swappable |= taken
    return True


def pin_file(kernel: Kernel, name: str, nr_pages: int | None = None) -> None:
    """Pin the lowest pages of a file, or all: migration cannot account for their references."""
    pages = kernel.files[name]
    kernel.pinned |= pages if nr_pages is None else pages.lowest(nr_pages)


def remove_file(kernel: Kernel, name: str) -> None:
    """Free a file's pages."""
    free_pages(kernel, kernel.files.pop(name))


def migrate_pages(kernel: Kernel, pages: PfnSet, targets: PfnSet) -> None:
    """Move used movable pages to as many free ones, with the files that they hold."""
    if not pages:
        return
    left = targets
    swappable, clean = kernel.swappable & pages, kernel.clean_cache & pages
    now_swappable = PfnSet()
    for name, held in kernel.files.items():
        moving = held & pages
        if moving:
            to = left.lowest(len(moving))
            left = left - to
            kernel.files[name] = (held - moving) | to
            swappable -= moving
            now_swappable |= to
    to_clean = left.lowest(len(clean))
    now_swappable |= (left - to_clean).lowest(len(swappable))
    kernel.clean_cache = (kernel.clean_cache - pages) | to_clean
    kernel.swappable = (kernel.swappable - pages) | now_swappable
    kernel.used = (kernel.used - pages) | targets
    kernel.movable = (kernel.movable - pages) | targets
