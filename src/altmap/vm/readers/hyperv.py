"""Hyper-V: what ``Get-VMMemory`` and ``Get-VM`` print as JSON.

Memory is in bytes. With dynamic memory a guest starts with *Startup*, may grow to *Maximum* by
itself, and is made smaller to *Minimum*. Without, *Startup* can be changed while the guest runs,
up to what a machine of its generation can have; hv_balloon adds it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import Definition, HostBacking
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at, bounded_parts
from altmap.vm.readers.sizes import bounded, mebibytes, whole

__all__ = ("FORMAT", "hyperv_json")

FORMAT = "Hyper-V JSON"
_DEEPEST = 4
#: The most that a machine can have, by generation (Windows Server 2016 to 2022).
_MOST_BYTES = {2: 12 << 40}
_MOST_OF_OTHERS = 1 << 40


def hyperv_json(value: Any, name: str) -> list[Definition]:
    """Return a definition for each virtual machine, none of another file."""
    merged: dict[str, dict[str, Any]] = {}
    for number, found in enumerate(bounded_parts("objects", _objects(value, _DEEPEST))):
        of = str(found.get("vmname") or found.get("name") or f"{name} {number}")
        merged.setdefault(of, {}).update(
            (key, each) for key, each in found.items() if each is not None
        )
    return [
        _definition(values, of)
        for of, values in merged.items()
        if "startup" in values or "memorystartup" in values
    ]


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield every object that says something about memory or processors of a machine."""
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, depth)
    elif isinstance(value, dict) and depth:
        lower = {str(key).lower(): each for key, each in value.items()}
        if {"startup", "memorystartup"} & lower.keys() or (
            "vmname" in lower and {"count", "maximumpernumanode"} & lower.keys()
        ):
            yield lower
        for each in value.values():
            if isinstance(each, list | dict):
                yield from _objects(each, depth - 1)


def _definition(values: dict[str, Any], name: str) -> Definition:
    notes = Notes()

    def size(*names: str) -> int | None:
        given = next((values[each] for each in names if each in values), None)
        if given is None:
            return None
        return at(names[0], None, lambda: bounded(whole(given), given))

    dynamic = values.get("dynamicmemoryenabled")
    startup = size("startup", "memorystartup")
    if not startup:
        raise InputError(f"{name}: Startup: need the bytes that the machine starts with")
    cpus = values.get("processorcount", values.get("count"))
    per_node = values.get("maximumpernumanode")
    if isinstance(per_node, int) and not isinstance(per_node, bool) and per_node:
        node_bytes = at("MaximumPerNumaNode", None, lambda: mebibytes(per_node))
        if startup > node_bytes:
            notes.leave(f"MaximumPerNumaNode {per_node}", "more than one node: sizes are not read")
    return Definition(
        format=FORMAT,
        name=name,
        manager="hyper-v",
        hypervisor="hyper-v",
        arch=USUAL,
        arch_given=False,
        machine=f"generation {values['generation']}" if "generation" in values else None,
        memory_bytes=startup,
        max_memory_bytes=(
            size("maximum", "memorymaximum")
            if dynamic is True
            else _MOST_BYTES.get(values.get("generation", 1), _MOST_OF_OTHERS)
        ),
        minimum_bytes=size("minimum", "memoryminimum") if dynamic is True else None,
        growth=("hyperv",),
        uefi=values.get("generation") == 2,
        by_demand=dynamic is True,
        cpus=None if cpus is None else at("ProcessorCount", None, lambda: whole(cpus, 1 << 16)),
        backing=HostBacking(hugepage_bytes=0 if values.get("hugepagesenabled") is True else None),
        unread=notes.unread,
    )
