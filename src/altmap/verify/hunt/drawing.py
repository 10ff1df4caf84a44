"""A scenario in the making: the steps so far, and the model as they left it.

Effects: randomness.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from altmap.errors import InputError
from altmap.model.drivers.driver import MemoryDevice
from altmap.model.machine import ModelMachine
from altmap.scenario import Scenario, build_scenario
from altmap.verify.hunt.space import Family

__all__ = ("ONLINE_TYPES", "Drawing", "DrawnStep", "mib")

ONLINE_TYPES = ("online", "online_kernel", "online_movable")
_MOST_ADDED_MIB = 3072

#: A step's keys and values, as a scenario file has them.
DrawnStep = dict[str, Any]


class Drawing:
    """One scenario in the making.

    Attributes
    ----------
    chance : random.Random
    family : Family
    machine : dict
        Keys of the machine.
    there : sequence of DrawnStep
        Plugs of the memory that the machine has at boot as a device; they come first.
    steps : list of DrawnStep
    model : ModelMachine
        After these steps.
    fills : list of str
        Ids of what can be freed.
    """

    def __init__(
        self,
        chance: random.Random,
        family: Family,
        machine: dict[str, Any],
        there: Sequence[DrawnStep],
        name: str,
    ) -> None:
        self.chance, self.family, self.machine, self.name = chance, family, machine, name
        self.there = there
        self.steps: list[DrawnStep] = []
        self.fills: list[str] = []
        self.model = ModelMachine.start(self.scenario().machine, pages=False)
        self._added_mib = 0
        for step in there:
            self.add(step)

    def scenario(self, more: tuple[DrawnStep, ...] = ()) -> Scenario:
        """Return what was drawn so far, and *more* steps."""
        steps = [*self.steps, *more]
        return build_scenario({"name": self.name, "machine": self.machine, "steps": steps})

    def add(self, step: DrawnStep) -> None:
        """Add a step, unless it cannot be asked for, or does not end."""
        added = mib(step["size"]) if step["do"] == "plug" else 0
        if added <= _MOST_ADDED_MIB < self._added_mib + added:  # one that is larger is meant so
            return
        if self._lab_refuses(step):
            return
        try:
            scenario = self.scenario((step,))
            # A step that is refused here may have changed the model.
            model = ModelMachine.start(scenario.machine, pages=False)
            for each in scenario.steps:
                record = model.perform(each)
        except InputError:
            return
        if not record.outcome.ends or record.faults:
            return
        self.model = model
        self.steps.append(step)
        self._added_mib += added
        if step["do"] == "fill":
            self.fills.append(step["id"])
        if step["do"] == "free":
            self.fills.remove(step["id"])

    def _lab_refuses(self, step: DrawnStep) -> bool:
        """Tell whether a guest or QEMU cannot do what the model can."""
        match step["do"]:
            case "free":
                return step["id"] in self._kernel_fills[1:]
            case "unplug" if self.family.unplugs_once:
                return step in self.steps
        return False

    @property
    def _kernel_fills(self) -> list[str]:
        kinds = {step["id"]: step.get("kind") for step in self.steps if step["do"] == "fill"}
        return [id_ for id_ in self.fills if kinds[id_] == "kernel"]

    # --- parts of steps --------------------------------------------------------------------

    def new(self, do: str, letter: str, further: int = 0) -> DrawnStep:
        """Begin a step that makes something; *further* steps of the same situation come first."""
        return {"do": do, "id": f"{letter}{len(self.steps) + further}"}

    def devices(self, driver: str = "") -> dict[str, MemoryDevice]:
        """Return the devices that are plugged, of one driver or of all.

        A guest's blocks cannot be named by Hyper-V's balloon, nor by Xen's while it has none.
        """
        no_blocks = "balloon" in self.machine or not self.model.kernel.added_blocks
        return {
            id_: each
            for id_, each in self.model.devices.by_id.items()
            if driver in ("", each.driver) and not (id_.startswith("balloon") and no_blocks)
        }

    def of_device(self, do: str, driver: str = "") -> DrawnStep | None:
        """Begin a step of one of the devices; ``None`` without any."""
        names = list(self.devices(driver))
        return {"do": do, "id": self.chance.choice(names)} if names else None

    def part(self) -> DrawnStep:
        """Return which blocks of a device a step is for."""
        part = self.chance.choice(("all", "all", "first", "middle", "last"))
        return {} if part == "all" else {"part": part}

    def node(self, probability: float) -> DrawnStep:
        """Return which node a device is for."""
        nodes = self.machine.get("nodes")
        if not nodes or self.chance.random() > probability:
            return {}
        return {"node": self.chance.randrange(len(nodes))}

    def online_type(self) -> str:
        """Return a word that brings a block online."""
        return self.chance.choice(ONLINE_TYPES)

    def boot_mib(self, node: int | None = None) -> int:
        """Return the boot memory of the machine or a node."""
        nodes = self.machine.get("nodes") or [{"memory": self.machine["memory"]}]
        return sum(mib(each["memory"]) for n, each in enumerate(nodes) if node in (None, n))


def mib(size: str) -> int:
    """Return the number of a size that was drawn."""
    return int(size.removesuffix("MiB"))
