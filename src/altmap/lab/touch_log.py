"""The page frames that a guest's kernel touches in one step, by function, as the plugin tells them.

Effects: files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from altmap.lab.guest import Guest
from altmap.lab.process import qemu_version
from altmap.lab.symbols import Symbols, read_symbols
from altmap.lab.touch_plugin import TouchFiles
from altmap.pfn import PfnRange, PfnSet

__all__ = (
    "FunctionTouches",
    "LoggedTouch",
    "TouchLog",
    "by_function",
    "frames_of_fault",
    "parse_touches",
)

_PAGE = 4096
_LINE = re.compile(rb"^([rw]) ([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) (io|ram)$", re.MULTILINE)
_BLOCK = re.compile(r"^ *(\S+) +\S+ [KMG]iB +(0x[0-9a-f]+) ", re.MULTILINE)
#: From it on, QEMU tells a guest-physical address of memory too (plugins/api.c).
_PHYSICAL = (8, 2)


class LoggedTouch(NamedTuple):
    """The first access of one kind by one instruction to a page frame in a step.

    Attributes
    ----------
    access : str
        ``read`` or ``write``.
    address : int
        As QEMU tells it.
    instruction : int
    is_backed : bool
    """

    access: str
    address: int
    instruction: int
    is_backed: bool


@dataclass(slots=True)
class FunctionTouches:
    """What one function did in a step: the frames of one kind of access."""

    access: str
    function: str
    pfns: PfnSet = field(default_factory=PfnSet)


def parse_touches(text: bytes) -> Iterator[LoggedTouch]:
    """Yield what whole lines of the plugin tell, in their order."""
    for match in _LINE.finditer(text):
        access = "write" if match[1] == b"w" else "read"
        yield LoggedTouch(access, int(match[2], 16), int(match[3], 16), match[4] == b"ram")


def by_function(
    touches: Iterable[LoggedTouch], frame_of: Callable[[LoggedTouch], int | None], symbols: Symbols
) -> list[FunctionTouches]:
    """Return the touched frames by kind of access and function, each with the first that did it.

    Frames that *frame_of* does not know are left out.
    """
    found: dict[tuple[str, str], list[int]] = {}
    seen: set[tuple[str, int]] = set()
    for touch in touches:
        pfn = frame_of(touch)
        if pfn is not None and (touch.access, pfn) not in seen:
            seen.add((touch.access, pfn))
            key = touch.access, symbols.name_of(touch.instruction)
            found.setdefault(key, []).append(pfn)
    return [FunctionTouches(*key, _set(pfns)) for key, pfns in found.items()]


def frames_of_fault(
    touches: Iterable[LoggedTouch], symbols: Symbols, *, reads_fault: bool
) -> tuple[FunctionTouches | None, bool]:
    """Return what the function of the first fault touched of frames that are not backed.

    Its frames are those of the same kind of access until another function touches such a frame:
    so many would be lost at once on a machine that ends there.

    Returns
    -------
    (FunctionTouches or None, bool)
        ``None`` if there is no fault; whether another function has touched such a frame since.
    """
    found: FunctionTouches | None = None
    pfns: list[int] = []
    is_over = False
    for touch in touches:
        if touch.is_backed:
            continue
        function = symbols.name_of(touch.instruction)
        if found is None:
            if touch.access == "read" and not reads_fault:
                continue
            found = FunctionTouches(touch.access, function)
        elif function != found.function:
            is_over = True
            break
        if touch.access == found.access:
            pfns.append(touch.address // _PAGE)
    if found is not None:
        found.pfns = _set(pfns)
    return found, is_over


def _set(pfns: list[int]) -> PfnSet:
    return PfnSet(PfnRange(pfn, pfn + 1) for pfn in pfns)


class TouchLog:
    """Follows the plugin of a guest, one step at a time.

    Parameters
    ----------
    guest : Guest
        With the plugin.
    files : TouchFiles
        Of the guest.
    region : PfnRange
        Where QEMU places memory devices; nothing else counts.
    """

    def __init__(self, guest: Guest, files: TouchFiles, region: PfnRange) -> None:
        self._guest = guest
        self._files = files
        self._region = region
        self._offset = 0
        self._tells_physical = _version(qemu_version(guest.hardware.guest)) >= _PHYSICAL
        self._places: dict[str, tuple[int, PfnRange]] = {}
        self.symbols = read_symbols(guest)

    def begin(self) -> None:
        """Begin a step."""
        self._offset = os.fstat(self._files.lines.fileno()).st_size
        first = self._region.start * _PAGE
        # In numbers of QEMU's own, added memory lies behind boot memory.
        self._files.begin(
            first if self._tells_physical else self._guest.hardware.memory_bytes, first
        )
        self._places = {}  # of devices that have left
        self.look_at_devices()

    def so_far(self) -> list[LoggedTouch]:
        """Return the touches of the present step, in their order."""
        end = os.fstat(self._files.lines.fileno()).st_size
        text = os.pread(self._files.lines.fileno(), end - self._offset, self._offset)
        return list(parse_touches(text))

    def end(self) -> list[FunctionTouches]:
        """End the step, and return what was touched of memory devices and of what is not backed."""
        self._files.end()
        return by_function(self.so_far(), self.frame_of, self.symbols)

    def fault(self, *, reads_fault: bool) -> tuple[FunctionTouches | None, bool]:
        """Return the first fault of the present step, as :func:`frames_of_fault`."""
        return frames_of_fault(self.so_far(), self.symbols, reads_fault=reads_fault)

    def look_at_devices(self) -> None:
        """Note where memory devices are; called before one leaves and after one has come."""
        if self._tells_physical:
            return
        blocks = self._guest.qmp.execute("human-monitor-command", command_line="info ramblock")
        offsets = {name.rpartition("/")[2]: int(at, 16) for name, at in _BLOCK.findall(blocks)}
        for device in self._guest.qmp.execute("query-memory-devices"):
            data = device["data"]
            name = str(data["memdev"]).rpartition("/")[2]
            address = data["addr"] if "addr" in data else data["memaddr"]
            pages = PfnRange(address // _PAGE, (address + data["size"]) // _PAGE)
            self._places[name] = offsets[name] + address - self._region.start * _PAGE, pages

    def frame_of(self, touch: LoggedTouch) -> int | None:
        """Return the page frame of a touch; ``None`` if it is of no memory device.

        Before 8.2 QEMU tells of memory the sum of two offsets (plugins/api.c:
        qemu_plugin_hwaddr_phys_addr): of a device's memory among all memory, and of the device in
        the region. If two devices fit a sum, which one is meant is not known: neither is.
        """
        if not touch.is_backed or self._tells_physical:
            pfn = touch.address // _PAGE
            return pfn if self._region.start <= pfn < self._region.end else None
        found = [
            pages.start + (touch.address - first) // _PAGE
            for first, pages in self._places.values()
            if 0 <= touch.address - first < len(pages) * _PAGE
        ]
        return found[0] if len(found) == 1 else None


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"version (\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0, 0)
