"""A grid: the product of its dimensions, as data; each number below its length is one scenario.

Effects: files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from altmap.errors import InputError, one_of
from altmap.model.arch import DEFAULT_ARCH, arch_named, arch_of
from altmap.model.kernel.accounting import policy_named
from altmap.model.policies import load_policy
from altmap.model.releases import release_for
from altmap.scenario import Machine, build_scenario, decode, read_toml
from altmap.sweep.example import example_fleet
from altmap.sweep.fleet import FleetRequest, Member, members, read_trace
from altmap.sweep.requests import BACKINGS, DRIVERS, Requests, boot_bytes, fulfil
from altmap.units import parse_size

__all__ = ("Dimension", "Grid", "Point", "Slice", "load_grid")

_MOST_MEMBERS = 1_000_000


class _GridTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class _RequestTable(_GridTable, kw_only=True):
    """``[requests]``: each key one value, or a list of values."""

    driver: str | list[str] = "dimm"
    added: list[str | list[str]]
    backing: str | list[str] = "whole"
    block: str | list[str] = []
    node: int | list[int] = []


class _Fleet(_GridTable, kw_only=True):
    """``[fleet]``: a trace, or an example fleet with a number of machines."""

    trace: str = ""
    machines: int = 0
    seed: int = 1


class _GridFile(_GridTable, kw_only=True):
    name: str = ""
    description: str = ""
    machine: dict[str, Any] = {}
    requests: _RequestTable | None = None
    fleet: _Fleet | None = None
    steps: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter and its values.

    Attributes
    ----------
    table : str
        ``machine`` or ``requests``.
    key : str
    values : tuple
        As TOML has them.
    """

    table: str
    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a grid, not yet checked.

    Attributes
    ----------
    number : int
        Its place in the grid.
    data : dict
        The scenario as plain tables.
    requests : Requests or None
    nr_request_steps : tuple of int
        Number of steps of each request; the grid's steps follow.
    times : tuple of str
        Time of each request, if it is from a trace.
    member : str
        Name of the machine in the fleet.
    error : str
        Why it is not a valid scenario; empty if no error is known.
    """

    number: int
    data: dict[str, Any]
    requests: Requests | None = None
    nr_request_steps: tuple[int, ...] = ()
    times: tuple[str, ...] = ()
    member: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """The dimensions and the fixed keys.

    The first dimension varies slowest; the machines of a fleet vary faster than all of them. So
    adjacent scenarios have most in common.

    Attributes
    ----------
    name, description : str
    dimensions : tuple of Dimension
    machine : dict
        Keys of the machine that are equal in all scenarios.
    steps : tuple of dict
        Steps after the requests.
    has_requests : bool
        Whether memory is requested by the dimensions of ``requests``.
    fleet : tuple of Member
    modules : tuple of str
        The user's policies, ``MODULE:CLASS``, which the workers load.
    digest : str
        Hash of everything that decides the scenarios, the trace included.
    """

    name: str
    description: str
    dimensions: tuple[Dimension, ...]
    machine: dict[str, Any]
    steps: tuple[dict[str, Any], ...] = ()
    has_requests: bool = False
    fleet: tuple[Member, ...] = ()
    modules: tuple[str, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return prod(len(each.values) for each in self.dimensions) * max(1, len(self.fleet))

    def slice(self, start: int, stop: int) -> Slice:
        """Return the scenarios of a range of numbers, with only the members that they need."""
        size = len(self.fleet)
        if not size:
            return Slice(self, start, stop)
        needed = {number % size for number in range(start, min(stop, start + size))}
        fleet = {rank: self.fleet[rank] for rank in needed}
        return Slice(replace(self, fleet=()), start, stop, size, fleet)


@dataclass(frozen=True, slots=True)
class Slice:
    """Adjacent scenarios of a grid, self-contained: it is sent to the worker that runs them.

    Attributes
    ----------
    grid : Grid
        Without its fleet.
    start, stop : int
    fleet_size : int
        0 without a fleet.
    fleet : dict of int to Member
        Those that the slice needs, by their place in the fleet.
    """

    grid: Grid
    start: int
    stop: int
    fleet_size: int = 0
    fleet: Mapping[int, Member] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[Slice, Slice]:
        """Return the first and the second half."""
        middle = (self.start + self.stop) // 2
        return replace(self, stop=middle), replace(self, start=middle)

    def points(self) -> list[Point]:
        """Return the scenarios."""
        return [self._point(number) for number in range(self.start, self.stop)]

    def _point(self, number: int) -> Point:
        left, member = number, None
        if self.fleet_size and self.fleet is not None:
            left, rank = divmod(number, self.fleet_size)
            member = self.fleet[rank]
        chosen: dict[str, dict[str, Any]] = {"machine": {}, "requests": {}}
        for dimension in reversed(self.grid.dimensions):
            left, at = divmod(left, len(dimension.values))
            chosen[dimension.table][dimension.key] = dimension.values[at]
        machine = {**self.grid.machine, **chosen["machine"], **(member.machine if member else {})}
        name = f"{self.grid.name}-{number}"
        point = Point(number, {"name": name, "machine": machine, "steps": list(self.grid.steps)})
        try:
            _resolve_page_size(machine)
            return _with_requests(
                point, machine, chosen["requests"], member, self.grid.has_requests
            )
        except InputError as error:
            return replace(
                point, error=str(error), member=member.name if member else "",
                requests=_driver_only(chosen["requests"], member),
            )  # fmt: skip


def _driver_only(chosen: Mapping[str, Any], member: Member | None) -> Requests | None:
    driver = member.driver if member else chosen.get("driver", "")
    return Requests(driver, (), chosen.get("backing", "whole")) if driver else None


def _with_requests(
    point: Point,
    machine: dict[str, Any],
    chosen: Mapping[str, Any],
    member: Member | None,
    has_requests: bool,
) -> Point:
    """Return the point with the steps of its requests."""
    if member is not None:
        boot = boot_bytes(machine)
        driver, added = member.driver, tuple(size - boot for size in member.requested_bytes)
    elif has_requests:
        driver = chosen["driver"]
        given = chosen["added"]
        added = tuple(map(_bytes, [given] if isinstance(given, str) else given))
    else:
        return point
    requests = Requests(
        driver, added, chosen.get("backing", "whole"), chosen.get("block"), chosen.get("node")
    )
    steps = fulfil(machine, requests)
    made = [step for each in steps for step in each]
    return replace(
        point,
        data={**point.data, "steps": made + point.data["steps"]},
        requests=requests,
        nr_request_steps=tuple(map(len, steps)),
        times=member.times if member else (),
        member=member.name if member else "",
    )


def _resolve_page_size(machine: dict[str, Any]) -> None:
    """Replace ``page_size`` by the architecture that has it."""
    text = machine.pop("page_size", None)
    if text is None:
        return
    family = arch_named(machine.get("arch", DEFAULT_ARCH)).family
    arch = arch_of(family, parse_size(text))
    if arch is None:
        raise InputError(f"page_size {text!r}: no architecture of {family} has it")
    machine["arch"] = arch.name


# --- reading ---------------------------------------------------------------------------------


def load_grid(
    path: Path,
    *,
    seed: int | None = None,
    policies: Sequence[str] = (),
    base: Mapping[str, Any] = MappingProxyType({}),
) -> Grid:
    """Read a grid and the trace that it names.

    Parameters
    ----------
    path : Path
    seed : int, optional
        Seed of the example fleet, instead of the file's.
    policies : sequence of str
        Policies instead of the file's ``machine.policy``; may be ``MODULE:CLASS``.
    base : mapping of str to object
        Keys of the machine that count where the file has none.

    Raises
    ------
    InputError
        Names the file, the place in it, and the rule.
    """
    try:
        file = decode(read_toml(path), _GridFile)
        file.machine = {**base, **file.machine}
        modules = {load_policy(name).name: name for name in policies}
        if policies:
            file.machine["policy"] = list(modules)
        grid = _grid(file, path, seed, frozenset(modules))
        return replace(grid, modules=tuple(name for name in policies if ":" in name))
    except OSError as error:
        raise InputError(f"grid {path}: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"grid {path}: {error}") from error


def _grid(file: _GridFile, path: Path, seed: int | None, loaded: frozenset[str]) -> Grid:
    machine, dimensions = _machine(file.machine, loaded)
    if file.requests is not None and file.fleet is not None:
        if file.requests.driver != "dimm":
            raise InputError("requests.driver: a fleet's trace names the driver of each machine")
        raise InputError("requests: a fleet has its requests in its trace")
    if file.requests is not None:
        dimensions += _request_dimensions(file.requests)
    lines = _trace(file.fleet, path, seed) if file.fleet is not None else []
    grid = Grid(
        name=file.name or path.stem,
        description=file.description,
        dimensions=dimensions,
        machine=machine,
        steps=tuple(file.steps),
        has_requests=file.requests is not None,
        fleet=tuple(members(lines)),
    )
    if file.fleet is not None:
        _check_fleet(grid)
    _check_steps(grid)
    return replace(grid, digest=_digest(grid))


def _machine(
    table: Mapping[str, Any], loaded: frozenset[str]
) -> tuple[dict[str, Any], tuple[Dimension, ...]]:
    """Return the fixed keys, and the dimensions: keys with lists of values.

    *loaded* are names of policies that are loaded already.
    """
    fixed: dict[str, Any] = {}
    dimensions = []
    for key, value in table.items():
        several = isinstance(value, list)
        if key == "nodes":  # one value is a list itself
            several = several and all(isinstance(each, list) for each in value)
        if several and not value:
            raise InputError(f"machine.{key}: an empty list has no value to try")
        for each in value if several else [value]:
            if key != "policy" or each not in loaded:
                _check_key(key, each)
        if several:
            dimensions.append(Dimension("machine", key, tuple(value)))
        else:
            fixed[key] = value
    return fixed, tuple(dimensions)


def _check_key(key: str, value: Any) -> None:
    if key == "devices":
        raise InputError("machine.devices: only a machine from a sysroot has devices already")
    if key == "page_size":
        parse_size(value)
        return
    machine = decode({key: value}, Machine, "machine")
    for name, check in (("arch", arch_named), ("release", release_for), ("policy", policy_named)):
        if key == name:
            check(getattr(machine, name))


def _request_dimensions(table: _RequestTable) -> tuple[Dimension, ...]:
    """Return the dimensions of the requests; their sizes vary fastest."""
    for drivers in _several(table.driver):
        if drivers not in DRIVERS:
            raise InputError(f"requests.driver {drivers!r}: {one_of(drivers, DRIVERS)}")
    for backing in _several(table.backing):
        if backing not in BACKINGS:
            raise InputError(f"requests.backing {backing!r}: {one_of(backing, BACKINGS)}")
    if not table.added:
        raise InputError("requests.added: need a size, or a list of sizes for consecutive requests")
    for sizes in table.added:
        for size in _several(sizes):
            _bytes(size)
    for block in _several(table.block):
        parse_size(block)
    return tuple(
        Dimension("requests", key, tuple(values))
        for key, values in (
            ("driver", _several(table.driver)),
            ("backing", _several(table.backing)),
            ("block", _several(table.block)),
            ("node", _several(table.node)),
            ("added", table.added),
        )
        if values
    )


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _bytes(text: str) -> int:
    """Return a size, which may be negative."""
    return -parse_size(text[1:]) if text.startswith("-") else parse_size(text.removeprefix("+"))


def _trace(fleet: _Fleet, path: Path, seed: int | None) -> Sequence[FleetRequest]:
    if bool(fleet.trace) == bool(fleet.machines):
        raise InputError("fleet: need either a trace or a number of machines")
    if fleet.trace:
        lines: Sequence[FleetRequest] = read_trace(path.parent / fleet.trace)
        if not lines:
            raise InputError(f"trace {fleet.trace}: has no requests")
        return lines
    if not 0 < fleet.machines <= _MOST_MEMBERS:
        raise InputError(f"fleet.machines {fleet.machines}: need 1 to {_MOST_MEMBERS}")
    return list(example_fleet(fleet.machines, fleet.seed if seed is None else seed))


def _check_fleet(grid: Grid) -> None:
    """Refuse a key that is both in the grid and in the trace."""
    named = {key for member in grid.fleet for key in member.machine}
    varied = {each.key for each in grid.dimensions if each.table == "machine"}
    for key in sorted(named & {*varied, *grid.machine}):
        raise InputError(f"machine.{key}: the trace has it for each machine")


def _check_steps(grid: Grid) -> None:
    """Check the grid's steps independently of the machine."""
    build_scenario({"name": "steps", "steps": list(grid.steps)})


def _digest(grid: Grid) -> str:
    """Return a hash of the scenarios; the grid's name is not part of it."""
    dimensions = [[each.table, each.key, each.values] for each in grid.dimensions]
    raw = [dimensions, grid.machine, grid.steps, grid.has_requests]
    made = hashlib.sha256(msgspec.json.encode(raw, order="sorted"))
    for member in grid.fleet:
        made.update(msgspec.json.encode(member))
    return made.hexdigest()
