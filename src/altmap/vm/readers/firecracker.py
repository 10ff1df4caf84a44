"""Firecracker's configuration (``--config-file``, and what ``GET /vm/config`` answers).

docs/memory-hotplug.md: a virtio-mem device whose blocks have 2 MiB unless said otherwise, and which
has no memory at the start.
"""

from __future__ import annotations

from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import DefinedBalloon, DefinedDevice, Definition, Growth, HostBacking
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at
from altmap.vm.readers.sizes import MIB, mebibytes, whole
from altmap.vm.readers.trees import list_in, mapping_in, number_in

__all__ = ("FORMAT", "firecracker_json")

FORMAT = "Firecracker JSON"
_DEFAULT_BLOCK_BYTES = 2 * MIB


def firecracker_json(value: Any, name: str) -> Definition | None:
    """Return the definition of a configuration, ``None`` of another file."""
    if not isinstance(value, dict):
        return None
    machine = mapping_in(value, "machine-config") or (value if "mem_size_mib" in value else {})
    if not machine and "boot-source" not in value:
        return None
    notes = Notes()
    given = machine.get("mem_size_mib")
    if given is None:
        raise InputError("machine-config: need mem_size_mib")
    memory_bytes = at("mem_size_mib", None, lambda: mebibytes(given))
    if not memory_bytes:
        raise InputError("mem_size_mib: 0: need 1 or more")
    devices = _devices(mapping_in(value, "memory-hotplug"))
    for each in list_in(value, "pmem"):
        path = number_in(each, "path_on_host")
        notes.leave(f"pmem {path}", "its size is that of a file of the host")
    balloon = _balloon(mapping_in(value, "balloon"), memory_bytes)
    growth: list[Growth] = ["virtio-mem"] if devices else []
    if balloon.current_bytes is not None and balloon.current_bytes < memory_bytes:
        growth.append("balloon")
    boot = mapping_in(value, "boot-source")
    cpus = machine.get("vcpu_count")
    huge = machine.get("huge_pages")
    return Definition(
        format=FORMAT,
        name=name,
        manager="firecracker",
        hypervisor="firecracker",
        arch=USUAL,
        arch_given=False,
        memory_bytes=memory_bytes,
        max_memory_bytes=memory_bytes + sum(each.size_bytes for each in devices)
        if devices
        else None,
        growth=tuple(growth),
        cpus=None if cpus is None else at("vcpu_count", None, lambda: whole(cpus, 1 << 16)),
        devices=devices,
        balloon=balloon,
        backing=HostBacking(hugepage_bytes=2 * MIB if huge == "2M" else None),
        kernel=_text(boot, "kernel_image_path"),
        cmdline=_text(boot, "boot_args"),
        unread=notes.unread,
    )


def _devices(hotplug: dict[str, Any]) -> tuple[DefinedDevice, ...]:
    if not hotplug:
        return ()
    block = hotplug.get("block_size_mib")
    return (
        DefinedDevice(
            kind="virtio-mem",
            size_bytes=_mib(hotplug, "total_size_mib"),
            name="virtiomem0",
            requested_bytes=_mib(hotplug, "requested_size_mib"),
            plugged_bytes=_mib(hotplug, "plugged_size_mib")
            if "plugged_size_mib" in hotplug
            else None,
            block_bytes=_DEFAULT_BLOCK_BYTES if block is None else _mib(hotplug, "block_size_mib"),
        ),
    )


def _balloon(given: dict[str, Any], memory_bytes: int) -> DefinedBalloon:
    if not given:
        return DefinedBalloon(present=False)
    return DefinedBalloon(
        present=True,
        current_bytes=max(0, memory_bytes - _mib(given, "amount_mib")),
        free_page_reporting=_flag(given, "free_page_reporting"),
        deflate_on_oom=_flag(given, "deflate_on_oom"),
    )


def _mib(holder: dict[str, Any], name: str) -> int:
    given = holder.get(name)
    return 0 if given is None else at(name, None, lambda: mebibytes(given))


def _flag(holder: dict[str, Any], name: str) -> bool | None:
    value = holder.get(name)
    return value if isinstance(value, bool) else None


def _text(holder: dict[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None
