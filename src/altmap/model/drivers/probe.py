"""The file ``/sys/devices/system/memory/probe``: ``drivers/base/memory.c: probe_store``.

A write of an address adds one block there; whether it is backed is not checked. Where memory is
already, the kernel refuses the write and nothing changes: no hypervisor is asked.
"""

from __future__ import annotations

from altmap.errors import InputError
from altmap.model.drivers.driver import Driver, MemoryDevice
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource, taken
from altmap.pfn import PfnRange
from altmap.scenario import Plug
from altmap.trace import Outcome
from altmap.units import format_size

__all__ = ("RECORD", "ProbeFile")

RECORD = DriverRecord(
    name="the file probe",
    scenario='`driver = "probe"` on x86_64',
    adds="one block",
    partly_backed="not checked",
    touches_offline="not checked",
    opts_in="never",
    gives_back="never",
    group="none",
    resource="`System RAM`",
    lab="yes, by a module of the lab: Debian's kernels lack CONFIG_ARCH_MEMORY_PROBE",
    sources="drivers/base/memory.c",
)


class ProbeFile(Driver):
    """Addresses written to the file; needs a kernel with CONFIG_ARCH_MEMORY_PROBE."""

    def plug(self, plug: Plug) -> Outcome:
        """Back ``size`` bytes, and write their address: the kernel adds the block."""
        kernel = self.kernel
        self.devices.check_new(plug.id)
        assert plug.address is not None  # checked with the scenario
        pfns = self.devices.pfns(plug.address, plug.size)
        block_bytes = kernel.block_nr_pages * kernel.arch.page_size_bytes
        if plug.size > block_bytes:
            raise InputError(
                f"plug {plug.id!r}: size {plug.size:#x}: a write adds one memory block, "
                f"{format_size(block_bytes)}"
            )
        node = plug.node or 0
        if not kernel.node_zones(node):
            raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
        block = PfnRange(pfns.start, pfns.start + kernel.block_nr_pages)
        if plug.address % block_bytes:
            self.devices.add(plug.id, MemoryDevice(plug.driver, pfns))
            return Outcome.refused(
                "EINVAL",
                "probe_store",
                f"{plug.address:#x} is not aligned to memory blocks of {block_bytes:#x} bytes",
            )
        kernel.log.note("driver", f"{plug.address:#x} is written to probe", block, "probe_store")
        refusal = taken(kernel, block)
        if refusal is not None:
            return refusal
        device = self.devices.add(plug.id, MemoryDevice(plug.driver, pfns))
        outcome = add_memory_resource(kernel, block, node, asks=False)
        if outcome:
            device.addition = kernel.additions[-1]
        return outcome
