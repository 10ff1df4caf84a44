"""Proxmox VE's ``NNN.conf``, and what ``qm config`` prints.

What Proxmox makes of it is here as well (qemu-server, src/PVE/QemuServer/Memory.pm: config,
foreach_dimm, get_max_mem): with ``hotplug: memory`` a guest boots with 1 GiB, the rest is DIMMs
that are there at the start: 32 of each size, from 512 MiB on, each twice as large as those before.
"""

from __future__ import annotations

import re
from dataclasses import replace

from altmap.errors import InputError
from altmap.vm.definition import (
    DefinedBalloon,
    DefinedDevice,
    DefinedNode,
    Definition,
    Growth,
    HostBacking,
)
from altmap.vm.readers.arch import arch_named
from altmap.vm.readers.notes import Notes, at
from altmap.vm.readers.qemu import with_arguments
from altmap.vm.readers.sizes import MIB, mebibytes, whole
from altmap.vm.readers.spans import count_of
from altmap.vm.readers.words import commands

__all__ = ("FORMAT", "proxmox_configuration")

FORMAT = "Proxmox configuration"

_LINE = re.compile(r"([a-z][a-z_-]*\d*):\s*(\S.*?|)\s*")
_SECTION = re.compile(r"\[[^\]]*\]\s*")
#: Keys of the format without their numbers (qemu-server, PVE/QemuServer.pm: $confdesc).
_KEYS = frozenset(
    (
        *(
            "acpi",
            "affinity",
            "agent",
            "allow-ksm",
            "amd-sev",
            "arch",
            "args",
            "audio",
            "autostart",
        ),
        *("balloon", "bios", "boot", "bootdisk", "cdrom", "cicustom", "cipassword", "citype"),
        *("ciupgrade", "ciuser", "cores", "cpu", "cpulimit", "cpuunits", "description", "digest"),
        *("efidisk", "freeze", "hookscript", "hostpci", "hotplug", "hugepages", "ide", "intel-tdx"),
        *("ipconfig", "ivshmem", "keephugepages", "keyboard", "kvm", "localtime", "lock"),
        *("machine", "memory", "meta", "migrate_downtime", "migrate_speed", "name", "nameserver"),
        *("net", "numa", "onboot", "ostype", "parallel", "parent", "protection", "reboot", "rng"),
        *("running-nets-host-mtu", "runningcpu", "runningmachine", "sata", "scsi", "scsihw"),
        *("searchdomain", "serial", "shares", "smbios", "smp", "snaptime", "sockets", "sshkeys"),
        *("spice_enhancements", "startdate", "startup", "tablet", "tags", "tdf", "template"),
        *("tpmstate", "unused", "usb", "vcpus", "vga", "virtio", "virtiofs", "vmgenid", "vmstate"),
        *("vmstatestorage", "watchdog"),
    )
)
_CONTAINER = {"rootfs", "swap", "hostname"}
_MIN_CONTAINER = 2

_DEFAULT_MIB = "512"
_STATIC_BYTES = 1024 * MIB
_FIRST_DIMM_BYTES = 512 * MIB
_LARGE_DIMM_BYTES = 1024 * MIB
_DIMMS_OF_A_SIZE = 32
_SIZES = 8
_SLOTS = 255
_MOST_NODES = 8
_USUAL_BITS = 40
_MOST_MAX_MIB = 4 << 20


def proxmox_configuration(text: str, name: str) -> Definition | None:
    """Return the definition of a configuration, ``None`` of another file.

    Sections (snapshots, pending changes) are not what the machine has now, and are left out.

    Raises
    ------
    InputError
        If a number is none, or it is a container's configuration.
    """
    values: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if _SECTION.fullmatch(line):
            break
        match = _LINE.fullmatch(line)
        if match is not None:
            values[match[1]] = (match[2], number)
        elif line.strip() and not line.lstrip().startswith("#"):
            return None
    if "rootfs" in values and len(_CONTAINER & values.keys()) >= _MIN_CONTAINER:
        raise InputError("is the configuration of a container, which has the host's kernel")
    known = {key for key in values if key.rstrip("0123456789") in _KEYS}
    if not known or len(known) < len(values) / 2:
        return None
    return _definition({key: value for key, (value, _) in values.items()}, values, name)


def _number_of_file(name: str) -> str | None:
    """Return the machine's number: its file is ``NNN.conf``."""
    match = re.fullmatch(r"([1-9]\d{2,8})\.conf", name)
    return match and match[1]


def _definition(
    values: dict[str, str], places: dict[str, tuple[str, int]], name: str
) -> Definition:
    notes = Notes()
    for key, field in (("memory", "memory_bytes"), ("balloon", "balloon"), ("machine", "machine")):
        if key in places:
            notes.wrote(field, f"{key}: {places[key][0]}", places[key][1])

    def number_of(key: str, otherwise: int) -> int:
        given, line = places.get(key, ("", 0))
        return at(key, line, lambda: whole(given, 1 << 32)) if given else otherwise

    given = _pairs(values.get("memory", _DEFAULT_MIB), "current")["current"]
    total_bytes = at("memory", places.get("memory", ("", 1))[1], lambda: mebibytes(given))
    if not total_bytes:
        raise InputError(f"line {places['memory'][1]}: memory: 0: need 16 or more")
    sockets = number_of("sockets", 1) or 1
    cores = number_of("cores", 1)
    numa = number_of("numa", 0) != 0
    hotplug = "memory" in re.split(r"[,; ]+", values.get("hotplug", ""))
    own = [key for key in (f"numa{number}" for number in range(_MOST_NODES)) if key in values]
    huge = values.get("hugepages")
    boot_bytes, max_bytes = total_bytes, None
    devices: tuple[DefinedDevice, ...] = ()
    if hotplug:
        line = places["hotplug"][1]
        if not numa or own:
            raise InputError(
                f"line {line}: hotplug: memory: need numa: 1 and no node of the file's own"
            )
        boot_bytes = _STATIC_BYTES * (sockets if huge == "1024" else 1)
        if total_bytes < boot_bytes:
            raise InputError(
                f"line {line}: hotplug: memory: need memory of {boot_bytes // MIB} MiB or more"
            )
        devices = _dimms(total_bytes - boot_bytes, sockets, large=huge == "1024")
        max_bytes = _max_bytes(values.get("cpu", ""), notes, places)
        notes.wrote("max_memory_bytes", f"hotplug: {values['hotplug']}", line)
    nodes = _nodes(values, places, own, boot_bytes, sockets, cores) if numa else ()
    at_start_bytes = boot_bytes + sum(each.size_bytes for each in devices)
    target = None if "balloon" not in values else number_of("balloon", 0) * MIB
    growth: list[Growth] = []
    if max_bytes is not None and max_bytes > at_start_bytes and len(devices) < _SLOTS:
        growth.append("dimm")
    machine = _pairs(values.get("machine", ""), "type").get("type")
    made = Definition(
        format=FORMAT,
        name=values.get("name", name),
        id=_number_of_file(name),
        manager="proxmox",
        hypervisor="qemu",
        arch=arch_named(values.get("arch")),
        arch_given="arch" in values,
        machine=machine or "pc",
        memory_bytes=boot_bytes,
        max_memory_bytes=max_bytes,
        slots=_SLOTS if hotplug else None,
        growth=tuple(growth),
        minimum_bytes=target if target and target < at_start_bytes else None,
        cpus=number_of("vcpus", 0) or sockets * cores,
        nodes=nodes,
        devices=devices,
        balloon=DefinedBalloon(present=target != 0),
        backing=_backing(huge),
        uefi=values.get("bios") == "ovmf",
        acpi=False if values.get("acpi") == "0" else None,
        max_phys_bits=_phys_bits(values.get("cpu", "")),
    )
    if "args" in values:
        words = [
            (word.text, places["args"][1])
            for command in commands(values["args"])
            for word in command
        ]
        made = with_arguments(made, words, notes)
    return replace(made, written=notes.written, unread=notes.unread)


def _dimms(left_bytes: int, sockets: int, *, large: bool) -> tuple[DefinedDevice, ...]:
    """Return the DIMMs that are there at the start, as Proxmox divides the memory."""
    made: list[DefinedDevice] = []
    size_bytes = _LARGE_DIMM_BYTES if large else _FIRST_DIMM_BYTES
    for _ in range(_SIZES):
        for number in range(_DIMMS_OF_A_SIZE):
            if left_bytes <= 0:
                return tuple(made)
            made.append(
                DefinedDevice(
                    kind="dimm",
                    size_bytes=size_bytes,
                    name=f"dimm{len(made)}",
                    node=number % min(sockets, 1 << 8),
                )
            )
            left_bytes -= size_bytes
        size_bytes *= 2
    raise InputError("memory: more than the DIMMs that Proxmox VE can make of it")


def _nodes(
    values: dict[str, str],
    places: dict[str, tuple[str, int]],
    own: list[str],
    boot_bytes: int,
    sockets: int,
    cores: int,
) -> tuple[DefinedNode, ...]:
    if own:
        made = []
        for key in own:
            pairs = _pairs(values[key], "cpus")
            memory = pairs.get("memory", "")
            line = places[key][1]
            size_bytes = at(f"{key} memory", line, lambda memory=memory: mebibytes(memory))  # type: ignore[misc]
            cpus = count_of(pairs.get("cpus"))
            made.append(DefinedNode(int(key[4:]), size_bytes, cpus, line))
        return tuple(made)
    share = boot_bytes // min(sockets, 1 << 8)
    return tuple(DefinedNode(number, share, cores) for number in range(min(sockets, 1 << 8)))


def _max_bytes(cpu: str, notes: Notes, places: dict[str, tuple[str, int]]) -> int:
    """Return ``maxmem``, which depends on the width of the node's physical addresses."""
    bits = _phys_bits(cpu)
    if bits is None:
        bits = _USUAL_BITS
        line = places.get("cpu", places["hotplug"])[1]
        if _pairs(cpu, "cputype").get("cputype") in ("host", "max"):
            bits = _MOST_MAX_MIB.bit_length() + 20
        notes.leave(
            "hotplug: memory",
            f"its maximum depends on the node's processor: taken as {1 << ((bits & ~1) - 31)} GiB",
            line,
        )
    return min(1 << ((bits & ~1) - 21), _MOST_MAX_MIB) * MIB


def _phys_bits(cpu: str) -> int | None:
    given = _pairs(cpu, "cputype").get("phys-bits", "")
    return int(given) if re.fullmatch(r"[3-5][0-9]", given) else None


def _backing(huge: str | None) -> HostBacking:
    if huge is None:
        return HostBacking()
    size = {"2": 2 * MIB, "1024": 1024 * MIB}.get(huge, 0)
    return HostBacking(prealloc=True, hugepage_bytes=size, shared=True, source="hugetlbfs")


def _pairs(text: str, first: str) -> dict[str, str]:
    made = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            made[key.strip()] = value.strip()
        elif not number:
            made[first] = key.strip()
    return made
