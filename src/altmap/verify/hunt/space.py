"""What a hunt draws from: kernels, machines, sizes and steps that the lab can perform.

Machines are few, since each one is a boot whose snapshot all its scenarios share.

Effects: randomness.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from altmap.errors import InputError, one_of

__all__ = ("FAMILIES", "Family", "draw_machine", "family_of")

ONLINE_TYPES = ("online", "online_kernel", "online_movable")
#: Machines of one seed.
_NR_MACHINES = 12


@dataclass(frozen=True, slots=True)
class Family:
    """Machines of one kind, and the drivers and steps that their guests can be asked for.

    Attributes
    ----------
    name : str
        As the option ``--kind`` takes it.
    arch : str
    releases : tuple of str
        Of Debian's kernels that the lab has, the default first.
    platforms : tuple of str
    memory_mib : tuple of int
        Boot memory.
    unit_mib : int
        Sizes of plugged memory are multiples of it.
    steps : mapping of str to int
        Step makers of :mod:`~altmap.verify.hunt.draw` and their weights.
    nodes : bool
        Whether machines have several nodes now and then.
    keys : mapping of str to sequence
        Further keys of the machine, each with the values that are drawn; ``None`` is left out.
    """

    name: str
    arch: str
    releases: tuple[str, ...]
    platforms: tuple[str, ...]
    memory_mib: tuple[int, ...]
    unit_mib: int
    steps: Mapping[str, int]
    nodes: bool = True
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)


_BLOCK_STEPS = {"online": 5, "offline": 7, "write": 2, "set_tunables": 3, "veto": 2}
_USE_STEPS = {"fill": 4, "held": 2, "kernel_pages": 1, "huge_pages": 2, "free": 2}
_COMMON = {**_BLOCK_STEPS, **_USE_STEPS, "round_trip": 2, "plug": 6, "unplug": 4}
_VIRTIO_MEM = {"plug_virtio_mem": 5, "resize": 8, "stays_offline": 1, "half_taken_back": 1}
_ONLINE_KEYS = {
    "auto_online_blocks": ("offline", "online", *ONLINE_TYPES),
    "online_policy": (None, "auto-movable"),
    "auto_movable_ratio": (None, 50, 100, 301),
    "movable_node": (None, None, None, True),
}
_MEMMAP_KEYS = {"memmap_on_memory": ("off", "on", "on", "force")}
_ALL_KEYS = _ONLINE_KEYS | _MEMMAP_KEYS | {"cpus": (None, None, 2)}
_BIG_BLOCK_KEYS = {"virtio_mem": (None, None, {"bbm_safe_unplug": False})}

_ARM64 = Family(
    "arm64",
    "aarch64",
    ("6.12", "7.3"),
    ("virt",),
    (512, 1024, 2048),
    128,
    _BLOCK_STEPS | _USE_STEPS | _VIRTIO_MEM | {"unplug": 2},
    nodes=False,
    keys=_ALL_KEYS,
)
FAMILIES = (
    Family(
        "pc",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("pc", "q35"),
        (512, 768, 1000, 1024, 1536, 2048, 3072, 3074, 4096),
        128,
        _COMMON | _VIRTIO_MEM | {"poison": 2, "ratio_bound": 2},
        keys={**_ALL_KEYS, **_BIG_BLOCK_KEYS},
    ),
    Family(
        "hyperv",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("pc",),
        (1024, 2048),
        128,
        _BLOCK_STEPS
        | {"plug_hyperv": 8, "half_backed": 2, "fill": 3, "held": 2, "free": 2, "round_trip": 2},
        nodes=False,
        keys={"auto_online_blocks": ("online", "online_movable")},
    ),
    Family(
        "xen",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("xen",),
        (512, 768, 1024),
        128,
        {"balloon": 8, "online": 3, "offline": 3, "write": 1, "set_tunables": 1},
        nodes=False,
        keys={"auto_online_blocks": ("offline", "online", "online_movable")},
    ),
    _ARM64,
    replace(_ARM64, name="arm64-16k", arch="aarch64-16k", memory_mib=(1024, 2048)),
    Family(
        "ppc64le",
        "ppc64le",
        ("6.12", "6.1"),
        ("pseries",),
        (1024, 1536, 2048),
        256,
        _COMMON,
        keys=_ALL_KEYS | {"mmu": (None, None, None, "hash")},
    ),
    Family(
        "s390x",
        "s390x",
        ("6.12",),
        ("s390-ccw",),
        (1024, 2048),
        256,
        _BLOCK_STEPS | _USE_STEPS,
        nodes=False,
        keys=_ONLINE_KEYS,
    ),
)


def family_of(name: str) -> Family:
    """Return a family by name.

    Raises
    ------
    InputError
        Naming the families.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise InputError(f"kind {name!r}: {one_of(name, (each.name for each in FAMILIES))}")


def draw_machine(family: Family, release: str, seed: int, chance: random.Random) -> dict[str, Any]:
    """Return the keys of one of the seed's machines."""
    own = random.Random(f"{family.name} {seed} {chance.randrange(_NR_MACHINES)}")
    machine: dict[str, Any] = {"arch": family.arch, "release": release}
    machine["platform"] = own.choice(family.platforms)
    if family.nodes and own.random() < 0.3:
        # A node without memory in the middle is not in the firmware's tables, so none is drawn.
        sizes = own.choice(((1024, 512), (512, 1024), (1024, 0), (768, 1280), (3072, 1024)))
        machine["nodes"] = [{"memory": f"{size}MiB"} for size in sizes]
    else:
        machine["memory"] = f"{own.choice(family.memory_mib)}MiB"
    for key, values in family.keys.items():
        value = own.choice(values)
        if value is not None:
            machine[key] = value
    return machine
