"""A scenario drawn by chance: combinations that no other test has.

The same seed and number draw the same scenario. Of several candidates the one is taken whose
prediction reaches most that the hunt has not reached. Each step is tried on the model before it
is kept, so that it can be asked; refusals by the kernel are part of it.

Effects: randomness.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from altmap.errors import InputError
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import Scenario, build_scenario
from altmap.verify.hunt.coverage import Coverage, features_of
from altmap.verify.hunt.space import ONLINE_TYPES, Family, draw_machine

__all__ = ("draw_scenario",)

_NR_CANDIDATES = 12
_MOST_ADDED_MIB = 3072
_Step = dict[str, Any]


def draw_scenario(
    family: Family, release: str, seed: int, number: int, coverage: Coverage
) -> tuple[Scenario, frozenset[str]]:
    """Return a scenario and the features that its prediction reaches.

    Parameters
    ----------
    family : Family
    release : str
        Of the kernel.
    seed, number : int
        Which scenario: the same two give the same candidates.
    coverage : Coverage
        What was reached before; it decides between the candidates.
    """
    best: tuple[float, Scenario, frozenset[str]] | None = None
    for candidate in range(_NR_CANDIDATES):
        chance = random.Random(f"{family.name} {release} {seed} {number} {candidate}")
        name = f"hunt-{family.name}-{release}-{seed}-{number}"
        drawing = _Drawing(chance, family, draw_machine(family, release, seed, chance), name)
        drawing.draw(chance.randrange(3, 11))
        scenario = drawing.scenario()
        reached = features_of(predict(scenario, pages=False))
        novelty = coverage.novelty(reached)
        if best is None or novelty > best[0]:
            best = novelty, scenario, reached
    assert best is not None
    return best[1:]


class _Drawing:
    """One scenario in the making."""

    def __init__(
        self, chance: random.Random, family: Family, machine: dict[str, Any], name: str
    ) -> None:
        self.chance, self.family, self.machine, self.name = chance, family, machine, name
        self.steps: list[_Step] = []
        self.model: ModelMachine | None = None
        self.devices: dict[str, tuple[str, int]] = {}  # the driver, and the size in MiB
        self.fills: list[str] = []
        self.added_mib = 0

    def draw(self, nr_steps: int) -> None:
        """Draw steps until there are so many, or until none fits any more."""
        makers = [getattr(self, f"_{name}") for name in self.family.steps]
        weights = list(self.family.steps.values())
        for _ in range(10 * nr_steps):
            if len(self.steps) >= nr_steps:
                return
            make: Callable[[], _Step | tuple[_Step, ...] | None]
            make = self.chance.choices(makers, weights)[0]
            made = make()
            for step in made if isinstance(made, tuple) else (made,):
                if step is not None and self._fits(step):
                    self._keep(step)

    def scenario(self, more: tuple[_Step, ...] = ()) -> Scenario:
        """Return what was drawn so far, and *more* steps."""
        steps = [*self.steps, *more]
        return build_scenario({"name": self.name, "machine": self.machine, "steps": steps})

    def _fits(self, step: _Step) -> bool:
        added = _mib(step["size"]) if step["do"] == "plug" else 0
        if self.added_mib + added > _MOST_ADDED_MIB:
            return False
        try:
            scenario = self.scenario((step,))
            model = ModelMachine.start(scenario.machine, pages=False)
            for each in scenario.steps:
                record = model.perform(each)
        except InputError:
            return False
        if not record.outcome.ends or record.faults:
            return False
        self.model = model
        return True

    def _keep(self, step: _Step) -> None:
        self.steps.append(step)
        match step["do"]:
            case "plug":
                self.devices[step["id"]] = step.get("driver", "dimm"), _mib(step["size"])
                self.added_mib += _mib(step["size"])
            case "fill":
                self.fills.append(step["id"])
            case "free":
                self.fills.remove(step["id"])

    # --- devices ---------------------------------------------------------------------------

    def _plug(self) -> _Step:
        chance, unit = self.chance, self.family.unit_mib
        size = unit * chance.choice((1, 1, 2, 3, 4, 5, 8, 12))
        if chance.random() < 0.1 and unit == 128:
            size += 2 * chance.randrange(1, 64)
        step = self._new("plug", "d") | {"size": f"{size}MiB"} | self._node(0.7)
        if chance.random() < 0.25 and self.family.name == "pc":
            step["address"] = f"{0x1_4000_0000 + (chance.randrange(64) << 27):#x}"
        return step

    def _plug_virtio_mem(self) -> _Step:
        size = self.chance.choice((256, 512, 1024, 1280, 2048))
        step = self._new("plug", "v") | {"driver": "virtio-mem", "size": f"{size}MiB"}
        step["requested"] = f"{self._part_of(size)}MiB"
        if self.chance.random() < 0.4:
            step["block"] = f"{self.chance.choice((4, 16, 128, 256, 256, 512))}MiB"
        return step | self._node(1.0)

    def _plug_hyperv(self) -> _Step:
        size = self.chance.choice((2, 32, 64, 66, 128, 130, 192, 256, 320))
        step = self._new("plug", "h") | {"driver": "hyperv", "size": f"{size}MiB"}
        return step | self._hyperv_address((0, 0, 2, 64))

    def _unplug(self) -> _Step | None:
        return self._of_device("unplug")

    def _resize(self) -> _Step | None:
        sizes = {
            name: size for name, (driver, size) in self.devices.items() if driver == "virtio-mem"
        }
        if not sizes:
            return None
        name = self.chance.choice(list(sizes))
        return {"do": "resize", "id": name, "size": f"{self._part_of(sizes[name])}MiB"}

    def _balloon(self) -> _Step:
        base = _mib(self.machine["memory"])
        size = base + self.chance.choice((-128, -64, -33, -1, 0, 1, 64, 128, 192, 256, 384))
        return {"do": "resize", "id": "balloon", "size": f"{size}MiB"}

    # --- blocks ----------------------------------------------------------------------------

    def _online(self) -> _Step | None:
        step = self._of_device("online")
        return step and step | self._part() | {"to": self.chance.choice(ONLINE_TYPES)}

    def _offline(self) -> _Step | None:
        if self.chance.random() < 0.15:
            # Of boot memory: some below the first block and the last, which never go.
            return {"do": "offline", "blocks": self.chance.randrange(4)}
        step = self._of_device("offline")
        return step and step | self._part()

    def _write(self) -> _Step:
        block = self.chance.choice((0, 1, 2, 7, 31, 32, 33, 40, 999))
        file, words = self.chance.choice(
            (
                (f"memory{block}/state", ("offline", *ONLINE_TYPES, "maybe", "")),
                (f"memory{block}/online", ("0", "1", "2")),
                ("auto_online_blocks", ("offline", "online", "sometimes")),
            )
        )
        path = f"/sys/devices/system/memory/{file}"
        return {"do": "write", "file": path, "word": self.chance.choice(words)}

    def _set_tunables(self) -> _Step:
        key, words = self.chance.choice(
            (
                ("auto_online_blocks", ("offline", *ONLINE_TYPES)),
                ("online_policy", ("contig-zones", "auto-movable")),
                ("auto_movable_ratio", (0, 100, 301, 1000)),
                ("auto_movable_numa_aware", (True, False)),
            )
        )
        return {"do": "set", key: self.chance.choice(words)}

    def _veto(self) -> _Step:
        on = self.chance.choice(("going_online", "going_offline"))
        errno = self.chance.choice(("EPERM", "EBUSY", "ENOMEM", "EINVAL", "none"))
        return {"do": "veto", "on": on, "errno": errno}

    # --- pages in use ----------------------------------------------------------------------

    def _fill(self) -> _Step:
        return self._new("fill", "f") | {"size": f"{self.chance.choice((4, 64, 200))}MiB"}

    def _held(self) -> _Step:
        return self._new("fill", "f") | {"kind": "held", "size": "4MiB"}

    def _kernel_pages(self) -> _Step:
        return self._new("fill", "f") | {"kind": "kernel", "size": "16MiB"}

    def _huge_pages(self) -> _Step:
        size = self.chance.choice((16, 64, 128))
        kind = self.chance.choice(("hugetlb", "hugetlb-file"))
        return self._new("fill", "f") | {"kind": kind, "page_size": "2MiB", "size": f"{size}MiB"}

    def _free(self) -> _Step | None:
        return {"do": "free", "id": self.chance.choice(self.fills)} if self.fills else None

    # --- situations: steps that reach a state which single steps seldom reach ----------------

    def _round_trip(self) -> tuple[_Step, ...] | None:
        """Take blocks offline and online again."""
        step = self._of_device("offline")
        if step is None:
            return None
        step |= self._part()
        return step, step | {"do": "online", "to": self.chance.choice(ONLINE_TYPES)}

    def _poison(self) -> tuple[_Step, ...] | None:
        """Poison a page of a device, whose blocks then go offline and online again."""
        if self.model is None or not self.model.devices.by_id:
            return None
        name, device = self.chance.choice(list(self.model.devices.by_id.items()))
        pfn = self.chance.randrange(device.pfns.start, device.pfns.end)
        address = pfn * self.model.kernel.arch.page_size_bytes
        offline = {"do": "offline", "id": name}
        online = {"do": "online", "id": name, "to": self.chance.choice(ONLINE_TYPES)}
        return {"do": "poison", "address": f"{address:#x}"}, offline, online

    def _ratio_bound(self) -> tuple[_Step, ...]:
        """Plug as much as the ratio of auto-movable allows, or a memory block more or less."""
        chance, unit = self.chance, self.family.unit_mib
        nodes = self.machine.get("nodes") or [{"memory": self.machine["memory"]}]
        node = chance.randrange(len(nodes))
        ratio = chance.choice((25, 50, 100, 301))
        most = _mib(nodes[node]["memory"]) * ratio // 100 // unit * unit
        size = max(unit, min(most, 12 * unit) + chance.choice((0, 0, -unit, unit)))
        tunables = {
            "do": "set",
            "auto_online_blocks": "online",
            "online_policy": "auto-movable",
            "auto_movable_ratio": ratio,
        }
        plug = self._new("plug", "d", 1) | {"size": f"{size}MiB"}
        return tunables, plug | ({"node": node} if len(nodes) > 1 else {})

    def _stays_offline(self) -> tuple[_Step, ...]:
        """Plug so much by virtio-mem that its limit of memory that is not online matters."""
        size = self.chance.choice((1280, 1536, 2048))
        plug = self._new("plug", "v", 1) | {"driver": "virtio-mem", "size": f"{size}MiB"}
        offline = {"do": "set", "auto_online_blocks": "offline"}
        return offline, plug | {"requested": f"{size}MiB"} | self._node(1.0)

    def _half_taken_back(self) -> tuple[_Step, ...]:
        """Shrink a device whose block is two memory blocks of several kinds, with pages in use."""
        chance = self.chance
        plug = self._new("plug", "v", 1) | {"driver": "virtio-mem", "size": "512MiB"}
        plug |= {"requested": "256MiB", "block": "256MiB"}
        online = {"do": "online", "id": plug["id"]}
        fill = self._new("fill", "f", 4)
        return (
            {"do": "set", "auto_online_blocks": "offline"},
            plug | self._node(1.0),
            online | {"part": "first", "to": chance.choice(ONLINE_TYPES)},
            online | {"part": "last", "to": chance.choice(ONLINE_TYPES)},
            fill
            | chance.choice(
                ({"kind": "held", "size": "4MiB"}, {"kind": "kernel", "size": "16MiB"})
            ),
            {"do": "resize", "id": plug["id"], "size": "0MiB"},
        )

    def _half_backed(self) -> tuple[_Step, ...]:
        """Offline a block of which the host backs one half, with pages in flight."""
        plug = self._new("plug", "h", 1) | {"driver": "hyperv", "size": "64MiB"}
        return (
            {"do": "set", "auto_online_blocks": "online_movable"},
            plug | self._hyperv_address((0, 64)),
            self._new("fill", "f", 2) | {"kind": "held", "size": "4MiB"},
            {"do": "offline", "id": plug["id"]},
        )

    # --- parts of steps --------------------------------------------------------------------

    def _new(self, do: str, letter: str, further: int = 0) -> _Step:
        """Begin a step that makes something; *further* steps of the same situation come first."""
        return {"do": do, "id": f"{letter}{len(self.steps) + further}"}

    def _hyperv_address(self, offsets_mib: tuple[int, ...]) -> _Step:
        start = 0x1_0000_0000 + (len(self.devices) << 29)
        return {"address": f"{start + (self.chance.choice(offsets_mib) << 20):#x}"}

    def _of_device(self, do: str) -> _Step | None:
        return {"do": do, "id": self.chance.choice(list(self.devices))} if self.devices else None

    def _part(self) -> _Step:
        part = self.chance.choice(("all", "all", "first", "middle", "last"))
        return {} if part == "all" else {"part": part}

    def _node(self, probability: float) -> _Step:
        nodes = self.machine.get("nodes")
        if not nodes or self.chance.random() > probability:
            return {}
        return {"node": self.chance.randrange(len(nodes))}

    def _part_of(self, size: int) -> int:
        return self.chance.choice((0, 2, 64, 130, 256, 300, size // 2, size - 2, size))


def _mib(size: str) -> int:
    return int(size.removesuffix("MiB"))
