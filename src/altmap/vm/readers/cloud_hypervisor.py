"""cloud-hypervisor: its VmConfig as JSON, and its command line.

vmm/src/vm_config.rs (MemoryConfig, MemoryZoneConfig), vmm/src/config.rs (MemoryConfig::parse),
vmm/src/memory_manager.rs: eight slots for ACPI, a virtio-mem device for each zone that may grow;
virtio-devices/src/mem.rs: blocks of 2 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import (
    DefinedBalloon,
    DefinedDevice,
    DefinedNode,
    Definition,
    Growth,
    HostBacking,
)
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at, bounded_parts
from altmap.vm.readers.sizes import MIB, cloud_hypervisor_size, whole
from altmap.vm.readers.spans import count_of
from altmap.vm.readers.trees import list_in, mapping_in, number_in
from altmap.vm.readers.words import Word, commands

__all__ = ("FORMAT", "LINE_FORMAT", "cloud_hypervisor_commands", "cloud_hypervisor_json")

FORMAT = "cloud-hypervisor JSON"
LINE_FORMAT = "cloud-hypervisor command line"

_DEFAULT_BYTES = 512 * MIB
_SLOTS = 8
_BLOCK_BYTES = 2 * MIB
_PROGRAM = re.compile(r"(?:.*[/=])?cloud-hypervisor(?:-static|-v[\w.]+)?(?:-aarch64)?(?:\.exe)?")
#: Options that take further words up to the next option.
_MANY = ("memory-zone", "numa", "pmem", "disk", "net", "fs", "device")
_ONE = ("memory", "cpus", "balloon", "kernel", "cmdline", "firmware")
_SWITCH = {"on": True, "true": True, "off": False, "false": False}


def cloud_hypervisor_json(value: Any, name: str) -> Definition | None:
    """Return the definition of a VmConfig, or of what ``vm.info`` answers; ``None`` of another."""
    config = value.get("config") if isinstance(value, dict) and "memory" not in value else value
    if not isinstance(config, dict):
        return None
    telling = {"payload", "kernel", "cpus", "disks", "console", "serial", "rng", "platform"}
    if not isinstance(config.get("memory", {}), dict) or len(telling & config.keys()) < 1:
        return None
    if "size" not in config.get("memory", {"size": 0}) or ("cpus" in config and not _cpus(config)):
        return None
    return _definition(config, FORMAT, name, {})


def _cpus(config: dict[str, Any]) -> Any:
    return number_in(mapping_in(config, "cpus"), "boot_vcpus")


def cloud_hypervisor_commands(text: str, name: str) -> list[Definition]:
    """Return the definitions of commands of cloud-hypervisor; none without such a command."""
    return bounded_parts("commands", _commands(text, name)) if "cloud-hyp" in text else []


def _commands(text: str, name: str) -> Iterator[Definition]:
    for words in commands(text):
        for place, word in enumerate(words):
            if _PROGRAM.fullmatch(word.text):
                made = _command(words[place + 1 :], name)
                if made is not None:
                    yield made
                break


def _command(words: list[Word], name: str) -> Definition | None:
    config: dict[str, Any] = {}
    lines: dict[str, int] = {}
    option = ""
    for word in words:
        if word.text.startswith("--"):
            option, equals, value = word.text[2:].partition("=")
            lines.setdefault(option, word.line)
            if not equals:
                continue
        elif option in _MANY or (option in _ONE and option not in config):
            value = word.text
        else:
            continue
        if option in _MANY:
            config.setdefault(option, []).append(_pairs(value, word.line))
        else:
            config[option] = value
    if not {"kernel", "firmware", "disk", "memory", "cpus"} & (config.keys() | lines.keys()):
        return None
    memory = _pairs(config.get("memory", ""), lines.get("memory", 0))
    balloon = config.get("balloon")
    return _definition(
        {
            "memory": {**memory, "zones": config.get("memory-zone")},
            "cpus": _line_cpus(config.get("cpus", "1"), lines.get("cpus", 0)),
            "numa": config.get("numa"),
            "pmem": config.get("pmem"),
            "balloon": None if balloon is None else _pairs(balloon, lines["balloon"]),
            "payload": {key: config.get(key) for key in ("kernel", "cmdline")},
        },
        LINE_FORMAT,
        name,
        {
            "memory_bytes": (f"--memory {config.get('memory', '')}", lines.get("memory")),
            "max_memory_bytes": (f"--memory {config.get('memory', '')}", lines.get("memory")),
            "cmdline": (f"--cmdline {config.get('cmdline', '')}", lines.get("cmdline")),
        },
    )


def _line_cpus(text: str, line: int) -> dict[str, Any]:
    pairs = _pairs(text, line) if "=" in text else {"boot": text}
    return {"boot_vcpus": pairs.get("boot", "1"), "max_phys_bits": pairs.get("max_phys_bits")}


def _pairs(text: str, line: int) -> dict[str, Any]:
    """Return ``key=value,...``; commas in brackets and quotes separate nothing."""
    made: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if equals:
            made[key] = _SWITCH.get(value, value)
    if text and not made:
        raise InputError(f"line {line}: {text[:40]!r}: need key=value")
    return made


def _parts(text: str) -> Iterator[str]:
    """Yield what is between commas outside of brackets and quotes (option_parser: split_commas)."""
    depth, quoted, start = 0, False, 0
    for place, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif not quoted:
            depth += (char == "[") - (char == "]")
            if char == "," and not depth:
                yield text[start:place]
                start = place + 1
    yield text[start:]


def _definition(
    config: dict[str, Any], form: str, name: str, written: dict[str, tuple[str, int | None]]
) -> Definition:
    notes = Notes()
    for key, (text, line) in written.items():
        if line is not None:
            notes.wrote(key, text, line)
    memory = mapping_in(config, "memory")
    method = str(memory.get("hotplug_method") or "acpi").lower().replace("_", "-")
    virtio = method in ("virtio-mem", "virtiomem")
    zones = list_in(memory, "zones")
    main_bytes = _size(memory, "size", "memory size", _DEFAULT_BYTES)
    if not main_bytes and not zones:
        raise InputError("memory size 0: need a size, or zones")
    parts = zones if zones else [{**memory, "id": "mem0", "size": main_bytes}]
    memory_bytes = sum(_size(each, "size", "zone size") for each in parts)
    if not memory_bytes:
        raise InputError("memory zones: 0 bytes in all: need boot memory")
    if zones and main_bytes and memory.get("size") is not None:
        notes.leave("memory zones", "need a memory size of 0: only the zones are counted")
    nodes, node_of = _nodes(config, parts)
    room_bytes = sum(_size(each, "hotplug_size", "hotplug_size") for each in parts)
    devices = []
    for number, zone in enumerate(parts):
        hotplug_bytes = _size(zone, "hotplug_size", "hotplug_size")
        if hotplug_bytes and virtio:
            zone_name = str(zone.get("id") or f"zone{number}")
            devices.append(
                DefinedDevice(
                    kind="virtio-mem",
                    size_bytes=hotplug_bytes,
                    name=zone_name,
                    node=node_of.get(zone_name),
                    requested_bytes=_size(zone, "hotplugged_size", "hotplugged_size"),
                    block_bytes=_BLOCK_BYTES,
                    zone_bytes=_size(zone, "size", "zone size") if zones else None,
                    backing=_backing(zone),
                )
            )
    for each in list_in(config, "pmem"):
        notes.leave(f"pmem {number_in(each, 'file')}", "its size is that of a file of the host")
    growth: list[Growth] = []
    if any((each.requested_bytes or 0) < each.size_bytes for each in devices):
        growth.append("virtio-mem")
    elif room_bytes and not virtio:
        growth.append("dimm")
    start_bytes = memory_bytes + sum(each.requested_bytes or 0 for each in devices)
    balloon = _balloon(config, start_bytes)
    if balloon.current_bytes is not None and balloon.current_bytes < start_bytes:
        growth.append("balloon")
    payload = mapping_in(config, "payload") or config
    kernel = payload.get("kernel")
    kernel = kernel.get("path") if isinstance(kernel, dict) else kernel
    cmdline = payload.get("cmdline")
    cmdline = cmdline.get("args") if isinstance(cmdline, dict) else cmdline
    return Definition(
        format=form,
        name=name,
        manager="cloud-hypervisor",
        hypervisor="cloud-hypervisor",
        arch=USUAL,
        arch_given=False,
        memory_bytes=memory_bytes,
        max_memory_bytes=memory_bytes + room_bytes if room_bytes else None,
        slots=_SLOTS if room_bytes and not virtio else None,
        growth=tuple(growth),
        max_phys_bits=_number(mapping_in(config, "cpus"), "max_phys_bits"),
        cpus=_number(mapping_in(config, "cpus"), "boot_vcpus"),
        nodes=nodes,
        devices=tuple(devices),
        balloon=balloon,
        backing=_backing(parts[0]),
        kernel=kernel if isinstance(kernel, str) else None,
        cmdline=cmdline if isinstance(cmdline, str) else None,
        written=notes.written,
        unread=notes.unread,
    )


def _nodes(
    config: dict[str, Any], zones: list[Any]
) -> tuple[tuple[DefinedNode, ...], dict[str, int]]:
    """Return the nodes, and the node of each zone."""
    sizes = {str(number_in(each, "id")): _size(each, "size", "zone size") for each in zones}
    made: dict[int, DefinedNode] = {}
    node_of: dict[str, int] = {}
    for each in list_in(config, "numa"):
        number = _number(each, "guest_numa_id")
        if number is None:
            raise InputError("numa: need guest_numa_id")
        names = number_in(each, "memory_zones")
        if isinstance(names, str):
            names = names.strip("[]").split(",")
        names = [str(name) for name in names] if isinstance(names, list) else []
        node_of |= dict.fromkeys(names, number)
        cpus = number_in(each, "cpus")
        made[number] = DefinedNode(
            number,
            sum(sizes.get(name, 0) for name in names),
            len(cpus) if isinstance(cpus, list) else count_of(str(cpus).strip("[]")),
        )
    return tuple(made[number] for number in sorted(made)), node_of


def _balloon(config: dict[str, Any], memory_bytes: int) -> DefinedBalloon:
    given = mapping_in(config, "balloon")
    if not given:
        return DefinedBalloon(present=False)
    return DefinedBalloon(
        present=True,
        current_bytes=max(0, memory_bytes - _size(given, "size", "balloon size")),
        free_page_reporting=_switch(given, "free_page_reporting"),
        deflate_on_oom=_switch(given, "deflate_on_oom"),
    )


def _backing(zone: Any) -> HostBacking:
    huge = _switch(zone, "hugepages")
    size_bytes = _size(zone, "hugepage_size", "hugepage_size")
    return HostBacking(
        prealloc=_switch(zone, "prefault"),
        hugepage_bytes=size_bytes if huge else None,
        shared=_switch(zone, "shared"),
        source="file" if number_in(zone, "file") else None,
    )


def _switch(holder: Any, name: str) -> bool | None:
    value = number_in(holder, name)
    return value if isinstance(value, bool) else None


def _size(holder: Any, name: str, where: str, otherwise: int = 0) -> int:
    given = number_in(holder, name)
    return otherwise if given is None else at(where, None, lambda: cloud_hypervisor_size(given))


def _number(holder: Any, name: str) -> int | None:
    given = number_in(holder, name)
    return None if given is None else at(name, None, lambda: whole(given, 1 << 16))
