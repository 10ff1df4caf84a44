"""Scenarios drawn by chance, to be compared with real kernels: combinations that nobody thought of.

    python benchmarks/draw_scenarios.py FOLDER [--count N] [--seed S] [--arch ARCH]
    altmap conform FOLDER/cases.toml --scenarios FOLDER -j 2 -o FOLDER/page.md

The same seed draws the same scenarios. Each step is one that the model can be asked for; refusals
by the kernel are part of it. What hangs on where a running kernel allocates is left out: blocks in
kernel zones are set offline only where something holds them for sure, or nothing can.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from altmap.errors import InputError
from altmap.model.machine import ModelMachine
from altmap.scenario import Scenario, parse_scenario

RELEASES = {"x86_64": ("6.1", "6.12", "7.3"), "ppc64le": ("6.12",), "ppc64le-64k": ("6.1", "6.12")}
ONLINE = ("online", "online_kernel", "online_movable")
_MOST_ADDED_MIB = 3072
#: Guests boot with one of these; fewer machines are fewer boots.
_MEMORY_MIB = (512, 768, 1000, 1024, 1026, 1536, 2048, 2900, 3072, 3584, 4096, 5120)


class Drawing:
    """One scenario in the making: each step is tried on the model before it is kept."""

    def __init__(self, chance: random.Random, arch: str) -> None:
        self.chance, self.arch = chance, arch
        self.ppc = arch.startswith("ppc64")
        self.machine = self._machine()
        self.steps: list[dict[str, Any]] = []
        self.devices: dict[str, str] = {}
        self.files: list[str] = []
        self.added_mib = 0
        self.names = iter(f"d{n}" for n in range(1, 100))

    # --- the machine -----------------------------------------------------------------------

    def _machine(self) -> dict[str, Any]:
        pick, chance = self.chance.choice, self.chance
        machine: dict[str, Any] = {}
        if self.arch != "x86_64":
            machine["arch"] = self.arch
        elif chance.random() < 0.4:
            machine["platform"] = "q35"
        step = 256 if self.ppc else 2
        if chance.random() < 0.4:
            # A node without memory in the middle is not in the firmware's tables (SRAT).
            middle = [pick((256, 512, 1280))] if chance.random() < 0.33 else []
            sizes = [pick((512, 768, 1024, 2048)), *middle, pick((0, 256, 512, 1280))]
            machine["nodes"] = [{"memory": f"{n}MiB"} for n in sizes]
        else:
            machine["memory"] = f"{pick(_MEMORY_MIB) // step * step}MiB"
        if chance.random() < 0.3:
            machine["cpus"] = pick((2, 4))
        machine["memmap_on_memory"] = pick(("off", "on", "on", "force"))
        machine["auto_online_blocks"] = pick(("offline", "offline", *ONLINE))
        if chance.random() < 0.4:
            machine["online_policy"] = "auto-movable"
            machine["auto_movable_ratio"] = pick((0, 50, 100, 301, 1000))
            machine["auto_movable_numa_aware"] = pick((True, False))
        if chance.random() < 0.2:
            machine["movable_node"] = True
        if self.ppc and chance.random() < 0.2:
            machine["mmu"] = "hash"
        return machine

    # --- steps -----------------------------------------------------------------------------

    def draw(self, nr_steps: int) -> None:
        """Draw steps until there are so many."""
        makers = [self._plug, self._plug, self._blocks, self._blocks, self._blocks, self._unplug]
        makers += [self._set, self._fill, self._free]
        if not self.ppc:
            makers += [self._virtio_mem, self._resize, self._resize]
        for _ in range(nr_steps * 10):
            if len(self.steps) >= nr_steps:
                break
            step = self._plug() if not self.steps else self.chance.choice(makers)()
            if step is not None and self._possible(step):
                self._keep(step)

    def _keep(self, step: dict[str, Any]) -> None:
        self.steps.append(step)
        match step["do"]:
            case "plug":
                self.devices[step["id"]] = step.get("driver", "dimm")
                self.added_mib += _mib(step["size"])
            case "fill":
                self.files.append(step["id"])
            case "free":
                self.files.remove(step["id"])

    def _plug(self) -> dict[str, Any]:
        chance, pick = self.chance, self.chance.choice
        unit = 256 if self.ppc else 128
        size = unit * pick((1, 1, 2, 3, 4, 5, 8, 12))
        if chance.random() < 0.12 and not self.ppc:
            size += 2 * chance.randrange(1, 64)
        step: dict[str, Any] = {"do": "plug", "id": next(self.names), "size": f"{size}MiB"}
        if "nodes" in self.machine and chance.random() < 0.7:
            step["node"] = chance.randrange(len(self.machine["nodes"]))
        if chance.random() < 0.3 and not self.ppc:
            step["address"] = f"{0x1_4000_0000 + (chance.randrange(0, 64) << 27):#x}"
        return step

    def _virtio_mem(self) -> dict[str, Any]:
        pick = self.chance.choice
        size = pick((256, 512, 1024, 1280))
        step: dict[str, Any] = {
            "do": "plug",
            "driver": "virtio-mem",
            "id": next(self.names),
            "size": f"{size}MiB",
            "requested": f"{self._part_of(size)}MiB",
        }
        if self.chance.random() < 0.3:
            step["block"] = f"{pick((4, 16, 128, 256))}MiB"
        if "nodes" in self.machine:
            step["node"] = self.chance.randrange(len(self.machine["nodes"]))
        return step

    def _part_of(self, size: int) -> int:
        return self.chance.choice((0, 2, 64, 130, 256, 300, size // 2, size - 2, size))

    def _resize(self) -> dict[str, Any] | None:
        ids = [id_ for id_, driver in self.devices.items() if driver == "virtio-mem"]
        if not ids:
            return None
        return {
            "do": "resize",
            "id": self.chance.choice(ids),
            "size": f"{self._part_of(512)}MiB",
        }

    def _blocks(self) -> dict[str, Any] | None:
        chance, pick = self.chance, self.chance.choice
        if not self.devices:
            return None
        step: dict[str, Any] = {"do": pick(("online", "offline"))}
        step["id"] = pick(list(self.devices))
        part = pick(("all", "all", "first", "middle", "last"))
        if part != "all":
            step["part"] = part
        if step["do"] == "online":
            step["to"] = pick(ONLINE)
        elif chance.random() < 0.15:
            # Of boot memory: some below the first block and the last, which never go.
            del step["id"]
            step.pop("part", None)
            step["blocks"] = chance.randrange(0, 4)
        return step

    def _unplug(self) -> dict[str, Any] | None:
        if not self.devices:
            return None
        return {"do": "unplug", "id": self.chance.choice(list(self.devices))}

    def _set(self) -> dict[str, Any]:
        pick = self.chance.choice
        key, words = pick(
            (
                ("auto_online_blocks", ("offline", *ONLINE)),
                ("online_policy", ("contig-zones", "auto-movable")),
                ("auto_movable_ratio", (0, 100, 301, 1000)),
                ("auto_movable_numa_aware", (True, False)),
            )
        )
        return {"do": "set", key: pick(words)}

    def _fill(self) -> dict[str, Any]:
        size = self.chance.choice((4, 64, 200))
        return {"do": "fill", "id": f"f{len(self.steps)}", "size": f"{size}MiB"}

    def _free(self) -> dict[str, Any] | None:
        return {"do": "free", "id": self.chance.choice(self.files)} if self.files else None

    # --- what can be asked, and answered ---------------------------------------------------

    def _possible(self, step: dict[str, Any]) -> bool:
        if step["do"] == "plug" and self.added_mib + _mib(step["size"]) > _MOST_ADDED_MIB:
            return False
        try:
            model = ModelMachine.start(self.scenario([]).machine, pages=False)
            *before, last = self.scenario([step]).steps
            for each in before:
                model.perform(each)
            done = model.perform(last)
        except InputError:
            return False
        return not done.faults

    def text(self, more: list[dict[str, Any]] | None = None) -> str:
        """Return the scenario as TOML."""
        lines = ["[machine]", *(_line(*item) for item in self.machine.items())]
        for step in [*self.steps, *(more or [])]:
            lines += ["", "[[steps]]", *(_line(*item) for item in step.items())]
        return "\n".join(lines) + "\n"

    def scenario(self, more: list[dict[str, Any]]) -> Scenario:
        return parse_scenario(self.text(more), "drawn", ["release=6.12"])


def _mib(size: str) -> int:
    return int(size.removesuffix("MiB"))


def _line(key: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{key} = {str(value).lower()}"
    if isinstance(value, list):
        return f"{key} = [{', '.join('{ ' + _line(*next(iter(v.items()))) + ' }' for v in value)}]"
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"


def drawn(seed: int, count: int, arch: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, release and text of each scenario."""
    for number in range(count):
        chance = random.Random(f"{seed} {arch} {number}")
        drawing = Drawing(chance, arch)
        drawing.draw(chance.randrange(3, 10))
        releases = RELEASES[arch]
        yield f"drawn-{arch}-{seed}-{number}", releases[number % len(releases)], drawing.text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--arch", choices=RELEASES, default="x86_64")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, release, text in drawn(args.seed, args.count, args.arch):
        (args.folder / f"{name}.toml").write_text(text)
        cases.append(f'[[case]]\nscenarios = ["{name}"]\nreleases = ["{release}"]\n')
    (args.folder / "cases.toml").write_text("\n".join(cases))


if __name__ == "__main__":
    main()
