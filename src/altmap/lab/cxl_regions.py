"""dax devices of a guest made of CXL memory: a region of each device, and its dax device.

As ``cxl create-region -t ram`` does it, by sysfs alone.
Source: ``drivers/cxl/core/region.c``, ``drivers/dax/cxl.c``.
"""

from __future__ import annotations

from altmap.errors import InputError, LabError
from altmap.lab.guest import Guest
from altmap.lab.insmod import load_module
from altmap.lab.qemu import CxlMemory
from altmap.lab.state import LONG_SECONDS, must_read, must_write

__all__ = ("CXL_MODULES", "make_cxl_devices")

#: What makes dax devices of CXL memory; kmem comes last.
CXL_MODULES = ("cxl_acpi", "cxl_pci", "cxl_mem", "dax_cxl", "kmem")
_CXL, _DAX = "/sys/bus/cxl", "/sys/bus/dax"
#: Any will do: a region of one device has no interleaving.
_GRANULARITY = "256"
#: Looks for a device that is probed while the module's load has ended, each a fifth of a second.
_LOOKS = 200


def make_cxl_devices(guest: Guest) -> dict[str, str]:
    """Make a dax device, without a driver, of each CXL device of the guest.

    Returns
    -------
    dict of str to str
        The kernel's name of each dax device, such as ``dax0.0``, by the name of its memory.

    Raises
    ------
    InputError
        If a window begins at another address than the scenario says.
    LabError
        If the guest's kernel lacks a module, or refuses a region.
    """
    devices = guest.hardware.cxl
    if not devices:
        return {}
    for module in CXL_MODULES[:-1]:
        load_module(guest, module)
    # The driver that the device is for takes it at once.
    must_write(guest, f"{_DAX}/drivers_autoprobe", "0")
    return {each.name: _make(guest, each, at) for at, each in enumerate(devices)}


def _make(guest: Guest, device: CxlMemory, number: int) -> str:
    window = f"{_CXL}/devices/decoder0.{number}"
    start = int(must_read(guest, f"{window}/start"), 16)
    if start != device.address:
        raise InputError(
            f"plug {device.name!r}: address {device.address:#x}: need {start:#x}, where the "
            "guest's CXL window begins"
        )
    if guest.run(f"test -e {window}/create_ram_region").status:
        raise LabError("this kernel makes no region of volatile CXL memory: need 6.3 or newer")
    endpoint = _endpoint_decoder(guest, number + 1)
    name = must_read(guest, f"{window}/create_ram_region")
    region = f"{_CXL}/devices/{name}"
    for path, word in (
        (f"{window}/create_ram_region", name),
        (f"{_CXL}/devices/{endpoint}/mode", "ram"),
        (f"{_CXL}/devices/{endpoint}/dpa_size", f"{device.size_bytes:#x}"),
        (f"{region}/interleave_granularity", _GRANULARITY),
        (f"{region}/interleave_ways", "1"),
        (f"{region}/size", f"{device.size_bytes:#x}"),
        (f"{region}/target0", endpoint),
        (f"{region}/commit", "1"),
        (f"{_CXL}/drivers/cxl_region/bind", name),
    ):
        must_write(guest, path, word)
    at = int(must_read(guest, f"{region}/resource"), 16)
    if at != start:
        raise LabError(f"{name}: begins at {at:#x}, not at the start of its window, {start:#x}")
    return _found(guest, f"ls -d {region}/dax_region*/dax[0-9]*", name).rpartition("/")[2]


def _endpoint_decoder(guest: Guest, serial: int) -> str:
    """Return the decoder of the device with a serial number."""
    where = f"{_CXL}/devices"
    file = _found(guest, f"grep -lx {serial:#x} {where}/mem*/serial", f"device {serial}")
    memory = file.split("/")[-2]
    # busybox' readlink takes one file.
    ports = f"for e in {where}/endpoint*; do echo $e,$(readlink $e/uport); done"
    line = _found(guest, f"{ports} | grep ,.*/{memory}$", memory)
    port, _, _ = line.partition(",")
    return f"decoder{port.rpartition('endpoint')[2]}.0"


def _found(guest: Guest, command: str, what: str) -> str:
    """Return the line that a command prints, once it prints one."""
    again = f"n=0; until {command} || [ $n -ge {_LOOKS} ]; do n=$((n+1)); sleep 0.2; done"
    lines = guest.run(f"({again}) 2>/dev/null", LONG_SECONDS).text.split()
    if len(lines) != 1:
        raise LabError(f"CXL: {what}: the kernel has no device of it", guest.console())
    return lines[0]
