"""What prevents each memory block from going offline, read from a machine's files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from altmap.errors import InputError
from altmap.host.blocking_pages import BLANK, FREE, KINDS, MOVES, BlockingKind, pages_by_kind
from altmap.host.devices import BlockDevice, devices_of
from altmap.host.hot_remove import lacks_hot_remove
from altmap.host.page_owners import Owner, Uses
from altmap.linux import version
from altmap.linux.iomem import crash_kernel, driver_memory, system_ram
from altmap.linux.kpageflags import is_memmap
from altmap.linux.observation import Block, Observation, Resource, page_size_bytes
from altmap.model.arch import Arch, arch_of
from altmap.model.leaves import LEAF_SPLIT, splits_leaf
from altmap.model.pageblocks import first_dumped_pfn, in_movable_pageblocks
from altmap.model.releases import Release, release_for
from altmap.pfn import PfnRange, PfnSet

__all__ = ("NO_HOT_REMOVE", "Blocker", "Blocks")

NO_HOT_REMOVE = "no-hot-remove"

_MOVABLE = "Movable"
_NONE = "none"
_UNMOVABLE = "has_unmovable_pages"
#: Page frames that are read together when blocks are asked about one after the other.
_WINDOW_NR_PAGES = 1 << 17
#: A zone of more pages is not read to count those without any flag.
_MOST_COUNTED_NR_PAGES = 1 << 21
#: Online blocks of a device that are asked whether they hold their memmap.
_ASKED_BLOCKS = 16
_BOOT_IN_MOVABLE = (
    "nothing until the next boot: memblock allocated them from the end of the node before the end "
    "became ZONE_MOVABLE; blocks further down go offline, a larger movablecore= makes more of them"
)


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a block would not go offline.

    Attributes
    ----------
    name : str
        ``no-hot-remove``, ``zones``, ``hole``, ``boot-memory``, ``leaf-split``, or a kind of pages.
    what, cure : str
        For people.
    certainty : str
        ``certain``, ``likely`` or ``unknown``.
    errno, function : str
        How the kernel refuses, and where.
    nr_pages : int
        0 where no pages are meant.
    first_pfn : int or None
    owners : tuple of Owner
        Cgroups that are charged for the pages, the largest share first.
    """

    name: str
    what: str
    cure: str
    certainty: str
    errno: str
    function: str
    nr_pages: int = 0
    first_pfn: int | None = None
    owners: tuple[Owner, ...] = ()


_REFUSES_EVERY_BLOCK = Blocker(
    NO_HOT_REMOVE,
    "the kernel is built without CONFIG_MEMORY_HOTREMOVE: it refuses every block",
    "a kernel that is built with CONFIG_MEMORY_HOTREMOVE",
    "certain",
    "EINVAL",
    "offline_pages",
)
_SPLITS_LEAF = Blocker(
    "leaf-split",
    "the block hosts its own memmap, which ends inside a leaf of the kernel's page tables: arm64 "
    "since 7.1 vetoes to offline such a block, always",
    "nothing until the next boot; then memory_hotplug.memmap_on_memory=0, or, before the dax "
    "device's memory is added, 0 to its file memmap_on_memory",
    "certain",
    "EPERM",
    LEAF_SPLIT,
)


class Blocks:
    """The memory blocks of an observation, with what other files say about each.

    Parameters
    ----------
    seen : Observation

    Attributes
    ----------
    page_size_bytes : int or None
    uses : Uses
    """

    def __init__(self, seen: Observation) -> None:
        self._seen = seen
        self._memory = seen.memory
        self.page_size_bytes = page_size_bytes(seen)
        self._window: tuple[PfnRange, dict[str, PfnSet]] = (PfnRange(0, 0), {})
        self._blank: dict[tuple[int, str], int | None] = {}
        self._self_hosting: dict[str, bool] = {}
        self.uses = Uses(seen)
        self._waiting = {zone.key: zone.nr_on_cpu_lists for zone in seen.zoneinfo or ()}
        vmstat = seen.vmstat or {}
        self._zspages = vmstat.get("nr_zspages", 0)
        self._nr_balloon = (
            max(0, vmstat.get("balloon_inflate", 0) - vmstat.get("balloon_deflate", 0))
            if "balloon_migrate" in vmstat
            else 0
        )
        self._cma = {zone.key: zone.pages.get("cma", 0) for zone in seen.zoneinfo or ()}
        self._ram = self._pages_of(system_ram(seen.iomem or ()))
        self._crash = self._pages_of(crash_kernel(seen.iomem or ()))
        self._lacks_hot_remove = lacks_hot_remove(seen)

    @cached_property
    def devices(self) -> list[BlockDevice]:
        """The devices that the files name; asks each block for its own."""
        return devices_of(self._seen)

    @cached_property
    def _device_of(self) -> dict[int, BlockDevice]:
        return {nr: device for device in self.devices for nr in device.blocks}

    @property
    def sees_pages(self) -> bool:
        """Whether the machine showed its page flags."""
        return bool(self._seen.kpageflags) and self.page_size_bytes is not None

    def state(self, nr: int) -> str | None:
        """Return a block's state, ``None`` if there is no such block."""
        assert self._memory is not None
        block = self._memory.blocks.get(nr)
        return None if block is None else block.state

    def is_online(self, nr: int) -> bool:
        """Tell whether a block is online (or on its way out)."""
        return self._block(nr).state != "offline"

    def device(self, nr: int) -> BlockDevice | None:
        """Return the device that brought a block, ``None`` if no file names one."""
        assert self._memory is not None
        size = self._memory.block_size_bytes
        has_one = self._block(nr).firmware_node or any(
            line.start < (nr + 1) * size and nr * size < line.end for line in self._of_drivers
        )
        return self._device_of.get(nr) if has_one else None

    @cached_property
    def _of_drivers(self) -> list[Resource]:
        return [each.ram for each in driver_memory(self._seen.iomem or ())]

    def pfns(self, nr: int) -> PfnRange:
        """Return the page frames of a block; the page size must be known."""
        assert self._memory is not None
        assert self.page_size_bytes is not None
        nr_pages = self._memory.block_size_bytes // self.page_size_bytes
        return PfnRange(nr * nr_pages, (nr + 1) * nr_pages)

    def memmap(self, nr: int) -> str | None:
        """Return where a block's memmap lies: ``self``, ``existing``, ``None`` if unknown.

        An offline block shows no pages; another block of its device tells.
        """
        device = self.device(nr)
        if not self.sees_pages:
            return None
        if self.is_online(nr) and self._holds_memmap(nr):
            return "self"
        if device is not None and self._self_hosts(device):
            return "self"
        return "existing" if self.is_online(nr) else None

    def _self_hosts(self, device: BlockDevice) -> bool:
        """Tell whether a device's memmap is seen in its first online blocks."""
        if device.name not in self._self_hosting:
            online = islice(filter(self.is_online, device.blocks), _ASKED_BLOCKS)
            self._self_hosting[device.name] = any(map(self._holds_memmap, online))
        return self._self_hosting[device.name]

    def blockers(self, nr: int) -> list[Blocker]:
        """Return what keeps an online block from going offline, first what the kernel meets first.

        None found means that no *visible* page blocks: which pages of files are pinned is in no
        file.
        """
        block = self._block(nr)
        if not self.is_online(nr):
            return []
        if self._lacks_hot_remove:
            return [_REFUSES_EVERY_BLOCK]
        return [*self._shape(nr, block), *self._kinds(nr), *self._held(nr)]

    def zones(self, nr: int) -> tuple[str, ...]:
        """Return a block's ``valid_zones``; without that file the zone by the zones' spans."""
        block = self._block(nr)
        if block.valid_zones is not None or block.state == "offline" or not self.page_size_bytes:
            return block.valid_zones or ()
        pfns, node = self.pfns(nr), self.node(nr)
        around = [
            zone.name
            for zone in self._seen.zoneinfo or ()
            if zone.node == node and zone.span and pfns.overlaps(PfnRange(*zone.span))
        ]
        return tuple(around) if len(around) == 1 else ()

    def node(self, nr: int) -> int:
        """Return a block's node, 0 where no file names one."""
        nodes = self._block(nr).nodes
        return nodes[0] if nodes else 0

    def nr_free(self, nr: int) -> int:
        """Return how many pages of a block are free; its pages must be seen."""
        return len(self._pages(nr, FREE))

    def nr_moving(self, nr: int) -> int:
        """Return how many pages of a block are in use and would move; its pages must be seen."""
        return len(self._moving(nr))

    def nr_mapped(self, nr: int) -> int | None:
        """Return how many pages that would move processes map, ``None`` if no file tells."""
        return self.uses.nr_mapped(self._moving(nr), self.pfns(nr))

    def moving_owners(self, nr: int) -> tuple[Owner, ...]:
        """Return the cgroups that are charged for the pages that would move."""
        return self.uses.owners(self._moving(nr), self.pfns(nr))

    def nr_waiting(self, nr: int) -> int:
        """Return how many pages of a block are free on per-CPU lists, as far as that is certain.

        They are when the zone has no more pages without any flag than its lists hold. Offlining
        empties the lists first (``mm/memory_hotplug.c: offline_pages, zone_pcp_disable``).
        """
        if not self.sees_pages or len(self._pages(nr, BLANK)) > self._nr_excused(nr):
            return 0
        in_zone = self._nr_blank(self._zone(nr))
        if in_zone is None or in_zone > self._nr_excused(nr):
            return 0  # of several zones, too many to read, or more than wait
        return len(self._pages(nr, BLANK))

    # --- details ---------------------------------------------------------------------------

    def _moving(self, nr: int) -> PfnSet:
        names = [MOVES]
        if self.zones(nr) == (_MOVABLE,):
            names += [name for name, kind in KINDS.items() if not kind.in_movable]
        return PfnSet.of(*(self._pages(nr, name) for name in names))

    def _pages(self, nr: int, kind: str) -> PfnSet:
        """Return a block's page frames of a kind; neighbouring blocks are read together."""
        assert self._seen.kpageflags is not None
        pfns = self.pfns(nr)
        window, kinds = self._window
        if pfns.start < window.start or window.end < pfns.end:
            start = pfns.start - pfns.start % _WINDOW_NR_PAGES
            window = PfnRange(start, max(start + _WINDOW_NR_PAGES, pfns.end))
            kinds = pages_by_kind(self._seen.kpageflags, window)
            self._window = window, kinds
        return kinds[kind] & pfns

    def _zone(self, nr: int) -> tuple[int, str]:
        return self.node(nr), (self.zones(nr) or ("",))[0]

    def _nr_blank(self, key: tuple[int, str]) -> int | None:
        """Return how many pages of a zone have no flag, ``None`` if it is too large to read."""
        if key not in self._blank:
            self._blank[key] = self._count_blank(key)
        return self._blank[key]

    def _count_blank(self, key: tuple[int, str]) -> int | None:
        """Count a zone's pages without any flag: of its blocks; of blocks of several by its span.

        A block of several zones is in none of them by its own word.
        """
        words, memory = self._seen.kpageflags, self._memory
        assert words is not None
        assert memory is not None
        spans = [zone.span for zone in self._seen.zoneinfo or () if zone.key == key and zone.span]
        span = PfnRange(*spans[0]) if spans else PfnRange(0, 0)
        if any(
            zone.pages.get("present", 0) > 2 * _MOST_COUNTED_NR_PAGES
            for zone in self._seen.zoneinfo or ()
            if zone.key == key
        ):
            return None
        mine, several = PfnSet(), PfnSet()
        for nr, block in memory.blocks.items():
            if block.state == "offline":
                continue
            if block.valid_zones in (None, (), (_NONE,)):
                several |= self.pfns(nr)
            elif self._zone(nr) == key:
                mine |= self.pfns(nr)
        if len(mine) > _MOST_COUNTED_NR_PAGES:
            return None
        places = mine | (several & span)
        return (
            len(words.select(lambda flags: not flags, places.span()) & places) if places else None
        )

    def _nr_excused(self, nr: int) -> int:
        """Return how many pages without any flag may block nothing.

        Those on the zone's per-CPU lists have no reference; those of zsmalloc can move
        (``page_has_movable_ops``), and no flag tells them.
        """
        return self._waiting.get(self._zone(nr), 0) + self._zspages

    def _block(self, nr: int) -> Block:
        assert self._memory is not None
        return self._memory.blocks[nr]

    def _pages_of(self, lines: Iterable[Resource]) -> PfnSet | None:
        page = self.page_size_bytes
        if page is None:
            return None
        pages = PfnSet()
        for line in lines:
            start = -(-line.start // page)
            pages |= PfnRange(start, max(start, line.end // page))
        return pages or None

    def logged_pfn(self, nr: int, blockers: Iterable[Blocker]) -> int | None:
        """Return the page of a block that the kernel's log names if it refuses to isolate it.

        ``None`` if no unmovable page is seen, or architecture or release are not known.

        Parameters
        ----------
        nr : int
        blockers : iterable of Blocker
            What keeps the block from going offline.
        """
        arch = self._arch
        if arch is None or not self.sees_pages:
            return None
        stuck = PfnSet.of(
            *(
                self._pages(nr, each.name) - self._idle(nr, each.name)
                for each in blockers
                if each.function == _UNMOVABLE and each.name in KINDS
            )
        )
        if not stuck:
            return None
        if self._release is None:
            return None
        pfns = self._without_memmap(nr, arch)
        return first_dumped_pfn(
            stuck, pfns, arch.pageblock_nr_pages, ends_first=self._release.isolates_ends_first
        )

    @cached_property
    def _arch(self) -> Arch | None:
        """The architecture, ``None`` if the files do not tell it."""
        return arch_of(self._seen.machine or "", self.page_size_bytes)

    @cached_property
    def _release(self) -> Release | None:
        """The record of the kernel's release, ``None`` if no file names one."""
        try:
            return release_for(version.parse(self._seen.version or "").full)
        except InputError:
            return None

    def _without_memmap(self, nr: int, arch: Arch) -> PfnRange:
        """Return the pages of a block that offlining is about: without those of its memmap."""
        pfns = self.pfns(nr)
        if not self._holds_memmap(nr):
            return pfns
        memmap_nr_pages = arch.memmap_nr_pages(len(pfns))
        memmap_nr_pages += -memmap_nr_pages % arch.pageblock_nr_pages
        return PfnRange(pfns.start + memmap_nr_pages, pfns.end)

    def _idle(self, nr: int, kind: str) -> PfnSet:
        """Return the pages of a kind that are free on per-CPU lists."""
        if kind != "kernel":
            return PfnSet()
        blank = self._pages(nr, BLANK)
        if not blank or self.nr_waiting(nr):
            return blank
        arch = self._arch
        if arch is None or len(blank) > self._nr_excused(nr):
            return PfnSet()
        own = PfnSet.of(*(self._pages(nr, name) for name in KINDS if name != "hugetlb"))
        return in_movable_pageblocks(
            blank, self._pages(nr, MOVES), own - blank, arch.pageblock_nr_pages
        )

    def _holds_memmap(self, nr: int) -> bool:
        if not self.sees_pages or not self.is_online(nr):
            return False
        assert self._seen.kpageflags is not None
        word = self._seen.kpageflags.word_at(self.pfns(nr).start)
        return word is not None and is_memmap(word)

    def _shape(self, nr: int, block: Block) -> Iterator[Blocker]:
        """Yield what a block is made of that can never go offline."""
        if block.valid_zones == (_NONE,) or len(block.nodes) > 1:
            yield Blocker(
                "zones",
                "its pages belong to more than one zone or node",
                "nothing: the firmware's memory map makes it so",
                "certain",
                "EINVAL",
                "memory_block_offline",
            )
        if self._ram is not None and not self._ram.covers(self.pfns(nr)):
            missing = len(self.pfns(nr)) - self._ram.count(self.pfns(nr))
            yield Blocker(
                "hole",
                "part of it is no System RAM (/proc/iomem): a hole of the firmware's memory map",
                "nothing: the firmware's memory map makes it so",
                "certain",
                "EINVAL",
                "offline_pages",
                missing,
            )
        arch = self._arch
        if arch is not None:
            yield from self._vetoed_by_arch(nr, arch)

    def _vetoed_by_arch(self, nr: int, arch: Arch) -> Iterator[Blocker]:
        """Yield what arm64's own listener vetoes."""
        release = self._release
        if not arch.offlines_boot_memory and self.device(nr) is None:
            splits = release is not None and arch.family in release.rejects_leaf_split
            yield Blocker(
                "boot-memory",
                "arm64 never offlines memory that was there at boot, and no device brought this",
                "nothing until the next boot",
                "likely",
                "EPERM",
                LEAF_SPLIT if splits else "prevent_bootmem_remove_notifier",
            )
        elif release is not None and splits_leaf(arch, release, self._without_memmap(nr, arch)):
            yield _SPLITS_LEAF

    def _kinds(self, nr: int) -> Iterator[Blocker]:
        if not self.sees_pages:
            yield from self._crash_kernel(nr)
            return
        movable = self.zones(nr) == (_MOVABLE,)
        device = self.device(nr)
        for name, kind in KINDS.items():
            pages = self._pages(nr, name) - self._idle(nr, name)
            if not pages or (movable and not kind.in_movable):
                continue
            if name == "reserved" and self._crash and not pages - self._crash:
                yield from self._crash_kernel(nr)
                continue
            if name == "fake-offline" and device is not None and device.driver == "virtio_mem":
                continue  # it lets go of them itself: virtio_mem_sbm_notify_going_offline
            yield Blocker(
                name,
                kind.what,
                _BOOT_IN_MOVABLE if movable and name == "reserved" else kind.cure,
                self._certainty(kind, pages, nr),
                "EBUSY",
                kind.function,
                len(pages),
                pages.min(),
                self.uses.owners(pages, self.pfns(nr)),
            )

    def _crash_kernel(self, nr: int) -> Iterator[Blocker]:
        """Yield the memory of ``crashkernel=`` in a block, which ``/proc/iomem`` shows."""
        pages = self._crash & self.pfns(nr) if self._crash else PfnSet()
        if pages:
            yield Blocker(
                "reserved",
                "reserved pages: the crash kernel's memory (/proc/iomem)",
                "a smaller crashkernel= on the command line, or in /sys/kernel/kexec_crash_size",
                "certain",
                "EBUSY",
                KINDS["reserved"].function,
                len(pages),
                pages.min(),
            )

    def _certainty(self, kind: BlockingKind, pages: PfnSet, nr: int) -> str:
        """Return how certain it is that pages of a kind block.

        Of untyped pages it is certain if one has a flag, or if they are more than the zone's
        per-CPU lists hold; likely if most of the zone's are not on the lists. Pages of a balloon
        that uses balloon compaction (virtio, VMware, POWER's CMM) can move, those of others
        (Hyper-V, Xen) cannot, and no flag tells them apart (``mm/balloon_compaction.c``).
        """
        if kind.name == "fake-offline" and self._nr_balloon:
            return "unknown"
        most = kind.certainty
        if kind.name != "kernel":
            return most
        blank, excused = len(self._pages(nr, BLANK)), self._nr_excused(nr)
        if len(pages) > blank or blank > excused:
            return most
        in_zone = self._nr_blank(self._zone(nr))
        # A zone that is too large to count has far more such pages than its lists hold.
        return "likely" if in_zone is None or in_zone >= 2 * excused else "unknown"

    def _held(self, nr: int) -> Iterator[Blocker]:
        """Yield what is found only when pages are to move: their number, and CMA before that."""
        if not self.sees_pages:
            return
        pages = self.uses.held(self.pfns(nr))
        if pages:
            yield Blocker(
                "held",
                "anonymous pages that no process maps: a pipe (vmsplice) or a pin (O_DIRECT, RDMA, "
                "VFIO) holds them, so that offlining retries indefinitely; or, on a busy machine, "
                "they were freed while the files were read",
                "look again: pages that stay are held; end who holds them; use a time limit",
                "unknown",
                "EINTR",
                "offline_pages",
                len(pages),
                pages.min(),
                self.uses.owners(pages, self.pfns(nr)),
            )
        nr_pages = self._cma.get(self._zone(nr), 0)
        if nr_pages and self.zones(nr) != (_MOVABLE,):
            yield Blocker(
                "cma",
                f"{nr_pages} pages of this zone are set aside for CMA, no file says where",
                "boot without cma= or hugetlb_cma=",
                "unknown",
                "EBUSY",
                "has_unmovable_pages",
            )
