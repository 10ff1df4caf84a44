"""VMware's ``.vmx`` files: ``key = "value"``, keys in any case, memory in MiB."""

from __future__ import annotations

import re

from altmap.errors import InputError
from altmap.vm.definition import Definition, HostBacking
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at
from altmap.vm.readers.sizes import mebibytes, whole

__all__ = ("FORMAT", "vmware_configuration")

FORMAT = "VMware .vmx"
_LINE = re.compile(r'\s*([\w.:\-]+)\s*=\s*"([^"]*)"\s*')
_TELLING = {"config.version", "virtualhw.version", "memsize", ".encoding"}
_ESCAPED = re.compile(r"\|([0-9A-Fa-f]{2})")
#: What ``guestOS`` may be of a system of either width.
_ANY = ("", "other")
#: What libvirt, too, reads where a file has no ``memsize`` (src/vmx/vmx.c: virVMXParseConfig).
_DEFAULT_MIB = "32"
#: Where memory below 4 GiB ends.
_LOW_BYTES = 3 << 30


def vmware_configuration(text: str, name: str) -> Definition | None:
    """Return the definition of a configuration, ``None`` of another file."""
    values: dict[str, tuple[str, int]] = {}
    for number, written in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(written)
        if match is not None:
            values[match[1].lower()] = (match[2], number)
    if not _TELLING & values.keys():
        return None
    notes = Notes()

    def word(key: str, otherwise: str = "") -> str:
        return values.get(key, (otherwise, 0))[0]

    def number_of(key: str) -> int | None:
        given, place = values.get(key, ("", 0))
        return at(key, place, lambda: whole(given, 1 << 40)) if given else None

    size, line = values.get("memsize", (_DEFAULT_MIB, 0))
    memory_bytes = at("memsize", line or None, lambda: mebibytes(size))
    if not memory_bytes:
        raise InputError(f"line {line}: memsize: 0: need 4 or more")
    if line:
        notes.wrote("memory_bytes", f'memSize = "{size}"', line)
    cpus = number_of("numvcpus") or 1
    per_node = number_of("numa.vcpu.maxpervirtualnode")
    if per_node and cpus > per_node:
        key = "numa.vcpu.maxPerVirtualNode"
        where = values[key.lower()][1]
        notes.leave(f'{key} = "{per_node}"', "more than one node: sizes are the host's", where)
    adds = word("mem.hotadd").upper() == "TRUE"
    minimum = word("sched.mem.minsize")
    guest = word("guestos").lower()
    return Definition(
        format=FORMAT,
        name=_ESCAPED.sub(lambda match: chr(int(match[1], 16)), word("displayname")) or name,
        manager="vmware",
        hypervisor="vmware",
        arch=_arch(guest),
        arch_given=guest not in _ANY,
        machine=f"virtualHW {word('virtualhw.version')}" if word("virtualhw.version") else None,
        memory_bytes=memory_bytes,
        minimum_bytes=mebibytes(minimum) if re.fullmatch(r"[1-9][0-9]{0,9}", minimum) else None,
        max_memory_bytes=_most_bytes(memory_bytes) if adds else None,
        growth=("memory",) if adds else (),
        cpus=cpus,
        backing=HostBacking(locked=True if word("sched.mem.pin").upper() == "TRUE" else None),
        uefi=word("firmware").lower() == "efi",
        written=notes.written,
        unread=notes.unread,
    )


def _most_bytes(memory_bytes: int) -> int:
    """Return how far memory can be added while the guest runs.

    16 times the memory at power-on; a Linux guest with 3 GiB or less reaches 3 GiB (articles
    2020846 and 2008405 of VMware's knowledge base).
    """
    return 16 * memory_bytes if memory_bytes > _LOW_BYTES else _LOW_BYTES


def _arch(guest: str) -> str:
    """Return the architecture of ``guestOS``, whose names of 64-bit systems end with ``-64``."""
    if guest.startswith("arm"):
        return "aarch64"
    return USUAL if guest in _ANY or "64" in guest else "i686"
