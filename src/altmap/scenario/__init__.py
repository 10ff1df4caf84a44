"""Scenarios: a machine, and what is done to it, as a TOML file says it.

The schema is written down for users in ``docs/scenario.md``. A scenario that is accepted here can
still ask for what a platform refuses (two devices at one address); that shows when it runs.

Effects: files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec

from altmap.errors import InputError
from altmap.units import parse_address, parse_size

__all__ = (
    "XEN_HOST_BYTES",
    "Address",
    "Configure",
    "Device",
    "Dump",
    "Fill",
    "Free",
    "Machine",
    "Node",
    "Offline",
    "Online",
    "Plug",
    "Poison",
    "Range",
    "Region",
    "Resize",
    "Scenario",
    "SetTunables",
    "Size",
    "Step",
    "Unplug",
    "Veto",
    "VirtioMemParameters",
    "build_scenario",
    "check_machine",
    "decode_value",
    "load_scenario",
    "parse_scenario",
    "part_of",
    "read_toml",
    "scenario_toml",
    "selected_blocks",
    "set_machine_keys",
    "step_name",
)

OnlineType = Literal["online", "online_kernel", "online_movable"]
AutoOnline = Literal["offline", "online", "online_kernel", "online_movable"]
MemmapMode = Literal["off", "on", "force"]
OnlinePolicy = Literal["contig-zones", "auto-movable"]
Driver = Literal["dimm", "hyperv", "virtio-mem", "kmem", "standby", "probe"]
FillKind = Literal["file", "held", "pinned", "kernel", "hugetlb", "hugetlb-file"]
VetoOn = Literal["prepare_online", "going_online", "going_offline"]
VetoErrno = Literal["EPERM", "EBUSY", "ENOMEM", "EINVAL", "EAGAIN", "none"]


_MOST_BLOCKS = 1 << 20
_MOST_CPUS = 8192  # CONFIG_NR_CPUS of distributions
_MOST_NODES = 1024  # MAX_NUMNODES
_MOST_RATIO = 1 << 31
_MOST_ALLOCATIONS = 2  # of an add: its memmap, and its page tables
_SEVERAL_RANGES = ("dimm", "kmem")
#: Drivers whose host or user names the address, and keys that only one driver knows.
_NEED_ADDRESS = ("hyperv", "probe")
_KEYS_OF_ONE = {
    "region": "hyperv",
    "dax": "kmem",
    "memmap_on_memory": "kmem",
    "increment": "standby",
    "requested": "virtio-mem",
    "block": "virtio-mem",
}

#: What a Xen host has unless the scenario says it, and what is left to Xen itself at least.
XEN_HOST_BYTES = 4 << 30
_XEN_OWN_BYTES = 256 << 20


class Size(int):
    """Bytes, written with a unit: ``"128MiB"``."""


class Address(int):
    """A physical address in bytes: ``"0x100000000"``, ``"4GiB"`` or an integer."""


class _Strict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Node(_Strict, kw_only=True):
    """A NUMA node; its memory follows the memory of the node before it."""

    memory: Size


class Region(_Strict, kw_only=True):
    """The region that a Hyper-V host names for a hot-add; the range added lies in it."""

    address: Address
    size: Size


class Range(_Strict, kw_only=True):
    """A further range of a device that has several."""

    address: Address
    size: Size


class Device(_Strict, kw_only=True):
    """A device that is plugged already when the scenario starts from a sysroot."""

    id: str
    address: Address
    size: Size
    driver: Driver = "dimm"
    node: int = 0
    self_hosted: bool | None = None
    requested: Size | None = None
    block: Size | None = None


#: The release whose kernel a scenario without one gets, on the model and in the lab.
DEFAULT_RELEASE = "6.12"


class VirtioMemParameters(_Strict, kw_only=True):
    """Parameters of the guest's module ``virtio_mem``."""

    unplug_online: bool = True
    force_bbm: bool = False
    bbm_block_size: Size | None = None
    bbm_safe_unplug: bool = True


class Machine(_Strict, kw_only=True):
    """The machine; what is ``None`` comes from the sysroot, or else from its default."""

    arch: str | None = None
    release: str | None = None
    memory: Size | None = None
    platform: Literal["pc", "q35", "xen", "virt", "pseries", "s390-ccw"] | None = None
    xen_host_memory: Size | None = None
    xen_max_memory: Size | None = None
    cpus: int | None = None
    nodes: list[Node] = []
    block_size: Size | None = None
    policy: str | None = None
    memmap_on_memory: MemmapMode | None = None
    online_policy: OnlinePolicy | None = None
    auto_movable_ratio: int | None = None
    auto_movable_numa_aware: bool | None = None
    movable_node: bool | None = None
    debug_vm: bool | None = None
    hugetlb_free_vmemmap: bool | None = None
    mmu: Literal["radix", "hash"] | None = None
    auto_online_blocks: AutoOnline | None = None
    unbacked_reads: Literal["fault", "allowed"] = "fault"
    balloon: Literal["hyperv"] | None = None
    devices: list[Device] = []
    virtio_mem: VirtioMemParameters = msgspec.field(default_factory=VirtioMemParameters)


class _Step(_Strict, kw_only=True, tag_field="do"):
    name: str | None = None


class Plug(_Step, kw_only=True, tag="plug"):
    """Memory arrives, by one of the drivers."""

    size: Size
    id: str
    driver: Driver = "dimm"
    address: Address | None = None
    node: int | None = None
    region: Region | None = None
    more_ranges: list[Range] = []
    dax: Literal["cxl", "pmem", "hmem"] | None = None
    memmap_on_memory: bool | None = None
    increment: Size | None = None
    requested: Size | None = None
    block: Size | None = None


class Unplug(_Step, kw_only=True, tag="unplug"):
    """A device is asked back; the kernel offlines its blocks itself if it can."""

    id: str


class Resize(_Step, kw_only=True, tag="resize"):
    """A device or balloon is told its new size; the guest grows or shrinks towards it."""

    id: str
    size: Size


class _Selection(_Step, kw_only=True):
    id: str | None = None
    blocks: int | str | list[int | str] | None = None
    part: Literal["all", "first", "middle", "last"] = "all"


class Online(_Selection, kw_only=True, tag="online"):
    """Memory blocks are onlined, in the order given, up to the first refusal."""

    to: OnlineType = "online"


class Offline(_Selection, kw_only=True, tag="offline"):
    """Memory blocks are offlined, in the order given, up to the first refusal."""


class Configure(_Selection, kw_only=True, tag="configure"):
    """Blocks of s390x standby memory are taken from the machine, or given back."""

    config: bool = True
    memmap_on_memory: bool | None = None


class Fill(_Step, kw_only=True, tag="fill"):
    """Pages come into use: by default a file of that size in memory (tmpfs), which can move."""

    id: str
    size: Size
    kind: FillKind = "file"
    page_size: Size | None = None
    node: int | None = None


class Free(_Step, kw_only=True, tag="free"):
    """What ``fill`` brought into use is given back; a file is checked first."""

    id: str


class Poison(_Step, kw_only=True, tag="poison"):
    """A page is poisoned for its errors (HWPoison), by ``soft_offline_page``."""

    address: Address


class Veto(_Step, kw_only=True, tag="veto"):
    """From now on a listener of the memory notifier chain vetoes an action."""

    on: VetoOn
    errno: VetoErrno = "EPERM"
    blocks: int | str | list[int | str] | None = None


class Dump(_Step, kw_only=True, tag="dump"):
    """The pages of online blocks are read, as a crash dump does."""

    exclude_offline: bool = True


class SetTunables(_Step, kw_only=True, tag="set"):
    """Parameters of the running kernel are written."""

    auto_online_blocks: AutoOnline | None = None
    online_policy: OnlinePolicy | None = None
    auto_movable_ratio: int | None = None
    auto_movable_numa_aware: bool | None = None
    fail_block_devices: bool | None = None
    fail_allocation: int | None = None
    acpi_memory_hotplug: bool | None = None


Step = (
    Plug
    | Unplug
    | Resize
    | Online
    | Offline
    | Configure
    | Fill
    | Free
    | Poison
    | Veto
    | Dump
    | SetTunables
)


class Scenario(_Strict, kw_only=True):
    """A machine and the steps that are taken on it."""

    name: str
    description: str = ""
    machine: Machine = msgspec.field(default_factory=Machine)
    steps: list[Step] = []


def load_scenario(path: Path, settings: Sequence[str] = ()) -> Scenario:
    """Read a scenario file.

    Parameters
    ----------
    path : Path
    settings : sequence of str
        ``key=value`` for keys of ``[machine]``, which replace the file's.

    Raises
    ------
    InputError
        Naming the file, the place in it, and the rule.
    """
    try:
        return parse_scenario(_read_text(path), path.stem, settings)
    except InputError as error:
        raise InputError(f"scenario {path}: {error}") from error


def parse_scenario(text: str, name: str, settings: Sequence[str] = ()) -> Scenario:
    """Return the scenario that TOML text describes.

    Parameters
    ----------
    text : str
    name : str
        Its name, unless it has one of its own.
    settings : sequence of str
        As for :func:`load_scenario`.

    Raises
    ------
    InputError
        Naming the place in the text, and the rule.
    """
    data = _parse_toml(text)
    data.setdefault("name", name)
    set_machine_keys(data, settings)
    return build_scenario(data)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file, a scenario's or another.

    Raises
    ------
    InputError
        Why it cannot be read, without its name: the caller knows what the file is to be.
    """
    return _parse_toml(_read_text(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(error.strerror or error)) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text") from error


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # tomllib lets Python's own limits (digits of a number, nesting) through.
        raise InputError(f"not TOML: {error}") from error


def build_scenario(data: dict[str, Any]) -> Scenario:
    """Return the scenario that plain tables describe, as TOML reads them.

    Raises
    ------
    InputError
        Naming the place in the tables, and the rule.
    """
    try:
        scenario: Scenario = msgspec.convert(data, Scenario, dec_hook=decode_value)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from error
    _check(scenario)
    return scenario


def set_machine_keys(data: dict[str, Any], settings: Sequence[str]) -> None:
    """Put ``key=value`` into the table ``[machine]`` of a file that was read.

    Raises
    ------
    InputError
        If there is no such table to make, or a setting is none.
    """
    machine = data.setdefault("machine", {})
    if not isinstance(machine, dict):
        raise InputError(f"machine {machine!r}: need a table")
    machine |= dict(_setting(text) for text in settings)


def scenario_toml(data: Mapping[str, Any]) -> str:
    """Return plain tables of a scenario as TOML text, which :func:`parse_scenario` reads."""
    heads = [key for key in ("name", "description") if key in data]
    lines = [f"{key} = {_toml(data[key])}" for key in heads]
    lines += ["", "[machine]", *_toml_keys(data.get("machine", {}))]
    for step in data.get("steps", ()):
        lines += ["", "[[steps]]", *_toml_keys(step)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml_keys(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_toml_keys(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode()  # of text, numbers and booleans it is TOML's too


def _setting(text: str) -> tuple[str, bool | int | str]:
    key, given, value = text.partition("=")
    if not key or not given:
        raise InputError(f"setting {text!r}: need KEY=VALUE")
    if value in ("true", "false"):
        return key, value == "true"
    return key, int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else value


def decode_value(wanted: type, value: Any) -> Any:
    """Return a size or an address from the text of a scenario (a ``dec_hook`` of msgspec)."""
    try:
        if wanted is Size:
            return Size(parse_size(value))
        return Address(parse_address(value))
    except InputError as error:
        raise ValueError(str(error)) from error


def _check(scenario: Scenario) -> None:
    for label, text in [("name", scenario.name)] + [
        (f"steps[{i}].name", step.name) for i, step in enumerate(scenario.steps) if step.name
    ]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", text):
            raise InputError(f"{label} {text!r}: need letters, digits and . _ + - only")
    check_machine(scenario.machine)
    for index, step in enumerate(scenario.steps):
        _check_step(f"steps[{index}]", step)


def check_machine(machine: Machine) -> None:
    """Raise an InputError if a key of ``[machine]`` is out of its bounds."""
    for name, value, least, most in (
        ("cpus", machine.cpus, 1, _MOST_CPUS),
        ("auto_movable_ratio", machine.auto_movable_ratio, 0, _MOST_RATIO),
        ("nodes", len(machine.nodes) or None, 1, _MOST_NODES),
        *((f"devices {d.id!r} node", d.node, 0, _MOST_NODES - 1) for d in machine.devices),
    ):
        if value is not None and not least <= value <= most:
            raise InputError(f"machine.{name} {value}: need {least} to {most}")
    _check_xen(machine)
    ids = [device.id for device in machine.devices]
    for device in machine.devices:
        if not device.id or ids.count(device.id) > 1:
            raise InputError(f"machine.devices {device.id!r}: need an id of its own")
        if device.size <= 0:
            raise InputError(f"machine.devices {device.id!r}: need a size of more than 0 bytes")
        if device.driver != "virtio-mem" and (device.requested, device.block) != (None, None):
            raise InputError(
                f"machine.devices {device.id!r}: only a virtio-mem device has requested and block"
            )
    ranges = sorted((d.address, d.address + d.size, d.id) for d in machine.devices)
    for (_, end, one), (start, _, other) in pairwise(ranges):
        if start < end:
            raise InputError(f"machine.devices {one!r} and {other!r}: overlap at {start:#x}")


def _check_xen(machine: Machine) -> None:
    own = ("xen_host_memory", "xen_max_memory")
    if machine.platform not in ("xen", None):
        for name in own:
            if getattr(machine, name) is not None:
                raise InputError(f"machine.{name}: need the platform 'xen'")
    if machine.platform != "xen":
        return
    if machine.nodes:
        raise InputError("machine.nodes: a Xen domain here has one node")
    memory, most = machine.memory or 1 << 30, machine.xen_max_memory
    if most is not None and (most < memory or most % (4 << 10)):
        raise InputError(
            f"machine.xen_max_memory {most:#x}: need whole pages, "
            f"machine.memory {memory:#x} at least"
        )
    host = XEN_HOST_BYTES if machine.xen_host_memory is None else machine.xen_host_memory
    if host % (1 << 20) or host < memory + _XEN_OWN_BYTES:
        raise InputError(
            f"machine.xen_host_memory {host:#x}: need whole MiB, machine.memory and "
            f"{_XEN_OWN_BYTES >> 20} MiB for Xen at least"
        )


def _check_step(where: str, step: Step) -> None:
    match step:
        case Plug():
            if step.size <= 0:
                raise InputError(f"{where}.size {step.size}: need more than 0 bytes")
            if not step.id:
                raise InputError(f"{where}.id {step.id!r}: need a name for the device")
            if step.driver in _NEED_ADDRESS and step.address is None:
                raise InputError(f"{where}: a {step.driver} plug needs an address")
            if step.driver in ("hyperv", "standby") and step.node is not None:
                raise InputError(f"{where}.node: a {step.driver} host names no node")
            for key, driver in _KEYS_OF_ONE.items():
                if getattr(step, key) is not None and step.driver != driver:
                    raise InputError(f"{where}.{key}: only a {driver} plug has one")
            _check_region(where, step)
            _check_more_ranges(where, step)
        case Resize():
            if step.size < 0:
                raise InputError(f"{where}.size {step.size}: need 0 bytes or more")
        case Fill():
            if step.size <= 0:
                raise InputError(f"{where}.size {step.size}: need more than 0 bytes")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", step.id):
                raise InputError(f"{where}.id {step.id!r}: need letters, digits and . _ - only")
            _check_huge(where, step)
        case Veto():
            try:
                selected_blocks(step)
            except InputError as error:
                raise InputError(f"{where}.{error}") from error
        case Online() | Offline() | Configure():
            if (step.id is None) == (step.blocks is None):
                raise InputError(f"{where}: need either id or blocks")
            if step.blocks is not None and step.part != "all":
                raise InputError(f"{where}.part: selects from a device, not from blocks")
            try:
                selected_blocks(step)
            except InputError as error:
                raise InputError(f"{where}.{error}") from error
        case SetTunables():
            ratio = step.auto_movable_ratio
            if ratio is not None and not 0 <= ratio <= _MOST_RATIO:
                raise InputError(f"{where}.auto_movable_ratio {ratio}: need 0 to {_MOST_RATIO}")
            failing = step.fail_allocation
            if failing is not None and not 0 <= failing <= _MOST_ALLOCATIONS:
                raise InputError(
                    f"{where}.fail_allocation {failing}: need 0 (none) to {_MOST_ALLOCATIONS}"
                )
            if all(getattr(step, key) is None for key in step.__struct_fields__ if key != "name"):
                raise InputError(f"{where}: sets nothing")
        case _:
            pass


def _check_huge(where: str, step: Fill) -> None:
    huge = step.kind in ("hugetlb", "hugetlb-file")
    for key in ("page_size", "node"):
        if getattr(step, key) is not None and not huge:
            raise InputError(f"{where}.{key}: only with kind 'hugetlb' or 'hugetlb-file'")
    if step.page_size is not None and (step.page_size <= 0 or step.size % step.page_size):
        raise InputError(
            f"{where}.size {step.size:#x}: need a multiple of page_size {step.page_size:#x}"
        )


def _check_more_ranges(where: str, step: Plug) -> None:
    if step.more_ranges and step.driver not in _SEVERAL_RANGES:
        raise InputError(f"{where}.more_ranges: a {step.driver} device has one range")
    for index, item in enumerate(step.more_ranges):
        if item.size <= 0:
            raise InputError(
                f"{where}.more_ranges[{index}].size {item.size}: need more than 0 bytes"
            )


def _check_region(where: str, step: Plug) -> None:
    if step.region is None or step.address is None:
        return
    start, end = step.region.address, step.region.address + step.region.size
    if not start <= step.address or step.address + step.size > end:
        raise InputError(
            f"{where}.region [{start:#x}, {end:#x}): need to hold the range that is added, "
            f"[{step.address:#x}, {step.address + step.size:#x})"
        )


def selected_blocks(step: Online | Offline | Configure | Veto) -> list[int] | None:
    """Return the block ids that the step names itself, ``None`` if it names a device.

    Raises
    ------
    InputError
        If a name is no block: ``32``, ``"32-39"`` and ``"memory32"`` are.
    """
    if step.blocks is None:
        return None
    named = step.blocks if isinstance(step.blocks, list) else [step.blocks]
    ids: list[int] = []
    for item in named:
        text = item if isinstance(item, str) else str(item) if abs(item) < 10**12 else ""
        match = re.fullmatch(r"(?:memory)?([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"blocks {item!r}: need a block id such as 32, '32-39' or 'memory32'")
        chosen = range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(ids) + len(chosen) > _MOST_BLOCKS:
            raise InputError(f"blocks {item!r}: names more than {_MOST_BLOCKS} blocks")
        ids.extend(chosen)
    if not ids:
        raise InputError("blocks []: need at least one block")
    return ids


def part_of(ids: Sequence[int], part: str) -> list[int]:
    """Return the blocks of a device that ``part`` selects: all, or the one it names."""
    chosen = {
        "all": ids,
        "first": ids[:1],
        "middle": ids[len(ids) // 2 :][:1],
        "last": ids[-1:],
    }
    return list(chosen[part])


def step_name(step: Step) -> str:
    """Return the step's own name, or one made of what it does: ``plug-d1``."""
    if step.name:
        return step.name
    verb = str(step.__struct_config__.tag)
    if isinstance(step, Configure) and not step.config:
        verb = "deconfigure"
    if isinstance(step, SetTunables | Dump):
        return verb
    if isinstance(step, Poison):
        return f"{verb}-{step.address:#x}"
    if isinstance(step, Veto):
        return f"{verb}-{step.on}"
    if isinstance(step, Online | Offline | Configure) and step.id is None:
        ids = selected_blocks(step) or []
        return f"{verb}-memory{ids[0]}" + (f"-{ids[-1]}" if len(ids) > 1 else "")
    part = ""
    if isinstance(step, Online | Offline | Configure) and step.part != "all":
        part = f"-{step.part}"
    return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{verb}-{step.id}{part}")
