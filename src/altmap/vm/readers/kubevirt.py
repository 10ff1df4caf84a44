"""KubeVirt: virtual machines and their instances, in YAML or JSON, with what they refer to.

The guest's memory is ``domain.memory.guest``, else the request, else the limit. ``maxGuest`` is a
virtio-mem device of the rest, with blocks of 2 MiB, or of 1 GiB with such huge pages
(pkg/liveupdate/memory/memory.go: BuildMemoryDevice).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import DefinedBalloon, DefinedDevice, DefinedNode, Definition, HostBacking
from altmap.vm.readers.arch import arch_named
from altmap.vm.readers.notes import Notes, at, bounded_parts
from altmap.vm.readers.sizes import MIB, quantity, whole
from altmap.vm.readers.trees import Mapped, list_in, mapping_in, number_in

__all__ = ("FORMAT", "kubevirt_machines")

FORMAT = "KubeVirt"
_GROUPS = ("kubevirt.io/", "pool.kubevirt.io/", "instancetype.kubevirt.io/")
#: Where the specification of the instance is, by the kind of the object.
_INSTANCES = {
    "VirtualMachine": "spec.template.spec",
    "VirtualMachineInstance": "spec",
    "VirtualMachineInstanceReplicaSet": "spec.template.spec",
    "VirtualMachinePool": "spec.virtualMachineTemplate.spec.template.spec",
}
_TYPES = ("VirtualMachineInstancetype", "VirtualMachineClusterInstancetype")
_DEEPEST = 3
_BLOCK_BYTES = 2 * MIB
_HUGE_BLOCK_BYTES = 1024 * MIB


@dataclass(frozen=True, slots=True)
class _Said:
    """A value with its name and its line."""

    value: Any
    name: str
    line: int | None


def kubevirt_machines(documents: list[Any], name: str) -> list[Definition]:
    """Return a definition for each virtual machine; none of another file.

    Raises
    ------
    InputError
        If objects of Kubernetes are there and none is a virtual machine, or one has no memory.
    """
    objects = bounded_parts("objects", _objects(documents, _DEEPEST))
    types = {_name(each): each for each in objects if each.get("kind") in _TYPES}
    machines = [each for each in objects if each.get("kind") in _INSTANCES]
    made = [_machine(each, types, name) for each in machines]
    made += [] if made else [_of_type(each, of) for of, each in types.items()]
    if objects and not made:
        kinds = sorted({str(each.get("kind")) for each in objects})
        raise InputError(
            f"has {', '.join(kinds[:5])} of Kubernetes: need one of {', '.join(_INSTANCES)}"
        )
    return made


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for each in value:
            if depth:
                yield from _objects(each, depth - 1)
    elif isinstance(value, dict) and isinstance(value.get("kind"), str):
        if "items" in value and str(value["kind"]).endswith("List"):
            yield from _objects(list_in(value, "items"), depth)
        elif isinstance(value.get("apiVersion"), str):
            yield value


def _name(each: dict[str, Any]) -> str:
    return str(mapping_in(each, "metadata").get("name") or "")


def _machine(each: dict[str, Any], types: dict[str, Any], name: str) -> Definition:
    of = _name(each) or str(mapping_in(each, "metadata").get("generateName") or name)
    spec = mapping_in(each, _INSTANCES[each["kind"]])
    refers = mapping_in(each, "spec.instancetype") or mapping_in(
        each, "spec.virtualMachineTemplate.spec.instancetype"
    )
    if refers:
        known = types.get(str(refers.get("name")))
        if known is None:
            raise InputError(
                f"{of}: its memory is that of instance type {refers.get('name')!r}: "
                "need it in the same file"
            )
        return _definition(of, spec, mapping_in(known, "spec"), each)
    return _definition(of, spec, {}, each)


def _of_type(each: dict[str, Any], name: str) -> Definition:
    return _definition(name, {}, mapping_in(each, "spec"), {})


def _definition(
    name: str, spec: dict[str, Any], of_type: dict[str, Any], whole_object: dict[str, Any]
) -> Definition:
    notes = Notes()
    domain = mapping_in(spec, "domain")
    guest = _memory(domain, of_type)
    if guest is None:
        raise InputError(f"{name}: need domain.memory.guest, or a request of memory")
    memory_bytes = _quantity(guest)
    notes.wrote("memory_bytes", f"{guest.name}: {guest.value}", guest.line)
    at_boot = number_in(mapping_in(whole_object, "status.memory"), "guestAtBoot")
    wanted_bytes = memory_bytes
    if at_boot is not None:
        memory_bytes = _quantity(_Said(at_boot, "guestAtBoot", None))
    if not memory_bytes:
        raise InputError(f"{name}: {guest.name}: {guest.value}: need more than 0")
    most = _said(mapping_in(domain, "memory"), "maxGuest") or _said(
        mapping_in(of_type, "memory"), "maxGuest"
    )
    huge = mapping_in(domain, "memory.hugepages") or mapping_in(of_type, "memory.hugepages")
    backing = _backing(domain, huge)
    devices: tuple[DefinedDevice, ...] = ()
    nodes: tuple[DefinedNode, ...] = ()
    max_bytes = None
    if most is not None:
        max_bytes = _quantity(most)
        notes.wrote("max_memory_bytes", f"{most.name}: {most.value}", most.line)
        if max_bytes > memory_bytes:
            huge_block = backing.hugepage_bytes == _HUGE_BLOCK_BYTES
            devices = (
                DefinedDevice(
                    kind="virtio-mem",
                    size_bytes=max_bytes - memory_bytes,
                    name="virtiomem0",
                    node=0,
                    requested_bytes=max(0, wanted_bytes - memory_bytes),
                    block_bytes=_HUGE_BLOCK_BYTES if huge_block else _BLOCK_BYTES,
                    backing=backing,
                    line=most.line,
                ),
            )
            nodes = (DefinedNode(0, memory_bytes),)
    numa = mapping_in(domain, "cpu.numa")
    if "guestMappingPassthrough" in numa:
        notes.leave("numa.guestMappingPassthrough", "nodes are those of the host")
    for key in ("overcommitGuestOverhead", "overcommitPercent"):
        if number_in(mapping_in(of_type, "memory"), key):
            notes.leave(f"memory.{key}", "changes what the host reserves, not what the guest has")
    boot = mapping_in(domain, "firmware.kernelBoot")
    cmdline = boot.get("kernelArgs")
    if isinstance(cmdline, str):
        notes.wrote("cmdline", f"kernelArgs: {cmdline}", _line(boot, "kernelArgs"))
    kernel = mapping_in(boot, "container").get("kernelPath")
    arch = number_in(spec, "architecture")
    attached = mapping_in(domain, "devices").get("autoattachMemBalloon")
    machine = mapping_in(domain, "machine").get("type")
    return Definition(
        format=FORMAT,
        name=name,
        manager="kubevirt",
        hypervisor="qemu",
        arch=arch_named(arch if isinstance(arch, str) else None),
        arch_given=isinstance(arch, str),
        machine=machine if isinstance(machine, str) and machine else None,
        memory_bytes=memory_bytes,
        max_memory_bytes=max_bytes,
        growth=("virtio-mem",) if devices and wanted_bytes < (max_bytes or 0) else (),
        cpus=_cpus(domain, of_type),
        nodes=nodes,
        devices=devices,
        balloon=DefinedBalloon(present=attached if isinstance(attached, bool) else None),
        backing=backing,
        uefi="efi" in mapping_in(domain, "firmware.bootloader"),
        kernel=kernel if isinstance(kernel, str) else None,
        cmdline=cmdline if isinstance(cmdline, str) else None,
        written=notes.written,
        unread=notes.unread,
    )


def _memory(domain: dict[str, Any], of_type: dict[str, Any]) -> _Said | None:
    return (
        _said(mapping_in(domain, "memory"), "guest")
        or _said(mapping_in(of_type, "memory"), "guest")
        or _said(mapping_in(domain, "resources.requests"), "memory")
        or _said(mapping_in(domain, "resources.limits"), "memory")
    )


def _said(holder: dict[str, Any], name: str) -> _Said | None:
    value = holder.get(name)
    return None if value is None else _Said(value, name, _line(holder, name))


def _line(holder: dict[str, Any], name: str) -> int | None:
    return holder.lines.get(name) if isinstance(holder, Mapped) else None


def _quantity(said: _Said) -> int:
    return at(said.name, said.line, lambda: quantity(said.value))


def _backing(domain: dict[str, Any], huge: dict[str, Any]) -> HostBacking:
    size = huge.get("pageSize")
    locked = mapping_in(domain, "cpu").get("realtime") is not None
    if size is None:
        return HostBacking(locked=locked or None)
    return HostBacking(
        prealloc=True,
        hugepage_bytes=at("pageSize", None, lambda: quantity(size)),
        locked=locked or None,
    )


def _cpus(domain: dict[str, Any], of_type: dict[str, Any]) -> int | None:
    cpu = mapping_in(domain, "cpu")
    counts = [cpu.get(key) for key in ("sockets", "cores", "threads")]
    if any(count is not None for count in counts):
        made = 1
        for count in counts:
            made *= 1 if count is None else at("cpu", None, lambda count=count: whole(count, 4096))  # type: ignore[misc]
        return made
    given = number_in(mapping_in(of_type, "cpu"), "guest")
    for path in ("resources.requests", "resources.limits"):
        given = given if given is not None else mapping_in(domain, path).get("cpu")
    return None if given is None else at("cpu", None, lambda: quantity(given))
