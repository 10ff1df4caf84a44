"""Accesses to page frames that are not backed, as QEMU logs them, and the machine check for them.

On real hardware such an access is a machine check. QEMU's software emulation lets the guest go on:
writes are dropped, reads give 0. So the log is followed, and at the first access that counts as a
fault a machine check with its address is injected. The guest panics some milliseconds later.

Source: QEMU's ``softmmu/memory.c: memory_region_access_valid`` (7.2), ``system/memory.c`` (10.0).

Effects: clock, files, processes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.touch_log import FunctionTouches
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Access, Fault, Outcome

__all__ = (
    "MemoryAccess",
    "UnbackedFrames",
    "UnbackedWatch",
    "device_region",
    "fault_of",
    "fault_outcome",
    "function_of_panic",
    "inject_machine_check",
    "parse_accesses",
)

_ACCESS = re.compile(rb"Invalid (read|write) at addr (0x[0-9A-Fa-f]+), size (\d+), ")
_REGION = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16}) \([^)]*\): device-memory")
#: arch/x86/kernel/cpu/mce/core.c: __print_mce.
_RIP = re.compile(r"RIP (?:!INEXACT! )?[0-9a-f]+:<[0-9a-f]+> \{([^+}]+)\+")
_PAGE = 4096
_POLL_SECONDS = 0.005
_CHUNK_BYTES = 1 << 20
#: Bank 4, uncorrected, context corrupt, address valid: what a memory controller reports of a
#: frame that it does not have; arch/x86/kernel/cpu/mce/severity.c ends in a panic.
_MACHINE_CHECK = "mce 0 4 0xbe00000000000134 0x5 {address:#x} 0x8c"


class MemoryAccess(NamedTuple):
    """One access to guest-physical memory: ``read`` or ``write``, its address, its size."""

    access: Access
    address: int
    size_bytes: int


def parse_accesses(text: bytes) -> Iterator[MemoryAccess]:
    """Yield the accesses that whole lines of QEMU's log tell, in their order."""
    for match in _ACCESS.finditer(text):
        access: Access = "read" if match[1] == b"read" else "write"
        yield MemoryAccess(access, int(match[2], 16), int(match[3]))


@dataclass(slots=True)
class UnbackedFrames:
    """What was touched.

    Attributes
    ----------
    read, written : PfnSet
        Page frames.
    first : MemoryAccess or None
        The first access that counts as a fault.
    """

    read: PfnSet = field(default_factory=PfnSet)
    written: PfnSet = field(default_factory=PfnSet)
    first: MemoryAccess | None = None

    def add(self, access: MemoryAccess, *, is_fault: bool) -> None:
        """Count an access in."""
        last = access.address + access.size_bytes - 1
        frames = PfnRange(access.address // _PAGE, last // _PAGE + 1)
        if access.access == "read":
            self.read |= frames
        else:
            self.written |= frames
        if is_fault and self.first is None:
            self.first = access


def function_of_panic(console: str) -> str:
    """Return the kernel function that a machine check names on the console; empty if none."""
    found = _RIP.search(console)
    return found[1] if found else ""


def device_region(guest: Guest) -> PfnRange:
    """Return the page frames among which QEMU places memory devices.

    Raises
    ------
    LabError
        If the machine has no such region.
    """
    tree = guest.qmp.execute("human-monitor-command", command_line="info mtree")
    found = _REGION.search(tree)
    if found is None:
        raise LabError(f"{guest.hardware.qemu_machine}: QEMU has no room for memory devices")
    return PfnRange(int(found[1], 16) // _PAGE, (int(found[2], 16) + 1) // _PAGE)


class UnbackedWatch:
    """Follows QEMU's log while a guest runs, in a thread of its own; closed by :meth:`close`.

    Parameters
    ----------
    log : file
        Grows while the guest runs.
    region : PfnRange
        Where accesses count: a kernel that looks for devices touches unmapped memory elsewhere.
    inject : callable
        Given the address of the first fault.
    reads_fault : bool
        Whether a read is a fault as well; a write always is.
    """

    def __init__(
        self,
        log: IO[bytes],
        region: PfnRange,
        inject: Callable[[int], None],
        *,
        reads_fault: bool,
    ) -> None:
        self._log = log
        self._region = region
        self._inject = inject
        self._reads_fault = reads_fault
        self._offset = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.frames = UnbackedFrames()
        self._thread = threading.Thread(target=self._follow, name="unbacked", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; may be called again."""
        self._ended.set()
        self._thread.join()

    def look(self) -> UnbackedFrames:
        """Read what the log has by now; return all that was touched so far."""
        with self._lock:
            while self._read():
                pass
        return self.frames

    def _follow(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                more = self._read()
            if not more:
                time.sleep(_POLL_SECONDS)

    def _read(self) -> bool:
        """Read one piece of the log; tell whether there may be more."""
        text = os.pread(self._log.fileno(), _CHUNK_BYTES, self._offset)
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        unharmed = self.frames.first is None
        for access in parse_accesses(whole):
            if self._region.start <= access.address // _PAGE < self._region.end:
                is_fault = self._reads_fault or access.access == "write"
                self.frames.add(access, is_fault=is_fault)
                if unharmed and self.frames.first is not None:
                    unharmed = False
                    self._inject(self.frames.first.address)
        return len(text) == _CHUNK_BYTES


def fault_of(
    frames: UnbackedFrames, console: str, touches: FunctionTouches | None = None
) -> Fault | None:
    """Return the fault that ended a guest; ``None`` if nothing unbacked was touched.

    Its page frames are those of the function that touched the first one, where *touches* tell them;
    else those that the same kind of access touched until the guest ended.
    """
    if frames.first is None:
        return None
    access = frames.first.access
    if touches is None:
        pfns = (frames.read if access == "read" else frames.written).copy()
        touches = FunctionTouches(access, function_of_panic(console) or "unknown", pfns)
    return Fault(
        pfn=frames.first.address // _PAGE,
        access=access,
        function=touches.function,
        pfns=touches.pfns,
        kind="machine check",
    )


def fault_outcome(fault: Fault) -> Outcome:
    """Return the outcome of a step that ends so."""
    why = (
        f"{fault.kind}: {fault.access} of pfn {fault.pfn:#x} by {fault.function}, "
        f"{len(fault.pfns)} {fault.what}"
    )
    return Outcome("fault", function=fault.function, why=why)


def inject_machine_check(guest: Guest, address: int) -> None:
    """Tell a guest's CPU that memory at an address failed, which a kernel does not survive."""
    command = _MACHINE_CHECK.format(address=address)
    guest.qmp.execute("human-monitor-command", command_line=command)
