"""Real kernels in QEMU guests: fetched, booted, plugged into, and read.

>>> with Guest(fetch("6.12"), cmdline="memory_hotplug.memmap_on_memory=1") as guest:
...     before = capture(guest)
...     plug_dimm(guest, "d1", 128 << 20)
...     after = capture(guest)
"""

from altmap.lab.arches import GUESTS, GuestArch, guest_arch
from altmap.lab.capture import capture
from altmap.lab.designs import DESIGNS, Design, design_named
from altmap.lab.dimm import PluggedDimm, UnpluggedDimm, plug_dimm, unplug_dimm
from altmap.lab.dlpar import plug_by_dlpar, unplug_by_dlpar
from altmap.lab.guest import Guest
from altmap.lab.inventory import Available, inventory
from altmap.lab.kernel_build import build_kernel, kernel_of
from altmap.lab.kernels import (
    HypervisorFiles,
    KernelFiles,
    fetch,
    fetch_xen,
)
from altmap.lab.own_kernels import own_kernel, package_kernel
from altmap.lab.qemu import Hardware
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.shell import CommandResult
from altmap.lab.state import write_block_state, write_file

__all__ = (
    "DESIGNS",
    "GUESTS",
    "Available",
    "CommandResult",
    "Design",
    "Guest",
    "GuestArch",
    "Hardware",
    "HypervisorFiles",
    "KernelFiles",
    "PluggedDimm",
    "QemuRefusedError",
    "UnpluggedDimm",
    "build_kernel",
    "capture",
    "design_named",
    "fetch",
    "fetch_xen",
    "guest_arch",
    "inventory",
    "kernel_of",
    "own_kernel",
    "package_kernel",
    "plug_by_dlpar",
    "plug_dimm",
    "unplug_by_dlpar",
    "unplug_dimm",
    "write_block_state",
    "write_file",
)
