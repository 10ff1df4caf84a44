"""How each manager of virtual machines is asked for memory: lines of a file, and commands.

The words are those of the programs' manuals: virsh(1), qm(1), ch-remote, Firecracker's API, QMP,
Hyper-V's cmdlets (``-StartupBytes`` of a machine that runs: only without dynamic memory), govc,
xl(1).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from string import Template

from altmap.errors import printable
from altmap.units import format_size
from altmap.vm.definition import Definition

__all__ = ("command", "file_line", "has_command", "quantity", "total_bytes")


@dataclass(frozen=True, slots=True)
class _Words:
    """Templates of a manager; sizes have the endings ``_kib``, ``_mib`` and ``_short``.

    Attributes
    ----------
    maximum, memory : str
        The line that makes room for devices, and the one that sets boot memory.
    add, remove : str
        A DIMM, or as much by what the manager has instead.
    add_by_demand : str
        Where the hypervisor adds by itself: let it.
    add_virtio_mem : str
        A virtio-mem device with a requested size.
    resize : str
        Request another size of a virtio-mem device.
    resize_zone : str
        The same of a device whose size the manager counts with its zone's boot memory.
    balloon : str
        Set what the guest has beside its balloon.
    """

    maximum: str
    memory: str
    add: str
    add_by_demand: str = ""
    add_virtio_mem: str = ""
    remove: str = ""
    resize: str = ""
    resize_zone: str = ""
    balloon: str = ""


def quantity(size_bytes: int) -> str:
    """Return a size as ``4GiB``, in the largest unit that shows it exactly."""
    return format_size(size_bytes).replace(" ", "")


def total_bytes(definition: Definition) -> int:
    """Return what the host gives a guest at boot: boot memory, DIMMs, requested sizes."""
    return definition.memory_bytes + sum(
        each.requested_bytes or 0 if each.kind == "virtio-mem" else each.size_bytes
        for each in definition.devices
        if each.kind in ("dimm", "virtio-mem")
    )


def file_line(
    definition: Definition, field: str, memory_bytes: int, most_bytes: int = 0, slots: int = 16
) -> str:
    """Return the line that sets ``maximum`` or ``memory`` in the manager's file."""
    template = getattr(_WORDS[definition.manager], field)
    sizes = {"memory": memory_bytes, "most": most_bytes, "more": most_bytes - memory_bytes}
    return _filled(template, sizes, name=_called(definition), slots=slots)


def has_command(definition: Definition, action: str) -> bool:
    """Tell whether the manager has a command of its own for an action."""
    return bool(getattr(_WORDS[definition.manager], action))


def _called(definition: Definition) -> str:
    """Return what a command calls the machine: one word of a shell, whatever the file says."""
    if definition.id is None and definition.manager == "proxmox":
        return "VMID"
    return shlex.quote(printable(definition.id or definition.name))


def _device(definition: Definition, id_: str) -> str:
    """Return what a command calls a device: part of a JSON string, or one word of a shell."""
    if definition.manager == "qemu":
        return json.dumps(id_)[1:-1]
    return shlex.quote(printable(id_))


def command(
    definition: Definition,
    action: str,
    *,
    size_bytes: int = 0,
    region_bytes: int = 0,
    total: int = 0,
    id_: str = "",
    node: int | None = None,
) -> str:
    """Return the manager's command.

    Parameters
    ----------
    definition : Definition
    action : str
        ``add``, ``add_virtio_mem``, ``remove``, ``resize`` or ``balloon``.
    size_bytes : int
        Of the DIMM, or the requested size of the device.
    region_bytes : int
        The most that a new virtio-mem device can have.
    total : int
        What the guest has afterwards in all.
    id_ : str
        The device.
    node : int, optional
        The NUMA node.
    """
    words = _WORDS[definition.manager]
    template = getattr(words, action) or words.add
    device = next((each for each in definition.devices if each.name == id_), None)
    zone_bytes = device.zone_bytes if device is not None else None
    if action == "resize" and zone_bytes is not None:
        template = words.resize_zone
    if definition.by_demand and template == words.add:
        template = words.add_by_demand
    if node is None and definition.nodes:
        node = 0
    sizes = {
        "size": size_bytes,
        "region": region_bytes,
        "zone": size_bytes + (zone_bytes or 0),
        "total": total,
        "most": max(total, definition.max_memory_bytes or 0),
        "devices": max(0, total - definition.memory_bytes),
        "inflated": max(0, total_bytes(definition) - total),
    }
    return _filled(
        template,
        sizes,
        name=_called(definition),
        id=_device(definition, id_),
        xml_node="" if node is None else f"<node>{node}</node>",
        json_node="" if node is None else f', "node": {node}',
    )


def _filled(template: str, sizes: dict[str, int], **words: object) -> str:
    for name, size in sizes.items():
        words[name] = size
        words[f"{name}_kib"] = size >> 10
        words[f"{name}_mib"] = size >> 20
        words[f"{name}_short"] = quantity(max(0, size)).removesuffix("iB")
    return Template(template).substitute(words)


_DIMM = (
    "<memory model='dimm'><target><size unit='KiB'>${size_kib}</size>${xml_node}</target></memory>"
)
_VIRTIO_MEM = (
    "<memory model='virtio-mem'><target><size unit='KiB'>${region_kib}</size>${xml_node}"
    "<block unit='KiB'>2048</block><requested unit='KiB'>${size_kib}</requested></target></memory>"
)
_FIRECRACKER = "curl --unix-socket /run/firecracker.socket -X PATCH http://localhost/"

_WORDS: dict[str, _Words] = {
    "libvirt": _Words(
        maximum="<maxMemory slots='${slots}' unit='KiB'>${most_kib}</maxMemory>, with a NUMA cell",
        memory="<memory unit='KiB'>${memory_kib}</memory>",
        add=f'virsh attach-device ${{name}} /dev/stdin --live <<< "{_DIMM}"',
        add_virtio_mem=f'virsh attach-device ${{name}} /dev/stdin --live <<< "{_VIRTIO_MEM}"',
        remove=f'virsh detach-device ${{name}} /dev/stdin --live <<< "{_DIMM}"',
        resize="virsh update-memory-device ${name} --alias ${id} --requested-size ${size_kib}KiB "
        "--live",
        balloon="virsh setmem ${name} ${total_kib}KiB --live",
    ),
    "qemu": _Words(
        maximum="-m ${memory_short},slots=${slots},maxmem=${most_short}",
        memory="-m ${memory_short}",
        add='{"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram", '
        '"id": "mem-${id}", "size": ${size}}} {"execute": "device_add", "arguments": '
        '{"driver": "pc-dimm", "id": "${id}", "memdev": "mem-${id}"${json_node}}}',
        add_virtio_mem='{"execute": "object-add", "arguments": {"qom-type": '
        '"memory-backend-ram", "id": "mem-${id}", "size": ${region}, "reserve": false}} '
        '{"execute": "device_add", "arguments": {"driver": "virtio-mem-pci", "id": "${id}", '
        '"memdev": "mem-${id}", "requested-size": ${size}${json_node}}}',
        remove='{"execute": "device_del", "arguments": {"id": "${id}"}}',
        resize='{"execute": "qom-set", "arguments": {"path": "/machine/peripheral/${id}", '
        '"property": "requested-size", "value": ${size}}}',
        balloon='{"execute": "balloon", "arguments": {"value": ${total}}}',
    ),
    "proxmox": _Words(
        maximum="hotplug: disk,network,usb,memory (and numa: 1)",
        memory="memory: ${memory_mib}",
        add="qm set ${name} --memory ${total_mib}",
        balloon="qm set ${name} --balloon ${total_mib}",
    ),
    "kubevirt": _Words(
        maximum="memory: {guest: ${memory_mib}Mi, maxGuest: ${most_mib}Mi}",
        memory="memory: {guest: ${memory_mib}Mi}",
        add="kubectl patch vm ${name} --type merge -p "
        '\'{"spec":{"template":{"spec":{"domain":{"memory":{"guest":"${total_mib}Mi"}}}}}}\'',
    ),
    "cloud-hypervisor": _Words(
        maximum="--memory size=${memory_mib}M,hotplug_size=${more_mib}M",
        memory="--memory size=${memory_mib}M",
        add="ch-remote --api-socket /run/${name}.sock resize --memory ${total_mib}M",
        resize_zone="ch-remote --api-socket /run/${name}.sock resize-zone --id ${id} "
        "--size ${zone_mib}M",
        balloon="ch-remote --api-socket /run/${name}.sock resize --balloon ${inflated_mib}M",
    ),
    "firecracker": _Words(
        maximum='PUT /hotplug/memory {"total_size_mib": ${more_mib}}',
        memory='"mem_size_mib": ${memory_mib}',
        add=_FIRECRACKER + "hotplug/memory -d '{\"requested_size_mib\": ${devices_mib}}'",
        balloon=_FIRECRACKER + "balloon -d '{\"amount_mib\": ${inflated_mib}}'",
    ),
    "vmware": _Words(
        maximum='mem.hotadd = "TRUE"',
        memory='memSize = "${memory_mib}"',
        add="govc vm.change -vm ${name} -m ${total_mib}",
    ),
    "hyper-v": _Words(
        maximum="Set-VMMemory -VMName ${name} -DynamicMemoryEnabled $$true -MaximumBytes ${most}",
        memory="Set-VMMemory -VMName ${name} -StartupBytes ${memory}",
        add="Set-VMMemory -VMName ${name} -StartupBytes ${total}",
        add_by_demand="Set-VMMemory -VMName ${name} -MaximumBytes ${most}"
        " # Hyper-V adds as demand rises",
    ),
    "xen": _Words(
        maximum="maxmem = ${most_mib}",
        memory="memory = ${memory_mib}",
        add="xl mem-set ${name} ${total_mib}m",
        balloon="xl mem-set ${name} ${total_mib}m",
    ),
}
