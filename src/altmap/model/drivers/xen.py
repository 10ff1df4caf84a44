"""The Xen balloon: ``drivers/xen/balloon.c`` and ``drivers/xen/xen-balloon.c``.

A domain is told how much memory to have. The driver grows it with page frames that it gave back
before; when it has none, it adds whole sections without any backing, and has as many of their
pages backed as the target asks for. The rest stay on the driver's list, PageOffline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice
from altmap.model.kernel.hotplug import add_memory_resource, settle
from altmap.model.kernel.watermarks import adjust_managed_page_count, totalreserve_nr_pages
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
    """The driver's list of page frames without backing, from the one that goes last.

    The page that came last goes first, so the list is a stack of sets, of which the highest page
    frame goes first: a range goes onto the list from its start on.
    """

    _stack: list[PfnSet] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(pages) for pages in self._stack)

    def append(self, pages: PfnSet) -> None:
        """Put page frames on the list in ascending order (``balloon_append``)."""
        if pages:
            self._stack.append(pages.copy())

    def retrieve(self, nr_pages: int) -> PfnSet:
        """Take page frames off the list, the one that came last first (``balloon_retrieve``)."""
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
        What /proc/iomem has at its top level at the start, ``[start, end)`` in bytes.
    target, current, total : int
        ``balloon_stats``: pages to have, pages that are backed, and those together with the
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
        """Return the balloon of a domain that runs.

        Pages that are PageOffline are on its list. Added blocks that were never onlined are not,
        but count in the total.
        """
        kernel = devices.kernel
        ballooned = BalloonedPages()
        ballooned.append(kernel.fake_offline)
        offline = len(kernel.added_blocks - kernel.online_blocks) * kernel.block_nr_pages
        total = domain.tot_pages + len(ballooned) + offline
        made = cls(devices, domain, resources, target, domain.tot_pages, total, ballooned)
        kernel.online_callback = made.online_pages
        devices.by_id[BALLOON] = MemoryDevice("xen", PfnRange(0, 0))
        return made

    def plug(self, plug: Plug) -> Outcome:
        """Refuse: nothing is plugged into a domain."""
        raise InputError(f"plug {plug.id!r}: a Xen domain gets memory from its balloon only")

    def resize(self, id_: str, size_bytes: int) -> Outcome:  # noqa: ARG002 (there is one)
        """Set the target as a write to ``target_kb`` does, and let the driver work.

        The write itself always succeeds. The outcome says whether the domain then has what it was
        told to have, and else why the driver rests.
        """
        page = self.kernel.arch.page_size_bytes
        credit, target = self.target - self.current, size_bytes // 1024 * 1024 // page
        self.kernel.note(
            "driver",
            f"target {self.target * page // 1024} kB -> {target * page // 1024} kB "
            "(target_kb, or memory/target in the xenstore)",
            function="balloon_set_new_target",
        )
        self.target = target
        if self.state == "ECANCELED" and self.target - self.current == credit:
            return Outcome.refused(
                "EAGAIN", "balloon_thread_cond", "the driver gave up at this target before"
            )
        return self._balloon_thread()

    def sizes(self, id_: str) -> tuple[int, int]:  # noqa: ARG002 (there is one)
        """Return the domain's target; nobody in the domain knows its limit."""
        target_bytes = self.target * self.kernel.arch.page_size_bytes
        return target_bytes, target_bytes

    def work(self) -> None:
        """Look after blocks that somebody has onlined, as the driver does each second."""
        if self.state == "WAIT" and len(self.ballooned):
            self._balloon_thread()

    def online_pages(self, pages: PfnSet) -> PfnSet:
        """Put all pages that go online on the list (``xen_online_page``), whoever added them."""
        self.ballooned.append(pages)
        return PfnSet()

    # --- the driver's thread ---------------------------------------------------------------

    def _balloon_thread(self) -> Outcome:
        """Work until there is nothing to do, or nothing that can be done."""
        while self.target != self.current:
            outcome = self._once()
            if not outcome:
                self.state = "WAIT" if outcome.errno == "EAGAIN" else "ECANCELED"
                self.kernel.note("driver", f"the driver rests: {outcome.why}", function=_THREAD)
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
        """Have pages of the list backed, and give them to the buddy."""
        kernel = self.kernel
        nr_pages = self.domain.may_have(wanted)
        pages = self.ballooned.retrieve(nr_pages)
        zones = kernel.kernel_zones(0)
        new = [z for z in zones if z.present.count(pages) and not kernel.managed(z)]
        self._note_calls("XENMEM_populate_physmap", "given", pages, "increase_reservation")
        if again := len(pages & self.domain.backing.backed):
            kernel.note(
                "driver",
                f"{again} pages were backed already: onlined again, they count as ballooned",
                pages & self.domain.backing.backed,
                "xen_online_page",
            )
        self.domain.populate_physmap(pages)
        kernel.fake_offline -= pages
        kernel.shown_pages |= pages
        adjust_managed_page_count(kernel)
        self.current += len(pages)
        if pages:
            text = f"{len(pages)} pages given to the buddy"
            kernel.note("populated", text, pages, "increase_reservation")
        for zone in new:
            settle(kernel, zone)
        if nr_pages < wanted:
            return Outcome.refused(
                "ECANCELED",
                "increase_reservation",
                f"the hypervisor gives the domain {self.domain.max_pages} pages at most; "
                f"{wanted - nr_pages} more were asked for, four times",
            )
        return OK

    def _decrease_reservation(self, wanted: int) -> Outcome:
        """Take pages from the buddy, scrub them, and give them back to the hypervisor."""
        kernel = self.kernel
        available = kernel.free_nr_pages() - totalreserve_nr_pages(kernel)
        nr_pages = min(wanted, max(0, available), kernel.available_nr_pages())
        pages = self._from_buddy(nr_pages)
        kernel.touch("write", pages, "xenmem_reservation_scrub_page", "zeros over pages")
        self._note_calls("XENMEM_decrease_reservation", "taken back", pages, "decrease_reservation")
        self.domain.decrease_reservation(pages)
        kernel.fake_offline |= pages
        kernel.shown_pages |= pages
        adjust_managed_page_count(kernel)
        self.ballooned.append(pages)
        self.current -= len(pages)
        kernel.note(
            "ballooned",
            f"{len(pages)} pages taken from the buddy; which ones is the buddy's choice",
            pages,
            "decrease_reservation",
        )
        if len(pages) < wanted:
            return Outcome.refused(
                "ECANCELED",
                "decrease_reservation",
                f"{wanted - len(pages)} pages more were to be had than are available, four times",
            )
        return OK

    def _from_buddy(self, nr_pages: int) -> PfnSet:
        """Return pages as GFP_HIGHUSER gets them: unmovable, from the highest kernel zone first.

        That zone gives whole free pageblocks only, and its smaller chunks not before the zones
        below it have nothing left (``mm/page_alloc.c: alloc_flags_nofragment``).
        """
        kernel = self.kernel
        highest, *lower = reversed(kernel.kernel_zones(0))
        block = kernel.arch.pageblock_nr_pages
        whole = sum(
            max(0, run.end // block - -(-run.start // block)) * block
            for run in kernel.free(highest).ranges()
        )
        for nr_first in (min(nr_pages, whole), nr_pages):
            first = kernel.find_free([highest], nr_first)
            rest = None if first is None else kernel.find_free(lower, nr_pages - nr_first)
            if first is not None and rest is not None:
                return first | rest
        return kernel.find_free([highest, *lower], nr_pages) or PfnSet()

    def _reserve_additional_memory(self) -> Outcome:
        """Add as many sections as the target needs beyond all pages that the driver knows."""
        kernel = self.kernel
        credit = self.target - self.total
        if credit <= 0:
            return Outcome.refused(
                "EAGAIN",
                "reserve_additional_memory",
                "enough memory was added; its blocks wait for somebody to online them",
            )
        section = kernel.arch.section_nr_pages
        nr_pages = -(-credit // section) * section
        pfns = self._place(nr_pages)
        if pfns is None:
            return Outcome.refused(
                "ECANCELED", "additional_memory_resource", f"no gap for {nr_pages} pages"
            )
        kernel.note(
            "driver",
            f"{credit} pages beyond the {self.total} there are: address space for whole sections, "
            f"{nr_pages // section}, goes to the first gap that holds them, {pfns}",
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
        self.kernel.note("driver", f"{call}: {text}; {len(pages)} {done}", pages, function)


_THREAD = "balloon_thread"


def additional_memory_resource(
    taken: Sequence[tuple[int, int]], size_bytes: int, align_bytes: int, end: int
) -> int | None:
    """Return where new System RAM goes: into the lowest gap that holds it, aligned to a section.

    Only the top level of the resource tree is looked at; the BIOS's ROM is left out.
    Source: ``drivers/xen/balloon.c: additional_memory_resource``, ``kernel/resource.c:
    find_resource_space``, ``arch/x86/kernel/resource.c: arch_remove_reservations``.

    Parameters
    ----------
    taken : sequence of (int, int)
        ``[start, end)`` of what is there.
    size_bytes, align_bytes : int
    end : int
        End of the address space.

    Returns
    -------
    int or None
        The address; ``None`` if there is no such gap.
    """
    reached = 0
    for start, stop in [*sorted({*taken, _BIOS_ROM}), (end, end)]:
        first = -(-reached // align_bytes) * align_bytes
        if first + size_bytes <= start:
            return first
        reached = max(reached, stop)
    return None
