"""The TOML file of an exploration: a machine, operations in any order, and bounds.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from altmap.errors import InputError, one_of
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
    """Pages that may come into use and be freed."""

    size: Size
    kind: FillKind = "file"
    page_size: Size | None = None


class Operations(_ExplorationTable):
    """The operations that may happen, in any order; those left out do not happen.

    Attributes
    ----------
    driver : str
        The driver of every plug.
    plug : list of Size
        Sizes that may be added.
    offset : list of Size
        Offsets in a new memory block at which they may start (Hyper-V).
    address : list of Address
        Addresses at which they may be added; by default the platform chooses.
    resize : list of Size
        Sizes of a virtio-mem device or balloon.
    online : list of str
        Online types of an offline block.
    offline, unplug, poison, dump : bool
    whole_devices : bool
        Blocks of a device go online and offline together.
    veto : list of str
        Notifier actions that a listener may start and stop vetoing.
    fill : list of Filling
    set : dict of str to list
        Parameters of the running kernel, and the values that they may get; injected failures
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
    """Bounds of the search.

    Attributes
    ----------
    depth : int
        Most steps of a sequence.
    devices, blocks : int
        Most devices, and most added memory blocks, at a time.
    states : int
        Most different states.
    """

    depth: int = 8
    devices: int = 4
    blocks: int = 4
    states: int = 1_000_000


class Exploration(_ExplorationTable):
    """A machine, operations, bounds, and the rules that must hold."""

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
        ``key=value`` for keys of ``[machine]``, instead of the file's.

    Raises
    ------
    InputError
        Names the file, the place in it, and the rule.
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
    """Raise an InputError if a bound is out of its range."""
    for name, (least, most) in _LIMITS.items():
        value = getattr(bounds, name)
        if not least <= value <= most:
            raise InputError(f"bounds.{name} {value}: need {least} to {most}")


def _check(made: Exploration) -> None:
    check_bounds(made.bounds)
    operations = made.operations
    if operations.driver not in DRIVER_KEYS:
        raise InputError(
            f"operations.driver {operations.driver!r}: {one_of(operations.driver, DRIVER_KEYS)}"
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
        raise InputError("operations.offset: only a hyperv host can start in the middle of a block")
    if not any(getattr(operations, name) for name in operations.__struct_fields__[1:]):
        raise InputError("operations: need at least one operation")
