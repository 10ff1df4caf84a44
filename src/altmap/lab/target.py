"""A real kernel as a target: the same steps as the model's, performed in a guest."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from textwrap import shorten
from typing import Any

from altmap.errors import LabError
from altmap.lab.added import with_adder
from altmap.lab.blocks import GuestBlocks
from altmap.lab.build import check_compiler
from altmap.lab.capture import capture
from altmap.lab.cxl import with_dax_memory
from altmap.lab.cxl_regions import make_cxl_devices
from altmap.lab.designs import design_of
from altmap.lab.devices import GuestDevices
from altmap.lab.faults import FaultWatch, StepTouches
from altmap.lab.forced import FORCE_MODULE, FORCED_POLICY, check_forced, with_forced
from altmap.lab.guest import Guest
from altmap.lab.hardware import cmdline_of, hardware_of
from altmap.lab.hyperv import LabHyperv, with_hyperv
from altmap.lab.inject import injects, with_injector
from altmap.lab.insmod import load_module
from altmap.lab.kernel_build import kernel_of
from altmap.lab.kernels import KernelFiles, fetch_xen
from altmap.lab.kmem import DaxDevices, make_dax_devices
from altmap.lab.pmem import pmem_cmdline
from altmap.lab.process import check_device, check_programs, qemu_version
from altmap.lab.requirements import (
    check_steps,
    module_parameters,
    modules_of,
    needs_virtio_mem,
    nr_ports,
    plugs_of,
    uses_hyperv,
)
from altmap.lab.snapshot import booted
from altmap.lab.state import write_file
from altmap.lab.steps import PARAMETERS, GuestSteps, requests
from altmap.lab.touch_plugin import plugin_for
from altmap.lab.unbacked import device_region, fault_outcome
from altmap.lab.virtio_mem import MODULES, check_driver, wait_until_idle
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.scenario import (
    DEFAULT_RELEASE,
    Reboot,
    Scenario,
    SetTunables,
    Step,
    step_name,
    step_table,
)
from altmap.trace import OK, Event, Outcome, StepRecord, Trace
from altmap.trace.run import run_scenario

__all__ = ("LabMachine", "run_in_guest")

#: Parameters of a machine that are written into its files when the guest has booted.
_BOOT_TUNABLES = (
    *("auto_online_blocks", "online_policy"),
    *("auto_movable_ratio", "auto_movable_numa_aware"),
)
#: Kernel parameters with which Linux is not told of DIMMs (drivers/acpi/acpi_memhotplug.c).
_HIDDEN_DIMMS = "acpi_no_memhotplug"


def run_in_guest(
    scenario: Scenario,
    progress: Callable[[str], None],
    *,
    touched: bool = False,
    own: KernelFiles | None = None,
    written: tuple[str, ...] = (),
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
    written : tuple of str, optional
        QEMU's words for the machine and its memory, which the scenario's machine says as well: the
        guest boots with these words, and with the devices that they name.

    Raises
    ------
    InputError
        If a step cannot be asked of the guest.
    LabError
        If the kernel cannot be had, or the guest does not boot or dies.
    """
    machine = scenario.machine
    release = DEFAULT_RELEASE if machine.release is None else machine.release
    reboots = any(isinstance(step, Reboot) for step in scenario.steps)
    hyperv, probe = uses_hyperv(scenario), bool(plugs_of(scenario, "probe"))
    described = machine.replace(devices=()) if written else machine
    hardware = hardware_of(described, hidden_dimms=hyperv or probe)
    hardware = replace(hardware, written=written)
    hardware = replace(hardware, ports=nr_ports(scenario, hardware))
    boot_bytes = hardware.memory_bytes
    hardware = with_dax_memory(hardware, plugs_of(scenario, "kmem"))
    cmdline = f"{cmdline_of(machine, reboots=reboots)} {pmem_cmdline(hardware, boot_bytes)}".strip()
    check_steps(scenario, hardware)
    check_programs(hardware.guest)
    forced = machine.policy == FORCED_POLICY
    if forced:
        check_forced(machine)
        check_compiler()
    injected = own is None and injects(scenario, hardware.guest)
    if injected:
        check_compiler()
    if hardware.hidden_dimms:
        cmdline = f"{cmdline} {_HIDDEN_DIMMS}".strip()
        check_compiler()
    has_virtio_mem = needs_virtio_mem(scenario)
    if has_virtio_mem:
        check_device(hardware.guest, hardware.guest.virtio_mem)
    plugin = None
    if touched or hardware.hidden_dimms:
        plugin = plugin_for(hardware, qemu_version(hardware.guest))
    kernel = kernel_of(release, hardware.arch) if own is None else replace(own, tree=None)
    kernel = replace(kernel, modules=modules_of(scenario))
    kernel = with_hyperv(kernel) if hyperv else kernel
    kernel = with_adder(kernel) if probe else kernel
    kernel = with_forced(kernel) if forced else kernel
    kernel = with_injector(kernel) if injected else kernel
    called = f"Linux {release}" if own is None else str(own.vmlinuz)
    progress(f"{scenario.name}: {called} ({hardware.arch}) boots in QEMU")
    started = (
        Guest(kernel, hardware, cmdline, hypervisor=fetch_xen())
        if machine.platform == "xen"
        else booted(kernel, hardware, cmdline, plugin=plugin, reboots=reboots)
    )
    reads_fault = machine.unbacked_reads == "fault"
    with contextlib.ExitStack() as stack:
        guest = stack.enter_context(started)
        if own is not None:
            guest.kernel = replace(guest.kernel, release=_running_release(guest))

        def prepare() -> None:
            if has_virtio_mem:
                for module in MODULES:
                    load_module(guest, module, module_parameters(module, machine))
                check_driver(guest)
                wait_until_idle(guest)
            if forced:
                load_module(guest, FORCE_MODULE)
            _follow(guest, machine.policy)

        prepare()
        target = stack.enter_context(
            LabMachine(
                guest,
                policy=machine.policy,
                reads_fault=reads_fault,
                dax=make_dax_devices(guest) | make_cxl_devices(guest),
                tunables={name: getattr(machine, name) for name in _BOOT_TUNABLES},
                prepare=prepare,
            )
        )
        return run_scenario(scenario, target, progress), target.sysroots


def _follow(guest: Guest, policy: str | None) -> None:
    """Set the parameters of a kernel with a design to the policy that it is to follow."""
    design = design_of(guest.kernel.release)
    for name, word in (design.policies.get(policy or "opt-in", {}) if design else {}).items():
        if number := write_file(guest, f"{PARAMETERS}/{name}", word):
            raise LabError(f"{PARAMETERS}/{name}: {errno.errorcode.get(number, number)}")


def _running_release(guest: Guest) -> str:
    """Return major and minor number of the kernel that runs, whatever its file is called."""
    said = guest.run("uname -r").text.strip()
    match = re.match(r"\d+\.\d+", said)
    if match is None:
        raise LabError(f"uname -r: {shorten(ascii(said), 40)}: no release", guest.console())
    return match[0]


class LabMachine:
    """A guest on which steps are performed.

    Parameters
    ----------
    guest : Guest
        Booted with :func:`hardware_of` and :func:`cmdline_of` of the scenario's machine. What a
        running kernel can be told is told then, so that more scenarios share a boot.
    policy : str, optional
        The memmap policy that the guest follows, for the trace's heading.
    reads_fault : bool
        Whether a read of a frame that is not backed is a fault; a write always is.
    dax : dict of str to str, optional
        The kernel's names of its dax devices, by the ids that a scenario gives them.
    tunables : dict, optional
        Parameters that are written when the guest has booted, now and after each reboot.
    prepare : callable, optional
        Does after a reboot what else was done when the guest had booted.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        policy: str | None = None,
        reads_fault: bool = True,
        dax: Mapping[str, str] | None = None,
        tunables: Mapping[str, Any] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._guest = guest
        given = {name: word for name, word in (tunables or {}).items() if word is not None}
        self._tunables = SetTunables(**given) if given else None
        self._prepare = prepare
        self._policy = policy
        self.sysroots: list[Sysroot] = []
        self.notes: list[str] = []
        self.crashed = False
        self.backed = None  # only the hypervisor could tell
        self._hyperv: LabHyperv | None = None
        self._watch: FaultWatch | None = None
        self._blocks = GuestBlocks(guest)
        self._touches = StepTouches(guest, reads_fault=reads_fault)
        if guest.hardware.hidden_dimms:
            self._hyperv = LabHyperv(guest, device_region(guest))
            self._watch = FaultWatch(guest, self._touches, reads_fault=reads_fault)
        self._steps = GuestSteps(
            guest,
            self._blocks,
            GuestDevices(guest, self._blocks, self._hyperv, DaxDevices(guest, dax or {})),
            self._reboot,
        )
        self._begin()

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
                "qemu": qemu_version(self._guest.hardware.guest, self._guest.hardware),
                "hardware": asdict(self._guest.hardware),
                "accelerator": self._guest.accelerator,
                "block_size_bytes": self._blocks.size_bytes,
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
        self._touches.begin()
        if self._watch is None:
            self._perform(step, record)
        elif fault := self._watch.fault_during(lambda: self._perform(step, record)):
            self.crashed = True
            record.faults.append(fault)
            record.outcome = fault_outcome(fault)
        record.events.extend(self._touches.end())
        record.events[:0] = self._hyperv.take_events() if self._hyperv else []
        return record

    def _reboot(self) -> None:
        """Let the guest boot again, up to where it was at the start of its scenario."""
        self._guest.reboot()
        self._prepare()
        self._begin()

    def _begin(self) -> None:
        """Drop what was logged while the guest booted, and write its parameters."""
        self._guest.kernel_log()
        if self._tunables is not None:
            outcome = self._steps.set_tunables(self._tunables)
            if not outcome:
                raise LabError(f"{outcome.why}: {outcome.errno}")

    def _perform(self, step: Step, record: StepRecord) -> None:
        record.outcome = self._steps.perform(step)
        self._touches.look_at_devices()
        log = self._guest.kernel_log()
        record.events = [Event("kernel-log", line) for line in log]
        record.events.extend(requests(log))
        record.outcome = self._steps.explained(step, record.outcome, log)
