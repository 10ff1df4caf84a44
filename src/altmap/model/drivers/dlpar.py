"""ppc64 dynamic LPAR: ``arch/powerpc/platforms/pseries/hotplug-memory.c``."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from altmap.model.drivers.acpi import plug_dimm
from altmap.model.drivers.driver import Driver
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.allocator import takes_onlined_first
from altmap.model.kernel.endless import what_it_waits_for
from altmap.model.kernel.offline import go_on_offlining, memory_block_offline
from altmap.model.kernel.online import memory_block_online
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
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


#: arch/powerpc/platforms/pseries/dlpar.c: queue_hotplug_event
_WORKER = "dlpar_memory (pseries_hp_wq)"
_MEMMAP_BEHIND = (
    "the memmap of a block may lie in a block of the same DIMM that was online before it, which "
    "then cannot go first: since 6.10, memory of ppc64 that has come online is allocated next"
)


@dataclass(slots=True)
class DlparDimms(Driver):
    """DIMMs of a pseries guest: QEMU hands them over as logical memory blocks."""

    _removing: str = ""
    _removed: list[tuple[PfnRange, int]] = field(default_factory=list)
    _tried: tuple[int, ...] = ()

    def plug(self, plug: Plug) -> Outcome:
        """Plug a DIMM and let the kernel add its logical memory blocks."""
        device, node = plug_dimm(self, plug)
        return add(self.kernel, device.pfns, node)

    def unplug(self, id_: str) -> Outcome:
        """Request that a DIMM is removed; it is once the kernel has released all of its blocks."""
        return self._after(id_, remove(self.kernel, self.devices.get(id_).pfns, self._removed))

    def _after(self, id_: str, outcome: Outcome) -> Outcome:
        self._removing, self._tried = "", ()
        if outcome.ends:
            self._removed = []
        else:
            self._removing, self._tried = id_, what_it_waits_for(self.kernel)
        if outcome:
            self.devices.remove(id_)
        else:
            self.devices.get(id_).kept = outcome.why
        return outcome

    def work(self) -> None:
        """Let a removal that did not end go on, once there is room or a reference is dropped."""
        if not self._removing or self._tried == what_it_waits_for(self.kernel):
            return
        id_, outcome = self._removing, go_on_offlining(self.kernel, _WORKER)
        if outcome.ends:  # what could not go offline now is refused again
            outcome = remove(self.kernel, self.devices.get(id_).pfns, self._removed)
        self._after(id_, outcome)


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


def remove(kernel: Kernel, pfns: PfnRange, removed: list[tuple[PfnRange, int]]) -> Outcome:
    """Remove a range one logical memory block at a time; missing blocks are skipped.

    The first refusal ends the request: what it removed is added and onlined again, and all that is
    reported is EINVAL. A block whose pages find no room is tried indefinitely: the request runs in
    ``pseries_hp_wq``. Source: ``dlpar_memory_remove_by_ic``; ``dlpar.c: queue_hotplug_event``.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
    removed : list of (PfnRange, int)
        Gets the blocks that were removed, and their nodes.
    """
    doubted = _may_host_memmap(kernel, pfns)
    for block in kernel.block_ids(pfns):
        lmb = kernel.block_pfns(block)
        addition = kernel.addition_of(lmb.start)
        if addition is None:
            continue
        outcome = _remove_lmb(kernel, lmb)
        if not outcome.ends:
            return outcome
        if not outcome:
            for each, node in removed:
                _add_lmb(kernel, each, node)
            return _refused("dlpar_memory_remove_by_ic", "removed", lmb, outcome)
        removed.append((lmb, addition.node))
    return OK.doubted("likely", _MEMMAP_BEHIND) if doubted else OK


def _may_host_memmap(kernel: Kernel, pfns: PfnRange) -> bool:
    """Tell whether a block of a kernel zone is followed by one whose memmap lies elsewhere.

    How much is left of chunks that were claimed before is not predicted.
    """
    if not takes_onlined_first(kernel):
        return False
    hosts = False
    for block in kernel.block_ids(pfns):
        addition = kernel.addition_of(block * kernel.block_nr_pages)
        if addition is None:
            continue
        if hosts and addition.host_pages:
            return True
        zones = kernel.zones_of(kernel.block_pfns(block))
        hosts = hosts or any(zone.name != MOVABLE for zone in zones)
    return False


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
        outcome = memory_block_offline(kernel, lmb, worker=_WORKER)
        if not outcome:
            return outcome
    return try_remove_memory(kernel, addition)
