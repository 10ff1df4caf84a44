"""Real kernels in QEMU guests: fetched, booted, plugged into, and read.

>>> with Guest(fetch("6.12"), cmdline="memory_hotplug.memmap_on_memory=1") as guest:
...     before = capture(guest)
...     plug_dimm(guest, "d1", 128 << 20)
...     after = capture(guest)
"""

from altmap.lab.capture import capture
from altmap.lab.dimm import PluggedDimm, UnpluggedDimm, plug_dimm, unplug_dimm
from altmap.lab.guest import Guest
from altmap.lab.kernels import HypervisorFiles, KernelFiles, fetch, fetch_xen
from altmap.lab.qemu import Hardware
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.shell import CommandResult
from altmap.lab.state import write_block_state, write_file

__all__ = (
    "CommandResult",
    "Guest",
    "Hardware",
    "HypervisorFiles",
    "KernelFiles",
    "PluggedDimm",
    "QemuRefusedError",
    "UnpluggedDimm",
    "capture",
    "fetch",
    "fetch_xen",
    "plug_dimm",
    "unplug_dimm",
    "write_block_state",
    "write_file",
)
