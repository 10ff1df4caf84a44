"""Machines that a hunt draws; few for a seed, as each is a boot whose snapshot scenarios share.

Effects: randomness.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from altmap.verify.hunt.space import Family

__all__ = ("draw_machine",)

#: Machines of one seed.
_NR_MACHINES = 12


def draw_machine(
    family: Family, release: str, seed: int, chance: random.Random
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the keys of one of the seed's machines, and plugs of memory that is there at boot.

    What a guest is told when it has booted is drawn for the scenario, by *chance*.
    """
    own = random.Random(f"{family.name} {seed} {chance.randrange(_NR_MACHINES)}")
    machine: dict[str, Any] = {"arch": family.arch, "release": release}
    machine["platform"] = own.choice(family.platforms)
    sizes: tuple[int, ...] = (own.choice(family.memory_mib),)
    if family.nodes and own.random() < 0.3:
        # A node without memory in the middle is not in the firmware's tables, so none is drawn.
        most = max(family.memory_mib)
        several = ((1024, 512), (512, 1024), (1024, 0), (768, 1280), (3072, 1024))
        sizes = own.choice([each for each in several if sum(each) <= most])
    for one, keys in ((own, family.keys), (chance, family.settings)):
        drawn = {key: one.choice(values) for key, values in keys.items()}
        machine |= {key: value for key, value in drawn.items() if value is not None}
    if family.words and own.random() < 0.4:
        machine["cmdline"] = own.choice(family.words).format(
            end=_ram_end_mib(machine, sum(sizes)) - 1, half=sum(sizes) // 2, quarter=sum(sizes) // 4
        )
    if family.boot_dimm and own.random() < 0.2:
        machine["devices"] = [{"id": "b0", "address": "0x180000000", "size": "256MiB"}]
    if family.forces_memmap and machine["memmap_on_memory"] != "off" and own.random() < 0.15:
        machine["policy"] = "per-block"
    there = _DAX[family.dax](own, sizes, family.dax_mib) if family.dax else []
    there = [plug | _asked(chance) for plug in there]
    if family.dax == "cxl":
        sizes += (0,) * len(there)  # the kernel makes a node of each window
    if len(sizes) > 1:
        machine["nodes"] = [{"memory": f"{size}MiB"} for size in sizes]
    else:
        machine["memory"] = f"{sizes[0]}MiB"
    return machine, there


def _ram_end_mib(machine: Mapping[str, Any], memory_mib: int) -> int:
    """Return what ``mem=`` of all RAM would be: the end address, on other platforms the amount."""
    below = {"pc": (3584, 3072), "q35": (2816, 2048)}.get(machine["platform"])
    if below is None or memory_mib < below[0]:
        return memory_mib
    return 4096 + memory_mib - below[1]


def _pmem(own: random.Random, sizes: Sequence[int], least_mib: int) -> list[dict[str, Any]]:
    """Return plugs of persistent memory, above all RAM, in whole blocks or not."""
    first_mib = least_mib + sum(sizes) + 128
    node = -1 if len(sizes) == 1 and own.random() < 0.1 else len(sizes) - 1
    plugs = []
    for number in range(own.choice((1, 1, 2))):
        address_mib = first_mib + 1024 * number + own.choice((0, 0, 2, 64))
        size_mib = own.choice((128, 256, 384, 512, 514, 640))
        plugs.append(_dax_plug("pmem", number, address_mib, size_mib, node))
    return plugs


def _cxl(own: random.Random, sizes: Sequence[int], first_mib: int) -> list[dict[str, Any]]:
    """Return plugs of CXL memory, where QEMU places the windows behind 1 GiB of boot memory."""
    plugs, address_mib = [], first_mib
    for number in range(own.choice((1, 1, 2))):
        size_mib = own.choice((256, 512))
        plugs.append(_dax_plug("cxl", number, address_mib, size_mib, len(sizes) + number))
        address_mib += size_mib
    return plugs


def _dax_plug(dax: str, number: int, address_mib: int, size_mib: int, node: int) -> dict[str, Any]:
    plug = {"do": "plug", "id": f"dax{number}.0", "driver": "kmem", "dax": dax, "node": node}
    return plug | {"address": f"{address_mib << 20:#x}", "size": f"{size_mib}MiB"}


def _asked(chance: random.Random) -> dict[str, Any]:
    """Return what is written to a device's own file on its memmap."""
    asked = chance.choice((None, True, False))
    return {} if asked is None else {"memmap_on_memory": asked}


_DAX = {"pmem": _pmem, "cxl": _cxl}
