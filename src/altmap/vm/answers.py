"""Everything that is answered about a definition: at boot, by each way, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.boot.layout import firmware_ram, ram_in_use
from altmap.model.boot.reserved import boot_parts
from altmap.model.kernel.accounting import Policy
from altmap.model.kernel.allocator import available_nr_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine
from altmap.units import format_size
from altmap.vm.balloon import balloon_rows
from altmap.vm.definition import Definition
from altmap.vm.kernel import GuestKernel, guest_kernel
from altmap.vm.machine import GuestMachine, guest_machine
from altmap.vm.reach import GrowingGuest, Reached, reach, sizes_of
from altmap.vm.ways import GrowthWay, growth_way, growth_ways

__all__ = (
    "BootState",
    "BootZone",
    "BootedGuest",
    "WayAnswer",
    "boot_state",
    "started",
    "way_answer",
)


@dataclass(frozen=True, slots=True)
class BootZone:
    """A zone of a guest that has booted; sizes in bytes."""

    node: int
    name: str
    present_bytes: int
    managed_bytes: int


@dataclass(frozen=True, slots=True)
class BootState:
    """A guest that has booted.

    Attributes
    ----------
    set_bytes : int
        What the definition gives it.
    mem_total_bytes, mem_free_bytes : int
    block_bytes : int
        Size of a memory block.
    nr_blocks, nr_online : int
    nodes : tuple of int
        Nodes, those without memory too.
    zones : tuple of BootZone
        Those with pages.
    losses : tuple of (int, str)
        Bytes between *set_bytes* and MemTotal, each with the cause.
    """

    set_bytes: int
    mem_total_bytes: int
    mem_free_bytes: int
    block_bytes: int
    nr_blocks: int
    nr_online: int
    nodes: tuple[int, ...]
    zones: tuple[BootZone, ...]
    losses: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class WayAnswer:
    """What one way offers.

    Attributes
    ----------
    way : GrowthWay
    rows : tuple of Reached
        Rising sizes, up to the first that is not reached.
    largest_add_bytes, careful_add_bytes : int or None
        The largest single add that the free memory at boot allows, and one whose memmap takes half
        of it; ``None`` where memory is added block by block.
    stops_bytes : int
        The size at which it stops.
    stops : str
        Why.
    """

    way: GrowthWay
    rows: tuple[Reached, ...]
    largest_add_bytes: int | None
    careful_add_bytes: int | None
    stops_bytes: int
    stops: str


@dataclass(frozen=True, slots=True)
class BootedGuest:
    """A definition with a kernel, booted on the model.

    Attributes
    ----------
    definition : Definition
    kernel : GuestKernel
    machine : GuestMachine
    booted : ModelMachine
    from_files : bool
        The model starts from the guest's files, not from a synthetic boot state.
    """

    definition: Definition
    kernel: GuestKernel
    machine: GuestMachine
    booted: ModelMachine
    from_files: bool = False

    @property
    def block_bytes(self) -> int:
        """The size of a memory block."""
        made = self.booted.kernel
        return made.block_nr_pages * made.arch.page_size_bytes

    def ways(self, names: Sequence[str] = (), most_bytes: int | None = None) -> list[GrowthWay]:
        """Return the ways that the definition has, or the named ones."""
        given = self.definition, self.kernel, self.machine, self.block_bytes
        if not names:
            return growth_ways(*given)
        return [growth_way(name, *given, most_bytes) for name in names]


def started(
    definition: Definition,
    *,
    release: str | None = None,
    cmdline: str | None = None,
    config: str | None = None,
    seen: Observation | None = None,
    policy: Policy | None = None,
) -> BootedGuest:
    """Return a guest that has booted.

    Parameters
    ----------
    definition : Definition
    release, cmdline, config : str, optional
        As for :func:`altmap.vm.kernel.guest_kernel`.
    seen : Observation, optional
        The guest's files, which the model then starts from.
    policy : Policy, optional
        The memmap policy; default: what Linux does.

    Raises
    ------
    InputError
        If no machine is so, or the files lack what the model needs.
    """
    if seen is None:
        kernel = guest_kernel(definition, release=release, cmdline=cmdline, config=config)
        machine = guest_machine(definition, kernel)
        booted = ModelMachine.start(machine.machine, policy=policy, pages=False)
        machine = replace(machine, notes=(*machine.notes, *_of_cma(booted)))
        return BootedGuest(definition, kernel, machine, booted)
    named = release or seen.release
    if named is None:
        raise InputError("--guest: no file names the release; --release says which")
    words = cmdline if cmdline is not None else seen.cmdline
    kernel = guest_kernel(definition, release=named, cmdline=words, config=config)
    if release is None:
        kernel = replace(kernel, stated="the guest's files")
    machine = guest_machine(definition, kernel)
    booted = ModelMachine.start(Machine(release=release), seen, policy=policy, pages=False)
    notes = [*machine.notes, *_of_cma(booted)]
    made = booted.kernel
    shown = len(made.added_blocks) * made.block_nr_pages * made.arch.page_size_bytes
    if abs(shown - machine.start_bytes) > made.block_nr_pages * made.arch.page_size_bytes * 2:
        notes.append(
            f"the guest's files show {format_size(shown)} in memory blocks, and the definition "
            f"gives {format_size(machine.start_bytes)}"
        )
    return BootedGuest(definition, kernel, replace(machine, notes=tuple(notes)), booted, True)


def _of_cma(booted: ModelMachine) -> Iterator[str]:
    kernel = booted.kernel
    nr_pages = sum(zone.cma_nr_pages for zone in kernel.zones.values() if zone.name != MOVABLE)
    if nr_pages:
        size = format_size(nr_pages * kernel.arch.page_size_bytes)
        yield f"{size} of the free memory are CMA, of which the memmap of added memory gets nothing"


def boot_state(guest: BootedGuest) -> BootState:
    """Return what a guest has at boot, and where the rest of what was set is."""
    kernel = guest.booted.kernel
    page = kernel.arch.page_size_bytes
    zones = tuple(
        BootZone(zone.node, zone.name, len(zone.present) * page, kernel.nr_managed(zone) * page)
        for zone in kernel.zones.values()
        if zone.present
    )
    total = kernel.total_ram_nr_pages() * page
    return BootState(
        set_bytes=guest.machine.start_bytes,
        mem_total_bytes=total,
        mem_free_bytes=kernel.free_nr_pages() * page,
        block_bytes=guest.block_bytes,
        nr_blocks=len(kernel.added_blocks),
        nr_online=len(kernel.online_blocks),
        nodes=tuple(sorted({zone.node for zone in kernel.zones.values()})),
        zones=zones,
        losses=tuple(_losses(guest, kernel, total)),
    )


def _losses(guest: BootedGuest, kernel: Kernel, total_bytes: int) -> list[tuple[int, str]]:
    page = kernel.arch.page_size_bytes
    present = sum(len(zone.present) for zone in kernel.zones.values()) * page
    memmap = kernel.arch.memmap_nr_pages(len(kernel.boot_ram)) * page
    offline = len(kernel.added_blocks) - len(kernel.online_blocks)
    refused = sum(
        int(each.size)
        for each in guest.machine.machine.devices
        if each.driver == "dimm"
        and int(each.address) // page // kernel.block_nr_pages not in kernel.added_blocks
    )
    balloon = guest.definition.balloon.current_bytes
    unused = _unused_bytes(guest)
    in_blocks = present + offline * guest.block_bytes
    found = [
        (offline * guest.block_bytes, "in memory blocks that are offline"),
        (refused, "in devices that the kernel refuses"),
        (unused, "taken by mem= or memmap="),
        (guest.machine.start_bytes - in_blocks - refused - unused, "kept by the firmware"),
        (memmap, f"the memmap: {kernel.arch.struct_page_size_bytes} bytes for each page"),
        *_kept(guest, present - memmap - total_bytes),
    ]
    inflated = balloon is not None and guest.definition.balloon.present is not False
    if inflated and balloon is not None and balloon < guest.machine.start_bytes:
        found.append((guest.machine.start_bytes - balloon, "in the balloon, once it is inflated"))
    return [(size, why) for size, why in found if size > 0]


def _unused_bytes(guest: BootedGuest) -> int:
    """Return the RAM that ``mem=`` and ``memmap=`` leave out."""
    machine, arch = guest.machine.machine, guest.machine.arch
    ranges = firmware_ram(machine, arch), ram_in_use(machine, arch)
    of_firmware, in_use = (sum(end - start for start, end in each) for each in ranges)
    return of_firmware - in_use


def _kept(guest: BootedGuest, kept_bytes: int) -> list[tuple[int, str]]:
    """Return what the kernel keeps by cause; causes of less than 1 MiB are one."""
    if guest.from_files:
        return [(kept_bytes, "reserved by the kernel: its image, hash tables, memory for DMA")]
    kernel = guest.booted.kernel
    parts = boot_parts(guest.machine.machine, kernel.arch, kernel.release)
    found = [(part.size_bytes, part.cause) for part in parts if part.size_bytes >= 1 << 20]
    found.sort(reverse=True)
    return [*found, (kept_bytes - sum(size for size, _ in found), "others of the kernel")]


def way_answer(guest: BootedGuest, way: GrowthWay, sizes: Sequence[int] = ()) -> WayAnswer:
    """Return what a way offers, at each of the sizes or at those that a table shows."""
    if way.driver == "balloon":
        return _balloon_answer(guest, way, sizes or sizes_of(way))
    rows = tuple(reach(guest.booted, way, sizes or sizes_of(way)))
    stops, why = _stop(guest.booted, way, rows)
    largest = careful = None
    if way.driver == "dimm" and not way.missing and way.limit_bytes > way.start_bytes:
        growing = GrowingGuest(guest.booted, way)
        largest = growing.largest_add(way.limit_bytes - way.start_bytes)
        careful = min(largest, _careful_bytes(guest, way))
    return WayAnswer(way, rows, largest, careful, stops, why)


def _balloon_answer(guest: BootedGuest, way: GrowthWay, sizes: Sequence[int]) -> WayAnswer:
    """Return what a balloon offers a guest that has booted with all that it can have.

    A definition without a balloon is booted with the supposed limit.
    """
    booted, more = guest.booted, way.limit_bytes - guest.machine.start_bytes
    if more > 0:
        memory = guest.definition.memory_bytes + more
        larger = replace(guest.definition, memory_bytes=memory, nodes=(), max_memory_bytes=None)
        machine = guest_machine(larger, guest.kernel).machine
        booted = ModelMachine.start(machine, pages=False)
    deflates = guest.definition.balloon.deflate_on_oom is True
    rows = tuple(balloon_rows(booted, way, sizes, deflates_on_oom=deflates))
    stops = (way.start_bytes, way.missing) if way.missing else (way.limit_bytes, way.limit)
    return WayAnswer(way, rows, None, None, *stops)


def _careful_bytes(guest: BootedGuest, way: GrowthWay) -> int:
    """Return the add whose memmap takes half of what kernel zones can give, as a plan does."""
    kernel = guest.booted.kernel
    per_unit = kernel.arch.memmap_nr_pages(way.unit_bytes // kernel.arch.page_size_bytes)
    return available_nr_pages(kernel) // 2 // max(1, per_unit) * way.unit_bytes


def _stop(machine: ModelMachine, way: GrowthWay, rows: Sequence[Reached]) -> tuple[int, str]:
    """Return the size at which growing stops, and why."""
    if way.missing:
        return way.start_bytes, way.missing
    if way.limit_bytes <= way.start_bytes:
        return way.start_bytes, way.limit
    guest = GrowingGuest(machine, way)
    if guest.by_block:
        last = rows[-1]
        if last.result != "refused":
            return way.limit_bytes, way.limit
        return last.reached_bytes, last.why
    outcome = guest.grow(way.limit_bytes)
    if outcome:
        return way.limit_bytes, way.limit
    head = f"{outcome.errno} by {outcome.function}: " if outcome.errno else ""
    return guest.size_bytes, head + outcome.why
