"""What of a definition and its guest's kernel does not do what it seems to, and what to change.

Each finding names a rule, what follows from breaking it, and the line to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from altmap.model.kernel.zone import MOVABLE
from altmap.units import format_size
from altmap.vm.answers import BootedGuest, WayAnswer
from altmap.vm.definition import DefinedDevice, Written
from altmap.vm.machine import dimm_align_bytes, virtio_mem_block_bytes
from altmap.vm.words import file_line, quantity

__all__ = ("RULES", "LintFinding", "lint")

_MIB, _GIB = 1 << 20, 1 << 30
#: mm/memory_hotplug.c: auto_movable_ratio
_USUAL_RATIO = 3.01


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One finding.

    Attributes
    ----------
    rule : str
        Its name, one of :data:`RULES`.
    what : str
        What the definition says.
    consequence : str
    change : str
        The line as it should be, or what else to change.
    line : int or None
        In the definition's file; ``None`` where no line says it.
    """

    rule: str
    what: str
    consequence: str
    change: str
    line: int | None = None


def lint(guest: BootedGuest, answers: Sequence[WayAnswer]) -> list[LintFinding]:
    """Return the findings of every rule, those with the lowest lines of the file first."""
    found = [finding for rule in RULES.values() for finding in rule(guest, answers)]
    return sorted(found, key=lambda each: each.line if each.line is not None else 1 << 30)


def _line(guest: BootedGuest, field: str) -> int | None:
    written = guest.definition.written.get(field, Written(""))
    return written.line


def _near(size_bytes: int, unit_bytes: int) -> str:
    """Return the multiples below and above a size."""
    below = size_bytes // unit_bytes * unit_bytes
    both = [below] if below else []
    return " or ".join(quantity(each) for each in (*both, below + unit_bytes))


def _dimms(guest: BootedGuest) -> list[DefinedDevice]:
    return [each for each in guest.definition.devices if each.kind == "dimm"]


def _virtio_mem(guest: BootedGuest) -> list[DefinedDevice]:
    return [each for each in guest.definition.devices if each.kind == "virtio-mem"]


# --- sizes -----------------------------------------------------------------------------------


def _size_of_block(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``mm/memory_hotplug.c: check_hotplug_memory_range``: whole memory blocks."""
    del answers
    block = guest.block_bytes
    for device in _dimms(guest):
        if device.size_bytes % block and not device.size_bytes % guest.machine.space.align:
            yield LintFinding(
                "size-of-block",
                f"{device.name}: {format_size(device.size_bytes)}",
                f"no memory of it is added: a memory block of the guest is {format_size(block)} "
                "(EINVAL by check_hotplug_memory_range)",
                f"its size: {_near(device.size_bytes, block)}",
                device.line,
            )
    for device in _virtio_mem(guest):
        rest = (device.address or 0) % block or device.size_bytes % block
        if rest and not device.size_bytes % virtio_mem_block_bytes(device):
            lost = device.size_bytes % block
            yield LintFinding(
                "size-of-block",
                f"{device.name}: a region of {format_size(device.size_bytes)}",
                f"its last {format_size(lost or rest)} are never used: only whole memory blocks of "
                f"{format_size(block)} are",
                f"its size: {_near(device.size_bytes, block)}",
                device.line,
            )


def _size_of_device(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``hw/mem/memory-device.c``, ``hw/virtio/virtio-mem.c``: alignment and block size."""
    del answers
    for device in _dimms(guest):
        align = dimm_align_bytes(guest.machine.space, device)
        if device.size_bytes % align:
            yield LintFinding(
                "size-of-device",
                f"{device.name}: {format_size(device.size_bytes)}",
                f"the hypervisor refuses it: need a multiple of {format_size(align)}",
                f"its size: {_near(device.size_bytes, align)}",
                device.line,
            )
    for device in _virtio_mem(guest):
        block = virtio_mem_block_bytes(device)
        named = {"size": device.size_bytes, "requested": device.requested_bytes or 0}
        for name, size in named.items():
            if size % block:
                yield LintFinding(
                    "size-of-device",
                    f"{device.name}: {name} {format_size(size)}",
                    f"the hypervisor refuses it: need a multiple of its block, "
                    f"{format_size(block)}",
                    f"{name}: {_near(size, block)}",
                    device.line,
                )


def _large_blocks(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``arch/x86/mm/init_64.c: probe_memory_block_size``."""
    arch, block = guest.machine.arch, guest.block_bytes
    if not arch.probes_block_size or block <= arch.section_size_bytes:
        return
    grows = [each.way for each in answers if each.way.defined and each.way.driver != "balloon"]
    if not grows and not guest.definition.devices:
        return
    kernel = guest.booted.kernel
    end = (kernel.boot_ram.max() + 1) * kernel.arch.page_size_bytes
    yield LintFinding(
        "large-blocks",
        f"boot memory ends at {format_size(end)}",
        f"memory blocks are of {format_size(block)}, as boot memory ends at 64 GiB or above and at "
        "a multiple of it: memory is added and given back in such pieces, and a DIMM of another "
        "size is refused",
        f"sizes of devices in multiples of {format_size(block)}, or boot memory that ends below "
        "64 GiB and the rest as devices",
        _line(guest, "memory_bytes"),
    )


# --- room ------------------------------------------------------------------------------------


def _no_maximum(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``hw/core/machine.c``: devices lie between boot memory and the maximum."""
    definition = guest.definition
    del answers
    if any(way.driver != "balloon" for way in guest.ways()):
        return
    if "memory" in definition.growth:
        return
    start = definition.memory_bytes
    most = max(4 * start, start + 4 * _GIB)
    has_maximum = definition.max_memory_bytes is not None
    above = has_maximum and (definition.max_memory_bytes or 0) > guest.machine.start_bytes
    what = "a maximum, but no slots" if above else "no maximum above the memory at boot"
    yield LintFinding(
        "no-maximum",
        what,
        "no memory can be added while the guest runs",
        file_line(
            definition, "maximum", start, (definition.max_memory_bytes or 0) if above else most
        ),
        _line(guest, "max_memory_bytes") or _line(guest, "memory_bytes"),
    )


def _beyond_addresses(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``mm/memory_hotplug.c: mhp_range_allowed``; ``hw/i386/pc.c: pc_max_used_gpa``."""
    del answers
    definition = guest.definition
    bits = definition.max_phys_bits
    if bits is None or definition.max_memory_bytes is None:
        return
    if definition.max_memory_bytes > 1 << bits:
        yield LintFinding(
            "beyond-addresses",
            f"a maximum of {format_size(definition.max_memory_bytes)}",
            f"the processor has physical addresses of {bits} bits: memory above "
            f"{format_size(1 << bits)} cannot be mapped",
            "a processor with wider physical addresses (host-phys-bits=on), or a lower maximum",
            _line(guest, "max_memory_bytes"),
        )


def _small_boot(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``mm/sparse-vmemmap.c``: the memmap of added memory comes from memory that is online."""
    for answer in answers:
        way = answer.way
        if not way.defined or way.missing or "ENOMEM" not in answer.stops:
            continue
        needed = way.limit_bytes - way.start_bytes
        memmap = guest.machine.arch.memmap_bytes(needed // guest.machine.arch.page_size_bytes)
        more = -(-memmap // (128 * _MIB)) * 128 * _MIB
        yield LintFinding(
            "small-boot",
            f"{way.driver}: {format_size(guest.machine.boot_bytes)} of boot memory for "
            f"{format_size(way.limit_bytes)}",
            f"growing stops at {format_size(answer.stops_bytes)}: {answer.stops}",
            f"{file_line(guest.definition, 'memory', guest.machine.boot_bytes + more)}, or "
            "onlining part of it in kernel zones (memhp_default_state=online, or "
            "memory_hotplug.online_policy=auto-movable)"
            + (", or memory_hotplug.memmap_on_memory=1" if way.driver == "dimm" else ""),
            _line(guest, "memory_bytes"),
        )


def _one_step(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """One DIMM needs the memmap of all of it at once."""
    for answer in answers:
        way, largest = answer.way, answer.largest_add_bytes
        whole = way.limit_bytes - way.start_bytes
        if largest is None or not way.defined or way.slots is None or largest >= whole:
            continue
        if "ENOMEM" in answer.stops or not largest:
            continue
        yield LintFinding(
            "one-step",
            f"{format_size(whole)} that may be added",
            f"one DIMM of more than {format_size(largest)} is refused at boot (ENOMEM): its memmap "
            "does not fit into the free memory",
            f"DIMMs of {format_size(answer.careful_add_bytes or largest)} at most, each online "
            "before the next",
            _line(guest, "max_memory_bytes"),
        )


# --- the kernel ------------------------------------------------------------------------------


def _no_driver(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    missing = guest.kernel.missing
    drivers = {each.way.driver: None for each in answers if each.way.missing and each.way.defined}
    lines: dict[str, int | None] = {each.kind: each.line for each in guest.definition.devices}
    drivers |= {kind: None for kind in lines if kind in missing}
    for driver in drivers:
        yield LintFinding(
            "no-driver",
            f"{driver}: memory that is added to a running {guest.machine.arch.family} guest",
            f"the guest never has it: {missing[driver]}",
            "another way to grow" if driver != "dimm" else "virtio-mem devices instead of DIMMs",
            lines.get(driver),
        )


def _stays_offline(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``mm/memory_hotplug.c: mhp_default_online_type``."""
    if guest.booted.kernel.tunables.auto_online_blocks != "offline":
        return
    kernel = guest.booted.kernel
    stays = [each for each in answers if any(row.offline_bytes for row in each.rows)]
    drivers = [each.way.driver for each in stays if each.way.defined]
    if not drivers and len(kernel.online_blocks) == len(kernel.added_blocks):
        return
    waits = "virtio-mem" in drivers
    yield LintFinding(
        "stays-offline",
        "no memhp_default_state on the kernel's command line",
        "added memory stays offline until a program of the guest writes to each block"
        + ("; virtio-mem stops after 1 GiB that is not online" if waits else ""),
        "kernel command line: memhp_default_state=online_movable, or =online",
        _line(guest, "cmdline"),
    )


def _not_returned(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """Memory in kernel zones: one kernel allocation keeps a block."""
    for answer in answers:
        rows = [row for row in answer.rows if row.result != "refused" and row.online_kernel_bytes]
        if answer.way.driver not in ("dimm", "virtio-mem") or not rows or not answer.way.defined:
            continue
        last = rows[-1]
        if last.given.unlikely and not last.given.likely:
            yield LintFinding(
                "not-returned",
                f"{answer.way.driver}: new blocks get the state "
                f"{guest.booted.kernel.tunables.auto_online_blocks!r}",
                f"{format_size(last.given.unlikely)} that are added come online in kernel zones, "
                "where one allocation of the kernel keeps a memory block: do not expect them to be "
                "given back",
                "kernel command line: memhp_default_state=online_movable, or "
                "memory_hotplug.online_policy=auto-movable",
                _line(guest, "cmdline"),
            )


def _beyond_ratio(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``mm/memory_hotplug.c: auto_movable_ratio``, 301 percent."""
    for answer in answers:
        rows = [row for row in answer.rows if row.result != "refused" and row.ratio > _USUAL_RATIO]
        if not rows or not answer.way.defined:
            continue
        first, last = rows[0], rows[-1]
        yield LintFinding(
            "beyond-ratio",
            f"{answer.way.driver}: all growth in ZONE_MOVABLE",
            f"from {format_size(first.size_bytes)} on there is more movable memory than three "
            f"times that of the kernel, {last.ratio:.1f}:1 at {format_size(last.size_bytes)}: the "
            "kernel can run out of memory for itself while movable memory is free",
            "kernel command line: memory_hotplug.online_policy=auto-movable, or more boot memory",
            _line(guest, "cmdline"),
        )


def _memmap_of_virtio_mem(
    guest: BootedGuest, answers: Sequence[WayAnswer]
) -> Iterator[LintFinding]:
    """``drivers/virtio/virtio_mem.c`` does not set MHP_MEMMAP_ON_MEMORY."""
    if guest.booted.kernel.tunables.memmap_on_memory == "off":
        return
    for answer in answers:
        if answer.way.driver in ("virtio-mem", "hyperv") and answer.way.defined:
            yield LintFinding(
                "memmap-on-memory",
                f"memory_hotplug.memmap_on_memory with {answer.way.driver}",
                "it has no effect: this driver does not ask for it, so that the memmap comes from "
                "memory that is online",
                "no parameter is needed; DIMMs would use it",
                _line(guest, "cmdline"),
            )


# --- nodes and the host ----------------------------------------------------------------------


def _empty_node(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    del answers
    for node in guest.definition.nodes:
        if node.memory_bytes == 0 and len(guest.definition.nodes) > 1:
            yield LintFinding(
                "empty-node",
                f"node {node.number} has no memory at boot",
                "the memmap of its first memory comes from another node, and if all of it is "
                "movable, every kernel allocation for its processors is remote",
                f"some boot memory for node {node.number}",
                node.line,
            )
    known = {node.number for node in guest.definition.nodes} or {0}
    for device in guest.definition.devices:
        if device.node is not None and device.node not in known:
            yield LintFinding(
                "empty-node",
                f"{device.name}: node {device.node}",
                "there is no such node: the hypervisor refuses the device",
                f"a node of {', '.join(map(str, sorted(known)))}",
                device.line,
            )


def _backing(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``system/physmem.c: ram_block_discard_range``: whole pages of the host, none locked."""
    del answers
    definition = guest.definition
    for device in _virtio_mem(guest):
        if device.backing.prealloc:
            yield LintFinding(
                "host-memory",
                f"{device.name}: prealloc",
                f"the host allocates all {format_size(device.size_bytes)} of it, and not what is "
                "requested",
                "prealloc=on of the device instead of its memory, which allocates what is plugged",
                device.line,
            )
        huge = device.backing.hugepage_bytes or 0
        if huge > virtio_mem_block_bytes(device):
            yield LintFinding(
                "host-memory",
                f"{device.name}: blocks of {format_size(virtio_mem_block_bytes(device))} in huge "
                f"pages of {format_size(huge)}",
                "unplugged blocks are not freed by the host",
                f"a block size of {quantity(huge)}",
                device.line,
            )
    balloon = definition.balloon
    uses = balloon.current_bytes is not None and balloon.current_bytes < definition.memory_bytes
    backing = definition.backing
    why = (
        "the memory is locked"
        if backing.locked
        else "the host has it in huge pages"
        if backing.hugepage_bytes is not None
        else ""
    )
    if (uses or balloon.free_page_reporting) and why:
        yield LintFinding(
            "host-memory",
            "a balloon" if uses else "free page reporting",
            f"the host gets nothing back: {why}",
            "memory that is neither locked nor in huge pages",
            _line(guest, "balloon"),
        )


def _at_next_start(guest: BootedGuest, answers: Sequence[WayAnswer]) -> Iterator[LintFinding]:
    """``drivers/acpi/acpi_memhotplug.c``: devices are added while the kernel boots."""
    del answers
    kernel = guest.booted.kernel
    movable = [zone.present for zone in kernel.zones.values() if zone.name == MOVABLE]
    lines = {each.name: each.line for each in guest.definition.devices}
    for device in guest.machine.machine.devices:
        page = kernel.arch.page_size_bytes
        first = int(device.address) // page // kernel.block_nr_pages
        if device.driver != "dimm" or first not in kernel.online_blocks:
            continue
        if any(kernel.block_pfns(first).start in zone for zone in movable):
            continue
        yield LintFinding(
            "at-next-start",
            f"{device.id}: {format_size(int(device.size))} that are there when the guest starts",
            "they come online while the kernel boots, in a kernel zone: a DIMM that was movable "
            "while it was plugged cannot be relied on to be given back after a restart",
            "kernel command line: memhp_default_state=online_movable, which counts at boot too",
            lines.get(device.id),
        )


#: Every rule by its name.
RULES: dict[str, Callable[[BootedGuest, Sequence[WayAnswer]], Iterator[LintFinding]]] = {
    "size-of-block": _size_of_block,
    "size-of-device": _size_of_device,
    "large-blocks": _large_blocks,
    "no-maximum": _no_maximum,
    "beyond-addresses": _beyond_addresses,
    "small-boot": _small_boot,
    "one-step": _one_step,
    "no-driver": _no_driver,
    "stays-offline": _stays_offline,
    "not-returned": _not_returned,
    "beyond-ratio": _beyond_ratio,
    "memmap-on-memory": _memmap_of_virtio_mem,
    "empty-node": _empty_node,
    "host-memory": _backing,
    "at-next-start": _at_next_start,
}
