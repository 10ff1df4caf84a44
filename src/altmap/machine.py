"""The modelled machine: platform, kernel and drivers together, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from altmap.adopt import adopt
from altmap.boot import boot, parameters_shown
from altmap.drivers import acpi, dlpar
from altmap.drivers.hyperv import HypervBalloon
from altmap.errors import InputError
from altmap.kernel.hotplug import (
    memory_block_offline,
    memory_block_online,
    online_blocks,
    read_dump,
)
from altmap.kernel.state import Addition, Kernel
from altmap.kernel.touch import KernelFault
from altmap.linux.observation import Observation
from altmap.observe import Observer
from altmap.pfn import PfnRange
from altmap.platform.backing import Backing
from altmap.platform.qemu import dimm_space, place_dimm
from altmap.runner import run_scenario
from altmap.scenario import (
    Dump,
    Fill,
    Free,
    Machine,
    Offline,
    Online,
    Plug,
    Scenario,
    SetTunables,
    Step,
    Unplug,
    part_of,
    selected_blocks,
    step_name,
)
from altmap.trace import OK, Outcome, StepRecord, Trace

__all__ = ("ModelMachine", "predict")


@dataclass(slots=True)
class _Device:
    driver: str
    pfns: PfnRange
    addition: Addition | None = None
    #: Why an unplug was refused; the device is then still there.
    kept: str = ""


@dataclass(slots=True)
class ModelMachine:
    """A machine on which steps are predicted.

    Attributes
    ----------
    kernel : Kernel
    backing : Backing
    notes : list of str
        Assumptions made at the start.
    crashed : bool
        A fault ended the kernel; further steps are not reached.
    """

    kernel: Kernel
    backing: Backing
    _observer: Observer
    _base_parameters: dict[str, str]
    notes: list[str] = field(default_factory=list)
    crashed: bool = False
    _devices: dict[str, _Device] = field(default_factory=dict)
    _balloon: HypervBalloon | None = None

    @classmethod
    def start(
        cls, machine: Machine, seen: Observation | None = None, *, pages: bool = True
    ) -> ModelMachine:
        """Return a machine booted on paper, or one that carries on from captured files.

        Parameters
        ----------
        machine : Machine
            The scenario's machine; what it sets overrides the files.
        seen : Observation, optional
            The files of a real machine.
        pages : bool
            Also predict the per-page files.
        """
        if seen is None:
            kernel, backing, blank = boot(machine)
            observer = Observer(kernel, blank, blank=True, pages=pages)
            return cls(kernel, backing, observer, blank.parameters)
        adopted = adopt(seen, machine)
        observer = Observer(adopted.kernel, seen, pages=pages)
        made = cls(adopted.kernel, adopted.backing, observer, seen.parameters, list(adopted.notes))
        drivers = {device.id: device.driver for device in machine.devices}
        for id_, addition in adopted.devices.items():
            driver = drivers.get(id_, "dimm")
            made._devices[id_] = _Device(driver, addition.pfns, addition)
            if driver == "hyperv":
                made._hyperv().take_over(addition.pfns)
        return made

    @property
    def identity(self) -> dict[str, Any]:
        """The trace's heading: release, policy and the parameters in force."""
        kernel = self.kernel
        return {
            "target": "model",
            "release": kernel.release.name,
            "policy": kernel.policy.name,
            "machine": {
                "arch": kernel.arch.name,
                "block_size_bytes": kernel.block_nr_pages * kernel.arch.page_size_bytes,
                **parameters_shown(kernel.tunables),
                "movable_node": kernel.tunables.movable_node,
                "debug_vm": kernel.tunables.debug_vm,
                "auto_online_blocks": kernel.tunables.auto_online_blocks,
            },
        }

    def observe(self) -> Observation:
        """Return what the machine's files show now."""
        shown = parameters_shown(self.kernel.tunables)
        parameters = {name: shown.get(name, text) for name, text in self._base_parameters.items()}
        return replace(self._observer.look(), parameters=parameters)

    def perform(self, step: Step) -> StepRecord:
        """Perform one step.

        Raises
        ------
        InputError
            If the step cannot be asked of any kernel: no such block or device, or the platform
            refuses the device.
        """
        record = StepRecord(step_name(step), msgspec.to_builtins(step, enc_hook=int), OK)
        if self.crashed:
            record.outcome = Outcome("not_reached", why="an earlier fault ended the kernel")
            return record
        try:
            record.outcome = self._dispatch(step)
        except KernelFault as trap:
            self.crashed = True
            fault = trap.fault
            record.faults.append(fault)
            record.outcome = Outcome(
                "fault",
                function=fault.function,
                why=f"{fault.kind}: {fault.access} to unbacked pfn {fault.pfn:#x}",
            )
        record.events = self.kernel.take_events()
        return record

    def _dispatch(self, step: Step) -> Outcome:
        match step:
            case Plug(driver="hyperv"):
                return self._hot_add(step)
            case Plug():
                return self._plug_dimm(step)
            case Unplug():
                return self._unplug(step)
            case Online():
                return self._online(step)
            case Offline():
                return self._offline(step)
            case Fill():
                return self._fill(step)
            case Free():
                if step.id not in self.kernel.files:
                    raise InputError(f"free {step.id!r}: no such file")
                self.kernel.remove_file(step.id)
                return OK
            case Dump():
                return read_dump(self.kernel, exclude_offline=step.exclude_offline)
            case SetTunables():
                return self._set(step)

    # --- plug and unplug -------------------------------------------------------------------

    def _pfns(self, address: int, size_bytes: int) -> PfnRange:
        page = self.kernel.arch.page_size_bytes
        if address % page or size_bytes % page:
            raise InputError(
                f"range {address:#x}+{size_bytes:#x}: need multiples of the page size {page:#x}"
            )
        return PfnRange(address // page, (address + size_bytes) // page)

    def _check_new(self, id_: str) -> None:
        device = self._devices.get(id_)
        if device is not None:
            kept = f"; its unplug was refused: {device.kept}" if device.kept else ""
            raise InputError(f"plug {id_!r}: a device of that id is plugged already{kept}")

    def _plug_dimm(self, plug: Plug) -> Outcome:
        self._check_new(plug.id)
        page = self.kernel.arch.page_size_bytes
        boot_end = (self.kernel.boot_ram.max() + 1) * page
        plugged = [(d.pfns.start * page, d.pfns.end * page) for d in self._devices.values()]
        space = dimm_space(self.kernel.arch.family, boot_end)
        address = place_dimm(space, plugged, plug.size, plug.address)
        pfns = self._pfns(address, plug.size)
        node = plug.node or 0
        if not self.kernel.node_zones(node):
            raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
        device = self._devices[plug.id] = _Device("dimm", pfns)
        self._back(pfns)
        before = len(self.kernel.additions)
        if self.kernel.arch.family == "ppc64le":
            return dlpar.add(self.kernel, pfns, node)
        outcome = acpi.insert(self.kernel, pfns, node)
        if len(self.kernel.additions) > before:
            device.addition = self.kernel.additions[-1]
        return outcome

    def _hot_add(self, plug: Plug) -> Outcome:
        self._check_new(plug.id)
        assert plug.address is not None  # checked with the scenario
        pfns = self._pfns(plug.address, plug.size)
        if self.backing.backed.count(pfns):
            raise InputError(
                f"plug {plug.id!r}: [{plug.address:#x}, {plug.address + plug.size:#x}) "
                "overlaps memory that the host backs already"
            )
        region = None
        if plug.region is not None:
            region = self._pfns(plug.region.address, plug.region.size)
        self._devices[plug.id] = _Device("hyperv", pfns)
        self._back(pfns)
        return self._hyperv().hot_add_request(pfns, region)

    def _back(self, pfns: PfnRange) -> None:
        """Back a range, unless it lies where the kernel refuses to map anything."""
        if pfns.end <= (1 << self.kernel.arch.max_physmem_bits) // self.kernel.arch.page_size_bytes:
            self.backing.backed |= pfns

    def _hyperv(self) -> HypervBalloon:
        if self._balloon is None:
            self._balloon = HypervBalloon(self.kernel)
        return self._balloon

    def _unplug(self, step: Unplug) -> Outcome:
        device = self._device(step.id)
        if device.driver == "hyperv":
            raise InputError(f"unplug {step.id!r}: hv_balloon never removes memory")
        if self.kernel.arch.family == "ppc64le":
            raise InputError(f"unplug {step.id!r}: removal by DLPAR is not modelled")
        outcome = OK if device.addition is None else acpi.eject(self.kernel, device.addition)
        if outcome:
            del self._devices[step.id]
            self.backing.backed -= device.pfns
        else:
            device.kept = outcome.why
        return outcome

    def _device(self, id_: str) -> _Device:
        if id_ not in self._devices:
            known = ", ".join(map(repr, self._devices)) or "none is plugged"
            raise InputError(f"device {id_!r}: no such device ({known})")
        return self._devices[id_]

    # --- online and offline ----------------------------------------------------------------

    def blocks_of(self, step: Online | Offline) -> list[int]:
        """Return the memory blocks that a step selects.

        Raises
        ------
        InputError
            If one of them does not exist.
        """
        ids = selected_blocks(step)
        if ids is None:
            assert step.id is not None  # checked with the scenario
            ids = part_of(self.kernel.block_ids(self._device(step.id).pfns), step.part)
        absent = [id_ for id_ in ids if id_ not in self.kernel.added_blocks]
        if absent:
            verb = type(step).__name__.lower()
            raise InputError(f"{verb} memory{absent[0]}: there is no such memory block")
        return ids

    def _online(self, step: Online) -> Outcome:
        ids = self.blocks_of(step)
        if ids == list(range(ids[0], ids[-1] + 1)):
            outcome, block = online_blocks(self.kernel, range(ids[0], ids[-1] + 1), step.to)
            return _about(outcome, block)
        for block in ids:
            pfns = self.kernel.block_pfns(block)
            outcome = memory_block_online(self.kernel, pfns, step.to)
            if not outcome:
                return _about(outcome, block)
        return OK

    def _offline(self, step: Offline) -> Outcome:
        for block in self.blocks_of(step):
            outcome = memory_block_offline(self.kernel, self.kernel.block_pfns(block))
            if not outcome:
                return _about(outcome, block)
        return OK

    def _fill(self, step: Fill) -> Outcome:
        if step.id in self.kernel.files:
            raise InputError(f"fill {step.id!r}: a file of that id is there already")
        nr_pages = -(-step.size // self.kernel.arch.page_size_bytes)
        if self.kernel.write_file(step.id, nr_pages):
            return OK
        return Outcome.refused(
            "ENOMEM", "shmem_get_folio_gfp", f"there are fewer than {nr_pages} pages to have"
        )

    def _set(self, step: SetTunables) -> Outcome:
        for name in step.__struct_fields__:
            value = getattr(step, name)
            if name != "name" and value is not None:
                setattr(self.kernel.tunables, name, value)
        return OK


def _about(outcome: Outcome, block: int) -> Outcome:
    return outcome if outcome else replace(outcome, why=f"memory{block}: {outcome.why}")


def predict(scenario: Scenario, seen: Observation | None = None, *, pages: bool = True) -> Trace:
    """Return the trace of a scenario on the model.

    Parameters
    ----------
    scenario : Scenario
    seen : Observation, optional
        The files of a real machine to start from; without them the machine boots on paper.
    pages : bool
        Also predict the per-page files.

    Raises
    ------
    InputError
        If the scenario asks for what cannot be asked.
    """
    return run_scenario(scenario, ModelMachine.start(scenario.machine, seen, pages=pages))
