"""Xen's configurations for ``xl`` and ``xm``: ``name = value``, memory in MiB.

docs/man/xl.cfg.5: ``memory`` is what a guest starts with, ``maxmem`` how far it may grow; what it
does not have of that is in its balloon.
"""

from __future__ import annotations

import re

from altmap.errors import InputError
from altmap.vm.definition import DefinedBalloon, DefinedNode, Definition
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at, bounded_parts
from altmap.vm.readers.sizes import mebibytes, whole
from altmap.vm.readers.spans import count_of

__all__ = ("FORMAT", "xen_configuration")

FORMAT = "Xen xl configuration"

_LINE = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*?)\s*;?\s*")
_TELLING = {"builder", "type", "vif", "disk", "bootloader", "kernel", "vcpus", "on_poweroff", "pae"}
_NODE = re.compile(r"\[([^\[\]]*)\]")
_PAIR = re.compile(r"[\"']\s*(\w+)\s*=\s*([^\"']*)[\"']")


def xen_configuration(text: str, name: str) -> Definition | None:
    """Return the definition of a configuration, ``None`` of another file."""
    values: dict[str, tuple[str, int]] = {}
    for number, written in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(written)
        if match is not None:
            values[match[1].lower()] = (_plain(match[2]), number)
    if "memory" not in values or not _TELLING & values.keys():
        return None
    notes = Notes()

    def size(key: str) -> int | None:
        given, line = values.get(key, ("", 0))
        return at(key, line, lambda: mebibytes(given)) if given else None

    start_bytes = size("memory")
    if not start_bytes:
        raise InputError(f"line {values['memory'][1]}: memory: need 1 or more")
    most_bytes = max(size("maxmem") or start_bytes, start_bytes)
    for key, field in (("memory", "balloon"), ("maxmem", "memory_bytes")):
        given, line = values.get(key, values["memory"])
        notes.wrote(field, f"{key if key in values else 'memory'} = {given}", line)
    cpus, line = values.get("vcpus", ("1", 0))
    cmdline = values.get("cmdline", values.get("extra", (None, 0)))[0]
    if "root" in values and "cmdline" not in values:
        cmdline = f"root={values['root'][0]} {cmdline or ''}".strip()
    return Definition(
        format=FORMAT,
        name=values.get("name", (name, 0))[0],
        manager="xen",
        hypervisor="xen",
        arch=USUAL,
        arch_given=False,
        machine=values.get("type", values.get("builder", (None, 0)))[0],
        memory_bytes=most_bytes,
        growth=("balloon",) if start_bytes < most_bytes else (),
        cpus=at("vcpus", line, lambda: whole(cpus, 1 << 16)),
        nodes=_nodes(*values.get("vnuma", ("", 0))),
        balloon=DefinedBalloon(present=True, current_bytes=start_bytes),
        kernel=values.get("kernel", (None, 0))[0],
        cmdline=cmdline,
        written=notes.written,
        unread=notes.unread,
    )


def _plain(value: str) -> str:
    match = re.fullmatch(r"""(?:"([^"]*)"|'([^']*)')(?:\s*#.*)?""", value)
    if match is not None:
        return match[1] or match[2] or ""
    return value if value.startswith("[") else value.partition("#")[0].strip()


def _nodes(text: str, line: int) -> tuple[DefinedNode, ...]:
    made = []
    for number, match in enumerate(bounded_parts("nodes", _NODE.finditer(text[1:]))):
        pairs = dict(_PAIR.findall(match[1]))
        given = pairs.get("size", "")
        size_bytes = at("vnuma size", line, lambda given=given: mebibytes(given))  # type: ignore[misc]
        made.append(DefinedNode(number, size_bytes, count_of(pairs.get("vcpus")), line))
    return tuple(made)
