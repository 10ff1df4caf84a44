"""Accesses to frames that nothing backs: QEMU's log read, and what ends a guest."""

import tempfile
import time

import pytest

from altmap.errors import LabError
from altmap.lab.unbacked import (
    MemoryAccess,
    UnbackedFrames,
    UnbackedWatch,
    device_region,
    fault_of,
    fault_outcome,
    function_of_panic,
    parse_accesses,
)
from altmap.pfn import PfnRange, PfnSet

# As QEMU 7.2 and 10.0 write them; other lines of the same log lie between.
LOG = b"""\
Invalid read at addr 0xFED40000, size 4, region '(null)', reason: rejected
some other complaint of a device
Invalid write at addr 0x100000034, size 4, region '(null)', reason: rejected
Invalid write at addr 0x100000FFC, size 8, region '(null)', reason: rejected
Invalid read at addr 0x104000000, size 1, region '(null)', reason: rejected
"""
REGION = PfnRange(0x100000, 0x108000)
# The console of a 6.12 guest.
CONSOLE = """\
[    9.736207] mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: be00000000000134
mce: [Hardware Error]: RIP !INEXACT! 10:<ffffffff8135d688> {memmap_init_range+0x178/0x360}
[    9.741161] mce: [Hardware Error]: TSC a054626fb ADDR 100000000 MISC 8c
[    9.741645] Kernel panic - not syncing: Fatal local machine check
"""


def test_a_log_is_accesses_in_their_order():
    assert list(parse_accesses(LOG)) == [
        MemoryAccess("read", 0xFED40000, 4),
        MemoryAccess("write", 0x100000034, 4),
        MemoryAccess("write", 0x100000FFC, 8),
        MemoryAccess("read", 0x104000000, 1),
    ]


def test_an_access_across_a_boundary_touches_both_frames():
    frames = UnbackedFrames()
    frames.add(MemoryAccess("write", 0x100000FFC, 8), is_fault=True)
    frames.add(MemoryAccess("write", 0x100001FF8, 8), is_fault=True)
    assert frames.written == PfnSet([PfnRange(0x100000, 0x100002)])
    assert not frames.read


def test_the_first_fault_stays_the_first():
    frames = UnbackedFrames()
    for access, is_fault in (("read", False), ("write", True), ("write", True)):
        frames.add(MemoryAccess(access, 0x1000 * (1 + len(frames.written)), 1), is_fault=is_fault)
    assert frames.first == MemoryAccess("write", 0x1000, 1)


@pytest.fixture
def log():
    with tempfile.TemporaryFile() as file:
        yield file


def write(file, text):
    file.write(text)
    file.flush()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


@pytest.fixture
def watch(log):
    """A function that starts to follow the log; what was injected is in the watch's list."""
    started = []

    def start(**changes):
        injected = []
        made = UnbackedWatch(log, REGION, injected.append, **{"reads_fault": True} | changes)
        made.injected = injected
        started.append(made)
        return made

    yield start
    for made in started:
        made.close()
        made.close()


def test_the_first_access_in_the_region_ends_the_guest_once(log, watch):
    follower = watch()
    write(log, LOG)
    until(lambda: follower.injected)
    write(log, LOG)
    frames = follower.look()
    assert follower.injected == [0x100000034]
    assert frames.first == MemoryAccess("write", 0x100000034, 4)
    assert frames.written == PfnSet([PfnRange(0x100000, 0x100002)])
    assert frames.read == PfnSet([PfnRange(0x104000, 0x104001)])


@pytest.mark.parametrize(
    ("address", "counts"),
    [(0xFFFFFFFF, False), (0x100000000, True), (0x107FFFFFF, True), (0x108000000, False)],
)
def test_accesses_outside_of_the_region_do_not_count(log, watch, address, counts):
    follower = watch()
    write(log, b"Invalid write at addr %#x, size 1, region\n" % address)
    assert bool(follower.look().written) is counts
    assert bool(follower.injected) is counts


def test_a_read_is_a_fault_unless_it_is_allowed(log, watch):
    write(log, b"Invalid read at addr 0x100000000, size 8, region\n")
    allowed, fault = watch(reads_fault=False), watch(reads_fault=True)
    assert allowed.look().read == fault.look().read == PfnSet([PfnRange(0x100000, 0x100001)])
    assert (allowed.injected, fault.injected) == ([], [0x100000000])
    write(log, b"Invalid write at addr 0x100001000, size 8, region\n")
    allowed.look()
    assert allowed.injected == [0x100001000]


def test_half_a_line_waits_for_its_end(log, watch):
    follower = watch()
    write(log, b"Invalid write at addr 0x1000")
    assert follower.look().first is None
    write(log, b"00034, size 4, region '(null)', reason: rejected\n")
    assert follower.look().first == MemoryAccess("write", 0x100000034, 4)


def test_a_machine_check_names_the_function():
    assert function_of_panic(CONSOLE) == "memmap_init_range"
    exact = "RIP 10:<ffffffffc0001234> {hv_online_page+0x10/0x90 [hv_balloon]}"
    assert function_of_panic(exact) == "hv_online_page"
    assert function_of_panic("Kernel panic - not syncing: out of memory") == ""


def test_a_fault_has_the_frames_of_its_kind_of_access():
    frames = UnbackedFrames()
    for access in parse_accesses(LOG[LOG.index(b"Invalid write") :]):
        frames.add(access, is_fault=True)
    fault = fault_of(frames, CONSOLE)
    assert (fault.pfn, fault.access, fault.function) == (0x100000, "write", "memmap_init_range")
    assert fault.pfns == PfnSet([PfnRange(0x100000, 0x100002)])
    outcome = fault_outcome(fault)
    assert (outcome.status, outcome.function) == ("fault", "memmap_init_range")
    assert "write of pfn 0x100000 by memmap_init_range" in outcome.why


def test_a_guest_that_ends_otherwise_has_no_fault():
    frames = UnbackedFrames()
    frames.add(MemoryAccess("read", 0x100000000, 8), is_fault=False)
    assert fault_of(frames, CONSOLE) is None


class Monitor:
    """QEMU's monitor, which has one answer."""

    def __init__(self, answer):
        self.answer, self.hardware, self.qmp = answer, self, self
        self.qemu_machine = "pc"

    def execute(self, command, **arguments):
        assert (command, arguments) == (
            "human-monitor-command",
            {"command_line": "info mtree"},
        )
        return self.answer


def test_the_region_of_memory_devices_is_what_qemu_says():
    tree = "    0000000100000000-00000018bfffffff (prio 0, container): device-memory\r\n"
    assert device_region(Monitor(tree)) == PfnRange(0x100000, 0x18C0000)
    with pytest.raises(LabError, match="pc: QEMU has no room for memory devices"):
        device_region(Monitor("no such region"))
