"""ppc64 dynamic LPAR: ``arch/powerpc/platforms/pseries/hotplug-memory.c``."""

from __future__ import annotations

import errno

from altmap.model.drivers.acpi import plug_dimm
from altmap.model.drivers.driver import Driver
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.offline import memory_block_offline
from altmap.model.kernel.online import memory_block_online
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("RECORD", "DlparDimms", "add", "remove")

RECORD = DriverRecord(
    name="pseries DLPAR",
    scenario='`driver = "dimm"` on ppc64le',
    adds="one logical memory block, which is the memory block; online at once",
    partly_backed="no",
    touches_offline="any access: the block is acquired before",
    opts_in="since 6.6, for each block",
    gives_back="one logical memory block",
    group="none",
    resource="`System RAM`",
    lab="yes, QEMU's pseries machine",
    sources="arch/powerpc/platforms/pseries/hotplug-memory.c",
)


class DlparDimms(Driver):
    """DIMMs of a pseries guest: QEMU hands them over as logical memory blocks."""

    def plug(self, plug: Plug) -> Outcome:
        """Plug a DIMM and let the kernel add its logical memory blocks."""
        device, node = plug_dimm(self, plug)
        return add(self.kernel, device.pfns, node)

    def unplug(self, id_: str) -> Outcome:
        """Request that a DIMM is removed; it is once the kernel has released all of its blocks."""
        device = self.devices.get(id_)
        outcome = remove(self.kernel, device.pfns)
        if outcome:
            self.devices.remove(id_)
        else:
            device.kept = outcome.why
        return outcome


def add(kernel: Kernel, pfns: PfnRange, node: int) -> Outcome:
    """Add a range one logical memory block at a time, and online each whatever the policy says.

    The first refusal ends the request: what it added is removed again, and all that is reported is
    EINVAL. Source: ``dlpar_memory_add_by_ic``.
    """
    added: list[PfnRange] = []
    for block in kernel.block_ids(pfns):
        lmb = kernel.block_pfns(block)
        outcome = _add_lmb(kernel, lmb, node)
        if not outcome:
            for each in added:
                _remove_lmb(kernel, each)
            return _refused("dlpar_memory_add_by_ic", "added", lmb, outcome)
        added.append(lmb)
    return OK


def remove(kernel: Kernel, pfns: PfnRange) -> Outcome:
    """Remove a range one logical memory block at a time; missing blocks are skipped.

    The first refusal ends the request: what it removed is added and onlined again, and all that is
    reported is EINVAL. Source: ``dlpar_memory_remove_by_ic``.
    """
    removed: list[tuple[PfnRange, int]] = []
    for block in kernel.block_ids(pfns):
        lmb = kernel.block_pfns(block)
        addition = kernel.addition_of(lmb.start)
        if addition is None:
            continue
        outcome = _remove_lmb(kernel, lmb)
        if outcome.errno == "EINTR":
            return outcome  # the kernel's thread retries, and no signal can reach it
        if not outcome:
            for each, node in removed:
                _add_lmb(kernel, each, node)
            return _refused("dlpar_memory_remove_by_ic", "removed", lmb, outcome)
        removed.append((lmb, addition.node))
    return OK


def _refused(function: str, done: str, lmb: PfnRange, cause: Outcome) -> Outcome:
    return Outcome.refused(
        errno.EINVAL,
        function,
        f"block {lmb}: {cause.errno} by {cause.function}: {cause.why}; what was {done} before it "
        "is undone",
    )


def _add_lmb(kernel: Kernel, lmb: PfnRange, node: int) -> Outcome:
    """Source: ``dlpar_add_lmb``; a block that cannot go online is removed again."""
    outcome = add_memory_resource(kernel, lmb, node, asks=kernel.release.dlpar_asks, usable=lmb)
    if outcome and not kernel.nr_online(lmb):
        outcome = memory_block_online(kernel, lmb, "online")
        if not outcome:
            _remove_lmb(kernel, lmb)
    return outcome


def _remove_lmb(kernel: Kernel, lmb: PfnRange) -> Outcome:
    """Source: ``dlpar_remove_lmb``."""
    addition = kernel.addition_of(lmb.start)
    assert addition is not None  # the callers know
    if kernel.nr_online(lmb):
        outcome = memory_block_offline(kernel, lmb)
        if not outcome:
            return outcome
    return try_remove_memory(kernel, addition)
