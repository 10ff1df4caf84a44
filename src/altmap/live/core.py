"""Files of the memory hotplug core, and of its module parameters.

What a write to a file of the core or a parameter is, :mod:`altmap.model.control_files` says.
Source: ``drivers/base/memory.c``; ``drivers/acpi/sysfs.c: enabled_store``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from altmap.linux import memory, parameters
from altmap.live.attribute import Attribute, Store, uevent_file
from altmap.live.machine import LiveMachine
from altmap.model.boot.tunables import parameters_shown
from altmap.model.control_files import (
    PARAMETERS,
    invalid,
    store_auto_online_blocks,
    store_soft_offline_page,
)
from altmap.model.words import number
from altmap.scenario import Address, Plug, SetTunables, Size, Step
from altmap.trace import Outcome

__all__ = ("acpi_files", "core_files", "parameter_files")

_ACPI = "sys/firmware/acpi/hotplug/memory/enabled"


def core_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the files of ``/sys/devices/system/memory`` itself that can be written."""
    kernel = machine.model.kernel
    made = {
        f"{memory.ROOT}/auto_online_blocks": Attribute(
            lambda: f"{kernel.tunables.auto_online_blocks}\n".encode(),
            _carrying_out(machine, store_auto_online_blocks),
        ),
        f"{memory.ROOT}/soft_offline_page": Attribute(
            None, _carrying_out(machine, store_soft_offline_page)
        ),
        f"{memory.ROOT}/uevent": uevent_file(machine, memory.ROOT),
    }
    if machine.has_probe:
        made[f"{memory.ROOT}/probe"] = Attribute(None, partial(_store_probe, machine))
    return made


def _carrying_out(machine: LiveMachine, meaning: Callable[[str], Step | Outcome]) -> Store:
    return lambda text: machine.carry_out(meaning(text))


def _store_probe(machine: LiveMachine, text: str) -> Outcome:
    """Add one block, which the platform backs if nothing else lies there."""
    kernel = machine.model.kernel
    size = kernel.block_nr_pages * kernel.arch.page_size_bytes
    address = number(text)
    if address is None or address % size:
        return invalid("probe_store", text, f"an address aligned to {size:#x}")
    return machine.perform(
        Plug(id=machine.new_id("probe"), driver="probe", address=Address(address), size=Size(size))
    )


def parameter_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the parameters of the module ``memory_hotplug`` that can be written at run time."""
    return {
        f"{parameters.ROOT}/{name}": Attribute(
            partial(_show_parameter, machine, name), _carrying_out(machine, meaning)
        )
        for name, meaning in PARAMETERS.items()
        if name in machine.model.parameter_names
    }


def _show_parameter(machine: LiveMachine, name: str) -> bytes:
    return f"{parameters_shown(machine.model.kernel.tunables)[name]}\n".encode()


def acpi_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the file that says whether DIMMs may be ejected, where firmware plugs them so."""
    mechanisms = machine.model.kernel.arch.mechanisms
    if "acpi" not in mechanisms or "standby" in mechanisms:
        return {}
    tunables = machine.model.kernel.tunables
    return {
        _ACPI: Attribute(
            lambda: b"%d\n" % tunables.acpi_memory_hotplug, partial(_store_acpi, machine)
        )
    }


def _store_acpi(machine: LiveMachine, text: str) -> Outcome:
    value = number(text, bits=32, base=10)
    if value is None or value > 1:
        return invalid("enabled_store", text, "0 or 1")
    return machine.perform(SetTunables(acpi_memory_hotplug=bool(value)))
