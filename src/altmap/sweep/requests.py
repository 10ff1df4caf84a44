"""Requests for memory as steps of a scenario: the actions of the platform, by driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from altmap.errors import InputError, one_of
from altmap.model.arch import DEFAULT_ARCH, arch_named
from altmap.model.platform.qemu import boot_ram, dimm_space
from altmap.model.releases import release_for
from altmap.scenario import DEFAULT_RELEASE, XEN_HOST_BYTES
from altmap.units import format_size, parse_size

__all__ = ("BACKINGS", "DRIVERS", "Requests", "Step", "boot_bytes", "fulfil")

#: A step with the keys of TOML.
Step = dict[str, Any]

BACKINGS = ("whole", "first-half", "second-half")
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests for one machine, one size after the other.

    Attributes
    ----------
    driver : str
        One of :data:`DRIVERS`.
    added_bytes : tuple of int
        Memory beyond boot memory after each request; negative if boot memory is reduced.
    backing : str
        ``whole``, or the half of its region that a Hyper-V host backs.
    block : str or None
        virtio-mem: the device's block.
    node : int or None
    """

    driver: str
    added_bytes: tuple[int, ...]
    backing: str = "whole"
    block: str | None = None
    node: int | None = None


def boot_bytes(machine: Mapping[str, Any]) -> int:
    """Return the memory that a scenario's machine boots with."""
    if "memory" in machine:
        return parse_size(machine["memory"])
    nodes = machine.get("nodes") or [{"memory": "1GiB"}]
    return sum(parse_size(node["memory"]) for node in nodes)


def fulfil(machine: dict[str, Any], requests: Requests) -> list[list[Step]]:
    """Return the steps of each request; keys of the machine that the driver needs are set in it.

    The platform plans without observing: it assumes that earlier requests were fulfilled.

    Raises
    ------
    InputError
        If no platform supports the combination.
    """
    if requests.driver not in DRIVERS:
        raise InputError(f"driver {requests.driver!r}: {one_of(requests.driver, DRIVERS)}")
    if requests.backing not in BACKINGS:
        raise InputError(f"backing {requests.backing!r}: {one_of(requests.backing, BACKINGS)}")
    if requests.backing != "whole" and requests.driver != "hyperv":
        raise InputError(
            f"backing {requests.backing!r}: only a hyperv host can back part of a region, "
            f"not {requests.driver}"
        )
    if requests.node is not None and requests.driver not in _NAME_NODES:
        raise InputError(f"node {requests.node}: {requests.driver} does not support a node")
    least = min(requests.added_bytes, default=0)
    if least < 0 and requests.driver not in _BALLOONS:
        raise InputError(
            f"{format_size(-least)} less than boot memory: only a balloon can reduce it "
            f"({', '.join(_BALLOONS)}), not {requests.driver}"
        )
    return list(DRIVERS[requests.driver](machine, requests))


def _devices(machine: dict[str, Any], requests: Requests) -> Iterator[list[Step]]:
    """Plug missing memory as one device; unplug whole devices, the newest first."""
    del machine
    stack: list[tuple[str, int]] = []
    nr_plugged = 0
    for target in requests.added_bytes:
        steps: list[Step] = []
        while stack and sum(size for _, size in stack) - stack[-1][1] >= target:
            steps.append({"do": "unplug", "id": stack.pop()[0]})
        missing = target - sum(size for _, size in stack)
        if missing > 0:
            nr_plugged += 1
            id_ = f"{requests.driver}{nr_plugged}"
            stack.append((id_, missing))
            step = {"do": "plug", "id": id_, "driver": requests.driver, "size": _text(missing)}
            steps.append(step | _node(requests))
        yield steps


def _virtio_mem(machine: dict[str, Any], requests: Requests) -> Iterator[list[Step]]:
    """Plug one device with room for the largest request, and resize it."""
    del machine
    most = max(requests.added_bytes, default=0)
    for number, target in enumerate(requests.added_bytes):
        if number:
            yield [{"do": "resize", "id": "vm0", "size": _text(target)}]
            continue
        step: Step = {"do": "plug", "id": "vm0", "driver": "virtio-mem", "size": _text(most)}
        step |= {"requested": _text(target), **_node(requests)}
        yield [step | ({"block": requests.block} if requests.block else {})]


def _hyperv(machine: dict[str, Any], requests: Requests) -> Iterator[list[Step]]:
    """Resize the balloon; a host that backs part of a region hot-adds that part."""
    machine.setdefault("balloon", "hyperv")
    boot, reached = boot_bytes(machine), 0
    address = _first_free(machine)
    for number, target in enumerate(requests.added_bytes, start=1):
        missing = target - reached
        if requests.backing == "whole" or missing <= 0:
            yield [_resized(boot + target)]
        else:
            offset = 0 if requests.backing == "first-half" else missing
            yield [
                {
                    "do": "plug",
                    "id": f"hv{number}",
                    "driver": "hyperv",
                    "size": _text(missing),
                    "address": hex(address + offset),
                    "region": {"address": hex(address), "size": _text(2 * missing)},
                }
            ]
            address += -(-2 * missing // _GIB) * _GIB
        reached = target


def _xen(machine: dict[str, Any], requests: Requests) -> Iterator[list[Step]]:
    """Set the target of a domain's balloon, on a host with enough memory."""
    machine.setdefault("platform", "xen")
    boot = boot_bytes(machine)
    most = boot + max(0, *requests.added_bytes) + _GIB
    if most > XEN_HOST_BYTES:
        machine.setdefault("xen_host_memory", _text(-(-most // _GIB) * _GIB))
    for target in requests.added_bytes:
        yield [_resized(boot + target)]


def _standby(machine: dict[str, Any], requests: Requests) -> Iterator[list[Step]]:
    """Define standby storage for missing memory and online it; offline it in the reverse steps."""
    release = release_for(machine.get("release", DEFAULT_RELEASE))
    configured = release.standby_added != "boot"
    for steps in _devices(machine, requests):
        made: list[Step] = []
        for step in steps:
            named = {"id": step["id"]}
            on = [{"do": "configure", **named}] if configured else []
            off = [{"do": "configure", **named, "config": False}] if configured else []
            if step["do"] == "plug":
                made += [step, *on, {"do": "online", **named}]
            else:
                made += [{"do": "offline", **named}, *off]
        yield made


def _resized(size_bytes: int) -> Step:
    return {"do": "resize", "id": "balloon", "size": _text(size_bytes)}


def _node(requests: Requests) -> Step:
    return {} if requests.node is None else {"node": requests.node}


def _text(size_bytes: int) -> str:
    return format_size(size_bytes)


def _first_free(machine: Mapping[str, Any]) -> int:
    """Return the lowest address above boot memory at which a host adds memory."""
    board = arch_named(machine.get("arch", DEFAULT_ARCH)).board
    platform = machine.get("platform") or board.platforms[0]
    return dimm_space(board, boot_ram(board, platform, boot_bytes(machine))[-1][1]).base


#: The steps of each driver; names are those of scenarios, ``xen`` is the balloon.
DRIVERS: dict[str, Callable[[dict[str, Any], Requests], Iterator[list[Step]]]] = {
    "dimm": _devices,
    "hyperv": _hyperv,
    "kmem": _devices,
    "standby": _standby,
    "virtio-mem": _virtio_mem,
    "xen": _xen,
}
_BALLOONS = ("hyperv", "xen")
_NAME_NODES = ("dimm", "kmem", "virtio-mem")
