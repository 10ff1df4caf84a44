"""The rules that each struct of the schema checks about itself: one function for each struct.

Types, units and words are checked before (:mod:`altmap.scenario.fields`). Every message begins
with the field, so that its place in a file can be put before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from altmap.errors import one_of
from altmap.scenario.blocks import selected_blocks
from altmap.scenario.defaults import (
    BOOT_MEMORY_BYTES,
    MOST_ALLOCATIONS,
    MOST_CPUS,
    MOST_NODES,
    MOST_RATIO,
    STRUCT_PAGE_SIZES,
    XEN_HOST_BYTES,
    XEN_OWN_BYTES,
)
from altmap.scenario.drivers import DRIVER_KEYS, DriverKeys
from altmap.scenario.fields import FieldError

if TYPE_CHECKING:
    from altmap.scenario.schema import (
        Device,
        Fill,
        HugePages,
        Machine,
        Plug,
        Range,
        Selection,
        SetTunables,
        Veto,
        Write,
    )

__all__ = (
    "check_device",
    "check_fill",
    "check_huge_pages",
    "check_machine",
    "check_name",
    "check_plug",
    "check_range",
    "check_selection",
    "check_set",
    "check_veto",
    "check_write",
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_FILE = re.compile(
    r"/sys/(?:devices/system/memory|module/memory_hotplug/parameters)(?:/[A-Za-z0-9_]{1,64}){1,2}"
    r"|/sys/bus/dax/devices/[A-Za-z0-9][A-Za-z0-9._-]{0,63}/state"
)
#: What a shell takes as it is.
_WORD = re.compile(r"-?[0-9][0-9]{0,63}|[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")
#: 4 PiB in huge pages of 2 MiB.
_MOST_HUGE_PAGES = 1 << 31
_MOST_VETOES = 1 << 20
_FILL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Check the name of a scenario or step, of which files and folders are named."""
    if not _NAME.fullmatch(name):
        raise FieldError(f"name {name!r}: need letters, digits and . _ + - only")


# --- the machine -----------------------------------------------------------------------------


def check_machine(machine: Machine) -> None:
    """Check bounds, what a Xen domain has, and that devices are apart from each other."""
    _check_bounds("cpus", machine.cpus, 1, MOST_CPUS)
    _check_bounds("auto_movable_ratio", machine.auto_movable_ratio, 0, MOST_RATIO)
    if machine.struct_page_bytes not in (None, *STRUCT_PAGE_SIZES):
        known = ", ".join(map(str, STRUCT_PAGE_SIZES))
        raise FieldError(f"struct_page_bytes {machine.struct_page_bytes}: need one of {known}")
    if len(machine.nodes) > MOST_NODES:
        raise FieldError(f"nodes {len(machine.nodes)}: need {MOST_NODES} at most")
    if machine.max_memory is not None:
        _check_most(machine)
    if machine.platform == "xen":
        _check_domain(machine)
    elif machine.platform is not None:
        for name in ("xen_host_memory", "xen_max_memory"):
            if getattr(machine, name) is not None:
                raise FieldError(f"{name}: need the platform 'xen'")
    if machine.devices:
        _check_apart(machine.devices)


def _check_bounds(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise FieldError(f"{name} {value}: need {least} to {most}")


def _check_most(machine: Machine) -> None:
    memory = machine.memory or sum(node.memory for node in machine.nodes) or BOOT_MEMORY_BYTES
    if machine.platform == "xen":
        raise FieldError("max_memory: a Xen domain has xen_max_memory")
    if machine.max_memory is not None and machine.max_memory < memory:
        raise FieldError(
            f"max_memory {machine.max_memory:#x}: need machine.memory {memory:#x} at least"
        )


def _check_domain(machine: Machine) -> None:
    if machine.nodes:
        raise FieldError("nodes: a Xen domain here has one node")
    memory, most = machine.memory or BOOT_MEMORY_BYTES, machine.xen_max_memory
    if most is not None and (most < memory or most % (4 << 10)):
        raise FieldError(
            f"xen_max_memory {most:#x}: need whole pages, machine.memory {memory:#x} at least"
        )
    host = XEN_HOST_BYTES if machine.xen_host_memory is None else machine.xen_host_memory
    if host % (1 << 20) or host < memory + XEN_OWN_BYTES:
        raise FieldError(
            f"xen_host_memory {host:#x}: need whole MiB, machine.memory and "
            f"{XEN_OWN_BYTES >> 20} MiB for Xen at least"
        )


def _check_apart(devices: Sequence[Device]) -> None:
    ids = [device.id for device in devices]
    for id_ in ids:
        if ids.count(id_) > 1:
            raise FieldError(f"devices {id_!r}: need ids that differ")
    ranges = sorted((device.address, device.address + device.size, device.id) for device in devices)
    for (_, end, one), (start, _, other) in pairwise(ranges):
        if start < end:
            raise FieldError(f"devices {one!r} and {other!r}: overlap at {start:#x}")


def check_device(device: Device) -> None:
    """Check id, size and node, and the keys of the device's driver."""
    keys = _keys_of(device.driver)
    if not device.id:
        raise FieldError("id '': need a name for the device")
    if not device.size:
        raise FieldError("size 0: need more than 0 bytes")
    _check_bounds("node", device.node, 0, MOST_NODES - 1)
    for key in ("requested", "block"):
        if getattr(device, key) is not None and key not in keys.own:
            raise _not_of(key, device.driver)


# --- steps -----------------------------------------------------------------------------------


def _keys_of(driver: str) -> DriverKeys:
    if driver not in DRIVER_KEYS:
        raise FieldError(f"driver {driver!r}: {one_of(driver, DRIVER_KEYS)}")
    return DRIVER_KEYS[driver]


def _not_of(key: str, driver: str) -> FieldError:
    having = ", ".join(name for name, keys in DRIVER_KEYS.items() if key in keys.own)
    return FieldError(f"{key}: only with the driver {having}, not {driver}")


def check_plug(plug: Plug) -> None:
    """Check id and size, and the keys of the plug's driver."""
    keys = _keys_of(plug.driver)
    if not plug.id:
        raise FieldError("id '': need a name for the device")
    if not plug.size:
        raise FieldError("size 0: need more than 0 bytes")
    if keys.needs_address and plug.address is None:
        raise FieldError(f"address: a {plug.driver} plug needs one")
    if plug.node is not None and not keys.names_node:
        raise FieldError(f"node {plug.node}: a {plug.driver} host names no node")
    for key in _OWN_KEYS:
        if getattr(plug, key) not in (None, ()) and key not in keys.own:
            raise _not_of(key, plug.driver)
    if plug.region is not None and plug.address is not None:
        start, end = plug.region.address, plug.region.address + plug.region.size
        if not start <= plug.address or plug.address + plug.size > end:
            raise FieldError(
                f"region [{start:#x}, {end:#x}): need to hold the range that is added, "
                f"[{plug.address:#x}, {plug.address + plug.size:#x})"
            )


#: Keys of a plug that only some drivers know.
_OWN_KEYS = tuple(sorted(frozenset().union(*(keys.own for keys in DRIVER_KEYS.values()))))


def check_range(pages: Range) -> None:
    """Check that a further range holds something."""
    if not pages.size:
        raise FieldError("size 0: need more than 0 bytes")


def check_selection(step: Selection) -> None:
    """Check that a step names a device or blocks, and blocks by their ids."""
    if (step.id is None) == (step.blocks is None):
        raise FieldError("blocks: need either id or blocks")
    if step.blocks is not None and step.part != "all":
        raise FieldError(f"part {step.part!r}: selects from a device, not from blocks")
    selected_blocks(step)


def check_veto(step: Veto) -> None:
    """Check that blocks are named by their ids, and how often they are vetoed."""
    selected_blocks(step)
    _check_bounds("times", step.times, 1, _MOST_VETOES)


def check_write(step: Write) -> None:
    """Check that the file is one of memory hotplug, and the word one that a shell can write."""
    if not _FILE.fullmatch(step.file):
        raise FieldError(
            f"file {step.file!r}: need a file in /sys/devices/system/memory or "
            "/sys/module/memory_hotplug/parameters, or /sys/bus/dax/devices/ID/state"
        )
    if not _WORD.fullmatch(step.word):
        raise FieldError(f"word {step.word!r}: need letters, digits and _ . : + - only, 64 at most")


def check_fill(step: Fill) -> None:
    """Check id and size, and the keys of huge pages."""
    if not step.size:
        raise FieldError("size 0: need more than 0 bytes")
    if not _FILL_ID.fullmatch(step.id):
        raise FieldError(f"id {step.id!r}: need letters, digits and . _ - only, 64 at most")
    for key in ("page_size", "node"):
        if getattr(step, key) is not None and step.kind not in ("hugetlb", "hugetlb-file"):
            raise FieldError(f"{key}: only with kind 'hugetlb' or 'hugetlb-file'")
    if step.page_size is not None and (not step.page_size or step.size % step.page_size):
        raise FieldError(f"size {step.size:#x}: need a multiple of page_size {step.page_size:#x}")


def check_huge_pages(step: HugePages) -> None:
    """Check the number of huge pages, the node, and that they have a size."""
    _check_bounds("nr_hugepages", step.nr_hugepages, 0, _MOST_HUGE_PAGES)
    _check_bounds("node", step.node, 0, MOST_NODES - 1)
    if step.page_size is not None and not step.page_size:
        raise FieldError("page_size 0: need more than 0 bytes")


def check_set(step: SetTunables) -> None:
    """Check bounds, and that there is a parameter to write."""
    _check_bounds("auto_movable_ratio", step.auto_movable_ratio, 0, MOST_RATIO)
    _check_bounds("fail_allocation", step.fail_allocation, 0, MOST_ALLOCATIONS)
    parameters = [name for name in step.__struct_fields__ if name != "name"]
    if all(getattr(step, name) is None for name in parameters):
        raise FieldError(f"do 'set': need one of {', '.join(parameters)}")
