"""dax devices as their bus shows them: bound to kmem, unbound, and with what kmem is asked for.

A device stays when it is unbound; its memory is gone if all of its blocks were offline. Binding it
again plugs the same range.
Source: ``drivers/dax/bus.c: memmap_on_memory_store, do_id_store``; ``drivers/dax/kmem.c:
state_store`` (since 7.3); ``drivers/base/bus.c: bind_store, unbind_store``.
"""

from __future__ import annotations

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

__all__ = ("DaxDevice", "dax_files", "dax_links")

_BUS = "sys/bus/dax"


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
    is_bound : bool
        Whether kmem has it.
    """

    name: str
    number: int
    plug: Plug
    is_bound: bool

    @property
    def folder(self) -> str:
        """Where the device lies, without a leading slash."""
        return f"sys/devices/platform/hmem.{self.number}/{self.name}"


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
        is_bound = device is not None and not device.unbound
        yield DaxDevice(f"dax{number}.0", number, plug, is_bound)


def dax_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the files of the bus and of each device."""
    made: dict[str, Attribute] = {}
    devices = {device.name: device for device in _devices(machine)}
    if not devices:
        return made
    drivers = f"{_BUS}/drivers"
    made[f"{drivers}/kmem/bind"] = Attribute(None, partial(_bind, machine))
    made[f"{drivers}/kmem/unbind"] = Attribute(None, partial(_unbind, machine))
    made[f"{drivers}/kmem/new_id"] = Attribute(None, partial(_new_id, machine))
    made[f"{drivers}/kmem/remove_id"] = Attribute(None, partial(_id_only, machine))
    made[f"{drivers}/device_dax/remove_id"] = Attribute(None, partial(_id_only, machine))
    for device in devices.values():
        made |= _device_files(machine, device)
    return made


def dax_links(machine: LiveMachine) -> Mapping[str, str]:
    """Return the links of the bus: to each device, and between a device and its driver."""
    made = {}
    for device in _devices(machine):
        made[f"{_BUS}/devices/{device.name}"] = f"../../../{device.folder.removeprefix('sys/')}"
        made[f"{device.folder}/subsystem"] = "../../../../bus/dax"
        if device.is_bound:
            made[f"{device.folder}/driver"] = "../../../../bus/dax/drivers/kmem"
            there = f"../../../../{device.folder.removeprefix('sys/')}"
            made[f"{_BUS}/drivers/kmem/{device.name}"] = there
    return made


def _device_files(machine: LiveMachine, device: DaxDevice) -> dict[str, Attribute]:
    plug, release = device.plug, machine.model.kernel.release
    block_bytes = machine.model.kernel.arch.pmd_size_bytes
    node = plug.node or 0
    size = plug.size + sum(each.size for each in plug.more_ranges)
    numbers = {"size": size, "align": block_bytes, "target_node": node, "numa_node": node}
    made = {
        f"{device.folder}/{name}": Attribute(partial(_decimal, value))
        for name, value in numbers.items()
    }
    made[f"{device.folder}/modalias"] = Attribute(lambda: b"dax:t0\n")
    made[f"{device.folder}/uevent"] = Attribute(lambda: _uevent(device))
    made[f"{device.folder}/dev"] = Attribute(lambda: b"251:%d\n" % device.number)
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


def _decimal(value: int) -> bytes:
    return b"%d\n" % value


def _uevent(device: DaxDevice) -> bytes:
    driver = "DRIVER=kmem\n" if device.is_bound else ""
    return f"{driver}MODALIAS=dax:t0\n".encode()


def _flag(device: DaxDevice) -> bool:
    """Return the file's value; a device of CXL has it set at first."""
    wanted = device.plug.memmap_on_memory
    return device.plug.dax in (None, "cxl") if wanted is None else wanted


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
    device = _named(machine, text)
    if device is None:
        return Outcome.refused("ENODEV", "bind_store", f"{text[:80]!r}: no dax device")
    if device.is_bound:
        return Outcome.refused("EBUSY", "bind_store", f"{device.name} is bound already")
    if device.plug.id in machine.model.devices.by_id:
        return Outcome.refused(
            "EBUSY", "dev_dax_kmem_probe", f"memory of {device.name} stayed when it was unbound"
        )
    return machine.perform(device.plug)


def _new_id(machine: LiveMachine, text: str) -> Outcome:
    """Match a device by its name, and attach it if it is free."""
    device = _named(machine, text)
    if device is None:
        return invalid("do_id_store", text, "the name of a dax device, such as dax0.0")
    if not device.is_bound and device.plug.id not in machine.model.devices.by_id:
        machine.perform(device.plug)  # driver_attach drops what a probe returns
    return OK


def _id_only(machine: LiveMachine, text: str) -> Outcome:
    if _named(machine, text) is None:
        return invalid("do_id_store", text, "the name of a dax device, such as dax0.0")
    return OK


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
    machine.dax_flags[device.plug.id] = value
    return OK


def _store_state(machine: LiveMachine, device: DaxDevice, text: str) -> Outcome:
    word = one_of(text, DAX_STATES)
    if word is None:
        return invalid("state_store", text, f"one of {', '.join(DAX_STATES)}")
    return machine.perform(Write(file=f"/sys/bus/dax/devices/{device.plug.id}/state", word=word))
