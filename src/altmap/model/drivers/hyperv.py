"""Hyper-V dynamic memory, the guest's half: ``drivers/hv/hv_balloon.c``.

It answers each message of the host with what the driver would send. Time does not pass: work items
run at once, and the 45 calls before the first pressure report have passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from altmap.model.drivers.hyperv_regions import HotAdd
from altmap.model.kernel.page_offline import alloc_balloon_pages, free_balloon_pages
from altmap.model.kernel.registration import (
    restore_online_page_callback,
    set_online_page_callback,
)
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import si_mem_available_nr_pages
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_host import HYPERV_PAGE_BYTES
from altmap.protocol.hyperv_messages import (
    MAX_RANGES,
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    InfoMessage,
    MessageError,
    PageRange,
    StatusReport,
    UnballoonRequest,
    UnballoonResponse,
    VersionRequest,
    VersionResponse,
    decode,
    encode,
)

__all__ = ("DriverState", "HypervBalloon", "balloon_floor_nr_pages")

_MIB = 1 << 20
#: Below so many MiB: the MiB and the share of memory (as a shift) that the guest keeps.
_FLOOR = ((128, 8, 1), (512, 40, 2), (2048, 104, 3), (8192, 232, 4))
_FLOOR_ABOVE = (488, 5)


class DriverState(IntEnum):
    """``enum hv_dm_state``."""

    INITIALIZING = 0
    INITIALIZED = 1
    BALLOON_UP = 2
    BALLOON_DOWN = 3
    HOT_ADD = 4
    INIT_ERROR = 5


def balloon_floor_nr_pages(total_nr_pages: int, page_size_bytes: int) -> int:
    """Return the pages that a guest keeps in any case (``compute_balloon_floor``)."""
    mib = _MIB // page_size_bytes
    for below, fixed, shift in _FLOOR:
        if total_nr_pages < below * mib:
            return fixed * mib + (total_nr_pages >> shift)
    fixed, shift = _FLOOR_ABOVE
    return fixed * mib + (total_nr_pages >> shift)


@dataclass(slots=True)
class HypervBalloon:
    """The driver, registered as the kernel's online-page callback.

    Attributes
    ----------
    kernel : Kernel
    hot_add : HotAdd
        Its regions.
    state : DriverState
        What it is doing; nothing is ever refused for it.
    num_pages_added : int
        Sum of the page counts in its answers to hot-add requests.
    max_dynamic_page_count : int or None
        The most pages that the host has announced.
    exhausts_kernel_zones : bool
        The latest request got fewer pages than the driver agreed to give: kernel zones are at
        their minimum.
    """

    kernel: Kernel
    hot_add: HotAdd = field(init=False)
    state: DriverState = DriverState.INITIALIZING
    num_pages_added: int = 0
    max_dynamic_page_count: int | None = None
    exhausts_kernel_zones: bool = False
    _versions: list[str] = field(init=False)
    _version: str = ""
    _trans_id: int = 0

    def __post_init__(self) -> None:
        self.hot_add = HotAdd(self.kernel)
        self._versions = list(self.kernel.release.hyperv_versions)
        # Where another driver was first, the error is ignored.
        set_online_page_callback(self.kernel, self.hot_add.online_pages)

    @property
    def version(self) -> str:
        """The version of the protocol that was asked for last: ``2.0``."""
        return self._version

    @property
    def pressure_nr_pages(self) -> int:
        """``get_pages_committed``; what files in memory hold stands for ``vm_memory_committed``."""
        kernel = self.kernel
        committed = sum(len(pages) for pages in kernel.files.values())
        waiting = max(0, self.num_pages_added - self.hot_add.nr_onlined)
        return committed + len(kernel.ballooned) + waiting + self._floor

    @property
    def _floor(self) -> int:
        kernel = self.kernel
        return balloon_floor_nr_pages(kernel.total_ram_nr_pages(), kernel.arch.page_size_bytes)

    def probe(self) -> bytes:
        """Return the request for the first version (``balloon_connect_vsp``)."""
        return self._ask_for_a_version()

    def receive(self, raw: bytes) -> Iterator[bytes]:
        """Handle a message (``balloon_onchannelcallback``); yield each answer as it is sent.

        Raises
        ------
        MessageError
            If the bytes are not a message of a host.
        """
        if self.state is DriverState.INIT_ERROR:
            return  # the channel is closed
        match decode(raw):
            case VersionResponse() as message:
                yield from self._version_response(message)
            case CapabilitiesResponse() as message:
                self.state = DriverState.INITIALIZED if message.is_accepted else self._init_error()
            case BalloonRequest() as message:
                yield from self._balloon_up(message)
            case UnballoonRequest() as message:
                yield from self._balloon_down(message)
            case HotAddRequest() as message:
                yield self._hot_add(message)
            case InfoMessage() as message:
                if message.max_page_count is not None:
                    self.max_dynamic_page_count = message.max_page_count
            case other:
                raise MessageError(f"{other.TYPE.name}: sent by a guest, never by a host")

    def post_status(self) -> bytes:
        """Return the pressure report that the driver's thread sends next."""
        scale = self.kernel.arch.page_size_bytes // HYPERV_PAGE_BYTES
        return encode(
            StatusReport(
                trans_id=self._next_id(),
                num_avail=si_mem_available_nr_pages(self.kernel) * scale,
                num_committed=self.pressure_nr_pages * scale,
            )
        )

    # --- the handshake ---------------------------------------------------------------------

    def _ask_for_a_version(self) -> bytes:
        self._version = self._versions.pop(0)
        major, minor = self._version.split(".")
        return encode(
            VersionRequest(
                trans_id=self._next_id(),
                major=int(major),
                minor=int(minor),
                is_last_attempt=not self._versions,
            )
        )

    def _version_response(self, message: VersionResponse) -> Iterator[bytes]:
        if message.is_accepted:
            yield encode(self._capabilities())
        elif self._versions:
            yield self._ask_for_a_version()
        else:
            self.state = self._init_error()

    def _init_error(self) -> DriverState:
        """Fail the probe: ``-EPROTO``, and the generic callback is restored."""
        restore_online_page_callback(self.kernel, self.hot_add.online_pages)
        self.kernel.log.note("driver", "hv_balloon gives up: EPROTO", function="balloon_probe")
        return DriverState.INIT_ERROR

    def _capabilities(self) -> CapabilitiesReport:
        arch = self.kernel.arch
        chunk_bytes = self.hot_add.chunk_nr_pages * arch.page_size_bytes
        return CapabilitiesReport(
            trans_id=self._next_id(),
            balloon=arch.page_size_bytes == HYPERV_PAGE_BYTES,
            # The message names no node (hot_add_enabled).
            hot_add=arch.knows_node_of_address,
            hot_add_alignment=(chunk_bytes // _MIB).bit_length() - 1 & 15,
        )

    # --- balloon ---------------------------------------------------------------------------

    def _balloon_up(self, message: BalloonRequest) -> Iterator[bytes]:
        """Give pages in units of 2 MiB, then one by one, down to the floor (``balloon_up``)."""
        self.state = DriverState.BALLOON_UP
        left = self._above_floor(message.num_pages)
        unit = 2 * _MIB // self.kernel.arch.page_size_bytes
        while self.state is DriverState.BALLOON_UP:
            units = self._alloc_balloon_pages(unit, min(left // unit, MAX_RANGES))
            if unit > 1 and not units:
                unit = 1
                continue
            nr_pages = len(units) * unit
            if nr_pages in (0, left):
                self.state = DriverState.INITIALIZED
                self.exhausts_kernel_zones = nr_pages < left
            left -= nr_pages
            yield encode(
                BalloonResponse(
                    trans_id=self._next_id(),
                    more_pages=self.state is DriverState.BALLOON_UP,
                    ranges=tuple([PageRange(start, unit) for start in units]),
                )
            )

    def _above_floor(self, num_pages: int) -> int:
        available, floor = si_mem_available_nr_pages(self.kernel), self._floor
        if available - num_pages >= floor:
            return num_pages
        given = max(0, available - floor)
        self.kernel.log.note(
            "driver",
            f"balloon request will be partially fulfilled: {given} of {num_pages} pages, "
            f"{available} are available and {floor} are the floor",
            function="balloon_up",
        )
        return given

    def _alloc_balloon_pages(self, unit: int, nr_units: int) -> list[int]:
        """Allocate units of pages; return where each starts."""
        pages = alloc_balloon_pages(self.kernel, unit, nr_units)
        if pages:
            self.kernel.log.note(
                "ballooned", f"{len(pages)} pages taken", pages, "alloc_balloon_pages"
            )
        return [s for run in pages.ranges() for s in range(run.start, run.end, unit)]

    def _balloon_down(self, message: UnballoonRequest) -> Iterator[bytes]:
        """Free the pages that the host returns (``balloon_down``)."""
        self.state = DriverState.BALLOON_DOWN
        pages = PfnSet(PfnRange(item.start_page, item.end_page) for item in message.ranges)
        if pages - self.kernel.ballooned or len(pages) != sum(r.page_cnt for r in message.ranges):
            raise MessageError("UNBALLOON_REQUEST: names pages that are not ballooned")
        free_balloon_pages(self.kernel, pages)
        if pages:
            self.kernel.log.note(
                "deflated", f"{len(pages)} pages freed", pages, "free_balloon_pages"
            )
        if not message.more_pages:
            yield encode(UnballoonResponse(trans_id=self._next_id()))
            self.state = DriverState.INITIALIZED

    # --- hot-add ---------------------------------------------------------------------------

    def _hot_add(self, message: HotAddRequest) -> bytes:
        """Add the range of a hot-add request (``hot_add_req``).

        A result of 1 with no pages tells the host to stop permanently, 0 to try again later.
        """
        self.state = DriverState.HOT_ADD
        region = None if message.region is None else _pfns(message.region)
        page_count = self.hot_add.request(_pfns(message.pages), region)
        self.num_pages_added += page_count
        result = 1 if page_count > 0 or not self.hot_add.do_hot_add else 0
        self.state = DriverState.INITIALIZED
        self.kernel.log.note(
            "driver",
            f"hv_balloon answers page_count={page_count} result={result}",
            function="hot_add_req",
        )
        return encode(
            HotAddResponse(trans_id=self._next_id(), page_count=page_count, result=result)
        )

    def _next_id(self) -> int:
        self._trans_id = self._trans_id + 1 & (1 << 32) - 1
        return self._trans_id


def _pfns(pages: PageRange) -> PfnRange:
    return PfnRange(pages.start_page, pages.end_page)
