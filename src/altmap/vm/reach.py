"""How a guest grows: each size on the model, with what it costs and what can be given back.

A device that is one add (a DIMM) needs the memmap of all of it at once. virtio-mem and hv_balloon
add block by block, so that later blocks may take their memmap from earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from altmap.errors import InputError
from altmap.model.kernel.allocator import available_nr_pages
from altmap.model.kernel.pagetables import page_table_nr_pages
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Plug, Resize, Size, Step
from altmap.sweep.row import MachineNumbers, columns_of
from altmap.trace import OK, Outcome
from altmap.units import format_size
from altmap.vm.ways import GrowthWay

__all__ = ("MOST_BY_BLOCK", "GivenBack", "GrowingGuest", "Reached", "reach", "sizes_of")

#: Drivers that add block by block.
_BY_BLOCK = ("virtio-mem", "hyperv")
#: Blocks that are performed one by one at most; larger sizes follow from the two before.
MOST_BY_BLOCK = 512
#: Steps in which a size is reached at most.
_MOST_STEPS = 64
_MOST_SIZES = 24


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What of the added memory can be given back, in bytes.

    Attributes
    ----------
    certain : int
        Offline: no page of it is in use.
    likely : int
        In ZONE_MOVABLE, in pieces that can go by themselves; pinned pages keep it.
    unlikely : int
        In kernel zones, or in a device that has blocks there: one kernel allocation keeps it.
    """

    certain: int
    likely: int
    unlikely: int


@dataclass(frozen=True, slots=True)
class Reached:
    """A guest of one size.

    Attributes
    ----------
    size_bytes : int
        What the host gives.
    result : str
        ``ok``, ``refused``, or ``about``: from two smaller sizes, as there are too many blocks.
    why : str
        Of a refusal: errno, kernel function and sentence, or what the hypervisor lacks; else the
        two sizes.
    reached_bytes : int
        *size_bytes*, or how far it is reached if it is refused.
    adds_bytes : tuple of int
        The adds by which it is reached, each as large as the free memory allows.
    mem_total_bytes, mem_free_bytes : int
        Afterwards.
    needs_free_bytes : int
        MemFree before the add, if all is added in one step; of drivers that add block by block,
        for the first block, or for all if none comes online in a kernel zone.
    free_bytes : int
        MemFree at boot.
    memmap_boot_bytes, memmap_added_bytes, memmap_self_bytes : int
        Memmap of added memory: in boot memory, in other added memory, in the block itself.
    kernel_bytes, movable_bytes : int
        Present pages of kernel zones and of ZONE_MOVABLE.
    online_kernel_bytes, online_movable_bytes, offline_bytes : int
        Where the kernel puts the added memory by itself.
    given : GivenBack
    gigantic : int
        Gigantic pages that kernel zones could provide.
    """

    size_bytes: int
    result: str
    why: str = ""
    reached_bytes: int = 0
    adds_bytes: tuple[int, ...] = ()
    mem_total_bytes: int = 0
    mem_free_bytes: int = 0
    needs_free_bytes: int = 0
    free_bytes: int = 0
    memmap_boot_bytes: int = 0
    memmap_added_bytes: int = 0
    memmap_self_bytes: int = 0
    kernel_bytes: int = 0
    movable_bytes: int = 0
    online_kernel_bytes: int = 0
    online_movable_bytes: int = 0
    offline_bytes: int = 0
    given: GivenBack = field(default_factory=lambda: GivenBack(0, 0, 0))
    gigantic: int = 0
    gigantic_page_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Movable to kernel memory."""
        return self.movable_bytes / self.kernel_bytes if self.kernel_bytes else 0.0


class GrowingGuest:
    """A guest on the model that grows by one way.

    Parameters
    ----------
    machine : ModelMachine
        After boot; a copy of it grows.
    way : GrowthWay
    """

    def __init__(self, machine: ModelMachine, way: GrowthWay) -> None:
        self.way = way
        self.booted = machine
        self.machine = machine.copy()
        self.size_bytes = way.start_bytes
        self.adds: list[int] = []
        self.outcome: Outcome = OK
        self._start = MachineNumbers.of(machine.kernel)
        self._boot_blocks = machine.kernel.added_blocks.copy()

    @property
    def by_block(self) -> bool:
        """Whether memory is added block by block, each online before the next."""
        return self.way.driver in _BY_BLOCK

    @property
    def kernel(self) -> Kernel:
        """The guest's kernel now."""
        return self.machine.kernel

    def grow(self, size_bytes: int) -> Outcome:
        """Grow to a size in as few adds as the free memory allows."""
        while self.size_bytes < size_bytes:
            missing = size_bytes - self.size_bytes
            outcome = self._full()
            if not outcome:
                return outcome
            step = missing if self.by_block else self.largest_add(missing)
            outcome = self._add(self.machine, step or missing)
            if not outcome or not step:
                return self._stopped(outcome)
            self.size_bytes += step
            self.adds.append(step)
        return OK

    def largest_add(self, most_bytes: int) -> int:
        """Return the most bytes that one add can have now, 0 if none."""
        unit = self.way.unit_bytes
        if self._fits(most_bytes):
            return most_bytes
        low, high = 0, most_bytes // unit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle * unit) else (low, middle)
        return low * unit

    def try_add(self, size_bytes: int) -> Outcome:
        """Return how one add would end now."""
        return self._add(self.machine.copy(), size_bytes)

    def _fits(self, size_bytes: int) -> bool:
        return bool(self.try_add(size_bytes))

    def _full(self) -> Outcome:
        """Return the refusal of the hypervisor, if it has no slot left."""
        slots = self.way.slots
        if self.way.driver == "dimm" and slots is not None and len(self.adds) >= slots:
            return Outcome("refused", None, "", f"no slot is free: {slots} were")
        if len(self.adds) >= _MOST_STEPS:
            return Outcome("refused", None, "", f"more than {_MOST_STEPS} adds")
        return OK

    def _stopped(self, outcome: Outcome) -> Outcome:
        """Keep what a driver that adds block by block has reached."""
        if self.by_block:
            added = self.kernel.pages_of(self.kernel.added_blocks - self._boot_blocks)
            reached = len(added) * self.kernel.arch.page_size_bytes
            self.size_bytes = max(self.size_bytes, self.way.start_bytes + reached)
        return outcome

    def _add(self, machine: ModelMachine, size_bytes: int) -> Outcome:
        """Add memory in one step; what the hypervisor refuses is a refusal as well."""
        try:
            return machine.perform(self._step(machine, size_bytes)).outcome
        except InputError as error:
            return Outcome("refused", None, "", str(error))

    def _step(self, machine: ModelMachine, size_bytes: int) -> Step:
        way = self.way
        if way.driver == "hyperv":
            return Resize(id="balloon", size=Size(self.size_bytes + size_bytes))
        if way.driver == "virtio-mem":
            return self._request(machine, size_bytes)
        return Plug(
            id=f"dimm-added{len(self.adds)}", driver="dimm", size=Size(size_bytes), node=way.node
        )

    def _request(self, machine: ModelMachine, size_bytes: int) -> Step:
        for known in machine.device_ids("virtio-mem"):
            size, most = machine.device_sizes(known)
            if size < most:
                return Resize(id=known, size=Size(min(most, size + size_bytes)))
        return Plug(
            id="virtiomem-added",
            driver="virtio-mem",
            size=Size(self.way.limit_bytes - self.way.start_bytes),
            requested=Size(size_bytes),
            block=None if self.way.block_bytes is None else Size(self.way.block_bytes),
            node=self.way.node,
        )

    # --- what is measured ------------------------------------------------------------------

    def measured(self, size_bytes: int, outcome: Outcome) -> Reached:
        """Return the guest's numbers now; *outcome* is how growing to a size ended."""
        kernel = self.kernel
        page = kernel.arch.page_size_bytes
        columns = columns_of(self.machine, self._start)
        added = kernel.pages_of(kernel.added_blocks - self._boot_blocks)
        online = added & kernel.pages_of(kernel.online_blocks)
        movable = PfnSet.of(
            *(zone.present for zone in kernel.zones.values() if zone.name == MOVABLE)
        )
        in_movable = len(online & movable) * page
        nr_at_boot = len(self.booted.kernel.additions)
        hosts = [add.host_pages for add in kernel.additions[nr_at_boot:]]
        in_boot = len(PfnSet.of(*hosts) & kernel.boot_ram) * page
        # DLPAR adds a DIMM block by block as well, each online before the next.
        by_block = self.by_block or "dlpar" in kernel.arch.mechanisms
        hosts_itself = by_block and len(online) * page > in_movable
        needs = self._needs_free_bytes(size_bytes, hosts_itself=hosts_itself)
        return Reached(
            size_bytes=size_bytes,
            result="ok" if outcome else "refused",
            why="" if outcome else _why(outcome),
            reached_bytes=self.size_bytes,
            adds_bytes=tuple(self.adds),
            mem_total_bytes=columns["mem_total_after_bytes"],
            mem_free_bytes=columns["free_after_bytes"],
            needs_free_bytes=needs,
            free_bytes=self._start.free * page,
            memmap_boot_bytes=in_boot,
            memmap_added_bytes=sum(map(len, hosts)) * page - in_boot,
            memmap_self_bytes=columns["memmap_self_hosted_bytes"],
            kernel_bytes=columns["kernel_bytes"],
            movable_bytes=columns["movable_bytes"],
            online_kernel_bytes=len(online) * page - in_movable,
            online_movable_bytes=in_movable,
            offline_bytes=(len(added) - len(online)) * page,
            given=self._given(added, online, movable),
            gigantic=columns["gigantic_after"],
            gigantic_page_bytes=columns["gigantic_page_bytes"],
        )

    def _needs_free_bytes(self, size_bytes: int, *, hosts_itself: bool) -> int:
        """Return the MemFree that boot memory must have: memmap, and what the zones keep.

        Blocks that come online in kernel zones one by one can host the memmap of later ones.
        """
        kernel, boot = self.kernel, self.booted.kernel
        page = kernel.arch.page_size_bytes
        added = size_bytes - self.way.start_bytes
        if added <= 0:
            return 0
        if hosts_itself:
            memmap = kernel.arch.memmap_nr_pages(kernel.block_nr_pages)
        elif kernel.self_hosted and not any(add.host_pages for add in kernel.additions):
            memmap = 0
        else:
            memmap = kernel.arch.memmap_nr_pages(added // page)
            memmap += page_table_nr_pages(kernel, kernel.additions)
        return (memmap + boot.free_nr_pages() - available_nr_pages(boot)) * page

    def _given(self, added: PfnSet, online: PfnSet, movable: PfnSet) -> GivenBack:
        """Return what can be given back: by device if it goes as a whole, else by block."""
        page = self.kernel.arch.page_size_bytes
        pieces: Sequence[PfnSet] = [added]
        if self.way.driver == "dimm":
            mine = (PfnSet([add.pfns]) & added for add in self.kernel.additions)
            pieces = [piece for piece in mine if piece]
        certain = likely = unlikely = 0
        for piece in pieces:
            fixed = (piece & online) - movable
            if self.way.driver == "hyperv" or (fixed and self.way.driver == "dimm"):
                unlikely += len(piece)
            else:
                unlikely += len(fixed)
                certain += len(piece - online)
                likely += len(piece & online & movable)
        return GivenBack(certain * page, likely * page, unlikely * page)


def _why(outcome: Outcome) -> str:
    head = f"{outcome.errno} by {outcome.function}: " if outcome.errno else ""
    return head + outcome.why


def reach(machine: ModelMachine, way: GrowthWay, sizes: Sequence[int]) -> list[Reached]:
    """Return a guest at each size, up to the first that it does not reach.

    Parameters
    ----------
    machine : ModelMachine
        After boot.
    way : GrowthWay
    sizes : sequence of int
        Rising.
    """
    found: list[Reached] = []
    halves: list[Reached] = []
    guest = GrowingGuest(machine, way)
    block_bytes = machine.kernel.block_nr_pages * machine.kernel.arch.page_size_bytes
    for size_bytes in sizes:
        if way.missing and size_bytes > way.start_bytes:
            found.append(Reached(size_bytes, "refused", way.missing, way.start_bytes))
            break
        nr_blocks = (size_bytes - way.start_bytes) // block_bytes
        if guest.by_block and nr_blocks > MOST_BY_BLOCK:
            halves = halves or _halves(guest, way, MOST_BY_BLOCK * block_bytes)
            row = _beyond(guest, halves, size_bytes)
            found.append(row)
            if row.result != "about":
                break
            continue
        if not guest.by_block:
            guest = GrowingGuest(machine, way)
        outcome = guest.grow(size_bytes)
        found.append(guest.measured(size_bytes, outcome))
        if not outcome:
            break
    return found


def _halves(guest: GrowingGuest, way: GrowthWay, most_bytes: int) -> list[Reached]:
    """Return two sizes that are performed, up to the first that is not reached."""
    found = []
    for size in (way.start_bytes + most_bytes // 2, way.start_bytes + most_bytes):
        fresh = GrowingGuest(guest.booted, way)
        outcome = fresh.grow(size)
        found.append(fresh.measured(size, outcome))
        if not outcome:
            break
    return found


def _beyond(guest: GrowingGuest, halves: Sequence[Reached], size_bytes: int) -> Reached:
    """Return a size with more blocks than are performed, from two that are performed.

    Each further block costs as much as those between the two. Where the memmap lies in boot memory
    until that is full, it then lies in added memory.
    """
    if halves[-1].result == "refused":
        return replace(halves[-1], size_bytes=size_bytes)
    one, two = halves
    more, per = size_bytes - two.size_bytes, two.size_bytes - one.size_bytes
    numbers = {
        name: getattr(two, name) + (getattr(two, name) - getattr(one, name)) * more // per
        for name in _GROWING
    }
    numbers["gigantic"] = max(0, numbers["gigantic"])
    beyond = max(0, numbers["memmap_boot_bytes"] - two.free_bytes)
    numbers["memmap_boot_bytes"] -= beyond
    numbers["memmap_added_bytes"] += beyond
    given = GivenBack(
        *(
            last + (last - before) * more // per
            for before, last in zip(_parts(one.given), _parts(two.given), strict=True)
        )
    )
    why = f"from {format_size(one.size_bytes)} and {format_size(two.size_bytes)}"
    row = replace(
        two,
        size_bytes=size_bytes,
        reached_bytes=size_bytes,
        result="about",
        why=why,
        given=given,
        **numbers,
    )
    lacks = row.needs_free_bytes - row.free_bytes
    if not row.online_kernel_bytes and lacks > 0:
        per_byte = (row.needs_free_bytes - two.needs_free_bytes) / more
        unit = guest.kernel.block_nr_pages * guest.kernel.arch.page_size_bytes
        short = -(-int(lacks / per_byte) // unit) * unit
        return replace(
            row,
            result="refused",
            reached_bytes=size_bytes - short,
            why=f"ENOMEM by vmemmap_populate: the memmap needs {row.needs_free_bytes >> 20} MiB of "
            f"the {row.free_bytes >> 20} MiB that are free at boot",
        )
    return row


#: Numbers of a guest that grow with its size.
_GROWING = (
    *("mem_total_bytes", "mem_free_bytes", "needs_free_bytes"),
    *("memmap_boot_bytes", "memmap_added_bytes", "memmap_self_bytes"),
    *("kernel_bytes", "movable_bytes", "gigantic"),
    *("online_kernel_bytes", "online_movable_bytes", "offline_bytes"),
)


def _parts(given: GivenBack) -> tuple[int, int, int]:
    return given.certain, given.likely, given.unlikely


def sizes_of(way: GrowthWay) -> list[int]:
    """Return the sizes that a table shows: at boot, doubled up to the limit, and the limit."""
    return list(dict.fromkeys(_doubled(way)))[:_MOST_SIZES]


def _doubled(way: GrowthWay) -> Iterator[int]:
    start, unit = way.start_bytes, way.unit_bytes
    size = start
    while size < way.limit_bytes:
        yield size
        size = start + (2 * size - start) // unit * unit
    yield way.limit_bytes
