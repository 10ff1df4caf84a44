"""The possible next steps in a state: the operations of an exploration, made concrete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from altmap.errors import InputError
from altmap.explore.spec import Exploration, Operations
from altmap.model.machine import ModelMachine
from altmap.model.platform.qemu import dimm_space, place_dimm
from altmap.scenario import (
    Address,
    Dump,
    Fill,
    Free,
    Offline,
    Online,
    Plug,
    Poison,
    Region,
    Resize,
    SetTunables,
    Size,
    Step,
    Unplug,
    Veto,
)

__all__ = ("KINDS", "MoveKind")

_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class MoveKind:
    """One kind of possible next steps; kinds depend on different parts of the state."""

    name: str
    steps: Callable[[ModelMachine, Exploration], Iterator[Step]]


#: Different steps that are kept; a search on a bounded machine takes few again and again.
_MOST_KEPT = 1 << 16


@lru_cache(_MOST_KEPT)
def _step(kind: Callable[..., Step], /, **fields: Any) -> Step:
    """Return a step; steps are immutable, so one that was made before is returned again."""
    return kind(**fields)


@lru_cache(_MOST_KEPT)
def _region(address: int, size_bytes: int) -> Region:
    return Region(address=Address(address), size=Size(size_bytes))


# --- devices -------------------------------------------------------------------------------


def _plugs(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    """Yield the possible plugs.

    A device is named after its address, so devices with equal addresses are equal.
    """
    operations, bounds = exploration.operations, exploration.bounds
    devices, kernel = machine.devices.by_id, machine.kernel
    if len(devices) >= bounds.devices:
        return
    block_bytes = kernel.block_nr_pages * kernel.arch.page_size_bytes
    nr_added = len(_added(machine))
    for size in operations.plug:
        if nr_added + -(-size // block_bytes) > bounds.blocks:
            continue
        for address, place in _places(machine, operations, size):
            name = f"m{address // block_bytes}"
            if address % block_bytes:
                name += f"-{address % block_bytes // _MIB}"
            if name not in devices:
                yield _step(Plug, id=name, size=size, driver=operations.driver, **place)


def _places(
    machine: ModelMachine, operations: Operations, size_bytes: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield where memory of a size may be added: the address, and the plug's keys for it.

    A platform that chooses takes the lowest gap; if a driver takes another one, only the device's
    name is that of this gap.
    """
    for address in operations.address:
        yield address, {"address": address}
    kernel, taken = machine.kernel, machine.devices.addresses()
    boot_end = kernel.boot_end_address
    if operations.driver not in ("hyperv", "probe"):
        if not operations.address:
            space = dimm_space(kernel.arch.board, boot_end)
            with contextlib.suppress(InputError):  # no gap is left
                yield place_dimm(space, taken, size_bytes, None), {}
        return
    block = kernel.block_nr_pages * kernel.arch.page_size_bytes
    ends = [end for _, end in taken]
    last = max([*ends, boot_end, 4 * _GIB])
    start = -(-last // block) * block
    if operations.driver == "probe":
        yield start, {"address": start}
        return
    if ends and max(ends) % block:  # the host continues in its last block
        yield max(ends), {"address": max(ends)}
    for offset in operations.offset or [Size(0)]:
        end = -(-(start + offset + size_bytes) // block) * block
        region = _region(start, end - start)
        yield start + offset, {"address": start + offset, "region": region}


def _devices(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    operations = exploration.operations
    for id_ in machine.devices.by_id:
        if operations.unplug:
            yield _step(Unplug, id=id_)
        for size in operations.resize:
            yield _step(Resize, id=id_, size=size)


# --- memory blocks -------------------------------------------------------------------------


def _added(machine: ModelMachine) -> list[int]:
    """Return the memory blocks that are not boot memory."""
    kernel = machine.kernel
    return [b for b in kernel.added_blocks if not kernel.boot_ram.count(kernel.block_pfns(b))]


def _blocks(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    operations, online = exploration.operations, machine.kernel.online_blocks
    for ids in _together(machine, operations):
        nr_online = sum(id_ in online for id_ in ids)
        if nr_online == 0:
            for to in operations.online:
                yield _step(Online, blocks=tuple(ids), to=to)
        elif nr_online == len(ids) and operations.offline:
            yield _step(Offline, blocks=tuple(ids))


def _together(machine: ModelMachine, operations: Operations) -> list[list[int]]:
    added = _added(machine)
    if not operations.whole_devices:
        return [[block] for block in added]
    found = [machine.devices.blocks(id_) for id_ in machine.devices.by_id]
    return [ids for blocks in found if (ids := [b for b in blocks if b in added])]


# --- pages in use --------------------------------------------------------------------------


def _uses(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    operations, kernel = exploration.operations, machine.kernel
    for index, fill in enumerate(operations.fill):
        name = f"f{index + 1}"
        if machine.usage.has(name):
            yield _step(Free, id=name)
        else:
            yield _step(Fill, id=name, size=fill.size, kind=fill.kind, page_size=fill.page_size)
    if operations.poison:
        page = kernel.arch.page_size_bytes
        for block in _added(machine):
            pfns = kernel.block_pfns(block)
            middle = pfns.start + len(pfns) // 2
            if block in kernel.online_blocks and middle not in kernel.poisoned:
                yield _step(Poison, address=middle * page)


# --- conditions ----------------------------------------------------------------------------


def _vetoes(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    for on in exploration.operations.veto:
        is_set = getattr(machine.kernel.notifier, on) is not None
        yield _step(Veto, on=on, errno="none" if is_set else "EPERM")


def _settings(machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    for name, values in exploration.operations.set.items():
        for value in values:
            if machine.parameter(name) != value:
                yield _step(SetTunables, **{name: value})


def _dumps(_machine: ModelMachine, exploration: Exploration) -> Iterator[Step]:
    if exploration.operations.dump:
        yield _step(Dump)


#: Every kind of step, in the order in which they are tried.
KINDS: tuple[MoveKind, ...] = (
    MoveKind("plug", _plugs),
    MoveKind("online and offline", _blocks),
    MoveKind("unplug and resize", _devices),
    MoveKind("fill and free", _uses),
    MoveKind("veto", _vetoes),
    MoveKind("set", _settings),
    MoveKind("dump", _dumps),
)
