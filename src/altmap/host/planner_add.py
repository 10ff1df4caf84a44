"""Plans that add memory: the add mechanism, whether the memmap fits, and in which pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from altmap.errors import InputError
from altmap.host.mechanisms import PlugWish, Way, way_of
from altmap.host.onliners import onliners_of
from altmap.host.plan import Plan, Risk
from altmap.host.planner import AS_SHOWN, Planner
from altmap.host.platforms import DefinedPlatform, platform_of
from altmap.host.risks import onliner_risks
from altmap.linux.sysroot import Sysroot
from altmap.model.kernel.allocator import available_nr_pages
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Machine, Plug, Resize
from altmap.trace import Outcome
from altmap.units import format_size, rounded_size

__all__ = ("PlugWish", "plan_add", "plan_grow")

#: Pieces into which an add is cut at most, when the memmap of the whole does not fit.
_MOST_PIECES = 16
#: Blocks more than the estimate that are tried, for the smallest part that must be kernel memory.
_MOST_TRIES = 16
#: Values of ``memory_hotplug.memmap_on_memory``, as a scenario and as the command line has them.
_SELF_HOSTING = (("on", "1"), ("force", "force"))


def plan_add(
    sysroot: Sysroot,
    wish: PlugWish,
    given: Machine = AS_SHOWN,
    platform: DefinedPlatform | None = None,
) -> Plan:
    """Return the plan that adds memory, in pieces if the memmap of the whole does not fit.

    Parameters
    ----------
    sysroot : Sysroot
    wish : PlugWish
    given : Machine
        What is said of the machine besides its files.
    platform : DefinedPlatform, optional
        What a definition says of its hypervisor.

    Raises
    ------
    InputError
        If the platform would not plug it, or the files lack what a prediction needs.
    """
    planner = Planner(sysroot, f"add {format_size(wish.size_bytes)}", given, platform)
    _add(planner, wish)
    return planner.result()


def plan_grow(
    sysroot: Sysroot,
    total_bytes: int,
    wish: PlugWish,
    given: Machine = AS_SHOWN,
    platform: DefinedPlatform | None = None,
) -> Plan:
    """Return the plan after which that much memory is online: offline blocks first, then more."""
    planner = Planner(sysroot, f"grow to {format_size(total_bytes)}", given, platform)
    assert planner.seen.memory is not None
    if platform is not None and platform.balloon_bytes < platform.balloon_most_bytes:
        planner.set_balloon(platform, min(total_bytes, platform.balloon_most_bytes))
    states = {nr: block.state for nr, block in planner.seen.memory.blocks.items()}
    online = sum(state != "offline" for state in states.values()) * planner.block_bytes
    for nr in [nr for nr, state in states.items() if state == "offline"]:
        if online >= total_bytes:
            break
        if not planner.write_state(nr, wish.to or "online"):
            return planner.result()
        online += planner.block_bytes
    missing = -(-max(0, total_bytes - online) // planner.block_bytes) * planner.block_bytes
    if missing:
        _add(planner, replace(wish, size_bytes=missing))
    return planner.result()


def _add(planner: Planner, wish: PlugWish) -> None:
    assert planner.seen.memory is not None
    way, wish = _way_here(planner, wish)
    if way.needs_address and wish.address is None:
        raise InputError(f"--driver {way.driver}: needs --address, which only the platform knows")
    default = planner.machine.kernel.tunables.auto_online_blocks
    word = wish.to or (default if default != "offline" else "online")
    planner.risks += onliner_risks(onliners_of(planner.sysroot, planner.seen), word)
    keeps = default == word or (default == "offline" and not way.onlines_itself)
    if not keeps:
        planner.set_default(word)
    if _Adder(planner, way, wish, word).bring() and not keeps:
        planner.set_default(default)


def _way_here(planner: Planner, wish: PlugWish) -> tuple[Way, PlugWish]:
    """Return how memory is added on the machine's platform, and where, as far as that is known.

    Raises
    ------
    InputError
        If the platform adds no memory to a machine that runs.
    """
    if planner.platform is not None:
        return _way_defined(planner, planner.platform, wish)
    found = platform_of(planner.sysroot)
    platform, ground = found.platform, found.ground
    given = wish.address is not None
    if platform.cannot and wish.driver is None:
        raise InputError(
            f"plan: {platform.name} ({ground}) cannot be grown while it runs: {platform.cannot}"
        )
    way = way_of(planner.machine, wish.driver, platform.driver)
    if way.driver == platform.driver:
        way = replace(way, by=platform.by or way.by)
        planner.notes.append(f"the platform is {platform.name} by {ground}")
        if way.needs_address and wish.address is None:
            wish = replace(wish, address=planner.address_above())
    elif wish.driver is None:
        known = f"{ground} is not known here" if ground else "no file names the platform"
        planner.notes.append(f"how memory is added, and where, is a guess: {known}")
    planner.knows_address = platform.knows_address or given
    return way, wish


def _way_defined(
    planner: Planner, platform: DefinedPlatform, wish: PlugWish
) -> tuple[Way, PlugWish]:
    """Return how memory is added by a definition.

    Raises
    ------
    InputError
        If the definition lets none be added, or not as much.
    """
    if platform.cannot and wish.driver is None:
        raise InputError(f"plan: {platform.name}: {platform.cannot}")
    way = way_of(planner.machine, wish.driver, platform.driver)
    most = platform.most_bytes.get(way.driver)
    if most is not None and wish.size_bytes > most:
        raise InputError(
            f"plan: {platform.name}: {format_size(wish.size_bytes)} more by {way.driver}: need at "
            f"most {format_size(most)}, which the definition leaves"
        )
    planner.notes.append(f"the platform is {platform.name}")
    planner.knows_address = platform.knows_address or wish.address is not None
    if way.needs_address and wish.address is None:
        wish = replace(wish, address=planner.address_above())
    return way, wish


@dataclass(slots=True)
class _Adder:
    """Plans one add.

    Attributes
    ----------
    planner : Planner
    way : Way
    wish : PlugWish
        With the size and the address of what is left to add.
    word : str
        What new blocks are onlined by.
    """

    planner: Planner
    way: Way
    wish: PlugWish
    word: str

    def bring(self) -> bool:
        """Plan the add in as few pieces as fit; false if a step is predicted to be refused.

        Each piece is online before the next, so that kernel zones grow by it. Where they do not,
        pieces cannot help: then the whole is one step, and a risk says what would make it fit.
        """
        mark, whole = self.planner.mark(), self.wish
        before = available_nr_pages(self.planner.machine.kernel)
        first, nr_pieces = 0, 0
        while self.wish.size_bytes:
            piece = self._piece()
            if piece < self._at_once():
                nr_pieces += 1
                first = first or piece
                enough = available_nr_pages(self.planner.machine.kernel)
                if not piece or nr_pieces > _MOST_PIECES or not self._plug(piece, gaining=enough):
                    self.planner.take_back(mark)
                    self.wish = whole
                    self.planner.risks.append(self._does_not_fit(before))
                    self._ask(whole.size_bytes)
                    return False
            elif not self._plug(piece):
                return False
        if first:
            self.planner.risks.append(self._in_pieces(whole.size_bytes, before, first))
        return True

    def _at_once(self) -> int:
        size = self.wish.size_bytes
        return min(size, self.planner.block_bytes) if self.way.by_block else size

    def _piece(self) -> int:
        """Return how much to add next, in bytes: the rest, or what fits of it safely."""
        size = self._at_once()
        return self._largest() if self._ends(size).errno == "ENOMEM" else size

    def _plug(self, size_bytes: int, gaining: int | None = None) -> bool:
        """Plan one piece and that its blocks go online; false if it is of no use.

        Parameters
        ----------
        size_bytes : int
        gaining : int, optional
            Pages that kernel zones could give before it, and must exceed after it.
        """
        planner = self.planner
        before = planner.machine.kernel.free_nr_pages()
        new = self._ask(size_bytes)
        if planner.obstacle:
            return False
        said = [*_memmap(planner, new, before, self.way.driver), *_gigantic(planner, new)]
        for nr in new:
            if planner.block_state(nr)[0] == "offline" and not planner.write_state(nr, self.word):
                return False
        if gaining is not None and available_nr_pages(planner.machine.kernel) <= gaining:
            return False
        planner.risks += said
        self._shift(size_bytes)
        return True

    def _shift(self, done_bytes: int) -> None:
        address = self.wish.address
        self.wish = replace(
            self.wish,
            size_bytes=self.wish.size_bytes - done_bytes,
            address=None if address is None else address + done_bytes,
        )

    def _ask(self, size_bytes: int) -> list[int]:
        """Plan that memory arrives; return the new blocks, none if refused."""
        step, driver = self._wished(size_bytes), self.way.driver
        self._check_slots()
        size = format_size(size_bytes)
        if isinstance(step, Resize):
            title = f"{size} more of {step.id}: {format_size(step.size)} requested"
        elif step.size > size_bytes:
            title = f"plug {format_size(step.size)} ({driver} {step.id}), {size} requested"
        else:
            title = f"plug {size} ({driver} {step.id})"
        if isinstance(step, Plug):
            self.wish = replace(self.wish, device=step.id if step.size > size_bytes else None)
        return self.planner.ask(step, title, self.way.by)

    def _check_slots(self) -> None:
        platform, planned = self.planner.platform, len(list(self.planner.plugged_ids()))
        slots = platform.slots if platform is not None and self.way.driver == "dimm" else None
        if platform is not None and slots is not None and planned >= slots:
            raise InputError(f"plan: {platform.name}: DIMM {planned + 1}: {slots} slots are free")

    def _wished(self, size_bytes: int) -> Plug | Resize:
        """Return the step that brings memory, under an id that no device has."""
        known = {device.name for device in self.planner.blocks.devices}
        known |= set(self.planner.plugged_ids())
        prefix = self.way.driver
        id_ = next(name for n in count(1) if (name := f"{prefix}{n}") not in known)
        return self.way.adds(self.planner.machine, self.wish, size_bytes, id_)

    def _ends(self, size_bytes: int) -> Outcome:
        """Return how an add would end, without planning it."""
        return self.planner.machine.copy().perform(self._wished(size_bytes)).outcome

    def _largest(self) -> int:
        """Return the most bytes, in whole blocks, that can safely be added now; 0 if none.

        Their memmap takes half of what kernel zones can give, so that the machine keeps
        running: one to 32, as the field's rule of thumb has it.
        """
        kernel, block_bytes = self.planner.machine.kernel, self.planner.block_bytes
        per_block = kernel.arch.memmap_nr_pages(kernel.block_nr_pages)
        fits = available_nr_pages(kernel) // 2 // per_block
        start = min(fits, self._at_once() // block_bytes)
        for nr_blocks in range(start, max(0, start - 64), -1):
            if self._ends(nr_blocks * block_bytes):
                return nr_blocks * block_bytes
        return 0

    # --- what is said if the memmap of the whole does not fit --------------------------------

    def _needs(self, size_bytes: int, available: int) -> str:
        kernel = self.planner.machine.kernel
        page = kernel.arch.page_size_bytes
        needed = kernel.arch.memmap_nr_pages(size_bytes // page)
        return (
            f"the memmap of {format_size(size_bytes)} does not fit: it needs "
            f"{rounded_size(needed * page)} of kernel zones, which have "
            f"{rounded_size(available * page)} to give"
        )

    def _in_pieces(self, size_bytes: int, available: int, first_bytes: int) -> Risk:
        what = (
            f"{self._needs(size_bytes, available)}; so at most {format_size(first_bytes)} as the "
            "first step, online before the next"
        )
        return Risk("certain", what, "keep to the order of the steps")

    def _does_not_fit(self, available: int) -> Risk:
        """Return what is needed and what would make it fit; the planner stands before the add."""
        cures = [self._kernel_part(), self._self_hosting()]
        cure = "; or ".join(filter(None, cures)) or "add less, or free memory first"
        what = (
            f"{self._needs(self.wish.size_bytes, available)}; an add that fails keeps the pages it "
            "took, and the kernel may kill processes or stop for lack of memory"
        )
        return Risk("certain", what, cure)

    def _kernel_part(self) -> str:
        """Return the smallest part that lets the rest fit if it is kernel memory, else ''."""
        if self.word == "online_kernel":
            return ""
        kernel, size_bytes = self.planner.machine.kernel, self.wish.size_bytes
        lacks = kernel.arch.memmap_nr_pages(size_bytes // kernel.arch.page_size_bytes)
        lacks -= available_nr_pages(kernel)
        start = max(1, -(-lacks // kernel.block_nr_pages))
        for nr_blocks in range(start, start + _MOST_TRIES):
            part = nr_blocks * self.planner.block_bytes
            if part < size_bytes and self._fits_after(part):
                return (
                    f"add {format_size(part)} of it first, for kernel zones: altmap plan add "
                    f"{format_size(part).replace(' ', '')} --driver {self.way.driver} "
                    f"--to online_kernel, then --to {self.word} for the rest"
                )
        return ""

    def _fits_after(self, part_bytes: int) -> bool:
        """Tell whether the rest fits once a part is kernel memory; the plan is as before."""
        mark = self.planner.mark()
        trial = _Adder(self.planner, self.way, self.wish, "online_kernel")
        self.planner.set_default("online_kernel")
        said = list(self.planner.risks)
        fits = trial._plug(part_bytes)
        if fits:
            self.planner.set_default(self.word)
            fits = bool(trial._ends(trial._at_once()))
        self.planner.risks[:] = said
        self.planner.take_back(mark)
        return fits

    def _self_hosting(self) -> str:
        """Return the boot parameter with which each block holds its memmap and the add fits."""
        planner = self.planner
        for mode, value in _SELF_HOSTING:
            try:
                given = planner.given.replace(memmap_on_memory=mode)
                machine = ModelMachine.start(given, planner.seen, pages=False)
                planner.repeat_on(machine)
                record = machine.perform(self._wished(self.wish.size_bytes))
            except InputError:
                continue  # the release has no such value
            if record.outcome and machine.kernel.self_hosted:
                return f"boot with memory_hotplug.memmap_on_memory={value}"
        return ""


def _memmap(planner: Planner, new: Sequence[int], before: int, driver: str) -> Iterator[Risk]:
    """Yield what the memmap takes of existing memory, if that is much or should not be."""
    if not new:
        return
    kernel = planner.machine.kernel
    pfns = PfnRange(kernel.block_pfns(new[0]).start, kernel.block_pfns(new[-1]).end)
    if kernel.self_hosted.count(pfns):
        return
    nr_pages = kernel.arch.memmap_nr_pages(len(new) * kernel.block_nr_pages)
    size = rounded_size(nr_pages * kernel.arch.page_size_bytes)
    if kernel.memmap_mode() != "off":
        yield Risk(
            "certain",
            f"memmap_on_memory is {kernel.memmap_mode()}, and the memmap still takes {size} of "
            f"existing memory: the driver ({driver}) does not ask for it, or sizes or release "
            "forbid it",
        )
    if nr_pages * 4 > before:
        free = rounded_size(before * kernel.arch.page_size_bytes)
        yield Risk(
            "certain",
            f"the memmap takes {size} of existing memory, of {free} that are free",
            "online the new memory at once, so that what was taken can be had there",
        )


def _gigantic(planner: Planner, new: Sequence[int]) -> Iterator[Risk]:
    """Yield what a self-hosted memmap costs in 1 GiB pages: every GiB holds a memmap page."""
    if not new:
        return
    kernel = planner.machine.kernel
    page = kernel.arch.page_size_bytes
    gigantic = kernel.arch.gigantic_page_bytes
    if gigantic is None or planner.block_bytes >= gigantic:
        return
    pfns = PfnRange(kernel.block_pfns(new[0]).start, kernel.block_pfns(new[-1]).end)
    whole = pfns.end * page // gigantic - -(-pfns.start * page // gigantic)
    if whole > 0 and kernel.self_hosted.count(pfns):
        yield Risk(
            "certain",
            f"{whole} gigantic pages of {format_size(gigantic)} are lost: each memory block holds "
            "its own memmap",
            "boot without memory_hotplug.memmap_on_memory, if gigantic pages are to come from it",
        )
