"""Hyper-V's dynamic memory in a guest that does not run on Hyper-V.

Debian's ``hv_balloon`` runs on the lab's VMBus (``guest_modules/vmbus.c``), whose host is a
character device in the guest. The host's half is :mod:`altmap.protocol.hyperv_host`; its packets
go through the guest's shell. What the host backs are DIMMs of which Linux is not told.

Effects: clock.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

from altmap.errors import LabError
from altmap.lab.build import build_module, rename_symbols
from altmap.lab.guest import Guest
from altmap.lab.hidden_dimm import back_frames, backable_pages
from altmap.lab.insmod import load_module
from altmap.lab.kernels import KernelFiles
from altmap.lab.modules import module_files
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_host import (
    HYPERV_PAGE_BYTES,
    DynamicMemoryHost,
    check_hot_add,
)
from altmap.protocol.hyperv_messages import (
    CapabilitiesResponse,
    Message,
    StatusReport,
    decode,
    describe,
    encode,
    guest_function,
)
from altmap.scenario import Plug
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST, Event, Outcome

__all__ = ("LabHyperv", "with_hyperv")

_BUS = "hv_vmbus"
_DRIVER = "hv_balloon"
#: The bus where the kernel's is built in: with other names for what it exports.
_RENAMED_BUS, _PREFIX = "altmap_vmbus", "altmap_"
_EXPORTS = (
    "__vmbus_driver_register",
    "vmbus_close",
    "vmbus_open",
    "vmbus_recvpacket",
    "vmbus_sendpacket",
)
_DEVICE = "/dev/altmap-vmbus"
#: No report of memory pressure comes by itself: when one does is chance, and so would be the
#: numbers of all later messages (drivers/hv/hv_balloon.c: post_status).
_PARAMETERS = "pressure_report_delay=4294967295"
#: The driver adds memory in a kernel worker. It comes before the shell, so that the CPU is still at
#: its work when a machine check tells of a touched frame.
_HURRY = (
    "for p in /proc/[0-9]*; do read -r name <$p/comm; case $name in "
    "kworker/[0-9]*) chrt -f -p 1 ${p#/proc/};; esac; done 2>&1"
)
_SEND = "echo {hex} | xxd -r -p | dd of={device} bs=4096 iflag=fullblock 2>&1"
_RECEIVE = "timeout {seconds:d} dd if={device} bs=4096 count=1 2>/dev/null | xxd -p -c 4096"
#: An add waits five seconds for each block that stays offline.
_ANSWER_SECONDS = 300
_PACKET = re.compile(r"([0-9a-f]{2})+")
_PROBE_SECONDS = 60.0
_POLL_SECONDS = 0.1


def with_hyperv(kernel: KernelFiles) -> KernelFiles:
    """Return a kernel with the modules at hand that make up the guest's half.

    Where the kernel's VMBus is a module, the lab's replaces it under its name, and ``hv_balloon``
    is as Debian has built it. Where it is built in (7.3), its names are taken: the lab's exports
    others, which ``hv_balloon`` is changed to use.

    Raises
    ------
    LabError
        If there is no ``hv_balloon``, or the bus cannot be built.
    """
    packaged = module_files(replace(kernel, modules=(_DRIVER,)))
    if _DRIVER not in packaged:
        raise LabError(f"this kernel has no module {_DRIVER} (CONFIG_HYPERV_BALLOON)")
    if _BUS in packaged:
        bus = build_module(kernel, "vmbus.c", _BUS)
        return replace(
            kernel, modules=(*kernel.modules, _DRIVER), built=(*kernel.built, (_BUS, bus))
        )
    bus = build_module(kernel, "vmbus.c", _RENAMED_BUS, prefix=_PREFIX)
    driver = rename_symbols(packaged[_DRIVER], _EXPORTS, _PREFIX)
    return replace(
        kernel,
        modules=(*kernel.modules, _RENAMED_BUS, _DRIVER),
        built=(*kernel.built, (_RENAMED_BUS, bus), (_DRIVER, driver)),
    )


class LabHyperv:
    """A Hyper-V host for a real guest, and the guest as that host deals with it.

    Parameters
    ----------
    guest : Guest
        Of a kernel :func:`with_hyperv`, with DIMMs of which it is not told.
    region : PfnRange
        Where QEMU places memory devices.
    """

    def __init__(self, guest: Guest, region: PfnRange) -> None:
        self._guest = guest
        self._region = region
        self._events: list[Event] = []
        #: What the host backs besides boot memory, by the id of the step or request.
        self._backed: dict[str, PfnRange] = {}
        self._named_end = 0
        self.host = DynamicMemoryHost(self)

    def take_events(self) -> list[Event]:
        """Return the messages since the previous call, in their order."""
        taken, self._events = self._events, []
        return taken

    def plug(self, step: Plug) -> Outcome:
        """Back a range and ask the guest to add it.

        Raises
        ------
        InputError
            If QEMU cannot back it, or a request cannot name it.
        """
        assert step.address is not None  # checked with the scenario
        pages = backable_pages(step.id, step.address, step.size)
        region = None
        if step.region is not None:
            region = backable_pages(step.id, step.region.address, step.region.size)
            self._named_end = max(self._named_end, region.end)
        check_hot_add(step.id, pages, region)
        return self.host.hot_add(step.id, pages, region)

    def resize(self, id_: str, size_bytes: int) -> Outcome:
        """Let the guest have that much memory in all.

        Raises
        ------
        InputError
            As :meth:`DynamicMemoryHost.resize`.
        """
        return self.host.resize(id_, size_bytes)

    # --- the guest, as the host deals with it ----------------------------------------------

    @property
    def assigned_nr_pages(self) -> int:
        """What the guest has: boot memory and what was added, less what was taken."""
        boot = self._guest.hardware.memory_bytes // HYPERV_PAGE_BYTES
        return boot + sum(map(len, self._backed.values())) - len(self.host.removed)

    @property
    def end_pfn(self) -> int:
        """The page frame behind all that the host has named."""
        ends = [pages.end for pages in self._backed.values()]
        return max([self._region.start, self._named_end, *ends])

    def open(self) -> None:
        """Load bus and driver, which asks for a version."""
        if _RENAMED_BUS in self._guest.kernel.modules:
            load_module(self._guest, _RENAMED_BUS)
        load_module(self._guest, _DRIVER, _PARAMETERS)
        self._guest.run(_HURRY)

    def send(self, message: Message) -> None:
        """Give the guest's driver a message.

        Raises
        ------
        LabError
            If the driver takes none.
        """
        raw = encode(message)
        text = HOST_TO_GUEST + describe(message)
        self._events.append(Event("driver", text, function=guest_function(message), message=raw))
        result = self._guest.run(_SEND.format(hex=raw.hex(), device=_DEVICE))
        if result.status:
            raise LabError(f"{_DRIVER} takes no message: {result.text.strip()}")
        if isinstance(message, CapabilitiesResponse):
            self._wait_until_probed()

    def receive(self) -> Message:
        """Return the driver's next message; reports of pressure are written down and left out.

        Raises
        ------
        LabError
            If none comes.
        """
        while True:
            command = _RECEIVE.format(seconds=_ANSWER_SECONDS, device=_DEVICE)
            text = self._guest.run(command, _ANSWER_SECONDS + 10).text.strip()
            if not _PACKET.fullmatch(text):  # nothing, or the shell's word for a time limit
                raise LabError(
                    f"{_DRIVER} does not answer within {_ANSWER_SECONDS} s", self._guest.console()
                )
            raw = bytes.fromhex(text)
            message = decode(raw)
            told = GUEST_TO_HOST + describe(message)
            self._events.append(
                Event("driver", told, function=guest_function(message), message=raw)
            )
            if not isinstance(message, StatusReport):
                return message

    def back(self, id_: str, pages: PfnRange) -> None:
        """Back a range by a DIMM at its address.

        Raises
        ------
        InputError
            If QEMU cannot.
        """
        back_frames(self._guest, id_, pages)
        self._backed[id_] = pages

    def back_again(self, pages: PfnSet) -> None:
        """Do nothing: what the guest gave is boot memory, which QEMU goes on backing."""

    def take(self, pages: PfnSet) -> None:
        """Do nothing: QEMU goes on backing what the guest gave."""

    def why_not_added(self, pages: PfnRange) -> Outcome:
        """Return a refusal; why is in the kernel's log, if anywhere."""
        return Outcome.refused("?", "hot_add_req", f"nothing of {pages} was added")

    def note(self, text: str, function: str) -> None:
        """Write down what the host could not do."""
        self._events.append(Event("driver", text, function=function))

    def _wait_until_probed(self) -> None:
        deadline = time.monotonic() + _PROBE_SECONDS
        while (result := self._probe_result()) == 1:
            if time.monotonic() > deadline:
                raise LabError(f"{_DRIVER}: its probe does not end", self._guest.console())
            time.sleep(_POLL_SECONDS)
        if result:
            raise LabError(f"{_DRIVER}: its probe fails: {result}", self._guest.console())

    def _probe_result(self) -> int:
        return int(self._guest.run("cat /sys/module/*_vmbus/parameters/probe_result").text)
