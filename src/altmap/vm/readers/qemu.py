"""QEMU's options as a definition.

QEMU 10.0: system/vl.c (parse_memory_options), hw/core/machine.c (machine_set_mem), hw/core/numa.c
(parse_numa_node, numa_complete_configuration), hw/mem and hw/virtio (properties of devices).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import (
    DefinedBalloon,
    DefinedDevice,
    DefinedNode,
    Definition,
    DeviceKind,
    HostBacking,
)
from altmap.vm.readers.arch import arch_named
from altmap.vm.readers.notes import Notes, at, bounded_parts, growth_of
from altmap.vm.readers.qemu_options import Option, Properties, options_of, properties, switch
from altmap.vm.readers.sizes import MIB, qemu_number, qemu_size, whole
from altmap.vm.readers.spans import count_of
from altmap.vm.readers.words import Word

__all__ = ("FORMAT", "qemu_definition", "with_arguments")

FORMAT = "QEMU command line"

#: The property that the first word of an option without ``=`` is.
_IMPLIED = {
    "m": "size",
    "machine": "type",
    "M": "type",
    "object": "qom-type",
    "device": "driver",
    "numa": "type",
    "smp": "cpus",
    "cpu": "model",
    "name": "guest",
    "global": "driver",
    "overcommit": "",
    "accel": "accel",
}
_SAME = {"M": "machine", "realtime": "overcommit"}

_DEVICES: tuple[tuple[re.Pattern[str], DeviceKind], ...] = (
    (re.compile(r"pc-dimm"), "dimm"),
    (re.compile(r"nvdimm"), "nvdimm"),
    (re.compile(r"virtio-mem(?:-.*)?"), "virtio-mem"),
    (re.compile(r"virtio-pmem(?:-.*)?"), "virtio-pmem"),
)
_BALLOON = re.compile(r"virtio-balloon(?:-.*)?")
_OTHER_MEMORY = (
    (re.compile(r"cxl-type3|cxl-fmw.*"), "CXL memory is not modelled"),
    (re.compile(r"hv-balloon"), "memory that QEMU adds as Hyper-V does is not modelled"),
    (re.compile(r"sgx-epc"), "no memory of the kernel's"),
)
#: Options that name UEFI firmware: a flash, or a file called so.
_UEFI = re.compile(
    r"pflash .*|drive .*if=pflash.*|machine .*pflash0=.*|bios .*(?:ovmf|efi|edk2).*",
    re.IGNORECASE,
)
_SOURCES = {
    "memory-backend-ram": "ram",
    "memory-backend-file": "file",
    "memory-backend-memfd": "memfd",
    "memory-backend-shm": "file",
}
#: hw/core/machine.c: machine_class_base_init; hw/ppc/spapr.c: spapr_machine_class_init.
_DEFAULT_BYTES = 128 * MIB
_DEFAULTS = ((re.compile(r"pseries|spapr"), 512 * MIB), (re.compile(r"powernv"), 1024 * MIB))
#: hw/core/machine.c: machine_set_mem.
_ROUND_BYTES = 8192


@dataclass(slots=True)
class _Parsed:
    """Options that say something about memory, each kind as QEMU collects it."""

    once: dict[str, Properties] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Properties] = field(default_factory=dict)
    devices: list[tuple[Properties, int]] = field(default_factory=list)
    numa: list[tuple[Properties, int]] = field(default_factory=list)
    globals: dict[tuple[str, str], Any] = field(default_factory=dict)
    uefi: bool = False

    def of(self, name: str) -> Properties:
        """Return the properties of an option that QEMU merges, empty where it is not given."""
        return self.once.get(name, Properties(()))


def qemu_definition(
    options: Iterable[Option], arch: str | None, name: str, form: str = FORMAT
) -> Definition:
    """Return the definition that options say.

    Parameters
    ----------
    options : iterable of Option
    arch : str or None
        As the program's name has it.
    name : str
        The machine's name where ``-name`` gives none.
    form : str
        What the file is.

    Raises
    ------
    InputError
        If a size or number is none, or devices of memory lack a size.
    """
    notes = Notes()
    parsed = _parsed(options, notes)
    machine = parsed.of("machine")
    m = parsed.of("m")
    backends = _backends(parsed)
    line = parsed.lines.get("m")
    memory_bytes = at("-m", line, lambda: _boot_bytes(m, machine, backends))
    most = m.get("maxmem") or machine.get("memory.max-size")
    max_bytes = None if most is None else at("-m maxmem", line, lambda: qemu_size(most))
    slots_given = m.get("slots") or machine.get("memory.slots")
    slots = None if slots_given is None else at("-m slots", line, lambda: whole(slots_given, 65536))
    nodes = _nodes(parsed, backends, memory_bytes)
    devices = _devices(parsed, backends, notes)
    balloon = _balloon(parsed)
    for key in ("memory_bytes", "max_memory_bytes", "slots"):
        if line is not None:
            notes.wrote(key, f"-m {parsed.words['m']}", line)
    if m.get("size") is None and machine.get("memory-backend") is None:
        size = f"{memory_bytes >> 20} MiB"
        notes.leave("-m", f"is not given: taken as {size}, what QEMU does without it")
    if "machine" in parsed.lines:
        notes.wrote("machine", f"-machine {parsed.words['machine']}", parsed.lines["machine"])
    if "append" in parsed.lines:
        notes.wrote("cmdline", f"-append {parsed.words['append']}", parsed.lines["append"])
    guest = parsed.of("name").text("guest")
    made = Definition(
        format=form,
        name=guest or name,
        manager="qemu",
        hypervisor="qemu",
        arch=arch_named(arch),
        arch_given=arch is not None,
        machine=machine.text("type"),
        memory_bytes=memory_bytes,
        max_memory_bytes=max_bytes if max_bytes and max_bytes > memory_bytes else None,
        slots=slots,
        cpus=_cpus(parsed),
        nodes=nodes,
        devices=devices,
        balloon=balloon,
        backing=_boot_backing(parsed, backends),
        acpi=switch(machine.get("acpi")),
        pci_hole_bytes=_hole(machine),
        max_phys_bits=_phys_bits(parsed),
        uefi=parsed.uefi,
        kernel=parsed.words.get("kernel") or machine.text("kernel"),
        cmdline=parsed.words.get("append") or machine.text("append"),
        growth=growth_of(memory_bytes, max_bytes, slots, devices, balloon),
    )
    return replace(made, written=notes.written, unread=notes.unread)


def with_arguments(made: Definition, words: list[tuple[str, int]], notes: Notes) -> Definition:
    """Return a definition with what further arguments of QEMU change (``<qemu:commandline>``)."""
    if not words:
        return made
    parsed = _parsed(options_of(Word(text, line) for text, line in words), notes)
    for option in ("m", "numa"):
        if option in parsed.lines:
            value = parsed.words[option]
            notes.leave(f"-{option} {value}", "comes after libvirt's own", parsed.lines[option])
    devices = made.devices + _devices(parsed, _backends(parsed), notes)
    machine = parsed.of("machine")
    return replace(
        made,
        devices=devices,
        growth=growth_of(
            made.memory_bytes, made.max_memory_bytes, made.slots, devices, made.balloon
        ),
        pci_hole_bytes=_hole(machine) or made.pci_hole_bytes,
        max_phys_bits=_phys_bits(parsed) or made.max_phys_bits,
        cmdline=parsed.words.get("append", made.cmdline),
    )


def _parsed(options: Iterable[Option], notes: Notes) -> _Parsed:
    made = _Parsed()
    for option in bounded_parts("options", options):
        name = _SAME.get(option.name, option.name)
        _unread(name, option, notes)
        made.words[name] = option.value
        made.uefi |= _UEFI.match(f"{name} {option.value}") is not None
        made.lines[name] = option.line
        if name not in (*_IMPLIED, "overcommit"):
            continue
        read = at(
            f"-{option.name}",
            option.line,
            lambda option=option: properties(option.value, _IMPLIED.get(option.name, "")),  # type: ignore[misc]
        )
        if name == "object":
            made.objects[str(read.get("id"))] = read
        elif name == "device":
            made.devices.append((read, option.line))
        elif name == "numa":
            made.numa.append((read, option.line))
        elif name == "global":
            _global(read, made)
        else:
            before = made.of(name).pairs
            made.once[name] = Properties(before + read.pairs)
    return made


def _unread(name: str, option: Option, notes: Notes) -> None:
    if name == "readconfig":
        notes.leave(f"-readconfig {option.value}", "is another file: give it instead", option.line)
    elif not name[:1].isalpha():
        notes.leave(f"-{name} {option.value}", "is made by the shell", option.line)


def _global(read: Properties, made: _Parsed) -> None:
    """Keep ``-global driver.property=value``, or the same as three properties."""
    driver, name = read.text("driver"), read.text("property")
    if driver is not None and name is not None:
        made.globals[driver, name] = read.get("value")
        return
    for key, value in read.pairs:
        driver, dot, name = key.partition(".")
        if dot:
            made.globals[driver, name] = value


def _backends(parsed: _Parsed) -> dict[str, tuple[int, HostBacking]]:
    """Return size and backing of each memory backend, by its name."""
    made = {}
    for name, each in parsed.objects.items():
        kind = each.text("qom-type") or ""
        if not kind.startswith("memory-backend-"):
            continue
        size = each.get("size")
        size_bytes = 0
        if size is not None:
            size_bytes = at(
                f"-object {kind}",
                parsed.lines["object"],
                lambda size=size: qemu_size(size),  # type: ignore[misc]
            )
        made[name] = (size_bytes, _backing(kind, each))
    return made


def _backing(kind: str, each: Properties) -> HostBacking:
    path = each.text("mem-path") or ""
    huge = switch(each.get("hugetlb")) or "hugepages" in path
    huge_size = each.get("hugetlbsize")
    return HostBacking(
        prealloc=switch(each.get("prealloc")),
        discard=switch(each.get("discard-data")),
        hugepage_bytes=None if not huge else qemu_size(huge_size) if huge_size else 0,
        shared=switch(each.get("share")),
        source="hugetlbfs" if huge and path else _SOURCES.get(kind),
    )


def _boot_bytes(
    m: Properties, machine: Properties, backends: dict[str, tuple[int, HostBacking]]
) -> int:
    given = m.get("size")
    size_bytes = 0 if given is None else qemu_size(given, MIB)
    if not size_bytes and machine.get("memory.size") is not None:
        size_bytes = qemu_size(machine.get("memory.size"))
    if not size_bytes:
        size_bytes = backends.get(machine.text("memory-backend") or "", (0, HostBacking()))[0]
    if not size_bytes:
        kind = machine.text("type") or ""
        size_bytes = next(
            (known for pattern, known in _DEFAULTS if pattern.match(kind)), _DEFAULT_BYTES
        )
    return -(-size_bytes // _ROUND_BYTES) * _ROUND_BYTES


def _nodes(
    parsed: _Parsed, backends: dict[str, tuple[int, HostBacking]], memory_bytes: int
) -> tuple[DefinedNode, ...]:
    made: dict[int, DefinedNode] = {}
    cpus: dict[int, int] = {}
    said = False
    for read, line in parsed.numa:
        kind = read.text("type")
        if kind == "cpu":
            of = _number(read.get("node-id"), "-numa cpu", line) or 0
            cpus[of] = cpus.get(of, 0) + 1
        if kind != "node":
            continue
        given = _number(read.get("nodeid"), "-numa node", line)
        number = len(made) if given is None else given
        mem, memdev = read.get("mem"), read.text("memdev")
        said = said or mem is not None or memdev is not None
        size_bytes = 0
        if mem is not None:
            size_bytes = at("-numa node,mem", line, lambda mem=mem: qemu_size(mem, MIB))  # type: ignore[misc]
        elif memdev is not None:
            size_bytes = _backend(memdev, backends, "-numa node", line)[0]
        lists = [str(each) for each in read.all("cpus")]
        made[number] = DefinedNode(
            number, size_bytes, count_of(",".join(lists)) if lists else None, line
        )
    if made and not said:  # releases before 5.1 divide the memory equally
        share = memory_bytes // len(made) // (8 * MIB) * (8 * MIB)
        last = max(made)
        made = {
            number: replace(
                node,
                memory_bytes=share if number != last else memory_bytes - share * (len(made) - 1),
            )
            for number, node in made.items()
        }
    return tuple(
        replace(made[number], cpus=cpus.get(number, made[number].cpus)) for number in sorted(made)
    )


def _devices(
    parsed: _Parsed, backends: dict[str, tuple[int, HostBacking]], notes: Notes
) -> tuple[DefinedDevice, ...]:
    made: list[DefinedDevice] = []
    for read, line in parsed.devices:
        driver = read.text("driver") or ""
        for pattern, reason in _OTHER_MEMORY:
            if pattern.fullmatch(driver):
                notes.leave(f"-device {driver}", reason, line)
        kind = next((kind for pattern, kind in _DEVICES if pattern.fullmatch(driver)), None)
        if kind is not None:
            made.append(_device(driver, kind, read, line, parsed, backends, len(made)))
    return tuple(made)


def _device(
    driver: str,
    kind: DeviceKind,
    read: Properties,
    line: int,
    parsed: _Parsed,
    backends: dict[str, tuple[int, HostBacking]],
    number: int,
) -> DefinedDevice:
    def value(name: str) -> Any:
        return _or_global(parsed, driver, name, read.get(name))

    def size(name: str) -> int | None:
        given = value(name)
        where = f"-device {driver} {name}"
        return None if given is None else at(where, line, lambda: qemu_size(given))

    where = f"-device {driver}"
    memdev = value("memdev")
    if not isinstance(memdev, str):
        raise InputError(f"line {line}: {where}: need memdev")
    size_bytes, backing = _backend(memdev, backends, where, line)
    requested = size("requested-size")
    is_mem = kind == "virtio-mem"
    prealloc = switch(value("prealloc"))
    return DefinedDevice(
        kind=kind,
        size_bytes=size_bytes,
        name=read.text("id") or f"{kind.replace('-', '')}{number}",
        node=_number(value("node"), where, line),
        requested_bytes=(requested or 0) if is_mem else None,
        block_bytes=size("block-size") or None,
        address=_number(value("memaddr" if kind.startswith("virtio") else "addr"), where, line)
        or None,
        label_bytes=size("label-size") or None,
        dynamic_memslots=switch(value("dynamic-memslots")),
        backing=backing if prealloc is None else replace(backing, prealloc=prealloc),
        line=line,
    )


def _or_global(parsed: _Parsed, driver: str, name: str, given: Any) -> Any:
    if given is not None or not parsed.globals:
        return given
    base = re.sub(r"-(?:pci|ccw|device|mmio)(?:-.*)?$", "", driver)
    for of in (driver, base, f"{base}-device"):
        if (of, name) in parsed.globals:
            return parsed.globals[of, name]
    return None


def _backend(
    name: str, backends: dict[str, tuple[int, HostBacking]], where: str, line: int
) -> tuple[int, HostBacking]:
    found = backends.get(name)
    if found is None:
        raise InputError(f"line {line}: {where}: memdev={name}: need an -object with this id")
    if not found[0]:
        raise InputError(f"line {line}: {where}: memdev={name}: need an -object with a size")
    return found


def _balloon(parsed: _Parsed) -> DefinedBalloon:
    """Return the balloon: QEMU adds none by itself."""
    for read, _ in parsed.devices:
        driver = read.text("driver") or ""
        if _BALLOON.fullmatch(driver):
            return DefinedBalloon(
                present=True,
                free_page_reporting=switch(
                    _or_global(
                        parsed, driver, "free-page-reporting", read.get("free-page-reporting")
                    )
                ),
                deflate_on_oom=switch(
                    _or_global(parsed, driver, "deflate-on-oom", read.get("deflate-on-oom"))
                ),
            )
    return DefinedBalloon(present=parsed.words.get("balloon", "none").startswith("virtio"))


def _boot_backing(parsed: _Parsed, backends: dict[str, tuple[int, HostBacking]]) -> HostBacking:
    named = parsed.of("machine").text("memory-backend")
    memdevs = (read.text("memdev") for read, _ in parsed.numa)
    name = named or next((each for each in memdevs if each is not None), None)
    made = backends.get(name or "", (0, HostBacking()))[1]
    path = parsed.words.get("mem-path")
    if path is not None:
        huge = "hugepages" in path
        made = replace(
            made, source="hugetlbfs" if huge else "file", hugepage_bytes=0 if huge else None
        )
    if "mem-prealloc" in parsed.lines:
        made = replace(made, prealloc=True)
    over = parsed.of("overcommit")
    return replace(made, locked=switch(over.get("mem-lock", "mlock")))


def _cpus(parsed: _Parsed) -> int | None:
    smp = parsed.of("smp")
    line = parsed.lines.get("smp")
    if not smp.pairs:
        return None
    given = smp.get("cpus")
    if given is not None:
        return _number(given, "-smp", line)
    made = 1
    for key in ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"):
        made = min(made * (_number(smp.get(key), "-smp", line) or 1), 1 << 32)
    return made if made <= 65536 else None


def _phys_bits(parsed: _Parsed) -> int | None:
    cpu = parsed.of("cpu")
    line = parsed.lines.get("cpu")
    given = _number(cpu.get("phys-bits"), "-cpu", line)
    if given:
        return given
    return _number(cpu.get("host-phys-bits-limit"), "-cpu", line) or None


def _hole(machine: Properties) -> int | None:
    below = machine.get("max-ram-below-4g")
    if below is None:
        return None
    below_bytes = at("-machine max-ram-below-4g", None, lambda: qemu_size(below))
    return (4 << 30) - below_bytes if 0 < below_bytes < 4 << 30 else None


def _number(given: Any, where: str, line: int | None) -> int | None:
    if given is None:
        return None
    read: Callable[[], int] = lambda: qemu_number(given)  # noqa: E731
    return at(where, line, read)
