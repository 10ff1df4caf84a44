"""The Xen balloon: ``drivers/xen/balloon.c`` and ``drivers/xen/xen-balloon.c``.

The domain has a target for its memory. The driver grows it with page frames that it has ballooned
before; when there are none, it adds whole sections that are not backed, and has as many of their
pages backed as the target needs. The rest stay on the driver's list, PageOffline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.allocator import available_nr_pages
from altmap.model.kernel.expected import expect_unmovable_allocation
from altmap.model.kernel.page_offline import clear_fake_offline, set_fake_offline
from altmap.model.kernel.registration import set_online_page_callback
from altmap.model.kernel.single_pages import find_unmovable_pages
from altmap.model.kernel.watermarks import totalreserve_nr_pages
from altmap.model.platform.xen import XenDomain
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("BALLOON", "BalloonedPages", "XenBalloon", "additional_memory_resource")

#: The id of the balloon that each domain has.
BALLOON = "balloon"
#: Extents of one hypercall (``frame_list``): as many as frame numbers fit into a page.
_FRAME_BYTES = 8
#: arch/x86/kernel/resource.c: arch_remove_reservations: the BIOS's ROM below 4 GiB.
_BIOS_ROM = (0xFFE00000, 0x100000000)


@dataclass(slots=True)
class BalloonedPages:
    """The driver's list of page frames that are not backed, last in, first out.

    It is a stack of sets; of each set the highest page frame leaves first, since a range is put on
    the list from its start on.
    """

    _stack: list[PfnSet] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(pages) for pages in self._stack)

    def append(self, pages: PfnSet) -> None:
        """Put page frames on the list in ascending order (``balloon_append``)."""
        if pages:
            self._stack.append(pages.copy())

    def retrieve(self, nr_pages: int) -> PfnSet:
        """Take page frames off the list, the last one first (``balloon_retrieve``)."""
        taken = PfnSet()
        while self._stack and len(taken) < nr_pages:
            pages = self._stack.pop()
            some = pages.highest(min(len(pages), nr_pages - len(taken)))
            taken |= some
            self.append(pages - some)
        return taken


@dataclass(slots=True)
class XenBalloon(Driver):
    """The balloon of one domain, registered as the kernel's online-page callback.

    Attributes
    ----------
    domain : XenDomain
        The hypervisor's side.
    resources : sequence of (int, int)
        The top level of /proc/iomem at the start, ``[start, end)`` in bytes.
    target, current, total : int
        ``balloon_stats``: target, pages that are backed, and those together with the
        ballooned ones; *total* counts sections from their add on and never falls.
    ballooned : BalloonedPages
        Their number is ``balloon_low``.
    state : str
        ``DONE``, ``WAIT`` (for added blocks to go online) or ``ECANCELED``.
    """

    domain: XenDomain
    resources: Sequence[tuple[int, int]]
    target: int
    current: int
    total: int
    ballooned: BalloonedPages
    state: str = "DONE"

    @classmethod
    def of_domain(
        cls, devices: Devices, domain: XenDomain, resources: Sequence[tuple[int, int]], target: int
    ) -> XenBalloon:
        """Return the balloon of a running domain.

        Pages that are PageOffline are on its list. Added blocks that were never onlined are not,
        but count in the total.
        """
        kernel = devices.kernel
        ballooned = BalloonedPages()
        ballooned.append(kernel.fake_offline)
        offline = len(kernel.added_blocks - kernel.online_blocks) * kernel.block_nr_pages
        total = domain.tot_pages + len(ballooned) + offline
        made = cls(devices, domain, resources, target, domain.tot_pages, total, ballooned)
        set_online_page_callback(kernel, made.online_pages)
        devices.by_id[BALLOON] = MemoryDevice("xen", PfnRange(0, 0))
        return made

    def plug(self, plug: Plug) -> Outcome:
        """Refuse: nothing is plugged into a domain."""
        raise InputError(f"plug {plug.id!r}: a Xen domain gets memory from its balloon only")

    def resize(self, id_: str, size_bytes: int) -> Outcome:  # noqa: ARG002 (there is only one)
        """Set the target as a write to ``target_kb`` does, and run the driver.

        The write itself always succeeds. The outcome tells whether the domain reached the target,
        and else why the driver stopped.
        """
        page = self.kernel.arch.page_size_bytes
        credit, target = self.target - self.current, size_bytes // 1024 * 1024 // page
        self.kernel.log.note(
            "driver",
            f"target {self.target * page // 1024} kB -> {target * page // 1024} kB "
            "(target_kb, or memory/target in the xenstore)",
            function="balloon_set_new_target",
        )
        self.target = target
        if self.state == "ECANCELED" and self.target - self.current == credit:
            return Outcome.refused(
                "EAGAIN", "balloon_thread_cond", "the driver stopped at this target before"
            )
        return self._balloon_thread()

    def sizes(self, id_: str) -> tuple[int, int]:  # noqa: ARG002 (there is only one)
        """Return the domain's target; its limit is not known in the domain."""
        target_bytes = self.target * self.kernel.arch.page_size_bytes
        return target_bytes, target_bytes

    def work(self) -> None:
        """Handle blocks that were onlined, as the driver does each second."""
        if self.state == "WAIT" and len(self.ballooned):
            self._balloon_thread()

    def online_pages(self, pages: PfnSet) -> PfnSet:
        """Put all pages that go online on the list (``xen_online_page``), of other drivers too."""
        self.ballooned.append(pages)
        return PfnSet()

    # --- the driver's thread ---------------------------------------------------------------

    def _balloon_thread(self) -> Outcome:
        """Work until the target is reached, or no progress is possible."""
        while self.target != self.current:
            outcome = self._once()
            if not outcome:
                self.state = "WAIT" if outcome.errno == "EAGAIN" else "ECANCELED"
                self.kernel.log.note("driver", f"the driver stops: {outcome.why}", function=_THREAD)
                return outcome
        self.state = "DONE"
        return OK

    def _once(self) -> Outcome:
        credit = self.target - self.current
        if credit < 0:
            return self._decrease_reservation(-credit)
        if len(self.ballooned):
            return self._increase_reservation(min(credit, len(self.ballooned)))
        return self._reserve_additional_memory()

    def _increase_reservation(self, wanted: int) -> Outcome:
        """Have pages of the list backed, and free them to the buddy allocator."""
        kernel = self.kernel
        nr_pages = self.domain.may_have(wanted)
        pages = self.ballooned.retrieve(nr_pages)
        zones = kernel.kernel_zones(0)
        new = [z for z in zones if z.present.count(pages) and not kernel.managed(z)]
        self._note_calls("XENMEM_populate_physmap", "populated", pages, "increase_reservation")
        if again := len(pages & self.domain.backing.backed):
            kernel.log.note(
                "driver",
                f"{again} pages were backed already: onlined again, they count as ballooned",
                pages & self.domain.backing.backed,
                "xen_online_page",
            )
        self.domain.populate_physmap(pages)
        clear_fake_offline(kernel, pages)
        self.current += len(pages)
        if pages:
            text = f"{len(pages)} pages freed to the buddy allocator"
            kernel.log.note("populated", text, pages, "increase_reservation")
        for zone in new:
            expect_unmovable_allocation(kernel, zone)
        if nr_pages < wanted:
            return Outcome.refused(
                "ECANCELED",
                "increase_reservation",
                f"the domain's limit is {self.domain.max_pages} pages; "
                f"{wanted - nr_pages} more were requested, four times",
            )
        return OK

    def _decrease_reservation(self, wanted: int) -> Outcome:
        """Allocate pages, scrub them, and return them to the hypervisor."""
        kernel = self.kernel
        available = kernel.free_nr_pages() - totalreserve_nr_pages(kernel)
        nr_pages = min(wanted, max(0, available), available_nr_pages(kernel))
        parts = find_unmovable_pages(kernel, 0, nr_pages)
        pages = PfnSet.of(*parts)
        kernel.touch("write", pages, "xenmem_reservation_scrub_page", "zeros over pages")
        self._note_calls("XENMEM_decrease_reservation", "returned", pages, "decrease_reservation")
        self.domain.decrease_reservation(pages)
        set_fake_offline(kernel, pages)
        for part in _by_hypercall(parts, kernel.arch.page_size_bytes // _FRAME_BYTES):
            self.ballooned.append(part)
        self.current -= len(pages)
        kernel.log.note(
            "ballooned",
            f"{len(pages)} pages taken from the buddy allocator, which chooses them",
            pages,
            "decrease_reservation",
        )
        if len(pages) < wanted:
            return Outcome.refused(
                "ECANCELED",
                "decrease_reservation",
                f"{wanted - len(pages)} pages more were requested than are available, four times",
            )
        return OK

    def _reserve_additional_memory(self) -> Outcome:
        """Add as many sections as the target needs beyond the driver's total."""
        kernel = self.kernel
        credit = self.target - self.total
        if credit <= 0:
            return Outcome.refused(
                "EAGAIN",
                "reserve_additional_memory",
                "enough memory was added; its blocks are not online yet",
            )
        section = kernel.arch.section_nr_pages
        nr_pages = -(-credit // section) * section
        pfns = self._place(nr_pages)
        if pfns is None:
            return Outcome.refused(
                "ECANCELED", "additional_memory_resource", f"no gap for {nr_pages} pages"
            )
        kernel.log.note(
            "driver",
            f"{credit} pages beyond the total of {self.total}: whole sections of {nr_pages} pages "
            f"are added in the first gap that holds them, {pfns}",
            pfns,
            "reserve_additional_memory",
        )
        outcome = add_memory_resource(kernel, pfns, 0, asks=False, merges=True)
        if not outcome:
            return Outcome.refused("ECANCELED", outcome.function or _THREAD, outcome.why)
        self.total += nr_pages
        device = self.devices.get(BALLOON)
        ends = (device.pfns.start, device.pfns.end) if device.pfns else (pfns.start, pfns.end)
        device.pfns = PfnRange(min(ends[0], pfns.start), max(ends[1], pfns.end))
        if len(self.ballooned):
            return OK
        return self._reserve_additional_memory()

    def _place(self, nr_pages: int) -> PfnRange | None:
        arch = self.kernel.arch
        page = arch.page_size_bytes
        added = [(add.pfns.start * page, add.pfns.end * page) for add in self.kernel.additions]
        start = additional_memory_resource(
            [*self.resources, *added],
            nr_pages * page,
            arch.section_size_bytes,
            1 << arch.max_physmem_bits,
        )
        return None if start is None else PfnRange(start // page, start // page + nr_pages)

    def _note_calls(self, call: str, done: str, pages: PfnSet, function: str) -> None:
        batch = self.kernel.arch.page_size_bytes // _FRAME_BYTES
        whole, rest = divmod(len(pages), batch)
        calls = [f"{whole} of nr_extents={batch}"] if whole else []
        calls += [f"1 of nr_extents={rest}"] if rest else []
        text = ", ".join(calls) or "refused at the first extent"
        self.kernel.log.note("driver", f"{call}: {text}; {len(pages)} {done}", pages, function)


_THREAD = "balloon_thread"


def _by_hypercall(parts: Sequence[PfnSet], batch: int) -> Iterator[PfnSet]:
    """Yield pages that were allocated part by part, in the order in which the list gets them.

    Each hypercall's pages are put on the list in reverse.
    """
    room, waiting = batch, list[PfnSet]()
    for part in parts:
        left = part
        while left:
            some = left.lowest(room if room < batch else max(len(left) // batch, 1) * batch)
            left, room = left - some, (room - len(some)) % batch or batch
            waiting.append(some)
            if room == batch:
                yield from reversed(waiting)
                waiting.clear()
    yield from reversed(waiting)


def additional_memory_resource(
    taken: Sequence[tuple[int, int]], size_bytes: int, align_bytes: int, end: int
) -> int | None:
    """Return the address of new System RAM: the lowest gap that holds it, aligned to a section.

    Only the top level of the resource tree is looked at; the BIOS's ROM is left out.
    Source: ``drivers/xen/balloon.c: additional_memory_resource``, ``kernel/resource.c:
    find_resource_space``, ``arch/x86/kernel/resource.c: arch_remove_reservations``.

    Parameters
    ----------
    taken : sequence of (int, int)
        ``[start, end)`` of existing resources.
    size_bytes, align_bytes : int
    end : int
        End of the address space.

    Returns
    -------
    int or None
        The address; ``None`` if no gap is large enough.
    """
    reached = 0
    for start, stop in [*sorted({*taken, _BIOS_ROM}), (end, end)]:
        first = -(-reached // align_bytes) * align_bytes
        if first + size_bytes <= start:
            return first
        reached = max(reached, stop)
    return None
