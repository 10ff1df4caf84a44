"""Xen: where the first domain's memory lies, and how much the hypervisor allocates to a domain.

The first domain has the host's memory map. RAM up to the domain's allocation is backed; RAM beyond
it is there for the balloon to fill, or left out (``arch/x86/xen/setup.c: xen_memory_setup``). The
host is QEMU's q35.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.model.platform.backing import Backing
from altmap.model.platform.qemu import low_memory_bytes
from altmap.pfn import PfnRange, PfnSet

__all__ = ("DomainMemory", "XenDomain", "dom0_memory", "host_resources")

_MIB, _GIB = 1 << 20, 1 << 30
_PAGE = 4096
#: What SeaBIOS reserves at the end of low memory, and where RAM below 1 MiB ends.
_FIRMWARE_TAIL, _EBDA = 0x20000, 0x9FC00
#: Linux looks for an iBFT from here to 1 MiB, and a domain's RAM leaves that out where it does.
_IBFT = 0x80000
#: include/xen/page.h (EXTRA_MEM_RATIO): the limit of unbacked RAM, as a multiple of backed RAM.
_EXTRA_RATIO = 10
#: hw/pci-host/q35.c: the 64-bit PCI window.
_PCI64_BYTES = 32 * _GIB
_PCI = "PCI Bus 0000:00"


@dataclass(frozen=True, slots=True)
class DomainMemory:
    """The RAM in a domain's memory map.

    Attributes
    ----------
    ram : PfnSet
    backed : PfnSet
        What of it the hypervisor backs at boot.
    """

    ram: PfnSet
    backed: PfnSet


@dataclass(slots=True)
class XenDomain:
    """A domain's reservation, as the hypervisor counts it.

    Attributes
    ----------
    backing : Backing
    tot_pages : int
        Page frames that the domain owns.
    max_pages : int or None
        What it may own; ``None`` where that is not known.
    """

    backing: Backing
    tot_pages: int
    max_pages: int | None = None

    def may_have(self, nr_pages: int) -> int:
        """Return how many of *nr_pages* XENMEM_populate_physmap allocates.

        It stops at the first extent beyond the domain's limit (``common/memory.c:
        populate_physmap``).
        """
        if self.max_pages is None:
            return nr_pages
        return min(nr_pages, max(0, self.max_pages - self.tot_pages))

    def populate_physmap(self, pages: PfnSet) -> None:
        """Back page frames; one that is backed already counts again."""
        self.tot_pages += len(pages)
        self.backing.backed |= pages

    def decrease_reservation(self, pages: PfnSet) -> None:
        """Release page frames to the hypervisor."""
        self.tot_pages -= len(pages)
        self.backing.backed -= pages


def dom0_memory(
    memory_bytes: int, host_bytes: int, max_bytes: int | None, *, keeps_ibft: bool
) -> DomainMemory:
    """Return the RAM of a first domain that is started with ``dom0_mem=memory,max:max``.

    Parameters
    ----------
    memory_bytes, host_bytes : int
    max_bytes : int or None
        ``None`` for no limit.
    keeps_ibft : bool
        The kernel looks for an iBFT (CONFIG_ISCSI_IBFT_FIND) and leaves its place out of RAM.
    """
    host = [(start // _PAGE, end // _PAGE) for start, end in _host_ram(host_bytes, keeps_ibft)]
    given = memory_bytes // _PAGE
    # Frames of the domain that lie where the host has no RAM are moved above its other memory.
    moved = sum(max(0, min(end, given) - start) for start, end in _holes(host))
    extra = _EXTRA_RATIO * given
    if max_bytes is not None:
        extra = min(extra, max_bytes // _PAGE + moved - given)
    ram, backed = PfnSet(), PfnSet()
    for start, end in host:
        first = PfnRange(start, max(start, min(end, given)))
        more = min(end - first.end, extra)
        extra -= more
        ram |= PfnRange(start, first.end + more)
        backed |= first
    backed |= (ram - backed).lowest(moved)
    firmware = PfnRange(0, 1)  # arch/x86/kernel/setup.c: trim_bios_range
    return DomainMemory(ram - firmware, backed - firmware)


def _host_ram(host_bytes: int, keeps_ibft: bool) -> Iterator[tuple[int, int]]:
    low = low_memory_bytes("q35", host_bytes)
    yield 0, _IBFT if keeps_ibft else _EBDA
    yield _MIB, low - _FIRMWARE_TAIL
    if host_bytes > low:
        yield 4 * _GIB, 4 * _GIB + host_bytes - low


def _holes(ram: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what lies between RAM ranges, and from the last one on."""
    for (_, end), (start, _) in zip(ram, [*ram[1:], (1 << 52, 0)], strict=True):
        yield end, start


def host_resources(host_bytes: int) -> list[tuple[int, int, str]]:
    """Return the other resources of the host's address space, ``(start, end, name)``, in bytes.

    As /proc/iomem shows it at its top level, on a q35 without devices. A balloon puts new memory
    into the first gap.
    """
    low = low_memory_bytes("q35", host_bytes)
    pci64 = -(-(4 * _GIB + host_bytes - low) // _GIB) * _GIB
    return [
        (0, 0x1000, "Reserved"),
        (low - _FIRMWARE_TAIL, low, "Reserved"),
        (low, 0xB0000000, _PCI),
        (0xB0000000, 0xC0000000, "PCI ECAM 0000 [bus 00-ff]"),
        (0xC0000000, 0xFEC00000, _PCI),
        (0xFEC00000, 0xFEC01000, "Reserved"),
        (0xFED00000, 0xFED00400, "HPET 0"),
        (0xFED1C000, 0xFED20000, "Reserved"),
        (0xFEE00000, 0xFEF00000, "Reserved"),
        (0xFFFC0000, 0x100000000, "Reserved"),
        (pci64, pci64 + _PCI64_BYTES, _PCI),
        (0xFD00000000, 0x10000000000, "Reserved"),
    ]
