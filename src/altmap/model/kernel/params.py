"""Parameters of the running kernel and of its module ``virtio_mem``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Tunables", "VirtioMemTunables")


@dataclass(frozen=True, slots=True)
class VirtioMemTunables:
    """Parameters of the module ``virtio_mem``.

    Attributes
    ----------
    unplug_online : bool
        Memory of online blocks may be unplugged.
    force_bbm : bool
        Big Block Mode, whatever the sizes are.
    bbm_block_size_bytes : int
        Size of a big block; 0 for the smallest possible one.
    bbm_safe_unplug : bool
        Fake-offline a big block before it is offlined; releases that always do ignore it.
    """

    unplug_online: bool = True
    force_bbm: bool = False
    bbm_block_size_bytes: int = 0
    bbm_safe_unplug: bool = True


@dataclass(slots=True)
class Tunables:
    """Parameters of the running kernel.

    Attributes
    ----------
    memmap_on_memory : str
        ``off``, ``on`` or ``force``.
    online_policy : str
        ``contig-zones`` or ``auto-movable``.
    auto_movable_ratio : int
        Percent of movable to kernel memory under ``auto-movable``.
    auto_movable_numa_aware : bool
    movable_node : bool
        ``movable_node`` on the command line.
    auto_online_blocks : str
        ``offline``, ``online``, ``online_kernel`` or ``online_movable``.
    direct_map_1g : bool
        The CPU maps 1 GiB leaves (``pdpe1gb``).
    direct_map_2m : bool
        The CPU maps 2 MiB leaves (``pse``); not in a paravirtual Xen domain.
    debug_vm : bool
        CONFIG_DEBUG_VM, with poisoning of new struct pages on: a memmap is written at add.
    khugepaged : bool
        Transparent huge pages are enabled, so khugepaged raises ``min_free_kbytes``.
    hugetlb_free_vmemmap : bool
        ``hugetlb_free_vmemmap=on``: most of a huge page's struct pages are freed (HVO).
    movable_gigantic_pages : bool
        ``/proc/sys/vm/movable_gigantic_pages``: huge pages of 1 GiB may lie in ZONE_MOVABLE.
    acpi_memory_hotplug : bool
        ``/sys/firmware/acpi/hotplug/memory/enabled``: DIMMs may be ejected.
    virtio_mem : VirtioMemTunables
    unset : frozenset of str
        Options that the kernel is built without, of those that decide something here, without
        ``CONFIG_``.
    """

    memmap_on_memory: str = "off"
    online_policy: str = "contig-zones"
    auto_movable_ratio: int = 301
    auto_movable_numa_aware: bool = True
    movable_node: bool = False
    auto_online_blocks: str = "offline"
    direct_map_1g: bool = True
    direct_map_2m: bool = True
    debug_vm: bool = False
    khugepaged: bool = True
    hugetlb_free_vmemmap: bool = False
    movable_gigantic_pages: bool = False
    acpi_memory_hotplug: bool = True
    virtio_mem: VirtioMemTunables = VirtioMemTunables()
    unset: frozenset[str] = frozenset()

    def write(self, name: str, value: object) -> None:
        """Set one parameter, as a write to its file does."""
        setattr(self, name, value)
