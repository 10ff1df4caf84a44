"""Xen: where the first domain's memory lies, and what the hypervisor lets a domain have.

The first domain sees the host's memory map. As much of its RAM as the domain was given is backed;
RAM beyond it is there for the balloon to fill, or left out (``arch/x86/xen/setup.c:
xen_memory_setup``). The host is QEMU's q35.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.model.platform.backing import Backing
from altmap.pfn import PfnRange, PfnSet

__all__ = ("DomainMemory", "XenDomain", "dom0_memory", "host_resources")

_MIB, _GIB = 1 << 20, 1 << 30
_PAGE = 4096
#: hw/i386/pc_q35.c: low memory ends at the split when RAM reaches the threshold.
_THRESHOLD, _SPLIT = 2816 * _MIB, 2 * _GIB
#: What SeaBIOS keeps at the end of low memory, and below 1 MiB.
_FIRMWARE_TAIL, _EBDA = 0x20000, 0x9FC00
#: Linux looks for an iBFT from here to 1 MiB, and keeps it out of a domain's RAM where it does.
_IBFT = 0x80000
#: include/xen/page.h (EXTRA_MEM_RATIO): most RAM without backing, by RAM with it.
_EXTRA_RATIO = 10
#: hw/pci-host/q35.c: the 64-bit PCI window.
_PCI64_BYTES = 32 * _GIB
_PCI = "PCI Bus 0000:00"


@dataclass(frozen=True, slots=True)
class DomainMemory:
    """The RAM that a domain's kernel sees.

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
        What it may own; ``None`` where nobody says it.
    """

    backing: Backing
    tot_pages: int
    max_pages: int | None = None

    def may_have(self, nr_pages: int) -> int:
        """Return how many of *nr_pages* XENMEM_populate_physmap would give.

        It stops at the first extent that the domain may not have (``common/memory.c:
        populate_physmap``).
        """
        if self.max_pages is None:
            return nr_pages
        return min(nr_pages, max(0, self.max_pages - self.tot_pages))

    def populate_physmap(self, pages: PfnSet) -> None:
        """Back page frames; one that is backed already is paid for again."""
        self.tot_pages += len(pages)
        self.backing.backed |= pages

    def decrease_reservation(self, pages: PfnSet) -> None:
        """Take page frames back."""
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
        The kernel looks for an iBFT (CONFIG_ISCSI_IBFT_FIND) and keeps its place out of RAM.
    """
    host = [(start // _PAGE, end // _PAGE) for start, end in _host_ram(host_bytes, keeps_ibft)]
    given = memory_bytes // _PAGE
    # Frames of the domain that lie where the host has no RAM are moved behind its other memory.
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
    low = host_bytes if host_bytes < _THRESHOLD else _SPLIT
    yield 0, _IBFT if keeps_ibft else _EBDA
    yield _MIB, low - _FIRMWARE_TAIL
    if host_bytes > low:
        yield 4 * _GIB, 4 * _GIB + host_bytes - low


def _holes(ram: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what lies between RAM ranges, and from the last one on."""
    for (_, end), (start, _) in zip(ram, [*ram[1:], (1 << 52, 0)], strict=True):
        yield end, start


def host_resources(host_bytes: int) -> list[tuple[int, int, str]]:
    """Return what else is in the host's address space, ``(start, end, name)``, in bytes.

    As /proc/iomem shows it at its top level, on a q35 without devices. A balloon puts new memory
    into the first gap.
    """
    low = host_bytes if host_bytes < _THRESHOLD else _SPLIT
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
