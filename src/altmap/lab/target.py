"""A real kernel as a target: the same steps as the model's, performed in a guest.

Effects: clock, files.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from altmap.errors import InputError, LabError
from altmap.lab.added import plug_by_probe, with_adder
from altmap.lab.arches import GUESTS, GuestArch, guest_arch
from altmap.lab.balloon import AFTER_A_LOOK, Rest, set_balloon_target, wait_for_balloon
from altmap.lab.build import check_compiler
from altmap.lab.capture import capture
from altmap.lab.designs import DESIGNS, design_of
from altmap.lab.dimm import OST_EJECT_IN_PROGRESS, plug_dimm, unplug_dimm
from altmap.lab.dlpar import plug_by_dlpar, unplug_by_dlpar
from altmap.lab.forced import FORCE_MODULE, FORCED_POLICY, check_forced, with_forced
from altmap.lab.guest import Guest
from altmap.lab.hyperv import LabHyperv, with_hyperv
from altmap.lab.insmod import load_module
from altmap.lab.kernel_build import kernel_of
from altmap.lab.kernels import KernelFiles, fetch_xen
from altmap.lab.process import check_device, check_programs, qemu_version
from altmap.lab.qemu import BootDimm, Hardware
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.snapshot import booted
from altmap.lab.state import write_block_state, write_block_states, write_file
from altmap.lab.touch_log import FunctionTouches, TouchLog
from altmap.lab.touch_plugin import build_plugin
from altmap.lab.unbacked import (
    UnbackedWatch,
    device_region,
    fault_of,
    fault_outcome,
    inject_machine_check,
)
from altmap.lab.veto import VETO_MODULE, Vetoes, check_veto
from altmap.lab.virtio_mem import (
    MODULES,
    VirtioMemState,
    check_driver,
    plug_virtio_mem,
    resize_virtio_mem,
    wait_until_idle,
)
from altmap.lab.workload import GuestUsage
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.scenario import (
    DEFAULT_RELEASE,
    XEN_HOST_BYTES,
    Configure,
    Device,
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
    Step,
    Unplug,
    Veto,
    part_of,
    selected_blocks,
    step_name,
    step_table,
)
from altmap.trace import GUEST_TO_HOST, OK, Event, Outcome, StepRecord, Trace
from altmap.trace.run import run_scenario

__all__ = (
    "LabMachine",
    "cmdline_of",
    "hardware_of",
    "module_parameters",
    "modules_of",
    "run_in_guest",
    "uses_hyperv",
)

#: Parameters of a machine that are written into its files when the guest has booted.
_BOOT_TUNABLES = (
    *("auto_online_blocks", "online_policy"),
    *("auto_movable_ratio", "auto_movable_numa_aware"),
)

_MEMORY = "/sys/devices/system/memory"
_PARAMETERS = "/sys/module/memory_hotplug/parameters"
#: What the kernel logs when an add is refused, and the errno that it stands for.
_ADD_REFUSALS = (
    (re.compile(r"unaligned hotplug range"), "EINVAL", "check_hotplug_memory_range"),
    (re.compile(r"cannot be added"), "EEXIST", "register_memory_resource"),
    (re.compile(r"exceeds"), "E2BIG", "mhp_range_allowed"),
    (re.compile(r"allocation failure|vmemmap alloc failure"), "ENOMEM", "vmemmap_populate"),
)
#: ``_OST`` status of a refused eject, and the errno that it stands for (``acpi_device_hotplug``).
_EJECT_REFUSALS = {0x80: "EPERM", 0x82: "EBUSY"}
_ACPI_HOTPLUG = "/sys/firmware/acpi/hotplug/memory/enabled"
_DEFAULT_MEMORY = 1 << 30
#: The id of the balloon that a Xen domain has.
BALLOON = "balloon"
_PAGE = 4096
#: Drivers whose memory are DIMMs of which Linux is not told.
_HIDDEN = ("hyperv", "probe")
#: Kernel parameters with which Linux is not told of DIMMs (drivers/acpi/acpi_memhotplug.c).
_HIDDEN_DIMMS = "acpi_no_memhotplug"
#: A machine check is taken within milliseconds, a panic told within a second.
_PANIC_SECONDS = 60.0
#: A function that touches one frame that is not backed touches all that it will within this time.
_RUN_SECONDS = 1.0
_POLL_SECONDS = 0.02
_SOFT_OFFLINE = f"{_MEMORY}/soft_offline_page"


def hardware_of(machine: Machine, *, hidden_dimms: bool = False) -> Hardware:
    """Return the guest's hardware for a scenario's machine.

    Parameters
    ----------
    machine : Machine
    hidden_dimms : bool
        DIMMs only back page frames: a Hyper-V host names them to the guest.

    Raises
    ------
    InputError
        If the machine asks for what these guests cannot be.
    """
    guest = guest_arch("x86_64" if machine.arch is None else machine.arch)
    machines = dict(guest.platforms)
    _check_policy(machine)
    for key, value, allowed in (
        ("block_size", machine.block_size, (None,)),
        ("debug_vm", machine.debug_vm, (None, False)),
        ("hugetlb_free_vmemmap", machine.hugetlb_free_vmemmap, (None, False)),
        ("mmu", machine.mmu, (None, *guest.mmus)),
        ("unbacked_reads", machine.unbacked_reads, ("fault", "allowed")[: 1 + hidden_dimms]),
    ):
        if value not in allowed:
            raise InputError(f"machine.{key} {value!r}: a real kernel cannot be given another one")
    if machine.platform not in (None, *machines):
        raise InputError(
            f"machine.platform {machine.platform!r}: {guest.name} has {', '.join(machines)}"
        )
    nodes = tuple(int(node.memory) for node in machine.nodes)
    memory = int(machine.memory or sum(nodes) or _DEFAULT_MEMORY)
    if machine.platform == "xen":
        if machine.devices:
            raise InputError("machine.devices: a Xen domain here has none")
        return Hardware(
            memory_bytes=int(machine.xen_host_memory or XEN_HOST_BYTES),
            slots=0,
            smp=machine.cpus or 1,
            machine="q35",
            dom0_bytes=memory,
            dom0_max_bytes=int(machine.xen_max_memory or 0),
        )
    return Hardware(
        memory_bytes=memory,
        dimms=tuple(_boot_dimm(device, guest) for device in machine.devices),
        maxmem_bytes=max(64 << 30, 2 * memory + (64 << 30)),
        smp=machine.cpus or 1,
        machine=machines[machine.platform] if machine.platform else "",
        node_bytes=nodes,
        hidden_dimms=hidden_dimms,
        arch=guest.name,
    )


def _check_policy(machine: Machine) -> None:
    """Refuse a memmap policy that the machine's kernel cannot follow."""
    release = DEFAULT_RELEASE if machine.release is None else machine.release
    design = design_of(release)
    possible = ("opt-in", FORCED_POLICY, *(design.policies if design else ()))
    if machine.policy is None or machine.policy in possible:
        return
    others = [each.release for each in DESIGNS.values() if machine.policy in each.policies]
    cure = f"; --release {others[0]} has it" if others else ""
    raise InputError(
        f"machine.policy {machine.policy!r}: the kernel of {release} follows "
        f"{', '.join(dict.fromkeys(possible))} only{cure}"
    )


def _boot_dimm(device: Device, guest: GuestArch) -> BootDimm:
    """Return a DIMM for QEMU's command line."""
    if device.driver != "dimm" or guest.dimm != "acpi":
        raise InputError(
            f"machine.devices {device.id!r}: only DIMMs of x86_64 are there when a guest boots"
        )
    if device.self_hosted is not None:
        raise InputError(f"machine.devices {device.id!r}: self_hosted: the kernel decides it")
    return BootDimm(device.id, int(device.address), int(device.size), device.node)


def cmdline_of(machine: Machine) -> str:
    """Return the kernel parameters that a scenario's machine sets and a running kernel cannot."""
    mode = {"off": "0", "on": "1", "force": "force"}
    words = {
        "memory_hotplug.memmap_on_memory": mode.get(machine.memmap_on_memory or ""),
        # What is written into the file when the guest has booted is too late for its devices.
        "memhp_default_state": machine.auto_online_blocks if machine.devices else None,
    }
    text = [f"{name}={_word(value)}" for name, value in words.items() if value is not None]
    text += ["movable_node"] if machine.movable_node else []
    text += ["disable_radix"] if machine.mmu == "hash" else []
    return " ".join(text)


def run_in_guest(
    scenario: Scenario,
    progress: Callable[[str], None],
    *,
    touched: bool = False,
    own: KernelFiles | None = None,
) -> tuple[Trace, list[Sysroot]]:
    """Boot a guest for a scenario and run the scenario in it.

    Returns
    -------
    (Trace, list of Sysroot)
        The trace, and the files behind its observations, as the guest showed them.

    Parameters
    ----------
    scenario : Scenario
    progress : callable
        Told what happens next.
    touched : bool
        Note which frames of added memory each step reads and writes, by function (x86_64). Where
        frames can be not backed, it is done in any case.
    own : KernelFiles, optional
        A user's own kernel, instead of Debian's.

    Raises
    ------
    InputError
        If a step cannot be asked of the guest.
    LabError
        If the kernel cannot be had, or the guest does not boot or dies.
    """
    machine = scenario.machine
    release = DEFAULT_RELEASE if machine.release is None else machine.release
    hyperv, probe = uses_hyperv(scenario), bool(_plugs(scenario, "probe"))
    hardware = hardware_of(machine, hidden_dimms=hyperv or probe)
    hardware = replace(hardware, ports=_nr_ports(scenario, hardware))
    cmdline = cmdline_of(machine)
    _check_steps(scenario, hardware)
    check_programs(hardware.guest)
    forced = machine.policy == FORCED_POLICY
    if forced:
        check_forced(machine)
        check_compiler()
    if hardware.hidden_dimms:
        cmdline = f"{cmdline} {_HIDDEN_DIMMS}".strip()
        check_compiler()
    if _plugs(scenario, "virtio-mem"):
        check_device(hardware.guest, hardware.guest.virtio_mem)
    plugin = None
    if touched or hardware.hidden_dimms:
        plugin = _plugin(hardware)
    kernel = kernel_of(release, hardware.arch) if own is None else replace(own, tree=None)
    kernel = replace(kernel, modules=modules_of(scenario))
    kernel = with_hyperv(kernel) if hyperv else kernel
    kernel = with_adder(kernel) if probe else kernel
    kernel = with_forced(kernel) if forced else kernel
    called = f"Linux {release}" if own is None else str(own.vmlinuz)
    progress(f"{scenario.name}: {called} ({hardware.arch}) boots in QEMU")
    started = (
        Guest(kernel, hardware, cmdline, hypervisor=fetch_xen())
        if machine.platform == "xen"
        else booted(kernel, hardware, cmdline, plugin=plugin)
    )
    reads_fault = machine.unbacked_reads == "fault"
    with contextlib.ExitStack() as stack:
        guest = stack.enter_context(started)
        if own is not None:
            guest.kernel = replace(guest.kernel, release=_running_release(guest))
        for module in modules_of(scenario):
            if module != VETO_MODULE:
                load_module(guest, module, module_parameters(module, machine))
        if forced:
            load_module(guest, FORCE_MODULE)
        if _plugs(scenario, "virtio-mem"):
            check_driver(guest)
        _follow(guest, machine.policy)
        target = stack.enter_context(
            LabMachine(
                guest,
                policy=machine.policy,
                reads_fault=reads_fault,
            )
        )
        tunables = {name: getattr(machine, name) for name in _BOOT_TUNABLES}
        if any(value is not None for value in tunables.values()):
            target.set_tunables(SetTunables(**tunables))
        return run_scenario(scenario, target, progress), target.sysroots


def _plugin(hardware: Hardware) -> Path:
    """Return the plugin that tells what the kernel touches."""
    guest = hardware.guest
    if not guest.tells_touches or hardware.dom0_bytes:
        possible = ", ".join(each.name for each in GUESTS.values() if each.tells_touches)
        raise InputError(f"touched frames: told of {possible} only, and not under Xen")
    return build_plugin(guest, qemu_version(guest))


def _follow(guest: Guest, policy: str | None) -> None:
    """Set the parameters of a kernel with a design to the policy that it is to follow."""
    design = design_of(guest.kernel.release)
    for name, word in (design.policies.get(policy or "opt-in", {}) if design else {}).items():
        if number := write_file(guest, f"{_PARAMETERS}/{name}", word):
            raise LabError(f"{_PARAMETERS}/{name}: {errno.errorcode.get(number, number)}")


def _running_release(guest: Guest) -> str:
    """Return major and minor number of the kernel that runs, whatever its file is called."""
    said = guest.run("uname -r").text.strip()
    match = re.match(r"\d+\.\d+", said)
    if match is None:
        raise LabError(f"uname -r: {shorten(ascii(said), 40)}: no release", guest.console())
    return match[0]


def _nr_ports(scenario: Scenario, hardware: Hardware) -> int:
    """Return how many PCI Express ports the guest needs, one for each device that it is to get."""
    needed = hardware.qemu_machine in hardware.guest.port_machines
    return len(_plugs(scenario, "virtio-mem")) if needed else 0


def _plugs(scenario: Scenario, driver: str) -> list[Plug]:
    """Return the steps that plug such a device."""
    return [s for s in scenario.steps if isinstance(s, Plug) and s.driver == driver]


def uses_hyperv(scenario: Scenario) -> bool:
    """Tell whether a scenario's memory comes from a Hyper-V host."""
    return bool(_plugs(scenario, "hyperv")) or scenario.machine.balloon == "hyperv"


def modules_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the modules that the scenario's devices and vetoes need."""
    vetoes = any(isinstance(step, Veto) for step in scenario.steps)
    devices = MODULES if _plugs(scenario, "virtio-mem") else ()
    return (*devices, VETO_MODULE) if vetoes else devices


def module_parameters(module: str, machine: Machine) -> str:
    """Return what a module is loaded with: what the scenario says, and that it logs what it asks.

    Only parameters that differ from the module's own are given: not every release has each.
    """
    if module != "virtio_mem":
        return ""
    given = machine.virtio_mem
    words = {
        "unplug_online": "N" if not given.unplug_online else None,
        "force_bbm": "Y" if given.force_bbm else None,
        "bbm_block_size": given.bbm_block_size and int(given.bbm_block_size),
        "bbm_safe_unplug": "N" if not given.bbm_safe_unplug else None,
    }
    return " ".join(["dyndbg=+p", *(f"{key}={word}" for key, word in words.items() if word)])


def _check_steps(scenario: Scenario, hardware: Hardware) -> None:
    """Refuse before the boot what would be refused after it."""
    guest = hardware.guest
    if guest.no_device_node and len(hardware.node_bytes) > 1 and _plugs(scenario, "virtio-mem"):
        raise InputError(
            f"virtio-mem with {len(hardware.node_bytes)} nodes: {guest.no_device_node}"
        )
    for step in scenario.steps:
        if isinstance(step, Veto):
            check_veto(step)
        if isinstance(step, Plug) and step.driver not in _HIDDEN and hardware.hidden_dimms:
            raise InputError(
                f"plug {step.id!r}: beside {' and '.join(_HIDDEN)}, no other driver: Linux is not "
                "told of memory devices"
            )
        if isinstance(step, Plug) and step.driver == "dimm" and not guest.dimm:
            raise InputError(f"plug {step.id!r}: no DIMM on {guest.name}: {guest.no_dimm}")
        if isinstance(step, Plug) and step.driver == "virtio-mem" and not guest.virtio_mem:
            raise InputError(f"plug {step.id!r}: QEMU has no virtio-mem device on {guest.name}")


class LabMachine:
    """A guest on which steps are performed.

    Parameters
    ----------
    guest : Guest
        Booted with :func:`hardware_of` and :func:`cmdline_of` of the scenario's machine. What a
        running kernel can be told is told then, so that more scenarios share a boot.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        policy: str | None = None,
        reads_fault: bool = True,
    ) -> None:
        self._guest = guest
        self._policy = policy
        self._devices = {
            dimm.name: (dimm.address, dimm.size_bytes) for dimm in guest.hardware.dimms
        }
        self._usage = GuestUsage(guest)
        self._vetoes = Vetoes(guest)
        self._virtio_mem: set[str] = set()
        self.sysroots: list[Sysroot] = []
        self._dimms = guest.hardware.guest.dimm
        self.notes: list[str] = []
        self.crashed = False
        self.backed = None  # only the hypervisor could tell
        self._block_size = _hexadecimal(guest, f"{_MEMORY}/block_size_bytes")
        self._has_balloon = guest.hypervisor is not None
        self._hyperv: LabHyperv | None = None
        self._reads_fault = reads_fault
        self._watch: UnbackedWatch | None = None
        self._touches = (
            TouchLog(guest, guest.touches, device_region(guest)) if guest.touches else None
        )
        if guest.hardware.hidden_dimms:
            region = device_region(guest)
            self._hyperv = LabHyperv(guest, region)
            self._watch = UnbackedWatch(
                guest.access_log,
                region,
                self._end_guest,
                reads_fault=reads_fault,
            )
        self._first_blocks = self._block_ids()
        guest.kernel_log()

    def __enter__(self) -> LabMachine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._watch is not None:
            self._watch.close()

    @property
    def identity(self) -> dict[str, Any]:
        """The trace's heading: which kernel, in which machine."""
        kernel, xen = self._guest.kernel, self._guest.hypervisor
        return {
            "target": "lab",
            "release": kernel.release,
            "policy": self._policy or "as the kernel has it",
            "machine": {
                "arch": kernel.arch,
                "packages": kernel.versions | (xen.versions if xen else {}),
                "qemu": qemu_version(self._guest.hardware.guest),
                "hardware": asdict(self._guest.hardware),
                "accelerator": self._guest.accelerator,
                "block_size_bytes": self._block_size,
            },
        }

    def observe(self) -> Observation:
        """Look at the guest's files, and keep them as they are in ``sysroots``."""
        self.sysroots.append(capture(self._guest))
        seen = Observation.read(self.sysroots[-1])
        for problem in seen.problems.values():  # a file of a running kernel is whole
            raise LabError(f"capture: {problem}", self._guest.console())
        return seen

    def perform(self, step: Step) -> StepRecord:
        """Perform one step.

        Raises
        ------
        InputError
            If QEMU refuses it, or there is no such block or device.
        LabError
            If the guest dies or does not answer.
        """
        record = StepRecord(step_name(step), step_table(step), OK)
        if self.crashed:
            record.outcome = Outcome("not_reached", why="an earlier fault ended the kernel")
            return record
        if self._touches is not None:
            self._touches.begin()
        if self._watch is None:
            self._perform(step, record)
        else:
            self._perform_watched(step, record, self._watch)
        if self._touches is not None:
            record.events.extend(_touch_events(self._touches.end()))
        record.events[:0] = self._hyperv.take_events() if self._hyperv else []
        return record

    def _perform_watched(self, step: Step, record: StepRecord, watch: UnbackedWatch) -> None:
        """Perform a step that may end the guest by touching what is not backed."""
        try:
            self._perform(step, record)
            if watch.look().first is not None:
                self._guest.run("sleep 1000", _PANIC_SECONDS)  # until the machine check is taken
        except LabError:
            touches = None
            if self._touches is not None:
                touches, _ = self._touches.fault(reads_fault=self._reads_fault)
            fault = fault_of(watch.look(), self._guest.console_text(), touches)
            if fault is None:
                raise
            self.crashed = True
            record.faults.append(fault)
            record.outcome = fault_outcome(fault)

    def _end_guest(self, address: int) -> None:
        """End the guest by a machine check, once the function that touched the frame is done."""
        deadline = time.monotonic() + _RUN_SECONDS
        while self._touches is not None and time.monotonic() < deadline:
            _, is_over = self._touches.fault(reads_fault=self._reads_fault)
            if is_over:
                break
            time.sleep(_POLL_SECONDS)
        inject_machine_check(self._guest, address)

    def _perform(self, step: Step, record: StepRecord) -> None:
        if isinstance(step, Plug | Unplug | Resize):
            self._vetoes.check_no_partial(step_name(step))
        match step:
            case Plug(driver="dimm"):
                record.outcome = self._plug(step)
            case Plug(driver="virtio-mem"):
                record.outcome = self._plug_virtio_mem(step)
            case Plug(driver="hyperv"):
                record.outcome = self._plug_hyperv(step)
            case Plug(driver="probe"):
                record.outcome = self._plug_probe(step)
            case Plug():
                raise InputError(f"driver {step.driver!r}: no lab runs it")
            case Unplug():
                record.outcome = self._unplug(step)
            case Resize():
                record.outcome = self._resize(step)
            case Configure():
                raise InputError("configure: no lab has standby memory")
            case Online():
                record.outcome = self._write_states(step, step.to)
            case Offline():
                record.outcome = self._write_states(step, "offline")
            case Fill():
                record.outcome = self._usage.fill(step)
            case Free():
                record.outcome = self._usage.free(step.id)
            case HugePages():
                record.outcome = self._usage.set_pool(step)
            case Poison():
                number = write_file(self._guest, _SOFT_OFFLINE, hex(step.address))
                record.outcome = OK if not number else Outcome.refused(number, "", "")
            case Veto():
                self._vetoes.set(step)
            case Dump():
                raise InputError("dump: no lab reads one")
            case Reboot():
                raise InputError("reboot: no lab does it; machine.devices are there at boot")
            case SetTunables():
                record.outcome = self.set_tunables(step)
        if self._virtio_mem:
            wait_until_idle(self._guest)
        if self._touches is not None:
            self._touches.look_at_devices()
        log = self._guest.kernel_log()
        record.events = [Event("kernel-log", line) for line in log]
        record.events.extend(_requests(log))
        if isinstance(step, Plug) and step.driver == "dimm" and self._dimms == "acpi":
            record.outcome = self._judge_plug(step, log)
        elif not record.outcome and log:
            record.outcome = Outcome.refused(record.outcome.errno or "?", "", log[-1])

    def _plug(self, step: Plug) -> Outcome:
        address = None if step.address is None else int(step.address)
        if step.more_ranges:
            raise InputError(f"plug {step.id!r}: QEMU's DIMMs have one range, no more_ranges")
        if step.id in self._devices:
            raise InputError(f"plug {step.id!r}: a device of that id is plugged already")
        failure = ""
        try:
            if self._dimms == "dlpar":
                at, failure = plug_by_dlpar(
                    self._guest, step.id, int(step.size), address, step.node
                )
            else:
                at = plug_dimm(self._guest, step.id, int(step.size), address, step.node).address
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        self._devices[step.id] = (at, int(step.size))
        return Outcome.refused("EINVAL", "dlpar_memory", failure) if failure else OK

    def _judge_plug(self, step: Plug, log: list[str]) -> Outcome:
        """Tell whether the add succeeded: ACPI answers success in any case."""
        first = self._devices[step.id][0] // self._block_size
        if self._has_block(first):
            return OK
        for line in log:
            for pattern, name, function in _ADD_REFUSALS:
                if pattern.search(line):
                    return Outcome.refused(name, function, line)
        return Outcome.refused("?", "", log[-1] if log else "no memory block appeared")

    def _plug_virtio_mem(self, step: Plug) -> Outcome:
        if step.id in self._devices:
            raise InputError(f"plug {step.id!r}: a device of that id is plugged already")
        try:
            state = plug_virtio_mem(
                self._guest,
                step.id,
                int(step.size),
                int(step.requested or 0),
                block_bytes=None if step.block is None else int(step.block),
                address=None if step.address is None else int(step.address),
                node=step.node,
            )
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        self._devices[step.id] = (state.address, state.size_bytes)
        self._virtio_mem.add(step.id)
        return _reached(state)

    def _plug_hyperv(self, step: Plug) -> Outcome:
        assert self._hyperv is not None
        assert step.address is not None  # checked with the scenario
        if step.id in self._devices:
            raise InputError(f"plug {step.id!r}: a device of that id is plugged already")
        outcome = self._hyperv.plug(step)
        self._devices[step.id] = (int(step.address), int(step.size))
        return outcome

    def _plug_probe(self, step: Plug) -> Outcome:
        assert step.address is not None  # checked with the scenario
        if step.id in self._devices:
            raise InputError(f"plug {step.id!r}: a device of that id is plugged already")
        if step.size > self._block_size:
            raise InputError(
                f"plug {step.id!r}: size {step.size:#x}: a write adds one memory block, "
                f"{self._block_size:#x} bytes"
            )
        outcome = plug_by_probe(
            self._guest,
            step,
            self._block_size,
            is_backed=self._has_block(int(step.address) // self._block_size),
        )
        if outcome.errno != "EEXIST":
            self._devices[step.id] = (int(step.address), int(step.size))
        return outcome

    def _resize(self, step: Resize) -> Outcome:
        if self._hyperv is not None:
            return self._hyperv.resize(step.id, int(step.size))
        if self._has_balloon and step.id == BALLOON:
            return _outcome_of(set_balloon_target(self._guest, int(step.size)))
        self._device(step.id)
        if step.id not in self._virtio_mem:
            raise InputError(f"resize {step.id!r}: a DIMM keeps its size")
        try:
            return _reached(resize_virtio_mem(self._guest, step.id, int(step.size)))
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error

    def _unplug(self, step: Unplug) -> Outcome:
        self._device(step.id)
        try:
            outcome = self._ask_back(step.id)
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        if outcome:
            del self._devices[step.id]
        return outcome

    def _ask_back(self, dimm: str) -> Outcome:
        if self._dimms == "dlpar":
            failure = unplug_by_dlpar(self._guest, dimm)
            return Outcome.refused("EINVAL", "dlpar_memory", failure) if failure else OK
        result = unplug_dimm(self._guest, dimm)
        if result.removed:
            return OK
        if result.ost_status == OST_EJECT_IN_PROGRESS:
            why = "nothing followed _OST status 0x84 (eject in progress) within the time limit"
            return Outcome("does_not_end", why=why)
        name = _EJECT_REFUSALS.get(result.ost_status, "EBUSY")
        return Outcome.refused(name, "", f"_OST status {result.ost_status:#x}")

    def _device(self, id_: str) -> tuple[int, int]:
        if id_ not in self._devices:
            known = ", ".join(map(repr, self._devices)) or "none is plugged"
            raise InputError(f"device {id_!r}: no such device ({known})")
        return self._devices[id_]

    def _block_ids(self) -> set[int]:
        names = self._guest.run(f"ls {_MEMORY}").text.split()
        return {int(name[6:]) for name in names if re.fullmatch(r"memory[0-9]+", name)}

    def _blocks(self, step: Online | Offline) -> list[int]:
        ids = selected_blocks(step)
        if ids is None and self._has_balloon and step.id == BALLOON:
            added = self._block_ids() - self._first_blocks
            if not added:
                raise InputError(f"device {BALLOON!r}: has no memory blocks now")
            ids = part_of(range(min(added), max(added) + 1), step.part)
        if ids is None:
            address, size = self._device(step.id or "")
            end = -(-(address + size) // self._block_size)
            every: Sequence[int] = range(address // self._block_size, end)
            if step.id in self._virtio_mem:
                every = [id_ for id_ in every if self._has_block(id_)]
            ids = part_of(every, step.part)
            if not ids:
                raise InputError(f"device {step.id!r}: has no memory blocks now")
        return ids

    def _has_block(self, block: int) -> bool:
        return self._guest.run(f"test -d {_MEMORY}/memory{block}").status == 0

    def _write_states(self, step: Online | Offline, word: str) -> Outcome:
        verb, blocks = type(step).__name__.lower(), self._blocks(step)
        if self._has_balloon and word != "offline":
            result = write_block_states(self._guest, blocks, word, AFTER_A_LOOK)
            outcome = _written(verb, *result)
            wait_for_balloon(self._guest)
            return outcome
        for block in blocks:
            with self._vetoes.around(block):
                outcome = _written(verb, write_block_state(self._guest, block, word), block)
            if not outcome:
                return outcome
        return OK

    def set_tunables(self, step: SetTunables) -> Outcome:
        """Write parameters of the running kernel."""
        for name in step.__struct_fields__:
            value = getattr(step, name)
            if name == "name" or value is None:
                continue
            if name in ("fail_block_devices", "fail_allocation"):
                raise InputError(f"set {name}: no failure is injected into a real kernel")
            path, word = f"{_PARAMETERS}/{name}", _word(value)
            if name == "auto_online_blocks":
                path = f"{_MEMORY}/{name}"
            elif name == "acpi_memory_hotplug":
                path, word = _ACPI_HOTPLUG, str(int(value))
            number = write_file(self._guest, path, word)
            if number:
                raise LabError(f"{path}: {errno.errorcode.get(number, number)}")
        return OK


def _touch_events(touches: list[FunctionTouches]) -> Iterator[Event]:
    """Yield what a step touched, after an event that says that it is known."""
    yield Event("touched", f"{len(touches)} functions touch frames of added memory")
    for each in touches:
        text = f"{each.function} {each.access}s frames of added memory"
        yield Event(each.access, text, each.pfns, each.function)


#: drivers/virtio/virtio_mem.c: virtio_mem_send_plug_request, ..._unplug_request; dynamic debug.
_REQUEST = re.compile(r"virtio_mem virtio\d+: (un)?plugging memory: (0x[0-9a-f]+ - 0x[0-9a-f]+)$")


def _requests(log: list[str]) -> Iterator[Event]:
    """Yield what a virtio-mem driver asked of its device, in words that a prediction has too."""
    for line in log:
        match = _REQUEST.search(line)
        if match is not None:
            verb = "UNPLUG" if match[1] else "PLUG"
            yield Event("driver", f"{GUEST_TO_HOST}{verb} {match[2]}")


def _written(verb: str, number: int, block: int) -> Outcome:
    """Return how a write to a block's state ended.

    Raises
    ------
    InputError
        If there is no such block.
    """
    if number == errno.ENOENT:
        raise InputError(f"{verb} memory{block}: there is no such memory block")
    return Outcome.refused(number, "", f"memory{block}") if number else OK


def _reached(state: VirtioMemState) -> Outcome:
    """Tell whether the guest did as it was asked; it says nowhere why it did not."""
    if state.plugged_bytes == state.requested_bytes:
        return OK
    why = f"plugged {state.plugged_bytes:#x} of {state.requested_bytes:#x} bytes requested"
    return Outcome.refused("?", "", why)


def _outcome_of(rest: Rest) -> Outcome:
    """Tell how a balloon's request ended, as far as its driver's files say it."""
    if rest.reached:
        return OK
    name = "ECANCELED" if rest.retried else "EAGAIN"
    return Outcome.refused(name, "", f"at rest at {rest.current_kb} kB of {rest.target_kb} kB")


def _hexadecimal(guest: Guest, path: str) -> int:
    text = guest.run(f"cat {path}").text
    try:
        return int(text, 16)
    except ValueError as error:
        raise LabError(f"{path}: {shorten(ascii(text), 40)}: no number", guest.console()) from error


def _word(value: object) -> str:
    return ("Y" if value else "N") if isinstance(value, bool) else str(value)
