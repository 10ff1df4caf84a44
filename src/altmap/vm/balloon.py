"""How a guest grows by its balloon: memory that it has booted with comes back to it.

No memory is added: memmap, zones and blocks are those of all memory at boot, whatever the balloon
has of it. Source: ``drivers/virtio/virtio_balloon.c: fill_balloon, leak_balloon``;
``drivers/xen/balloon.c``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from altmap.model.kernel.zone import MOVABLE
from altmap.model.machine import ModelMachine
from altmap.vm.reach import GivenBack, Reached
from altmap.vm.ways import GrowthWay

__all__ = ("balloon_rows",)


def balloon_rows(
    machine: ModelMachine, way: GrowthWay, sizes: Sequence[int], *, deflates_on_oom: bool
) -> Iterator[Reached]:
    """Yield a guest at each size, up to the first that it does not reach.

    A balloon that deflates when memory runs out leaves MemTotal as it is.

    Parameters
    ----------
    machine : ModelMachine
        Booted with all memory, nothing in the balloon.
    way : GrowthWay
    sizes : sequence of int
        Rising.
    deflates_on_oom : bool
    """
    kernel = machine.kernel
    page = kernel.arch.page_size_bytes
    zones = kernel.zones.values()
    movable = sum(len(zone.present) for zone in zones if zone.name == MOVABLE) * page
    present = sum(len(zone.present) for zone in zones) * page
    total, free = kernel.total_ram_nr_pages() * page, kernel.free_nr_pages() * page
    memmap = kernel.arch.memmap_nr_pages((way.limit_bytes - way.start_bytes) // page) * page
    for size_bytes in sizes:
        added = size_bytes - way.start_bytes
        why = way.missing or (way.limit if size_bytes > way.limit_bytes else "")
        if added > 0 and why:
            yield Reached(
                size_bytes, "refused", why, way.start_bytes if way.missing else way.limit_bytes
            )
            return
        taken = way.limit_bytes - size_bytes
        yield Reached(
            size_bytes=size_bytes,
            result="ok",
            reached_bytes=size_bytes,
            adds_bytes=(added,) if added else (),
            mem_total_bytes=total if deflates_on_oom else max(0, total - taken),
            mem_free_bytes=max(0, free - taken),
            free_bytes=max(0, free - (way.limit_bytes - way.start_bytes)),
            memmap_boot_bytes=memmap,
            kernel_bytes=present - movable,
            movable_bytes=movable,
            given=GivenBack(0, added, 0),
        )
