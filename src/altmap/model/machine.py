"""The modelled machine: platform, kernel and drivers together, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from altmap.errors import InputError
from altmap.linux.observation import BalloonFolder, Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.adopt import adopt
from altmap.model.adopt.chance import KernelPages
from altmap.model.adopt.rules import given_of
from altmap.model.arch import ARCHES, Arch
from altmap.model.boot import boot
from altmap.model.boot.layout import unused_bytes
from altmap.model.boot.parameters import boot_words, mem_limit_bytes
from altmap.model.boot.tunables import parameters_shown
from altmap.model.coldplug import (
    check_at_boot,
    plug_of_device,
    plugs_after_reboot,
    refused_at_boot,
)
from altmap.model.control_files import meaning_of_write
from altmap.model.drivers.acpi import AcpiDimms, plug_dimm
from altmap.model.drivers.dlpar import DlparDimms
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice
from altmap.model.drivers.hyperv_host import HypervHost
from altmap.model.drivers.kmem import DaxKmem
from altmap.model.drivers.probe import ProbeFile
from altmap.model.drivers.standby import StandbyMemory
from altmap.model.drivers.virtio_mem import VirtioMem
from altmap.model.drivers.xen import XenBalloon
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.dump import read_dump
from altmap.model.kernel.endless import waits_for_lock
from altmap.model.kernel.expected import expect_boot_allocation
from altmap.model.kernel.memmap import Placement
from altmap.model.kernel.notifier import NamedVeto
from altmap.model.kernel.offline import memory_block_offline
from altmap.model.kernel.online import memory_block_online, online_blocks
from altmap.model.kernel.options import unnoticed
from altmap.model.kernel.poison import soft_offline_page
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.touch import KernelFault
from altmap.model.observe import Observer
from altmap.model.platform.backing import Backing
from altmap.model.platform.xen import XenDomain
from altmap.model.policies import policy_of
from altmap.model.releases import Release, release_notes
from altmap.model.workload import Usage
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    XEN_HOST_BYTES,
    Configure,
    Dump,
    Fill,
    Free,
    HugePages,
    Machine,
    Offline,
    Online,
    Plug,
    Poison,
    Reboot,
    Resize,
    Scenario,
    SetTunables,
    Size,
    Step,
    Unplug,
    Veto,
    Write,
    part_of,
    selected_blocks,
    step_name,
    step_table,
)
from altmap.trace import OK, UNBACKED, Fault, Outcome, StepRecord, Trace
from altmap.trace.run import run_scenario
from altmap.units import format_size

__all__ = ("DRIVERS", "ModelMachine", "predict")


#: A scenario's name for a driver, and its class for each mechanism that an architecture may have.
DRIVERS: dict[str, dict[str, type[Driver]]] = {
    "dimm": {"acpi": AcpiDimms, "dlpar": DlparDimms},
    "hyperv": {"hyperv": HypervHost},
    "kmem": {"kmem": DaxKmem},
    "probe": {"probe": ProbeFile},
    "standby": {"standby": StandbyMemory},
    "virtio-mem": {"virtio-mem": VirtioMem},
}


_NO_BLOCKS = Outcome.refused("ENOENT", "open", "the device has no memory blocks")
#: What a machine has anew after it has booted.
_OF_A_BOOT = (
    *("kernel", "backing", "_observer", "_base_parameters", "_drivers", "_balloon"),
    *("_devices", "_usage", "_plugs"),
)
#: Parameters that the step ``set`` and the kernel's command line name differently.
_TUNABLE_OF = {"hugetlb_optimize_vmemmap": "hugetlb_free_vmemmap"}
#: Failures that a step ``set`` injects, and their names in the kernel.
_INJECTED = {"fail_block_devices": "block_devices", "fail_allocation": "allocation"}


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
    _drivers: dict[str, Driver] = field(default_factory=dict)
    _balloon: XenBalloon | None = None
    _boots: Callable[[], ModelMachine] | None = None
    _plugs: dict[str, Plug] = field(default_factory=dict)
    _mem_limit_bytes: int | None = None
    _devices: Devices = field(init=False)
    _usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        self._devices = Devices(self.kernel, self.backing)
        self._usage = Usage(self.kernel)

    @classmethod
    def start(
        cls,
        machine: Machine,
        seen: Observation | None = None,
        *,
        policy: Policy | None = None,
        record: Release | None = None,
        pages: bool = True,
        booted: bool = False,
    ) -> ModelMachine:
        """Return a machine in its synthetic boot state, or one that continues from captured files.

        Parameters
        ----------
        machine : Machine
            The scenario's machine; what it sets overrides the files.
        seen : Observation, optional
            The files of a real machine.
        policy : Policy, optional
            The memmap policy; without it the built-in one that ``machine.policy`` names.
        record : Release, optional
            Behaviours of the kernel, instead of the record of its release.
        pages : bool
            Also predict the per-page files.
        booted : bool
            The files are those of a machine that has just booted, so that it boots to them again.

        Raises
        ------
        InputError
            If the machine cannot exist, or the files lack what the model needs.
        """
        if seen is None:
            kernel, backing, blank = boot(machine, policy, record)
            observer = Observer(kernel, blank, blank=True, pages=pages)
            notes = [] if machine.release is None else release_notes(machine.release)
            notes += _boot_notes(kernel, machine)
            made = cls(kernel, backing, observer, blank.parameters, notes)
            made._mem_limit_bytes = mem_limit_bytes(boot_words(machine.cmdline or ""))
            made._take_devices(machine, {}, {})
            made._take_balloon(blank, machine)
            made._plug_at_boot(map(plug_of_device, machine.devices))
            bare = machine.replace(devices=())
            made._boots = partial(cls.start, bare, policy=policy, record=record, pages=pages)
            return made
        adopted = adopt(seen, machine, policy, record)
        observer = Observer(adopted.kernel, seen, pages=pages)
        made = cls(adopted.kernel, adopted.backing, observer, seen.parameters, list(adopted.notes))
        made._take_devices(machine, adopted.devices, adopted.drivers)
        if adopted.regions:
            driver = made._driver("virtio-mem")
            assert isinstance(driver, VirtioMem)
            for region in adopted.regions:
                driver.take_region(region)
            # The driver cuts its memory up as it has added it; only what comes now is a change.
            made._observer = Observer(adopted.kernel, seen, pages=pages)
        made._take_balloon(seen, machine)
        if booted and not made._devices.by_id:
            made._boots = partial(
                cls.start, machine, seen, policy=policy, record=record, pages=pages
            )
        return made

    def copy(self) -> ModelMachine:
        """Return an independent machine in the same state; page sets are shared until one changes.

        Rules do not change, so the architecture, release and policy are the same objects.
        """
        kernel = self.kernel
        rules = (kernel.arch, kernel.release, kernel.policy)
        return deepcopy(self, {id(each): each for each in rules})

    def _take_devices(
        self, machine: Machine, additions: dict[str, Addition], drivers: dict[str, str]
    ) -> None:
        """Give the devices that were there before the first step to their drivers."""
        if machine.balloon is not None:
            self._driver(machine.balloon)
        for id_, addition in additions.items():
            device = MemoryDevice(drivers[id_], addition.pfns, addition)
            self._devices.by_id[id_] = device
            self._driver(device.driver).take_over(device)

    def _take_balloon(self, seen: Observation, machine: Machine) -> None:
        """Let a Xen domain have its balloon."""
        if seen.balloon is None:
            return
        kib = self.kernel.arch.page_size_bytes // 1024
        limits = [machine.xen_max_memory, machine.xen_host_memory]
        if machine.platform == "xen" and machine.xen_host_memory is None:
            limits.append(Size(XEN_HOST_BYTES))
        most = min((int(limit) for limit in limits if limit is not None), default=None)
        domain = XenDomain(
            self.backing,
            seen.balloon.current_kb // kib,
            None if most is None else most // 1024 // kib,
        )
        self._balloon = self._drivers["xen"] = XenBalloon.of_domain(
            self._devices,
            domain,
            [(line.start, line.end) for line in seen.iomem or () if not line.depth],
            seen.balloon.target_kb // kib,
        )

    def _plug_at_boot(self, plugs: Iterable[Plug]) -> None:
        """Let the drivers find devices while the kernel boots; what they do is not logged."""
        for plug in plugs:
            check_at_boot(plug, self.kernel.arch)
            refusal = refused_at_boot(plug, self.kernel.arch, self._mem_limit_bytes)
            if refusal is not None:
                plug_dimm(self._driver("dimm"), plug)
            outcome = self._plug(plug) if refusal is None else refusal
            if not outcome:
                why = f"{outcome.errno} by {outcome.function}"
                self.notes.append(f"device {plug.id!r} at boot: not added: {why}")
            for addition in self._devices.additions(plug.id):
                if expect_boot_allocation(self.kernel, addition.pfns):
                    break
        self.kernel.log.take()

    def _reboot(self) -> Outcome:
        """Boot again, with what is plugged now as devices that are there at boot.

        Raises
        ------
        InputError
            If the machine started from a sysroot that does not show how it boots without devices.
        """
        if self._boots is None:
            raise InputError("reboot: a sysroot does not show how its machine boots")
        plugs = list(plugs_after_reboot(self._devices, self._plugs, self._drivers))
        gone = [id_ for id_ in self._devices.by_id if id_ not in {plug.id for plug in plugs}]
        fresh = self._boots()
        fresh._plug_at_boot(plugs)
        for name in _OF_A_BOOT:
            setattr(self, name, getattr(fresh, name))
        self.notes.extend(fresh.notes)
        found = ", ".join(plug.id for plug in plugs) or "none"
        self.kernel.log.note("driver", f"devices that are there at boot: {found}")
        if gone := [id_ for id_ in gone if id_ not in self._devices.by_id]:
            self.kernel.log.note("driver", f"memory that is gone: {', '.join(gone)}")
        return OK

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

    @property
    def devices(self) -> Devices:
        """What was plugged, by whichever driver."""
        return self._devices

    @property
    def usage(self) -> Usage:
        """Who uses which pages, by the names that steps ``fill`` gave."""
        return self._usage

    def parameter(self, name: str) -> object:
        """Return what a key of the step ``set`` is now."""
        if name in _INJECTED:
            return getattr(self.kernel.failures, _INJECTED[name])
        return getattr(self.kernel.tunables, _TUNABLE_OF.get(name, name))

    @property
    def backed(self) -> PfnSet:
        """The page frames that the platform backs now."""
        return self.backing.backed.copy()

    def observe(self) -> Observation:
        """Return what the machine's files show now."""
        return self._completed(self._observer.observe())

    @property
    def parameter_names(self) -> frozenset[str]:
        """The files of ``/sys/module/memory_hotplug/parameters`` that the machine has."""
        return frozenset(self._base_parameters)

    @property
    def balloon(self) -> XenBalloon | None:
        """The balloon driver of a Xen domain."""
        return self._balloon

    @property
    def standby(self) -> StandbyMemory | None:
        """The driver of s390x standby memory, ``None`` before any is defined."""
        driver = self._drivers.get("standby")
        return driver if isinstance(driver, StandbyMemory) else None

    def dax_state(self, id_: str) -> str | None:
        """Return the file ``state`` of a dax device; ``None`` where it has none."""
        driver = self._drivers.get("kmem")
        return driver.state(id_) if isinstance(driver, DaxKmem) else None

    @property
    def observer(self) -> Observer:
        """What shows the kernel's files one by one."""
        return self._observer

    def numbers(self) -> Observation:
        """Return what the files show now, without memory blocks (``Observer.numbers``)."""
        return self._completed(self._observer.numbers())

    def _completed(self, look: Observation) -> Observation:
        """Return the kernel's files with its parameters and the counters of its balloon."""
        shown = parameters_shown(self.kernel.tunables)
        parameters = {name: shown.get(name, text) for name, text in self._base_parameters.items()}
        look = replace(look, parameters=parameters)
        folder = self._balloon_folder()
        return look if folder is None else _with_balloon(look, folder)

    def _balloon_folder(self) -> BalloonFolder | None:
        balloon = self._balloon
        if balloon is None:
            return None
        kib = self.kernel.arch.page_size_bytes // 1024
        return BalloonFolder(
            balloon.target * kib, balloon.current * kib, len(balloon.ballooned) * kib
        )

    def perform(self, step: Step) -> StepRecord:
        """Perform one step.

        Raises
        ------
        InputError
            If the step cannot be asked of any kernel: no such block or device, or the platform
            refuses the device.
        """
        record = StepRecord(step_name(step), step_table(step), OK)
        if self.crashed:
            record.outcome = Outcome("not_reached", why="an earlier fault ended the kernel")
            return record
        try:
            waiting = self._waiting(step)
            record.outcome = self._dispatch(step) if waiting is None else waiting
            for driver in self._drivers.values():
                driver.work()
        except KernelFault as trap:
            self.crashed = True
            fault = trap.fault
            record.faults.append(fault)
            record.outcome = Outcome(
                "fault",
                function=fault.function,
                why=f"{fault.kind}: {_where(fault)}",
            )
        record.events = self.kernel.log.take()
        return record

    def _waiting(self, step: Step) -> Outcome | None:
        """Return the outcome of a step that waits for ``device_hotplug_lock`` indefinitely."""
        if not self.kernel.hotplug_lock_holder:
            return None
        if isinstance(step, Online | Offline | Configure):
            return waits_for_lock(self.kernel, "lock_device_hotplug_sysfs")
        if isinstance(step, Plug | Unplug):
            return waits_for_lock(self.kernel, "lock_device_hotplug")
        if isinstance(step, Resize):
            doubt = "a device that shrinks within memory blocks needs no lock"
            return waits_for_lock(self.kernel, "lock_device_hotplug").doubted("likely", doubt)
        return None

    def _dispatch(self, step: Step) -> Outcome:
        match step:
            case Plug():
                return self._plug(step)
            case Reboot():
                return self._reboot()
            case Write():
                return self._write(step)
            case Unplug() | Resize():
                return self._change(step)
            case Online():
                return self._online(step)
            case Offline():
                return self._offline(step)
            case Configure():
                return self._configure(step)
            case Fill():
                return self._usage.fill(step)
            case Free():
                return self._usage.free(step.id)
            case HugePages():
                return self._usage.set_pool(step)
            case Poison():
                page = self.kernel.arch.page_size_bytes
                return soft_offline_page(self.kernel, step.address // page)
            case Veto():
                return self._veto(step)
            case Dump():
                return read_dump(self.kernel, exclude_offline=step.exclude_offline)
            case SetTunables():
                return self._set(step)

    # --- devices ---------------------------------------------------------------------------

    def _plug(self, step: Plug) -> Outcome:
        outcome = self._unnoticed(step)
        if outcome is None:
            outcome = (self._balloon or self._driver(step.driver)).plug(step)
        self._plugs[step.id] = step
        return outcome

    def _unnoticed(self, plug: Plug) -> Outcome | None:
        """Plug a device whose driver the kernel is built without: it lies there, and stays."""
        refusal = self._lacking(plug.driver)
        if refusal is None:
            return None
        if plug.driver == "dimm":
            device, _ = plug_dimm(self._driver("dimm"), plug)
        else:
            self._devices.check_new(plug.id)
            address = plug.address or 0
            size = 0 if plug.address is None else plug.size
            pfns = self._devices.pfns(address, size)
            device = self._devices.add(plug.id, MemoryDevice(plug.driver, pfns))
        device.kept = refusal.why
        return refusal

    def _lacking(self, driver: str) -> Outcome | None:
        """Return the refusal of all that a driver does which the kernel is built without."""
        if self._balloon is not None or driver not in DRIVERS or not self.kernel.tunables.unset:
            return None
        return unnoticed(self.kernel, _mechanism_of(driver, self.kernel.arch))

    def _change(self, step: Unplug | Resize) -> Outcome:
        """Let a device give up its memory, or have another size."""
        driver = self._driver_of(step.id)
        refusal = self._lacking(self._devices.get(step.id).driver)
        if refusal is not None:
            return refusal
        if isinstance(step, Resize):
            return driver.resize(step.id, step.size)
        return driver.unplug(step.id)

    def _driver(self, name: str) -> Driver:
        if name not in self._drivers:
            self._drivers[name] = _class_of(name, self.kernel.arch)(self._devices)
        return self._drivers[name]

    def _driver_of(self, id_: str) -> Driver:
        return self._driver(self._devices.get(id_).driver)

    def device_ids(self, driver: str) -> list[str]:
        """Return the devices of a driver, by their ids."""
        return [id_ for id_, device in self._devices.by_id.items() if device.driver == driver]

    def device_sizes(self, id_: str) -> tuple[int, int]:
        """Return what a device is asked to have of its memory, and the most, in bytes.

        Raises
        ------
        InputError
            If there is none of that id.
        """
        return self._driver_of(id_).sizes(id_)

    # --- online and offline ----------------------------------------------------------------

    def blocks_of(self, step: Online | Offline) -> list[int]:
        """Return the memory blocks that a step selects, whether they exist or not.

        Raises
        ------
        InputError
            If there is no device of that id.
        """
        ids = selected_blocks(step)
        if ids is None:
            assert step.id is not None  # checked with the scenario
            ids = part_of(self._devices.blocks(step.id), step.part)
        return ids

    def _absent(self, block: int) -> Outcome | None:
        """Return the refusal of a write to a block that does not exist."""
        if block in self.kernel.added_blocks:
            return None
        return Outcome.refused("ENOENT", "open", f"memory{block}: there is no such memory block")

    def _write(self, step: Write) -> Outcome:
        if step.dax_device is not None:
            driver = self._driver("kmem")
            assert isinstance(driver, DaxKmem)
            return driver.store_state(step.dax_device, step.word)
        found = meaning_of_write(self.kernel, step)
        return found if isinstance(found, Outcome) else self._dispatch(found)

    def _online(self, step: Online) -> Outcome:
        ids = self.blocks_of(step)
        if not ids:
            return _NO_BLOCKS
        exist = all(id_ in self.kernel.added_blocks for id_ in ids)
        if exist and ids == list(range(ids[0], ids[-1] + 1)):
            outcome, block = online_blocks(self.kernel, range(ids[0], ids[-1] + 1), step.to)
            return _about(outcome, block)
        for block in ids:
            absent = self._absent(block)
            if absent is not None:
                return absent
            pfns = self.kernel.block_pfns(block)
            outcome = memory_block_online(self.kernel, pfns, step.to)
            if not outcome:
                return _about(outcome, block)
        return OK

    def _offline(self, step: Offline) -> Outcome:
        ids = self.blocks_of(step)
        if not ids:
            return _NO_BLOCKS
        for block in ids:
            absent = self._absent(block)
            if absent is not None:
                return absent
            outcome = memory_block_offline(self.kernel, self.kernel.block_pfns(block))
            if not outcome:
                return _about(outcome, block)
        return OK

    def _veto(self, step: Veto) -> Outcome:
        chosen = selected_blocks(step)
        veto = None
        if step.errno != "none":
            blocks = None if chosen is None else PfnSet(PfnRange(b, b + 1) for b in chosen)
            action = f"MEM_{step.on.upper()}"
            block = self.kernel.block_nr_pages
            veto = NamedVeto(action, step.errno, blocks, block, step.times)
        self.kernel.notifier.inject_veto(step.on, veto)
        return OK

    def _configure(self, step: Configure) -> Outcome:
        driver = self._driver("standby")
        assert isinstance(driver, StandbyMemory)
        ids = selected_blocks(step)
        if ids is None:
            device = self._devices.get(step.id or "")
            mine = self.kernel.block_ids(device.pfns)
            ids = part_of([id_ for id_ in mine if id_ in driver.usable_blocks], step.part)
        return driver.configure(ids, config=step.config, self_hosted=step.memmap_on_memory)

    def _set(self, step: SetTunables) -> Outcome:
        for name in step.__struct_fields__:
            value = getattr(step, name)
            if name in _INJECTED and value is not None:
                self.kernel.failures.inject(_INJECTED[name], value)
            elif name != "name" and value is not None:
                if not self._has(name):
                    return Outcome.refused("ENOENT", "open", f"{name}: no such parameter")
                self.kernel.tunables.write(_TUNABLE_OF.get(name, name), value)
        return OK

    def _has(self, name: str) -> bool:
        """Tell whether the release has a parameter."""
        return name != "movable_gigantic_pages" or self.kernel.release.has_movable_gigantic


def _class_of(name: str, arch: Arch) -> type[Driver]:
    """Return the class of a driver on an architecture."""
    return DRIVERS[name][_mechanism_of(name, arch)]


def _mechanism_of(name: str, arch: Arch) -> str:
    """Return the way in which a driver adds memory on an architecture.

    Raises
    ------
    InputError
        If it has none there.
    """
    for mechanism in DRIVERS[name]:
        if mechanism in arch.mechanisms:
            return mechanism
    families = {a.family: None for a in ARCHES.values() if set(DRIVERS[name]) & set(a.mechanisms)}
    raise InputError(f"driver {name!r}: on {', '.join(families)} only, not {arch.name}")


def _where(fault: Fault) -> str:
    if fault.what == UNBACKED:
        return f"{fault.access} to unbacked pfn {fault.pfn:#x}"
    return f"{fault.what}, the first is pfn {fault.pfn:#x}"


def _about(outcome: Outcome, block: int) -> Outcome:
    return outcome if outcome else replace(outcome, why=f"memory{block}: {outcome.why}")


_XEN_PAGE_KIB = 4  # include/xen/page.h: XEN_PAGE_SIZE, which is Linux's on x86


def _with_balloon(look: Observation, folder: BalloonFolder) -> Observation:
    """Return the files with the balloon's counters; since 7.3 two other files have them too."""
    meminfo, vmstat = look.meminfo, look.vmstat
    if meminfo is not None and "Balloon" in meminfo:
        meminfo = meminfo | {"Balloon": folder.low_kb}
    if vmstat is not None and "nr_balloon_pages" in vmstat:
        vmstat = vmstat | {"nr_balloon_pages": folder.low_kb // _XEN_PAGE_KIB}
    return replace(look, meminfo=meminfo, vmstat=vmstat, balloon=folder)


def _boot_notes(kernel: Kernel, machine: Machine) -> list[str]:
    """Return what a synthetic boot leaves out."""
    unused = 0 if machine.platform == "xen" else unused_bytes(machine, kernel.arch)
    if not unused:
        return []
    limit = format_size(1 << kernel.arch.max_physmem_bits)
    return [
        f"machine.memory: {format_size(unused)} lie above {limit}, where a kernel for "
        f"{kernel.arch.name} uses no memory"
    ]


def predict(
    scenario: Scenario,
    start: Observation | Sysroot | None = None,
    *,
    policy: str | Placement | Policy | None = None,
    record: Release | None = None,
    pages: bool = True,
    booted: bool = False,
    chance: Trace | None = None,
) -> Trace:
    """Return the trace of a scenario on the model.

    Parameters
    ----------
    scenario : Scenario
    start : Observation or Sysroot, optional
        The files of a real machine to start from; without them the boot state is synthetic. What a
        sysroot lacks is noted in the trace.
    policy : str, Placement or Policy, optional
        The memmap policy instead of the scenario's: a name, ``MODULE:CLASS``, or an object.
    record : Release, optional
        Behaviours of the kernel, instead of the record of its release.
    pages : bool
        Also predict the per-page files.
    booted : bool
        The *start* is of a machine that has just booted, so that it boots to it again.
    chance : Trace, optional
        Of a real kernel: where it has its own pages in a new zone, which is chance, is taken from
        it, see :class:`~altmap.model.adopt.chance.KernelPages`.

    Raises
    ------
    InputError
        If a value of the scenario, the files or the policy cannot be accepted.
    """
    chosen = None if policy is None else policy_of(policy)
    if chosen is not None:
        scenario = scenario.with_machine(policy=chosen.name)
    given = given_of(scenario.machine)
    seen = Observation.read(start, given) if isinstance(start, Sysroot) else start
    machine = ModelMachine.start(
        scenario.machine, seen, policy=chosen, record=record, pages=pages, booted=booted
    )
    shown = iter(chance.steps[1:] if chance else ())
    own = KernelPages(machine.kernel)

    def settle(_step: str) -> None:
        if (step := next(shown, None)) is not None:
            own.settle(step.observation)

    trace = run_scenario(scenario, machine, settle)
    if isinstance(start, Sysroot) and seen is not None:
        trace.notes.extend(seen.problems.values())
        trace.notes.extend(f"the sysroot has no {path}" for path in seen.missing)
        trace.notes.extend(f"{path} could not be read" for path in start.unreadable)
    return trace
