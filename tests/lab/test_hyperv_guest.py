"""A Hyper-V host and a real guest: packets through the guest's shell, and what backs memory."""

import re
from pathlib import Path

import pytest

from altmap.errors import InputError, LabError
from altmap.lab import hyperv, process
from altmap.lab.hardware import hardware_of
from altmap.lab.hidden_dimm import back_frames, backable_pages
from altmap.lab.hyperv import LabHyperv
from altmap.lab.kernels import KernelFiles
from altmap.lab.qemu import Hardware, Payload, qemu_arguments
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.shell import CommandResult
from altmap.lab.target import LabMachine, run_in_guest
from altmap.pfn import PfnRange
from altmap.protocol.hyperv_messages import (
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    PageRange,
    StatusReport,
    VersionRequest,
    VersionResponse,
    decode,
    encode,
)
from altmap.scenario import Address, Machine, Plug, Region, Resize, Scenario, Size
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST

GIB = 1 << 30
REGION = PfnRange(0x100000, 0x200000)
VERSION = VersionRequest(trans_id=1, major=2, minor=0, is_last_attempt=False)
CAPABILITIES = CapabilitiesReport(trans_id=2, balloon=True, hot_add=True, hot_add_alignment=7)
STATUS = StatusReport(trans_id=9, num_avail=1, num_committed=1)
ADDED = HotAddResponse(trans_id=3, page_count=0x4000, result=1)


class Guest:
    """A guest whose driver sends what it is told, and keeps what it gets."""

    def __init__(self, *messages, probe_result="0"):
        self.sends = [encode(message).hex() for message in messages]
        self.probe_result = probe_result
        self.got, self.backed = [], []
        self.hardware = Hardware(hidden_dimms=True)
        self.kernel = self
        self.modules = ()
        self.touches = None  # no plugin tells of touched frames
        self.qmp = self

    def run(self, command, limit_seconds=None):
        sent = re.match(r"echo ([0-9a-f]+) \| xxd -r -p \| dd of=/dev/altmap-vmbus", command)
        if sent:
            self.got.append(decode(bytes.fromhex(sent[1])))
            return CommandResult(0, b"")
        if "dd if=/dev/altmap-vmbus" in command:
            text = self.sends.pop(0) if self.sends else ""
            return CommandResult(0, text.encode())
        if "probe_result" in command:
            return CommandResult(0, self.probe_result.encode())
        return CommandResult(0, b"")

    def console(self):
        return "its console"

    def execute(self, command, **arguments):
        self.backed.append((command, arguments))


@pytest.fixture(autouse=True)
def no_modules(monkeypatch):
    monkeypatch.setattr(hyperv, "load_module", lambda *_: None)


def plug(id_="hv", address=4 * GIB, size=64 << 20, region=None):
    return Plug(id=id_, driver="hyperv", address=Address(address), size=Size(size), region=region)


def test_a_plug_connects_backs_and_asks():
    guest = Guest(VERSION, CAPABILITIES, ADDED)
    host = LabHyperv(guest, REGION)
    assert host.plug(plug())
    assert guest.got == [
        VersionResponse(trans_id=1, is_accepted=True),
        CapabilitiesResponse(trans_id=2, is_accepted=True),
        HotAddRequest(trans_id=1, pages=PageRange(0x100000, 0x4000)),
    ]
    assert [command for command, _ in guest.backed] == ["object-add", "device_add"]
    assert guest.backed[1][1]["addr"] == 4 * GIB
    assert guest.backed[0][1]["size"] == 64 << 20


def test_messages_are_events_byte_for_byte_and_taken_once():
    host = LabHyperv(Guest(VERSION, CAPABILITIES, STATUS, ADDED), REGION)
    host.plug(plug())
    events = host.take_events()
    expected = [
        VERSION,
        VersionResponse(trans_id=1, is_accepted=True),
        CAPABILITIES,
        CapabilitiesResponse(trans_id=2, is_accepted=True),
        HotAddRequest(trans_id=1, pages=PageRange(0x100000, 0x4000)),
        STATUS,
        ADDED,
    ]
    assert [decode(event.message) for event in events] == expected
    assert {event.kind for event in events} == {"driver"}
    directions = [event.text.startswith(GUEST_TO_HOST) for event in events]
    assert directions == [True, False, True, False, False, True, True]
    assert events[1].text.startswith(HOST_TO_GUEST)
    assert host.take_events() == []


def test_a_region_and_all_that_is_backed_come_before_what_the_host_places():
    guest = Guest(VERSION, CAPABILITIES, ADDED)
    host = LabHyperv(guest, REGION)
    assert host.end_pfn == REGION.start
    region = Region(address=Address(4 * GIB), size=Size(256 << 20))
    host.plug(plug(region=region))
    assert guest.got[-1].region == PageRange(0x100000, 0x10000)
    assert host.end_pfn == 0x110000
    assert host.assigned_nr_pages == (GIB + (64 << 20)) // 4096


def test_nothing_added_is_a_refusal_whose_reason_only_the_log_knows():
    refused = HotAddResponse(trans_id=3, page_count=0, result=0)
    outcome = LabHyperv(Guest(VERSION, CAPABILITIES, refused), REGION).plug(plug())
    assert (outcome.status, outcome.errno) == ("refused", "?")


def test_a_driver_that_does_not_answer_is_one_line_with_the_console():
    with pytest.raises(LabError, match="hv_balloon does not answer within 300 s") as caught:
        LabHyperv(Guest(VERSION, CAPABILITIES), REGION).plug(plug())
    assert caught.value.console == "its console"


def test_a_probe_that_fails_is_one_line():
    with pytest.raises(LabError, match=r"hv_balloon: its probe fails: -110"):
        LabHyperv(Guest(VERSION, CAPABILITIES, probe_result="-110"), REGION).plug(plug())


def test_a_driver_that_takes_no_message_is_one_line(monkeypatch):
    guest = Guest(VERSION)
    answer = guest.run

    def run(command, limit_seconds=None):
        if command.startswith("echo "):
            return CommandResult(1, b"dd: writing: Transport endpoint is not connected\n")
        return answer(command, limit_seconds)

    monkeypatch.setattr(guest, "run", run)
    with pytest.raises(LabError, match="takes no message: dd: writing"):
        LabHyperv(guest, REGION).plug(plug())


@pytest.mark.parametrize(("address", "size"), [(4 * GIB + 4096, 2 << 20), (4 * GIB, 1 << 20)])
def test_what_qemu_cannot_back_is_refused_before_it_is_asked(address, size):
    with pytest.raises(InputError, match="QEMU backs multiples of 0x200000 bytes"):
        backable_pages("hv", address, size)
    assert backable_pages("hv", 4 * GIB, 2 << 20) == PfnRange(0x100000, 0x100200)


def test_a_range_that_qemu_refuses_leaves_nothing():
    class Refusing(Guest):
        def execute(self, command, **arguments):
            super().execute(command, **arguments)
            if command == "device_add":
                raise QemuRefusedError("QEMU refused device_add: no free slots available")

    guest = Refusing()
    with pytest.raises(InputError, match="no free slots"):
        back_frames(guest, "balloon:1", PfnRange(0x100000, 0x100200))
    added, _, deleted = guest.backed
    assert deleted == ("object-del", {"id": added[1]["id"]})


# --- QEMU's arguments and its log ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "no_hibernation"),
    [("pc", "PIIX4_PM.disable_s4=1"), ("q35", "ICH9-LPC.disable_s4=1")],
)
def test_a_guest_with_hidden_dimms_cannot_hibernate_and_its_accesses_are_logged(
    machine, no_hibernation
):
    hardware = Hardware(machine=machine, hidden_dimms=True)
    payload = Payload(Path("vmlinuz"), "", 5)
    log = ("invalid_mem", 9)
    words = " ".join(qemu_arguments(hardware, "tcg", payload, 6, 7, 8, log=log))
    assert f"-global {no_hibernation}" in words
    assert "-d invalid_mem -D /dev/fd/9" in words
    plain = " ".join(qemu_arguments(Hardware(machine=machine), "tcg", payload, 6, 7, 8))
    assert " -global " not in plain
    assert " -d " not in plain


@pytest.mark.parametrize("item", ["invalid_mem", "guest_errors"])
def test_accesses_are_logged_under_the_name_that_qemu_has(item, tmp_path, monkeypatch):
    program = tmp_path / "qemu-of-the-test"
    program.write_text(f'#!/bin/sh\nprintf "Log items\\n%s   log when\\n" {item}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    process._log_item.cache_clear()
    assert process._log_item(program.name) == item


class Touching(Guest):
    """A guest whose kernel touches a frame that is not backed when it is asked to add memory."""

    def __init__(self, log, *, ends=True):
        super().__init__(VERSION, CAPABILITIES)
        self.access_log, self.ends = log, ends
        self.kernel = KernelFiles("6.12", Path("k"), Path("b"), Path("m"), {})
        self.hypervisor, self.accelerator = None, "tcg"
        self.injected = []

    def run(self, command, limit_seconds=None):
        if "block_size_bytes" in command:
            return CommandResult(0, b"8000000")
        if self.got and isinstance(self.got[-1], HotAddRequest) and "dd if=" in command:
            self.access_log.write(b"Invalid write at addr 0x100000034, size 4, region\n")
            self.access_log.flush()
            if self.ends:
                raise LabError("guest: Kernel panic - not syncing: Fatal local machine check")
            self.sends = [encode(ADDED).hex()]
        if command == "sleep 1000":
            raise LabError("guest: Kernel panic - not syncing: Fatal local machine check")
        return super().run(command, limit_seconds)

    def execute(self, command, **arguments):
        line = arguments.get("command_line", "")
        if line.startswith("mce "):
            self.injected.append(line)
        if line == "info mtree":
            return "  0000000100000000-00000001ffffffff (prio 0, container): device-memory"
        return None

    def kernel_log(self):
        return []

    def console_text(self):
        return "RIP !INEXACT! 10:<ffffffff8135d688> {memmap_init_range+0x178/0x360}"


@pytest.mark.parametrize("ends", [True, False])
def test_a_touched_frame_ends_the_step_and_the_guest(tmp_path, ends):
    with (tmp_path / "log").open("w+b") as log, LabMachine(Touching(log, ends=ends)) as machine:
        first, later = machine.perform(plug()), machine.perform(plug("later"))
        injected = machine._guest.injected
    assert first.outcome.status == "fault"
    assert first.outcome.function == "memmap_init_range"
    assert (first.faults[0].pfn, first.faults[0].access) == (0x100000, "write")
    assert decode(next(event.message for event in first.events if event.message)) == VERSION
    assert machine.crashed
    assert later.outcome.status == "not_reached"
    assert injected == ["mce 0 4 0xbe00000000000134 0x5 0x100000034 0x8c"]


def test_a_guest_that_ends_without_such_an_access_is_an_error(tmp_path):
    class Ending(Touching):
        def run(self, command, limit_seconds=None):
            if "dd if=" in command:
                raise LabError("QEMU ended with status 1: no message")
            return super().run(command, limit_seconds)

    with (tmp_path / "log").open("w+b") as log, LabMachine(Ending(log)) as machine:
        with pytest.raises(LabError, match="QEMU ended"):
            machine.perform(plug())
        assert not machine.crashed


# --- what is refused before a guest boots ------------------------------------------------------


def refusal(machine, *steps):
    with pytest.raises((InputError, LabError)) as caught:
        run_in_guest(Scenario(name="s", machine=machine, steps=list(steps)), lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_host_adds_on_two_machines_only():
    assert "need pc, q35 on x86_64" in refusal(Machine(arch="aarch64"), plug())


def test_dimms_and_a_host_do_not_go_together():
    assert "no other driver" in refusal(Machine(), plug(), Plug(id="d", size=Size(GIB)))


def test_the_flag_is_forced_where_the_kernel_would_use_it():
    forced = Machine(policy="per-block", memmap_on_memory="off")
    assert "memmap_on_memory = 'on'" in refusal(forced, Plug(id="d", size=Size(GIB)))
    forced = Machine(policy="per-block", memmap_on_memory="on", arch="aarch64")
    assert "x86_64 only" in refusal(forced, Resize(id="v", size=Size(GIB)))
    assert "follows opt-in, per-block only" in refusal(Machine(policy="rfc-2018"))


def test_reads_of_frames_that_nothing_backs_can_be_allowed_beside_a_host_only():
    machine = Machine(unbacked_reads="allowed")
    assert hardware_of(machine, hidden_dimms=True).hidden_dimms
    with pytest.raises(InputError, match=r"machine.unbacked_reads 'allowed'"):
        hardware_of(machine)


def test_a_missing_compiler_is_said_before_the_boot(tmp_path, monkeypatch):
    for name in ("qemu-system-x86_64", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(Machine(), plug()) == (
        "gcc is missing: a module for the guest's kernel is compiled here: apt install gcc"
    )


def test_existing_memory_holds_every_memmap_where_the_kernel_is_told_so():
    assert hardware_of(Machine(policy="existing", memmap_on_memory="off"))
    with pytest.raises(InputError, match="follows opt-in, per-block only"):
        hardware_of(Machine(policy="existing", memmap_on_memory="on"))
