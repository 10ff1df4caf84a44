"""A real kernel as a target: the same steps as the model's, performed in a guest."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import msgspec

from altmap.errors import InputError, LabError
from altmap.lab.arches import GuestArch, guest_arch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm, unplug_dimm
from altmap.lab.dlpar import plug_by_dlpar, unplug_by_dlpar
from altmap.lab.guest import Guest
from altmap.lab.kernels import fetch
from altmap.lab.process import check_programs, qemu_version
from altmap.lab.qemu import Hardware
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.snapshot import booted
from altmap.lab.state import write_block_state, write_file
from altmap.lab.written import written_pages
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.pfn import PfnRange
from altmap.release import DEFAULT_RELEASE
from altmap.runner import run_scenario
from altmap.scenario import (
    Dump,
    Fill,
    Free,
    Machine,
    Offline,
    Online,
    Plug,
    Resize,
    Scenario,
    SetTunables,
    Step,
    Unplug,
    part_of,
    selected_blocks,
    step_name,
)
from altmap.trace import OK, Event, Outcome, StepRecord, Trace

__all__ = ("LabMachine", "cmdline_of", "hardware_of", "run_in_guest")

_MEMORY = "/sys/devices/system/memory"
_PARAMETERS = "/sys/module/memory_hotplug/parameters"
#: What the kernel logs when an add is refused, and the errno that it stands for.
_ADD_REFUSALS = (
    (re.compile(r"unaligned hotplug range"), "EINVAL", "check_hotplug_memory_range"),
    (re.compile(r"cannot be added"), "EEXIST", "register_memory_resource"),
    (re.compile(r"exceeds"), "E2BIG", "mhp_range_allowed"),
    (re.compile(r"allocation failure|vmemmap alloc failure"), "ENOMEM", "vmemmap_populate"),
)
_DEFAULT_MEMORY = 1 << 30
_FILES = "/files"
_MOUNT = f"mount -t tmpfs -o size=100% files {_FILES}"
_FILL_SECONDS = 120.0
_PAGE = 4096


def hardware_of(machine: Machine) -> Hardware:
    """Return the guest's hardware for a scenario's machine.

    Raises
    ------
    InputError
        If the machine asks for what these guests cannot be.
    """
    guest = guest_arch("x86_64" if machine.arch is None else machine.arch)
    machines = dict(guest.platforms)
    for key, value, allowed in (
        ("policy", machine.policy, (None, "opt-in")),
        ("block_size", machine.block_size, (None,)),
        ("devices", machine.devices or None, (None,)),
        ("debug_vm", machine.debug_vm, (None, False)),
        ("mmu", machine.mmu, (None, "radix", "hash") if guest.family == "ppc64le" else (None,)),
        ("unbacked_reads", machine.unbacked_reads, ("fault",)),
    ):
        if value not in allowed:
            raise InputError(f"machine.{key} {value!r}: a real kernel cannot be given another one")
    if machine.platform not in (None, *machines):
        raise InputError(
            f"machine.platform {machine.platform!r}: {guest.name} has {', '.join(machines)}"
        )
    nodes = tuple(int(node.memory) for node in machine.nodes)
    memory = int(machine.memory or sum(nodes) or _DEFAULT_MEMORY)
    return Hardware(
        memory_bytes=memory,
        maxmem_bytes=max(64 << 30, 2 * memory + (64 << 30)),
        smp=machine.cpus or 1,
        machine=machines[machine.platform] if machine.platform else "",
        node_bytes=nodes,
        arch=guest.name,
    )


def cmdline_of(machine: Machine) -> str:
    """Return the kernel parameters that a scenario's machine sets and a running kernel cannot."""
    mode = {"off": "0", "on": "1", "force": "force"}
    words = {
        "memory_hotplug.memmap_on_memory": mode.get(machine.memmap_on_memory or ""),
    }
    text = [f"{name}={_word(value)}" for name, value in words.items() if value is not None]
    text += ["movable_node"] if machine.movable_node else []
    text += ["disable_radix"] if machine.mmu == "hash" else []
    return " ".join(text)


def run_in_guest(
    scenario: Scenario, progress: Callable[[str], None], *, watch_writes: bool = False
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
    watch_writes : bool
        Note after each step what was written in the first block of each DIMM (x86_64).

    Raises
    ------
    InputError
        If a step cannot be asked of the guest.
    LabError
        If the kernel cannot be had, or the guest does not boot or dies.
    """
    machine = scenario.machine
    release = DEFAULT_RELEASE if machine.release is None else machine.release
    hardware, cmdline = hardware_of(machine), cmdline_of(machine)
    _check_steps(scenario, hardware.guest)
    check_programs(hardware.guest)
    kernel = fetch(release, arch=hardware.arch)
    progress(f"{scenario.name}: Linux {release} ({hardware.arch}) boots in QEMU")
    with booted(kernel, hardware, cmdline) as guest:
        target = LabMachine(guest, watch_writes=watch_writes)
        target.set_tunables(
            SetTunables(
                auto_online_blocks=machine.auto_online_blocks,
                online_policy=machine.online_policy,
                auto_movable_ratio=machine.auto_movable_ratio,
                auto_movable_numa_aware=machine.auto_movable_numa_aware,
            )
        )
        return run_scenario(scenario, target, progress), target.sysroots


def _check_steps(scenario: Scenario, guest: GuestArch) -> None:
    """Refuse before the boot what would be refused after it."""
    for step in scenario.steps:
        if isinstance(step, Plug) and step.driver == "dimm" and not guest.dimm:
            raise InputError(f"plug {step.id!r}: no DIMM on {guest.name}: {guest.no_dimm}")


class LabMachine:
    """A guest on which steps are performed.

    Parameters
    ----------
    guest : Guest
        Booted with :func:`hardware_of` and :func:`cmdline_of` of the scenario's machine. What a
        running kernel can be told is told then, so that more scenarios share a boot.
    """

    def __init__(self, guest: Guest, *, watch_writes: bool = False) -> None:
        self._guest = guest
        self._watch_writes = watch_writes
        self._devices: dict[str, tuple[int, int]] = {}
        self._checksums: dict[str, str] = {}
        self.sysroots: list[Sysroot] = []
        self._dimms = guest.hardware.guest.dimm
        self.notes: list[str] = []
        self.crashed = False
        self._block_size = int(guest.run(f"cat {_MEMORY}/block_size_bytes").text, 16)
        guest.kernel_log()

    @property
    def identity(self) -> dict[str, Any]:
        """The trace's heading: which kernel, in which machine."""
        kernel = self._guest.kernel
        return {
            "target": "lab",
            "release": kernel.release,
            "policy": "as the kernel has it",
            "machine": {
                "arch": kernel.arch,
                "packages": dict(kernel.versions),
                "qemu": qemu_version(self._guest.hardware.guest),
                "hardware": asdict(self._guest.hardware),
                "accelerator": self._guest.accelerator,
                "block_size_bytes": self._block_size,
            },
        }

    def observe(self) -> Observation:
        """Look at the guest's files, and keep them as they are in ``sysroots``."""
        self.sysroots.append(capture(self._guest))
        return Observation.read(self.sysroots[-1])

    def perform(self, step: Step) -> StepRecord:
        """Perform one step.

        Raises
        ------
        InputError
            If QEMU refuses it, or there is no such block or device.
        LabError
            If the guest dies or does not answer.
        """
        record = StepRecord(step_name(step), msgspec.to_builtins(step, enc_hook=int), OK)
        match step:
            case Plug(driver="dimm"):
                record.outcome = self._plug(step)
            case Plug():
                raise InputError(f"driver {step.driver!r}: no lab runs it, only 'dimm'")
            case Unplug():
                record.outcome = self._unplug(step)
            case Resize():
                raise InputError(f"resize {step.id!r}: no lab device can be resized")
            case Online():
                record.outcome = self._write_states(step, step.to)
            case Offline():
                record.outcome = self._write_states(step, "offline")
            case Fill():
                record.outcome = self._fill(step)
            case Free():
                record.outcome = self._free(step)
            case Dump():
                raise InputError("dump: no lab reads one; every page of a guest here is backed")
            case SetTunables():
                record.outcome = self.set_tunables(step)
        log = self._guest.kernel_log()
        record.events = [Event("kernel-log", line) for line in log]
        if isinstance(step, Plug) and self._dimms == "acpi":
            record.outcome = self._judge_plug(step, log)
        elif not record.outcome and log:
            record.outcome = Outcome.refused(record.outcome.errno or "?", "", log[-1])
        if self._watch_writes and not isinstance(step, Unplug):
            record.events.extend(self._written())
        return record

    def _written(self) -> Iterator[Event]:
        for address, size in self._devices.values():
            first = PfnRange(address // _PAGE, (address + min(size, self._block_size)) // _PAGE)
            pages = written_pages(self._guest, first)
            yield Event("write", f"{len(pages)} pages are not zero any more", pages)

    def _plug(self, step: Plug) -> Outcome:
        address = None if step.address is None else int(step.address)
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
        if self._guest.run(f"test -d {_MEMORY}/memory{first}").status == 0:
            return OK
        for line in log:
            for pattern, name, function in _ADD_REFUSALS:
                if pattern.search(line):
                    return Outcome.refused(name, function, line)
        return Outcome.refused("?", "", log[-1] if log else "no memory block appeared")

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
        return Outcome.refused("EBUSY", "", f"_OST status {result.ost_status:#x}")

    def _device(self, id_: str) -> tuple[int, int]:
        if id_ not in self._devices:
            known = ", ".join(map(repr, self._devices)) or "none is plugged"
            raise InputError(f"device {id_!r}: no such device ({known})")
        return self._devices[id_]

    def _blocks(self, step: Online | Offline) -> list[int]:
        ids = selected_blocks(step)
        if ids is None:
            address, size = self._device(step.id or "")
            end = -(-(address + size) // self._block_size)
            ids = part_of(range(address // self._block_size, end), step.part)
        return ids

    def _write_states(self, step: Online | Offline, word: str) -> Outcome:
        for block in self._blocks(step):
            number = write_block_state(self._guest, block, word)
            if number == errno.ENOENT:
                verb = type(step).__name__.lower()
                raise InputError(f"{verb} memory{block}: there is no such memory block")
            if number:
                return Outcome.refused(number, "", f"memory{block}")
        return OK

    def _fill(self, step: Fill) -> Outcome:
        if step.id in self._checksums:
            raise InputError(f"fill {step.id!r}: a file of that id is there already")
        mounted = f"mkdir -p {_FILES} && (mountpoint -q {_FILES} || {_MOUNT})"
        write = f"head -c {int(step.size)} /dev/urandom >{_FILES}/{step.id}"
        if self._guest.run(f"{mounted} && {write}", _FILL_SECONDS).status:
            self._guest.run(f"rm -f {_FILES}/{step.id}")
            return Outcome.refused("ENOMEM", "", "the file could not be written")
        self._checksums[step.id] = self._checksum(step.id)
        return OK

    def _free(self, step: Free) -> Outcome:
        if step.id not in self._checksums:
            raise InputError(f"free {step.id!r}: no such file")
        if self._checksum(step.id) != self._checksums.pop(step.id):
            raise LabError(f"free {step.id!r}: the file's pages changed since it was written")
        self._guest.run(f"rm {_FILES}/{step.id}")
        return OK

    def _checksum(self, name: str) -> str:
        return self._guest.run(f"sha256sum {_FILES}/{name}", _FILL_SECONDS).text

    def set_tunables(self, step: SetTunables) -> Outcome:
        """Write parameters of the running kernel."""
        for name in step.__struct_fields__:
            value = getattr(step, name)
            if name == "name" or value is None:
                continue
            if name == "fail_block_devices":
                raise InputError(f"set {name}: no failure is injected into a real kernel")
            folder = _MEMORY if name == "auto_online_blocks" else _PARAMETERS
            number = write_file(self._guest, f"{folder}/{name}", _word(value))
            if number:
                raise LabError(f"{folder}/{name}: {errno.errorcode.get(number, number)}")
        return OK


def _word(value: object) -> str:
    return ("Y" if value else "N") if isinstance(value, bool) else str(value)
