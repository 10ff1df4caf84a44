"""The regions of Hyper-V's hot-add: ``drivers/hv/hv_balloon.c``.

The host names page ranges; Linux adds whole chunks and onlines only the pages that the host has
backed. The rest of a chunk stays fake-offline until a later request covers it. Regions are kept as
the driver keeps them, defects included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.page_offline import (
    clear_fake_offline,
    leave_as_initialized,
    mark_left_reserved,
)
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange, PfnSet
from altmap.trace import Outcome

__all__ = ("HotAdd", "HotAddRegion")

_CHUNK_BYTES_6_1 = 128 << 20


@dataclass(slots=True)
class HotAddRegion:
    """``struct hv_hotadd_state``: what the host offered and backed, what Linux added.

    Attributes
    ----------
    start, end : int
        The region, pfns.
    covered_start, covered_end : int
        What the host has backed, except for the gaps.
    added_end : int
        End of the chunks that Linux has added (``ha_end_pfn``).
    gaps : list of (int, int)
        ``[start, end)`` inside the covered range that the host skipped; may be inverted (empty).
    """

    start: int
    end: int
    covered_start: int
    covered_end: int
    added_end: int
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def backed(self) -> PfnSet:
        """Return the page frames that the driver considers backed (``has_pfn_is_backed``)."""
        if self.covered_end <= self.covered_start:
            return PfnSet()
        pages = PfnSet.of(PfnRange(self.covered_start, self.covered_end))
        for start, end in self.gaps:
            if start < end:
                pages -= PfnRange(start, end)
        return pages


@dataclass(slots=True)
class HotAdd:
    """The driver's regions, and the callback that onlines their backed pages.

    Attributes
    ----------
    kernel : Kernel
    regions : list of HotAddRegion
        In the order of their requests; the first match wins everywhere.
    do_hot_add : bool
        Cleared permanently when an add finds the range taken.
    refusals : list of Outcome
        Of the adds of the latest request.
    """

    kernel: Kernel
    regions: list[HotAddRegion] = field(default_factory=list)
    do_hot_add: bool = True
    refusals: list[Outcome] = field(default_factory=list)

    @property
    def chunk_nr_pages(self) -> int:
        """Pages of one add: 128 MiB, or a memory block on later releases."""
        if self.kernel.release.hyperv_chunk == "block":
            return self.kernel.block_nr_pages
        return _CHUNK_BYTES_6_1 // self.kernel.arch.page_size_bytes

    @property
    def nr_onlined(self) -> int:
        """``num_pages_onlined``: pages of regions that the driver has freed to the allocator."""
        kernel, pages = self.kernel, PfnSet()
        for region in self.regions:
            pages |= PfnRange(region.start, max(region.start, region.end))
        pages &= kernel.pages_of(kernel.online_blocks)
        return len(pages - (kernel.fake_offline - kernel.ballooned))

    def take_over(self, pages: PfnRange) -> None:
        """Take over a region that was added before the start; fake-offline pages are not backed."""
        backed = PfnSet.of(pages) - self.kernel.fake_offline
        covered = backed.span()
        gaps = PfnSet.of(covered) - backed
        self.regions.append(
            HotAddRegion(
                pages.start,
                pages.end,
                covered.start,
                covered.end,
                added_end=pages.end,
                gaps=[(gap.start, gap.end) for gap in gaps.ranges()],
            )
        )

    def request(self, pages: PfnRange, region: PfnRange | None) -> int:
        """Handle the ranges of a hot-add request; return the answer's page count.

        Parameters
        ----------
        pages : PfnRange
            Pages that the host backs now.
        region : PfnRange or None
            The region that the host names; if it names none, the driver makes one: the start
            rounded down, the length rounded up from the page count alone (``hot_add_req``).
        """
        self.refusals.clear()
        if not self.do_hot_add:
            return 0
        host_specified = region is not None
        if region is None:
            chunk = self.chunk_nr_pages
            start = pages.start // chunk * chunk
            region = PfnRange(start, start + -(-len(pages) // chunk) * chunk)
        return self._process_hot_add(pages, region, host_specified)

    def online_pages(self, pages: PfnSet) -> PfnSet:
        """Return those of the pages that are backed: the online-page callback.

        A chunk outside of all regions belongs to another driver: dropped or onlined, by release.
        """
        released, left = PfnSet(), pages.copy()
        order_nr_pages = 1 << self.kernel.arch.max_page_order
        for region in self.regions:
            start = -(-region.start // order_nr_pages) * order_nr_pages
            end = region.end // order_nr_pages * order_nr_pages
            if not left.count(PfnRange(start, max(start, end))):
                continue
            in_region = left & PfnRange(start, end)
            backed = in_region & region.backed()
            mark_left_reserved(self.kernel, in_region - backed)
            released |= backed
            left -= in_region
        if self.kernel.release.hyperv_foreign_pages == "generic":
            return released | left
        leave_as_initialized(self.kernel, left)
        return released

    def _process_hot_add(self, pages: PfnRange, region: PfnRange, host_specified: bool) -> int:
        if not pages:
            return 0
        known = not host_specified and self._pfn_covered(pages)
        if not known and region:
            self.regions.append(
                HotAddRegion(region.start, region.end, pages.start, pages.start, region.start)
            )
        return self._handle_page_range(pages)

    def _find(self, pfn: int) -> HotAddRegion | None:
        return next((r for r in self.regions if r.start <= pfn < r.end), None)

    def _pfn_covered(self, pages: PfnRange) -> bool:
        """Extend a region that holds the start of the range; note the gap before it."""
        region = self._find(pages.start)
        if region is None:
            return False
        if region.covered_end != pages.start:
            # Also when the range starts below: the gap is then inverted and coverage shrinks.
            region.gaps.append((region.covered_end, pages.start))
            region.covered_end = pages.start
        if pages.end > region.end:
            chunk = self.chunk_nr_pages
            region.end += -(-(pages.end - region.end) // chunk) * chunk
        return True

    def _handle_page_range(self, pages: PfnRange) -> int:
        region = self._find(pages.start)
        if region is None:
            return 0
        before, missing = region.covered_end, len(pages)
        if pages.start < region.added_end:
            nr_pages = min(region.added_end - pages.start, missing)
            region.covered_end += nr_pages
            missing -= nr_pages
            # The driver leaves the very start of a region to the online callback.
            given = PfnRange(pages.start, pages.start + nr_pages)
            online = self.kernel.nr_online(PfnRange(given.start, given.start + 1))
            if not online and self.kernel.release.hyperv_onlines_offline_tail:
                self._bring_uninitialised(given)
            if online:
                if given.start > region.start:
                    self._bring_online(region, given)
                else:
                    self._forget(given)
        if region.added_end < region.end and missing > 0:
            chunk = self.chunk_nr_pages
            available = region.end - region.added_end
            rounded = -(-missing // chunk) * chunk
            nr_add = rounded if missing <= available else available
            self._add_chunks(region, nr_add // chunk, min(missing, available))
        return region.covered_end - before

    def _bring_online(self, region: HotAddRegion, pages: PfnRange) -> None:
        """Free backed pages of online blocks that were fake-offline."""
        freed = clear_fake_offline(self.kernel, region.backed() & pages)
        self.kernel.log.note(
            "onlined",
            f"{len(freed)} pages that were fake-offline freed to the buddy allocator",
            freed,
            "hv_bring_pgs_online",
        )

    def _bring_uninitialised(self, pages: PfnRange) -> None:
        """Note that pages of an offline block are brought online, their memmap not yet written."""
        self.kernel.log.note(
            "bug",
            f"bad page state: {len(pages)} struct pages that were never initialised are used",
            pages,
            "hv_bring_pgs_online",
        )

    def _forget(self, given: PfnRange) -> None:
        """Note late pages at a region's start: no callback onlines them any more."""
        self.kernel.log.note(
            "driver",
            f"hv_balloon never onlines the start of a region that is online already: "
            f"{self.kernel.fake_offline.count(given)} pages stay fake-offline",
            given,
            "handle_pg_range",
        )

    def _add_chunks(self, region: HotAddRegion, nr_chunks: int, missing: int) -> None:
        for _ in range(nr_chunks):
            chunk = PfnRange(region.added_end, region.added_end + self.chunk_nr_pages)
            processed = min(missing, self.chunk_nr_pages)
            missing -= processed
            region.added_end = chunk.end
            region.covered_end += processed
            backed = (region.backed() & chunk).ranges()
            usable = max(backed, key=len, default=PfnRange(chunk.start, chunk.start))
            outcome = add_memory_resource(
                self.kernel, chunk, 0, asks=False, usable=usable, merges=True
            )
            if not outcome:
                if outcome.errno == "EEXIST":
                    self.do_hot_add = False
                region.added_end = chunk.start
                region.covered_end -= processed
                self.refusals.append(outcome)
                return
