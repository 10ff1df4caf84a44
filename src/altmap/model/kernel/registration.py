"""What drivers register with the kernel, by the kernel's names.

Notifiers are registered with :meth:`~altmap.model.kernel.notifier.Chain.register`.
"""

from __future__ import annotations

from dataclasses import replace

from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.state import Kernel, OnlineCallback
from altmap.model.kernel.zone import MOVABLE
from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "join_additions",
    "memory_group_register_dynamic",
    "move_to_group",
    "release_mem_region",
    "request_mem_region",
    "restore_online_page_callback",
    "set_online_page_callback",
)


def set_online_page_callback(kernel: Kernel, callback: OnlineCallback) -> bool:
    """Set the callback for pages that go online; false if another driver's is set.

    Source: ``mm/memory_hotplug.c: set_online_page_callback``.
    """
    if kernel.online_page_callback not in (None, callback):
        return False
    kernel.online_page_callback = callback
    return True


def restore_online_page_callback(kernel: Kernel, callback: OnlineCallback) -> None:
    """Restore the generic callback, if this one is set.

    Source: ``mm/memory_hotplug.c: restore_online_page_callback``.
    """
    if kernel.online_page_callback == callback:
        kernel.online_page_callback = None


def memory_group_register_dynamic(kernel: Kernel, node: int, unit_nr_pages: int) -> MemoryGroup:
    """Return a new dynamic memory group (``drivers/base/memory.c``)."""
    group = MemoryGroup(unit_nr_pages=unit_nr_pages, node=node)
    kernel.groups.append(group)
    return group


def request_mem_region(kernel: Kernel, pfns: PfnRange, name: str) -> None:
    """Reserve a resource, the parent of what is added in it (``kernel/resource.c``)."""
    kernel.regions.append((pfns, name))


def release_mem_region(kernel: Kernel, pfns: PfnRange, name: str) -> None:
    """Give a resource back, if it was reserved (``kernel/resource.c: release_resource``)."""
    if (pfns, name) in kernel.regions:
        kernel.regions.remove((pfns, name))


def move_to_group(kernel: Kernel, addition: Addition, group: MemoryGroup) -> int:
    """Put an added range into a group, in place of the one that it was adopted with.

    Returns
    -------
    int
        Pages of the range that are online.
    """
    if addition.group is not None and addition.group is not group:
        kernel.groups = [other for other in kernel.groups if other is not addition.group]
    addition.group = group
    movable = any(zone.name == MOVABLE for zone in kernel.zones_of(addition.pfns))
    nr_pages = kernel.nr_online(addition.pfns) * kernel.block_nr_pages
    group.adjust(nr_pages, movable=movable)
    return nr_pages


def join_additions(kernel: Kernel, parts: list[Addition], pfns: PfnRange) -> None:
    """Make one added range of several that make up *pfns*, as one add had brought them."""
    host = PfnSet.of(*(part.host_pages for part in parts))
    memmap = replace(parts[0].memmap, described=pfns)
    joined = replace(parts[0], pfns=pfns, memmap=memmap, host_pages=host)
    kernel.additions[kernel.additions.index(parts[0])] = joined
    kernel.additions = [add for add in kernel.additions if add not in parts]
