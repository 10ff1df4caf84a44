"""``/proc/iomem``: the physical address space, as a tree of named resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from altmap.errors import InputError
from altmap.linux.lines import Line, lines

__all__ = (
    "DriverMemory",
    "Resource",
    "addresses_hidden",
    "crash_kernel",
    "driver_memory",
    "parse",
    "render",
    "require_addresses",
    "system_ram",
)

_LINE = re.compile(r"((?:  )*)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")

#: Resources with the flag IORESOURCE_SYSTEM_RAM, which the kernel goes by (kernel/resource.c:
#: walk_system_ram_range). On s390x "Crash kernel" is not inside System RAM but beside it
#: (kernel/crash_core.c: crashk_res; arch/s390/kernel/setup.c: setup_resources).
_RAM = re.compile(r"System RAM.*|Crash kernel|Kernel (?:code|rodata|data|bss)")
_DRIVER = re.compile(r"System RAM \((.+)\)")
#: Devices that hold the memory of a driver whatever its own name is: before 5.8 kmem's was called
#: System RAM (drivers/dax/kmem.c: dev_dax_kmem_probe, 5.1).
_HOLDERS = (
    (re.compile(r"dax[0-9]+\.[0-9]+"), "kmem"),
    (re.compile(r"virtio[0-9]+"), "virtio_mem"),
)


class Resource(NamedTuple):
    """One line of ``/proc/iomem``: bytes ``[start, end)`` (the file shows an inclusive end)."""

    depth: int
    start: int
    end: int
    name: str


def parse(text: str) -> tuple[Resource, ...]:
    """Return the resources in file order; ``depth`` tells which earlier one holds each."""
    resources: list[Resource] = []
    deepest = 0
    every = list(lines(text))
    for line in every:
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need 'start-end : name' in hex, indented by two per level")
        depth, start, last = len(match[1]) // 2, int(match[2], 16), int(match[3], 16)
        if depth > deepest:
            raise line.error("need a line one level up before it", _last_nr_inside(every, line))
        if last < start:
            raise line.error("need start <= end")
        resources.append(Resource(depth, start, last + 1, match[4]))
        deepest = depth + 1
    return tuple(resources)


def _last_nr_inside(every: list[Line], line: Line) -> int:
    """Return the number of the last line that is as deep as *line*, of those that follow it."""
    depth = len(line.text) - len(line.text.lstrip(" "))
    inside = takewhile(lambda each: each.text.startswith(" " * depth), every[line.nr :])
    return max((each.nr for each in inside), default=line.nr)


def render(resources: Sequence[Resource]) -> str:
    """Return the file."""
    return "".join(
        f"{'  ' * depth}{start:08x}-{end - 1:08x} : {name}\n"
        for depth, start, end, name in resources
    )


def addresses_hidden(resources: Sequence[Resource]) -> bool:
    """Tell whether every address is zero, as a reader without ``CAP_SYS_ADMIN`` sees them."""
    return bool(resources) and all(r.start == 0 and r.end == 1 for r in resources)


def require_addresses(resources: Sequence[Resource]) -> None:
    """Raise ``InputError`` if the kernel hid the addresses."""
    if addresses_hidden(resources):
        raise InputError(
            "proc/iomem: every address is 0: the kernel hides them without CAP_SYS_ADMIN; "
            "record the file as root"
        )


def system_ram(resources: Sequence[Resource]) -> Iterator[Resource]:
    """Yield the outermost resources that are System RAM by their flag."""
    end = 0
    for line in resources:
        if line.start >= end and _RAM.fullmatch(line.name):
            end = line.end
            yield line


def crash_kernel(resources: Sequence[Resource]) -> Iterator[Resource]:
    """Yield the memory of ``crashkernel=``, whose pages are reserved (crash_reserve.c)."""
    return (line for line in resources if line.name == "Crash kernel")


class DriverMemory(NamedTuple):
    """System RAM that a driver manages.

    Attributes
    ----------
    device, driver : str
        Such as ``dax0.0`` and ``kmem``; the driver's name twice if no resource names the device.
    region : Resource
        What the device may fill.
    ram : Resource
    """

    device: str
    driver: str
    region: Resource
    ram: Resource


def driver_memory(resources: Sequence[Resource]) -> Iterator[DriverMemory]:
    """Yield the System RAM of drivers, by its own name or by the device that it is inside of."""
    above: list[Resource] = []
    for line in resources:
        del above[line.depth :]
        parent = above[-1] if above else None
        above.append(line)
        if not line.name.startswith("System RAM"):
            continue
        named = _DRIVER.fullmatch(line.name)
        holder = parent and next(
            (name for kind, name in _HOLDERS if kind.fullmatch(parent.name)), None
        )
        driver = named[1] if named else holder
        if driver and parent is not None:
            yield DriverMemory(parent.name, driver, parent, line)
        elif driver:
            yield DriverMemory(driver, driver, line, line)
