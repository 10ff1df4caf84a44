"""ppc64 dynamic LPAR: ``arch/powerpc/platforms/pseries/hotplug-memory.c``."""

from __future__ import annotations

from altmap.drivers.acpi import plug_dimm
from altmap.drivers.driver import Driver
from altmap.drivers.record import DriverRecord
from altmap.errors import InputError
from altmap.kernel.hotplug import add_memory_resource, memory_block_online
from altmap.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("RECORD", "DlparDimms", "add")

RECORD = DriverRecord(
    name="pseries DLPAR",
    scenario='`driver = "dimm"` on ppc64le',
    adds="one logical memory block, which is the memory block; online at once",
    partly_backed="no",
    touches_offline="anyone: the block was acquired before",
    opts_in="since 6.6, for each block",
    gives_back="one logical memory block",
    group="none",
    resource="`System RAM`",
    lab="QEMU's pseries machine can",
    sources="arch/powerpc/platforms/pseries/hotplug-memory.c",
)


class DlparDimms(Driver):
    """DIMMs of a pseries guest: QEMU hands them over as logical memory blocks."""

    def plug(self, plug: Plug) -> Outcome:
        """Plug a DIMM and let the kernel add its logical memory blocks."""
        device, node = plug_dimm(self, plug)
        return add(self.kernel, device.pfns, node)

    def unplug(self, id_: str) -> Outcome:
        """Refuse: removal is not modelled."""
        self.devices.get(id_)
        raise InputError(f"unplug {id_!r}: removal by DLPAR is not modelled")


def add(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome:
    """Add a range one logical memory block at a time, and online each whatever the policy says.

    A block that is refused ends the request (``dlpar_memory_add_by_ic``).
    """
    for block in kernel.block_ids(pfns):
        lmb = kernel.block_pfns(block)
        outcome = add_memory_resource(kernel, lmb, node, asks=kernel.release.dlpar_asks, usable=lmb)
        if outcome and not kernel.nr_online(lmb):
            outcome = memory_block_online(kernel, lmb, "online")
        if not outcome:
            return outcome
    return OK
