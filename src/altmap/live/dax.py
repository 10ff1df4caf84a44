"""dax devices as their bus shows them: bound to kmem, unbound, and with what kmem is asked for.

A device stays when it is unbound; its memory is gone if all of its blocks were offline. Binding it
again plugs the same range. Bound to device_dax, it is no memory of the kernel, and cannot be
opened here.
Source: ``drivers/dax/bus.c: memmap_on_memory_store, do_id_store``; ``drivers/dax/kmem.c:
state_store`` (since 7.3); ``drivers/dax/device.c: dev_dax_probe``; ``drivers/base/bus.c:
bind_store, unbind_store``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine
from altmap.model.control_files import invalid
from altmap.model.drivers.kmem import DAX_STATES
from altmap.model.kernel.memmap import memmap_on_memory_nr_pages
from altmap.model.words import boolean, one_of
from altmap.scenario import Plug, Unplug, Write
from altmap.trace import OK, Outcome

__all__ = ("DaxDevice", "dax_files", "dax_links", "dax_nodes")

_BUS = "sys/bus/dax"
_KMEM, _DEVICE_DAX = "kmem", "device_dax"
#: What a driver may be told to take, whether the device is there or not.
_NAME = re.compile(r"dax(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\n?")
#: The kernel gives dax the first free major number; this is a common one.
_MAJOR = 251
#: Where the region of a device lies, by what the memory is.
#: Source: ``drivers/cxl/core/region.c``, ``drivers/dax/hmem/device.c``, ``drivers/nvdimm/e820.c``.
_REGIONS = {
    "cxl": "platform/ACPI0017:00/root0/decoder0.{0}/region{0}/dax_region{0}",
    "hmem": "platform/hmem.{0}",
    "pmem": "platform/e820_pmem/ndbus0/region{0}/dax{0}.0",
}


@dataclass(frozen=True, slots=True)
class DaxDevice:
    """A dax device.

    Attributes
    ----------
    name : str
        As on the bus: ``dax0.0``.
    number : int
    plug : Plug
        The step that made it, with the newest value of its file ``memmap_on_memory``.
    driver : str or None
        Which driver has it: kmem or device_dax.
    """

    name: str
    number: int
    plug: Plug
    driver: str | None

    @property
    def is_bound(self) -> bool:
        """Whether kmem has it."""
        return self.driver == _KMEM

    @property
    def kind(self) -> str:
        """What the memory is: cxl, hmem or pmem."""
        return self.plug.dax or "cxl"

    @property
    def folder(self) -> str:
        """Where the device lies, without a leading slash."""
        return f"sys/devices/{_REGIONS[self.kind].format(self.number)}/{self.name}"


def _devices(machine: LiveMachine) -> Iterator[DaxDevice]:
    """Yield the dax devices in the order in which they were made."""
    plugs: dict[str, Plug] = {}
    for step in machine.steps:
        if isinstance(step, Plug) and step.driver == "kmem":
            plugs[step.id] = step
    for number, (id_, plug) in enumerate(plugs.items()):
        device = machine.model.devices.by_id.get(id_)
        flag = machine.dax_flags.get(id_, plug.memmap_on_memory)
        plug = plug.replace(memmap_on_memory=flag)
        is_memory = device is not None and not device.unbound
        driver = _KMEM if is_memory else machine.dax_drivers.get(id_)
        yield DaxDevice(f"dax{number}.0", number, plug, driver)


def dax_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the files of the bus and of each device."""
    made: dict[str, Attribute] = {}
    devices = {device.name: device for device in _devices(machine)}
    if not devices:
        return made
    stores = {
        _KMEM: {"bind": _bind, "unbind": _unbind, "new_id": _new_id, "remove_id": _id_only},
        _DEVICE_DAX: {
            "bind": _bind_device_dax,
            "unbind": _unbind_device_dax,
            "new_id": _new_id_device_dax,
            "remove_id": _remove_id_device_dax,
        },
    }
    for driver, files in stores.items():
        made[f"sys/module/{driver}/initstate"] = Attribute(lambda: b"live\n")
        for name, store in files.items():
            made[f"{_BUS}/drivers/{driver}/{name}"] = Attribute(None, partial(store, machine))
    for device in devices.values():
        made |= _device_files(machine, device)
    return made


def dax_links(machine: LiveMachine) -> Mapping[str, str]:
    """Return the links of the bus: to each device, and between a device and its driver."""
    made = {}
    for device in _devices(machine):
        made[f"{_BUS}/devices/{device.name}"] = device.folder
        made[f"{device.folder}/subsystem"] = _BUS
        made[f"sys/dev/char/{_MAJOR}:{device.number}"] = device.folder
        if device.driver is not None:
            made[f"{device.folder}/driver"] = f"{_BUS}/drivers/{device.driver}"
            made[f"{_BUS}/drivers/{device.driver}/{device.name}"] = device.folder
    return {
        path: posixpath.relpath(f"/{there}", f"/{posixpath.dirname(path)}")
        for path, there in made.items()
    }


def dax_nodes(machine: LiveMachine) -> Mapping[str, tuple[int, int]]:
    """Return major and minor number of each device's node, by its path; none can be opened."""
    return {f"dev/{device.name}": (_MAJOR, device.number) for device in _devices(machine)}


def _device_files(machine: LiveMachine, device: DaxDevice) -> dict[str, Attribute]:
    plug, release = device.plug, machine.model.kernel.release
    block_bytes = machine.model.kernel.arch.pmd_size_bytes
    node = plug.node or 0
    size = plug.size + sum(each.size for each in plug.more_ranges)
    # A platform device is on the node of its memory, a region of CXL on none.
    numa_node = -1 if device.kind == "cxl" else node
    numbers = {"size": size, "align": block_bytes, "target_node": node, "numa_node": numa_node}
    made = {
        f"{device.folder}/{name}": Attribute(partial(_decimal, value))
        for name, value in numbers.items()
    }
    if (start := _start(machine, device)) is not None:
        made[f"{device.folder}/resource"] = Attribute(partial(_hex, start))
        made |= _mapping_files(device, start)
    made[f"{device.folder}/modalias"] = Attribute(lambda: b"dax:t0\n")
    made[f"{device.folder}/uevent"] = Attribute(lambda: _uevent(device))
    made[f"{device.folder}/dev"] = Attribute(lambda: b"%d:%d\n" % (_MAJOR, device.number))
    region = f"{device.folder.rpartition('/')[0]}/dax_region"
    made |= {
        f"{region}/{name}": Attribute(partial(_decimal, value))
        for name, value in {"id": device.number, "size": size, "align": block_bytes}.items()
    }
    if release.kmem_memmap_file:
        made[f"{device.folder}/memmap_on_memory"] = Attribute(
            lambda: b"%d\n" % _flag(device), partial(_store_flag, machine, device)
        )
    if (state := machine.model.dax_state(plug.id)) is not None:
        made[f"{device.folder}/state"] = Attribute(
            f"{state}\n".encode, partial(_store_state, machine, device)
        )
    return made


def _mapping_files(device: DaxDevice, start: int) -> dict[str, Attribute]:
    """Return the files of a device's ranges (``drivers/dax/bus.c: dax_mapping_attributes``)."""
    made = {}
    sizes = (device.plug.size, *(each.size for each in device.plug.more_ranges))
    starts = (start, *(each.address for each in device.plug.more_ranges))
    offset = 0
    for number, (first, size) in enumerate(zip(starts, sizes, strict=True)):
        numbers = {"start": first, "end": first + size - 1, "page_offset": offset}
        for name, value in numbers.items():
            made[f"{device.folder}/mapping{number}/{name}"] = Attribute(partial(_hex, value))
        offset += size
    return made


def _decimal(value: int) -> bytes:
    return b"%d\n" % value


def _start(machine: LiveMachine, device: DaxDevice) -> int | None:
    """Return the address of a device; one that was chosen for it is known while it is bound."""
    if device.plug.address is not None:
        return device.plug.address
    held = machine.model.devices.by_id.get(device.plug.id)
    return None if held is None else held.pfns.start * machine.model.kernel.arch.page_size_bytes


def _hex(value: int) -> bytes:
    return b"0x%x\n" % value


def _uevent(device: DaxDevice) -> bytes:
    driver = f"DRIVER={device.driver}\n" if device.driver else ""
    node = f"MAJOR={_MAJOR}\nMINOR={device.number}\nDEVNAME={device.name}\n"
    return f"{node}{driver}MODALIAS=dax:t0\n".encode()


def _flag(device: DaxDevice) -> bool:
    """Return the file's value; a device of CXL has it set at first."""
    wanted = device.plug.memmap_on_memory
    return device.kind == "cxl" if wanted is None else wanted


# --- bind and unbind -------------------------------------------------------------------------


def _named(machine: LiveMachine, text: str) -> DaxDevice | None:
    devices = {device.name: device for device in _devices(machine)}
    name = one_of(text, devices)
    return None if name is None else devices[name]


def _unbind(machine: LiveMachine, text: str) -> Outcome:
    """Unbind; the write succeeds also where the memory stays, as the log says."""
    device = _named(machine, text)
    if device is None or not device.is_bound:
        return Outcome.refused("ENODEV", "unbind_store", f"{text[:80]!r}: not a device of kmem")
    kernel = machine.model.kernel
    blocks = machine.model.devices.blocks(device.plug.id)
    if kernel.release.kmem_state_file and any(block in kernel.online_blocks for block in blocks):
        why = f"{device.name} has online blocks: write unplugged to its state first"
        return Outcome.refused("EBUSY", "altmap", why)
    machine.perform(Unplug(id=device.plug.id))
    return OK


def _bind(machine: LiveMachine, text: str) -> Outcome:
    device = _free(machine, text, "dev_dax_kmem_probe", "it was unbound")
    return device if isinstance(device, Outcome) else machine.perform(device.plug)


def _free(machine: LiveMachine, text: str, probe: str, since: str) -> DaxDevice | Outcome:
    """Return the device that a driver is to bind, or why it refuses (``bind_store``)."""
    device = _named(machine, text)
    if device is None:
        return Outcome.refused("ENODEV", "bind_store", f"{text[:80]!r}: no dax device")
    if device.driver is not None:
        return Outcome.refused("EBUSY", "bind_store", f"{device.name} is bound already")
    if device.plug.id in machine.model.devices.by_id:
        why = f"memory of {device.name} stayed when {since}"
        return Outcome.refused("EBUSY", probe, why)
    return device


def _new_id(machine: LiveMachine, text: str) -> Outcome:
    """Match a device by its name, and attach it if it is there and free."""
    device = _named(machine, text)
    if device is None:
        return _id_only(machine, text)
    if device.driver is None and device.plug.id not in machine.model.devices.by_id:
        machine.perform(device.plug)  # driver_attach drops what a probe returns
    return OK


def _id_only(machine: LiveMachine, text: str) -> Outcome:
    del machine
    if not _NAME.fullmatch(text):
        return invalid("do_id_store", text, "the name of a dax device, such as dax0.0")
    return OK


def _bind_device_dax(machine: LiveMachine, text: str) -> Outcome:
    named = _named(machine, text)
    if named and named.kind != "pmem" and named.name not in machine.dax_names:
        why = f"{named.name} is for kmem: write its name to new_id first"
        return Outcome.refused("ENODEV", "bind_store", why)
    device = _free(machine, text, "dev_dax_probe", "kmem was unbound")
    if isinstance(device, Outcome):
        return device
    machine.bind_dax(device.plug.id, _DEVICE_DAX)
    return OK


def _unbind_device_dax(machine: LiveMachine, text: str) -> Outcome:
    device = _named(machine, text)
    if device is None or device.driver != _DEVICE_DAX:
        return Outcome.refused("ENODEV", "unbind_store", f"{text[:80]!r}: not a device of it")
    machine.bind_dax(device.plug.id, None)
    return OK


def _new_id_device_dax(machine: LiveMachine, text: str) -> Outcome:
    """Match a device by its name, and attach it if it is free."""
    if answer := _id_only(machine, text):
        machine.dax_names.add(text.removesuffix("\n"))
        _bind_device_dax(machine, text)  # driver_attach drops what a probe returns
    return answer


def _remove_id_device_dax(machine: LiveMachine, text: str) -> Outcome:
    if answer := _id_only(machine, text):
        machine.dax_names.discard(text.removesuffix("\n"))
    return answer


# --- the device's own files ------------------------------------------------------------------


def _store_flag(machine: LiveMachine, device: DaxDevice, text: str) -> Outcome:
    function = "memmap_on_memory_store"
    value = boolean(text)
    if value is None:
        return invalid(function, text, "a truth value such as 0 or 1")
    kernel = machine.model.kernel
    mode = kernel.tunables.memmap_on_memory
    if value and not memmap_on_memory_nr_pages(
        kernel.arch, kernel.release, kernel.block_nr_pages, mode
    ):
        return Outcome.refused(
            "EOPNOTSUPP", function, "memory_hotplug.memmap_on_memory or the sizes forbid it"
        )
    if device.is_bound and value != _flag(device):
        return Outcome.refused("EBUSY", function, f"{device.name} is bound to kmem")
    machine.flag_dax(device.plug.id, value)
    return OK


def _store_state(machine: LiveMachine, device: DaxDevice, text: str) -> Outcome:
    word = one_of(text, DAX_STATES)
    if word is None:
        return invalid("state_store", text, f"one of {', '.join(DAX_STATES)}")
    return machine.perform(Write(file=f"/sys/bus/dax/devices/{device.plug.id}/state", word=word))
