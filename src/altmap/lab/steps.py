"""The steps of a scenario, performed in a guest."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator

from altmap.errors import InputError, LabError
from altmap.lab.balloon import gave_up
from altmap.lab.blocks import GuestBlocks
from altmap.lab.devices import GuestDevices
from altmap.lab.guest import Guest
from altmap.lab.hardware import parameter_word
from altmap.lab.inject import INJECT_MODULE, InjectedVetoes, fail_block_devices
from altmap.lab.state import write_file
from altmap.lab.veto import Vetoes
from altmap.lab.virtio_mem import wait_until_idle
from altmap.lab.workload import GuestUsage
from altmap.scenario import (
    Configure,
    Dump,
    Fill,
    Free,
    HugePages,
    Offline,
    Online,
    Plug,
    Poison,
    Reboot,
    Resize,
    SetTunables,
    Step,
    Unplug,
    Veto,
    Write,
    part_of,
    selected_blocks,
    step_name,
)
from altmap.trace import GUEST_TO_HOST, OK, Event, Outcome

__all__ = ("PARAMETERS", "GuestSteps", "requests")

_MEMORY = "/sys/devices/system/memory"
PARAMETERS = "/sys/module/memory_hotplug/parameters"
_ACPI_HOTPLUG = "/sys/firmware/acpi/hotplug/memory/enabled"
#: Parameters of ``/proc/sys/vm`` that hold 0 or 1.
_SYSCTLS = ("hugetlb_optimize_vmemmap", "movable_gigantic_pages")
_SOFT_OFFLINE = f"{_MEMORY}/soft_offline_page"
#: drivers/virtio/virtio_mem.c: virtio_mem_send_plug_request, ..._unplug_request; dynamic debug.
_REQUEST = re.compile(r"virtio_mem virtio\d+: (un)?plugging memory: (0x[0-9a-f]+ - 0x[0-9a-f]+)$")


class GuestSteps:
    """Performs steps in a guest.

    Parameters
    ----------
    guest : Guest
    blocks : GuestBlocks
    devices : GuestDevices
    reboot : callable
        Lets the guest boot again.
    """

    def __init__(
        self,
        guest: Guest,
        blocks: GuestBlocks,
        devices: GuestDevices,
        reboot: Callable[[], None],
    ) -> None:
        self._guest = guest
        self._blocks = blocks
        self._devices = devices
        self._reboot = reboot
        self._usage = GuestUsage(guest)
        self._vetoes = self._no_vetoes()

    def perform(self, step: Step) -> Outcome:
        """Perform a step, and wait until drivers that go on by themselves are idle.

        Raises
        ------
        InputError
            If QEMU or the lab refuses it, or there is no such block or device.
        LabError
            If the guest dies or does not answer.
        """
        if isinstance(step, Plug | Unplug | Resize):
            self._vetoes.check_no_partial(step_name(step))
        outcome = self._perform(step)
        if self._devices.has_virtio_mem:
            wait_until_idle(self._guest)
        return outcome

    def _no_vetoes(self) -> Vetoes:
        """Return what a kernel that has booted vetoes: nothing."""
        if INJECT_MODULE in self._guest.kernel.modules:
            return InjectedVetoes(self._guest, self._blocks.size_bytes)
        return Vetoes(self._guest)

    def explained(self, step: Step, outcome: Outcome, log: list[str]) -> Outcome:
        """Return the outcome of a performed step with what the kernel logged about it."""
        if isinstance(step, Plug) and self._devices.answers_late(step):
            return self._devices.late_outcome(step, log)
        if not outcome and log:
            name = "ECANCELED" if gave_up(log) else outcome.errno or "?"
            return Outcome.refused(name, "", log[-1])
        return outcome

    def _perform(self, step: Step) -> Outcome:
        match step:
            case Plug():
                return self._devices.plug(step)
            case Unplug():
                return self._devices.unplug(step)
            case Resize():
                return self._devices.resize(step)
            case Configure():
                raise InputError("configure: no lab has standby memory")
            case Online():
                return self._write_states(step, step.to)
            case Offline():
                return self._write_states(step, "offline")
            case Fill():
                return self._usage.fill(step)
            case Free():
                return self._usage.free(step.id)
            case HugePages():
                return self._usage.set_pool(step)
            case Poison():
                return self._write(_SOFT_OFFLINE, hex(step.address))
            case Veto():
                self._vetoes.set(step)
            case Dump():
                raise InputError("dump: no lab reads one")
            case Write():
                if step.dax_device is not None:
                    return self._devices.write_dax_state(step.dax_device, step.word)
                return self._write(step.file, step.word, step.file)
            case Reboot():
                self._reboot()
                self._usage = GuestUsage(self._guest)
                self._vetoes = self._no_vetoes()
            case SetTunables():
                return self.set_tunables(step)
        return OK

    def set_tunables(self, step: SetTunables) -> Outcome:
        """Write parameters of the running kernel, up to the first that it does not have.

        Raises
        ------
        InputError
            If a parameter is one of the model only.
        LabError
            If a write is refused.
        """
        for name in step.__struct_fields__:
            value = getattr(step, name)
            if name == "name" or value is None:
                continue
            if name == "fail_block_devices":
                fail_block_devices(self._guest, fails=value)
                continue
            path, word = f"{PARAMETERS}/{name}", parameter_word(value)
            if name == "auto_online_blocks":
                path = f"{_MEMORY}/{name}"
            elif name == "acpi_memory_hotplug":
                path, word = _ACPI_HOTPLUG, str(int(value))
            elif name in _SYSCTLS:
                path, word = f"/proc/sys/vm/{name}", str(int(value))
            number = write_file(self._guest, path, word)
            if number == errno.ENOENT:
                return Outcome.refused(number, "", path)
            if number:
                raise LabError(f"{path}: {errno.errorcode.get(number, number)}")
        return OK

    def _write(self, path: str, word: str, why: str = "") -> Outcome:
        number = write_file(self._guest, path, word)
        return Outcome.refused(number, "", why) if number else OK

    def _write_states(self, step: Online | Offline, word: str) -> Outcome:
        blocks = selected_blocks(step)
        if blocks is None:
            blocks = part_of(self._devices.blocks_of(step.id or ""), step.part)
        return self._blocks.write_states(blocks, word, self._vetoes)


def requests(log: list[str]) -> Iterator[Event]:
    """Yield what a virtio-mem driver asked of its device, in words that a prediction has too."""
    for line in log:
        match = _REQUEST.search(line)
        if match is not None:
            verb = "UNPLUG" if match[1] else "PLUG"
            yield Event("driver", f"{GUEST_TO_HOST}{verb} {match[2]}")
