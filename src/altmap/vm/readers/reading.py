"""Files of any hypervisor, recognised by what is in them."""

from __future__ import annotations

import re
from typing import Any

from altmap.errors import InputError, printable
from altmap.vm.definition import Definition
from altmap.vm.readers.cloud_hypervisor import cloud_hypervisor_commands, cloud_hypervisor_json
from altmap.vm.readers.content import MOST_BYTES, text_of
from altmap.vm.readers.firecracker import firecracker_json
from altmap.vm.readers.hyperv import hyperv_json
from altmap.vm.readers.kubevirt import kubevirt_machines
from altmap.vm.readers.libvirt import libvirt_domains
from altmap.vm.readers.proxmox import proxmox_configuration
from altmap.vm.readers.qemu import FORMAT as QEMU_FORMAT
from altmap.vm.readers.qemu import qemu_definition
from altmap.vm.readers.qemu_commands import qemu_commands
from altmap.vm.readers.qemu_options import sections_of
from altmap.vm.readers.qmp import memory_devices
from altmap.vm.readers.trees import json_values, yaml_documents
from altmap.vm.readers.vmware import vmware_configuration
from altmap.vm.readers.xen import xen_configuration

__all__ = ("FORMATS", "MOST_BYTES", "read_definition", "read_definitions")

#: What is read, for messages.
FORMATS = (
    *("libvirt domain XML", "a QEMU command line", "a file for -readconfig"),
    *("the answer to query-memory-devices", "a Proxmox NNN.conf"),
    *("JSON or a command line of cloud-hypervisor", "JSON of Firecracker", "YAML of KubeVirt"),
    *("a .vmx of VMware", "JSON of Hyper-V's Get-VMMemory", "a configuration of Xen's xl"),
)
_KUBERNETES = re.compile(r"^[ -]*(?:apiVersion|kind):\s*\S", re.MULTILINE)
_NAMES_SHOWN = 10
_CONFIG_FORMAT = "QEMU configuration file"


def read_definition(raw: bytes, name: str, machine: str | None = None) -> Definition:
    """Return the definition of a virtual machine.

    Parameters
    ----------
    raw : bytes
        The file, at most :data:`MOST_BYTES`.
    name : str
        The file's name: it starts messages, and names a machine whose definition has no name.
    machine : str, optional
        The machine's name, where the file defines several.

    Raises
    ------
    InputError
        If the format is none of :data:`FORMATS`, a value is none, or *machine* is needed or
        unknown. One line.
    """
    found = read_definitions(raw, name)
    if machine is not None:
        found = tuple(each for each in found if each.name == machine) or _unknown(
            found, name, machine
        )
    if len(found) > 1:
        raise InputError(
            f"{printable(name)}: defines {len(found)} machines: need the name of one, of "
            f"{_names(found)}"
        )
    return found[0]


def read_definitions(raw: bytes, name: str) -> tuple[Definition, ...]:
    """Return the definitions of all virtual machines in a file; see :func:`read_definition`."""
    try:
        found = _read(text_of(raw), name.rpartition("/")[2] or name)
    except InputError as error:
        raise InputError(printable(f"{name}: {error}")) from error
    return tuple(found)


def _unknown(found: tuple[Definition, ...], name: str, machine: str) -> tuple[Definition, ...]:
    raise InputError(
        printable(f"{name}: machine {machine!r}: need one of the file's: {_names(found)}")
    )


def _names(found: tuple[Definition, ...]) -> str:
    names = [each.name for each in found]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return printable(", ".join(names[:_NAMES_SHOWN]) + more)


def _read(text: str, name: str) -> list[Definition]:
    first = text.lstrip()[:1]
    if first == "<":
        return libvirt_domains(text)
    if first in "{[":
        sections = sections_of(text) if first == "[" else None
        if sections is None:
            return _of_json(json_values(text), name)
        return [qemu_definition(sections, None, name, _CONFIG_FORMAT)]
    if _KUBERNETES.search(text):
        found = kubevirt_machines(yaml_documents(text), name)
        if found:
            return found
    return _of_lines(text, name)


def _of_json(values: list[Any], name: str) -> list[Definition]:
    """Return the definitions of JSON values of whichever program."""
    devices = memory_devices(values, name)
    if devices is not None:
        return [devices]
    found = hyperv_json(values, name)
    if found:
        return found
    for value in values:
        made = firecracker_json(value, name) or cloud_hypervisor_json(value, name)
        if made is not None:
            found.append(made)
    found = found or kubevirt_machines(values, name)
    if not found:
        raise InputError(f"is JSON of no program that is read: need {_known()}")
    return found


def _of_lines(text: str, name: str) -> list[Definition]:
    """Return the definitions of a configuration of lines, or of commands."""
    sections = sections_of(text)
    if sections is not None:
        return [qemu_definition(sections, None, name, _CONFIG_FORMAT)]
    for read in (vmware_configuration, proxmox_configuration, xen_configuration):
        made = read(text, name)
        if made is not None:
            return [made]
    found = cloud_hypervisor_commands(text, name)
    commands = qemu_commands(text)
    several = len(commands) + len(found) > 1
    for command in commands:
        called = f"line {command.line}" if several else name
        found.append(qemu_definition(command.options, command.arch, called, QEMU_FORMAT))
    if not found:
        raise InputError(f"is of no format that is read: need {_known()}")
    return found


def _known() -> str:
    return f"one of {', '.join(FORMATS)}"
