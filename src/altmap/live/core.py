"""Files of the memory hotplug core, and of its module parameters.

Source: ``drivers/base/memory.c``; ``mm/memory_hotplug.c: online_policy_ops``;
``drivers/acpi/sysfs.c: enabled_store``; ``kernel/params.c: param_set_bool, param_set_uint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from altmap.linux import memory, parameters
from altmap.live.attribute import Attribute, invalid
from altmap.live.blocks import ONLINE_TYPES
from altmap.live.machine import LiveMachine
from altmap.live.words import boolean, number, one_of
from altmap.model.boot.tunables import parameters_shown
from altmap.scenario import Address, Plug, Poison, SetTunables, Size
from altmap.trace import Outcome

__all__ = ("acpi_files", "core_files", "parameter_files")

_POLICIES: tuple[Literal["contig-zones", "auto-movable"], ...] = ("contig-zones", "auto-movable")
_ACPI = "sys/firmware/acpi/hotplug/memory/enabled"


def core_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the files of ``/sys/devices/system/memory`` itself that can be written."""
    kernel = machine.model.kernel
    made = {
        f"{memory.ROOT}/auto_online_blocks": Attribute(
            lambda: f"{kernel.tunables.auto_online_blocks}\n".encode(),
            partial(_store_auto_online, machine),
        ),
        f"{memory.ROOT}/soft_offline_page": Attribute(None, partial(_store_soft_offline, machine)),
    }
    if machine.has_probe:
        made[f"{memory.ROOT}/probe"] = Attribute(None, partial(_store_probe, machine))
    return made


def _store_auto_online(machine: LiveMachine, text: str) -> Outcome:
    word = one_of(text, ONLINE_TYPES)
    if word is None:
        return invalid("auto_online_blocks_store", text, f"one of {', '.join(ONLINE_TYPES)}")
    return machine.perform(SetTunables(auto_online_blocks=word))


def _store_soft_offline(machine: LiveMachine, text: str) -> Outcome:
    address = number(text)
    if address is None:
        return invalid("soft_offline_page_store", text, "an address")
    return machine.perform(Poison(address=Address(address)))


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
    stores = {
        "auto_movable_numa_aware": _store_numa_aware,
        "auto_movable_ratio": _store_ratio,
        "online_policy": _store_policy,
    }
    return {
        f"{parameters.ROOT}/{name}": Attribute(
            partial(_show_parameter, machine, name), partial(store, machine)
        )
        for name, store in stores.items()
        if name in machine.model.parameter_names
    }


def _show_parameter(machine: LiveMachine, name: str) -> bytes:
    return f"{parameters_shown(machine.model.kernel.tunables)[name]}\n".encode()


def _store_numa_aware(machine: LiveMachine, text: str) -> Outcome:
    value = boolean(text)
    if value is None:
        return invalid("param_set_bool", text, "a truth value such as Y or N")
    return machine.perform(SetTunables(auto_movable_numa_aware=value))


def _store_ratio(machine: LiveMachine, text: str) -> Outcome:
    value = number(text, bits=32)
    if value is None:
        return invalid("param_set_uint", text, "a number of 32 bits")
    return machine.perform(SetTunables(auto_movable_ratio=value))


def _store_policy(machine: LiveMachine, text: str) -> Outcome:
    word = one_of(text, _POLICIES)
    if word is None:
        return invalid("set_online_policy", text, f"one of {', '.join(_POLICIES)}")
    return machine.perform(SetTunables(online_policy=word))


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
