"""What is explored, as a TOML file says it: a machine, operations in any order, and bounds.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.scenario import (
    DRIVER_KEYS,
    Address,
    FillKind,
    Machine,
    OnlineType,
    SetTunables,
    Size,
    VetoOn,
    decode,
    read_toml,
    set_machine_keys,
)

__all__ = ("Bounds", "Exploration", "Filling", "Operations", "check_bounds", "load_exploration")


class _ExplorationTable(
    msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    pass


class Filling(_ExplorationTable):
    """Pages that may come into use, and go again."""

    size: Size
    kind: FillKind = "file"
    page_size: Size | None = None


class Operations(_ExplorationTable):
    """What may happen, in any order; what is left out does not happen.

    Attributes
    ----------
    driver : str
        That of every plug.
    plug : list of Size
        Sizes that may arrive.
    offset : list of Size
        Where in a new memory block they may start (Hyper-V).
    address : list of Address
        Where else they may arrive; without it the driver's platform chooses.
    resize : list of Size
        Sizes that a device may be told (virtio-mem), or a balloon.
    online : list of str
        Zones that an offline block may be onlined to.
    offline, unplug, poison, dump : bool
    whole_devices : bool
        Blocks of a device go online and offline together.
    veto : list of str
        Actions that a listener may start to refuse, and stop refusing.
    fill : list of Filling
    set : dict of str to list
        Parameters of the running kernel, and the values that they may be given; injected failures
        (``fail_block_devices``, ``fail_allocation``) among them.
    """

    driver: str = "dimm"
    plug: list[Size] = []
    offset: list[Size] = []
    address: list[Address] = []
    resize: list[Size] = []
    online: list[OnlineType] = []
    offline: bool = False
    unplug: bool = False
    poison: bool = False
    dump: bool = False
    whole_devices: bool = False
    veto: list[VetoOn] = []
    fill: list[Filling] = []
    set: dict[str, list[str | int | bool]] = {}


class Bounds(_ExplorationTable):
    """How far the search goes.

    Attributes
    ----------
    depth : int
        Steps of a sequence at most.
    devices, blocks : int
        Devices, and memory blocks added, at a time.
    states : int
        Different states at most.
    """

    depth: int = 8
    devices: int = 4
    blocks: int = 4
    states: int = 1_000_000


class Exploration(_ExplorationTable):
    """A machine, what may happen to it, how far, and which rules must hold."""

    name: str
    description: str = ""
    machine: Machine = msgspec.field(default_factory=Machine)
    operations: Operations = msgspec.field(default_factory=Operations)
    bounds: Bounds = msgspec.field(default_factory=Bounds)
    rules: list[str] = []


def load_exploration(path: Path, settings: Sequence[str] = ()) -> Exploration:
    """Read an exploration's file.

    Parameters
    ----------
    path : Path
    settings : sequence of str
        ``key=value`` for keys of ``[machine]``, which replace the file's.

    Raises
    ------
    InputError
        Naming the file, the place in it, and the rule.
    """
    try:
        data = read_toml(path)
        data.setdefault("name", path.stem)
        set_machine_keys(data, settings)
        made = decode(data, Exploration)
        _check(made)
    except InputError as error:
        raise InputError(f"exploration {path}: {error}") from error
    return made


_LIMITS: dict[str, tuple[int, int]] = {
    "depth": (1, 1000),
    "devices": (1, 26),
    "blocks": (1, 1 << 20),
    "states": (1, 1 << 40),
}


def check_bounds(bounds: Bounds) -> None:
    """Raise an InputError if a bound is out of its own bounds."""
    for name, (least, most) in _LIMITS.items():
        value = getattr(bounds, name)
        if not least <= value <= most:
            raise InputError(f"bounds.{name} {value}: need {least} to {most}")


def _check(made: Exploration) -> None:
    check_bounds(made.bounds)
    operations = made.operations
    if operations.driver not in DRIVER_KEYS:
        raise InputError(
            f"operations.driver {operations.driver!r}: need one of {', '.join(DRIVER_KEYS)}"
        )
    for name in ("plug", "fill"):
        for item in getattr(operations, name):
            size = item if name == "plug" else item.size
            if size <= 0:
                raise InputError(f"operations.{name} {size}: need more than 0 bytes")
    for key, values in operations.set.items():
        for value in values:
            decode({"do": "set", key: value}, SetTunables, "operations.set")
    if operations.offset and operations.driver != "hyperv":
        raise InputError("operations.offset: only a hyperv host backs a block from its middle on")
    if not any(getattr(operations, name) for name in operations.__struct_fields__[1:]):
        raise InputError("operations: nothing may happen")
