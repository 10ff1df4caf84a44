"""The growth of a guest as a scenario, for the model, a real kernel, sweeps and explorations."""

from __future__ import annotations

import re
from collections.abc import Iterator

from altmap.errors import InputError
from altmap.scenario import Plug, Resize, Scenario, Size, Step, Unplug
from altmap.units import format_size
from altmap.vm.answers import BootedGuest, WayAnswer
from altmap.vm.ways import GrowthWay

__all__ = ("growth_scenario",)


def growth_scenario(
    guest: BootedGuest, answer: WayAnswer, *, give_back: bool = True, as_written: bool = False
) -> Scenario:
    """Return the steps that reach the last size of an answer, and those that give it back.

    virtio-mem devices that are there at boot are plugged as the first steps, since a scenario's
    guests in the lab boot without; unless the guest boots *as written*.

    Raises
    ------
    InputError
        If the way is no scenario's: a balloon of virtio.
    """
    way = answer.way
    if way.driver == "balloon":
        raise InputError("way 'balloon': a scenario has no virtio balloon")
    machine = guest.machine.machine
    at_boot = tuple(each for each in machine.devices if as_written or each.driver != "virtio-mem")
    steps: list[Step] = [
        Plug(
            id=device.id,
            driver="virtio-mem",
            size=device.size,
            requested=device.requested,
            block=device.block,
            address=device.address,
            node=device.node or None,
        )
        for device in machine.devices
        if device not in at_boot
    ]
    rows = [row for row in answer.rows if row.result != "refused"]
    if rows:
        steps += _grown(guest, way, rows[-1].adds_bytes, give_back=give_back)
    size = format_size(rows[-1].size_bytes if rows else way.start_bytes)
    return Scenario(
        name=re.sub(r"[^A-Za-z0-9._+-]", "-", f"vm-{guest.definition.name}-{way.driver}"),
        description=f"{guest.definition.name} grows to {size} by {way.driver}",
        machine=machine.replace(
            devices=at_boot, max_memory=machine.max_memory if way.defined else None
        ),
        steps=tuple(steps),
    )


def _grown(
    guest: BootedGuest, way: GrowthWay, adds: tuple[int, ...], *, give_back: bool
) -> Iterator[Step]:
    start = guest.machine.start_bytes
    if way.driver == "hyperv":
        reached = start
        for size in adds:
            reached += size
            yield Resize(id="balloon", size=Size(reached))
        if give_back:
            yield Resize(id="balloon", size=Size(start))
    elif way.driver == "virtio-mem":
        yield from _resized(way, sum(adds), give_back=give_back)
    else:
        for number, size in enumerate(adds):
            yield Plug(id=f"dimm-added{number}", driver="dimm", size=Size(size), node=way.node)
        for number in reversed(range(len(adds) if give_back else 0)):
            yield Unplug(id=f"dimm-added{number}")


def _resized(way: GrowthWay, added: int, *, give_back: bool) -> Iterator[Step]:
    if not way.devices:
        yield Plug(
            id="virtiomem-added",
            driver="virtio-mem",
            size=Size(max(added, way.limit_bytes - way.start_bytes)),
            requested=Size(added),
            block=None if way.block_bytes is None else Size(way.block_bytes),
            node=way.node,
        )
        if give_back:
            yield Resize(id="virtiomem-added", size=Size(0))
        return
    grown = []
    for device in way.devices:
        now = device.requested_bytes or 0
        more = min(added, device.size_bytes - now)
        if more > 0:
            added -= more
            grown.append((device.name, now))
            yield Resize(id=device.name, size=Size(now + more))
    for name, now in grown if give_back else ():
        yield Resize(id=name, size=Size(now))
