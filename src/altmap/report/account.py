"""Memory accounting: levels from requested memory down to free memory, each loss with its cause.

Every number is read from one observation of a machine. What the files do not show is not guessed:
it stays in the next wider loss, whose cause names what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.addedpages import fake_offline_nr_pages, self_hosted_nr_pages
from altmap.linux.observation import Observation, page_size_bytes
from altmap.trace import Trace

__all__ = (
    "Level",
    "Loss",
    "account",
    "account_step",
    "account_trace",
    "kernel_and_movable_bytes",
    "requested_bytes",
)


_STRUCT_PAGE_BYTES = 64
_HOLES = "holes in blocks of boot memory"
_PRESENT = "present pages outside of the blocks that are online"
_BALLOON = "balloon (of the hypervisor)"
_HOSTED = "memmap of added memory, in that memory itself"
#: Drivers whose memory is not there after a reboot.
_LOST_AT_REBOOT = ("hyperv", "probe")
#: Below requested memory, in order.
_LEVELS = ("memory blocks", "online", "present", "managed", "MemTotal", "MemFree")


@dataclass(frozen=True, slots=True)
class Loss:
    """Bytes that do not reach the next level, and why; of a gain, those that are new in it."""

    size_bytes: int
    cause: str


@dataclass(frozen=True, slots=True)
class Level:
    """One level: its bytes, and the losses between it and the next level.

    Levels are what different files say. Where one says more than the level above it, the surplus is
    in *gains*: a level less its losses and with its gains is the next one.
    """

    name: str
    size_bytes: int
    losses: tuple[Loss, ...] = ()
    gains: tuple[Loss, ...] = ()


def requested_bytes(trace: Trace, index: int) -> int:
    """Return the bytes that are requested after a step of a trace.

    They are the sizes of all plugged devices, or the growth of a balloon. For a device that is
    resized it is the last requested size, not its maximum.
    """
    seen = [step.observation for step in trace.steps[: index + 1] if step.observation]
    if seen and seen[0].balloon and seen[-1].balloon:
        return max(0, seen[-1].balloon.current_kb - seen[0].balloon.current_kb) * 1024
    sizes: dict[str, int] = {}
    lost: set[str] = set()
    for step in trace.steps[1 : index + 1]:
        action = step.action
        if action.get("do") == "plug" and step.outcome.status != "not_reached":
            if step.outcome.errno == "EEXIST":
                continue  # other memory is there: the platform gave nothing
            more = sum(item["size"] for item in action.get("more_ranges", ()))
            resized = action.get("driver") == "virtio-mem"
            whole = action.get("requested", 0) if resized else action["size"]
            sizes[action["id"]] = whole + more
            if action.get("driver") in _LOST_AT_REBOOT:
                lost.add(action["id"])
        elif action.get("do") == "resize" and action["id"] in sizes:
            sizes[action["id"]] = action["size"]
        elif action.get("do") == "reboot" and step.outcome:
            sizes = {id_: size for id_, size in sizes.items() if id_ not in lost}
        elif action.get("do") == "unplug" and step.outcome:
            sizes.pop(action["id"], None)
    return sum(sizes.values())


def account_trace(trace: Trace) -> list[Level]:
    """Return the levels after the last step of a trace that has an observation.

    Requested memory that is in no memory block is the first loss.
    """
    return account_step(
        trace, max(i for i, step in enumerate(trace.steps) if step.observation is not None)
    )


def account_step(trace: Trace, index: int) -> list[Level]:
    """Return the levels after one step of a trace.

    After a fault the kernel has crashed: all memory is lost to it.

    Raises
    ------
    InputError
        If the machine did not show its zones, memory blocks or meminfo.
    """
    start, now = trace.steps[0].observation, trace.steps[index].observation
    if start is None:
        raise InputError("account: the trace has no files of the machine")
    if now is None:
        requested = _block_bytes(start) + requested_bytes(trace, index)
        return [
            Level("requested", requested, (Loss(requested, "the kernel crashed"),)),
            *(Level(name, 0) for name in _LEVELS),
        ]
    requested = requested_bytes(trace, index)
    added = _block_bytes(now) - _block_bytes(start)
    return account(now, unplugged_bytes=max(0, requested - added))


def kernel_and_movable_bytes(seen: Observation) -> tuple[int, int] | None:
    """Return what is present in kernel zones and in ZONE_MOVABLE, ``None`` if no file tells."""
    page = page_size_bytes(seen)
    if seen.zoneinfo is None or page is None:
        return None
    zones = [(zone.name == "Movable", zone.pages.get("present", 0)) for zone in seen.zoneinfo]
    movable = sum(nr_pages for is_movable, nr_pages in zones if is_movable)
    return (sum(nr_pages for _, nr_pages in zones) - movable) * page, movable * page


def _block_bytes(seen: Observation) -> int:
    return len(seen.memory.blocks) * seen.memory.block_size_bytes if seen.memory else 0


def account(seen: Observation, unplugged_bytes: int | None = None) -> list[Level]:
    """Return the levels from memory blocks down to free memory.

    Parameters
    ----------
    seen : Observation
    unplugged_bytes : int, optional
        Requested memory that is in no memory block (a refused or partly backed plug); adds the
        level ``requested`` above the blocks.

    Raises
    ------
    InputError
        If the machine did not show its zones, memory blocks or meminfo.
    """
    seen.require("account", "zoneinfo", "meminfo", "memory")
    assert seen.zoneinfo is not None
    assert seen.meminfo is not None
    assert seen.memory is not None
    page = page_size_bytes(seen)
    if page is None:
        raise InputError("account: the zones have no present pages")
    block = seen.memory.block_size_bytes
    states = [each.state for each in seen.memory.blocks.values()]
    blocks, online = len(states) * block, sum(state != "offline" for state in states) * block
    present, managed = (
        page * sum(zone.pages.get(name, 0) for zone in seen.zoneinfo)
        for name in ("present", "managed")
    )
    total, free = (
        seen.meminfo[name] * 1024 if name in seen.meminfo else None
        for name in ("MemTotal", "MemFree")
    )
    used = total if total is not None else managed
    named = (
        ("memory blocks", blocks, ((blocks - online, "blocks that are offline"),)),
        ("online", online, ((online - present, _HOLES if online > present else _PRESENT),)),
        ("present", present, _not_managed(seen, page, present - managed)),
        ("managed", managed, ((managed - used, "difference of MemTotal and managed pages"),)),
        ("MemTotal", total, _in_use(seen, page, used - free) if free is not None else ()),
        ("MemFree", free, ()),
    )
    levels = [
        Level(name, size, *_losses_and_gains(causes))
        for name, size, causes in named
        if size is not None
    ]
    if unplugged_bytes:
        requested = blocks + unplugged_bytes
        cause = "plugged, but in no memory block"
        levels.insert(0, Level("requested", requested, (Loss(unplugged_bytes, cause),)))
    return levels


def _losses_and_gains(
    causes: Iterable[tuple[int, str]],
) -> tuple[tuple[Loss, ...], tuple[Loss, ...]]:
    """Return losses, and what the next level has more, by the sign of each size."""
    known = list(causes)
    return (
        tuple(Loss(size, cause) for size, cause in known if size > 0),
        tuple(Loss(-size, cause) for size, cause in known if size < 0),
    )


def _not_managed(seen: Observation, page: int, missing: int) -> Iterator[tuple[int, str]]:
    """Yield what is present but not managed."""
    if missing < 0:
        yield missing, "managed pages that are not present"
        return
    if not seen.kpageflags:
        yield missing, "memmap, kernel image, fake-offline pages (kpageflags is missing)"
        return
    hosted = min(self_hosted_nr_pages(seen) * page, missing)
    left = missing - hosted
    fake_nr_pages = fake_offline_nr_pages(seen)
    yield hosted, _HOSTED
    if fake_nr_pages is None:
        yield left, "reserved at boot, or fake-offline (too many page frames to distinguish)"
        return
    # Ballooned pages were managed before; only pages that never were can explain the difference.
    fake = min(fake_nr_pages * page, left)
    yield fake, "fake-offline: PageOffline pages of a driver"
    yield left - fake, "reserved at boot: kernel image, memmap of boot memory, firmware"


def _in_use(seen: Observation, page: int, used: int) -> Iterator[tuple[int, str]]:
    """Yield what is managed but not free, by lines of meminfo that should not overlap."""
    meminfo = {name: kib * 1024 for name, kib in (seen.meminfo or {}).items()}
    on_pcp_lists = page * sum(zone.nr_on_cpu_lists for zone in seen.zoneinfo or ())
    known = [
        (sum(meminfo.get(n, 0) for n in ("AnonPages", "Buffers", "Cached")), "processes and files"),
        (meminfo.get("Slab", 0), "slab"),
        (meminfo.get("KernelStack", 0) + meminfo.get("PageTables", 0), "stacks and page tables"),
        (meminfo.get("Hugetlb", 0), "hugetlb pages"),
        (_memmap_elsewhere(seen, page), "memmap of added memory, in existing memory"),
        (on_pcp_lists, "free, but on per-CPU lists"),
    ]
    yield from known
    rest = used - sum(size for size, _ in known)
    balloon = _balloon_bytes(seen, page)
    if rest <= 0:
        yield rest, "in more than one of these lines"
    elif 0 < balloon <= rest:
        yield balloon, _BALLOON
        yield rest - balloon, "other kernel memory"
    else:
        yield rest, "kernel, or a driver's (balloon)"


def _balloon_bytes(seen: Observation, page: int) -> int:
    """Return the bytes that a balloon holds, by the files that count its pages.

    They are in MemTotal unless the driver lowered it: virtio-balloon does so without the feature
    deflate-on-oom, VMware's balloon never. ``Balloon`` of meminfo is the newer count. Source:
    ``mm/balloon_compaction.c: balloon_page_enqueue_one``, ``drivers/misc/vmw_balloon.c:
    vmballoon_enqueue_page_list`` (5.4).
    """
    meminfo, vmstat = seen.meminfo or {}, seen.vmstat or {}
    if "Balloon" in meminfo:
        return meminfo["Balloon"] * 1024
    return page * (vmstat.get("balloon_inflate", 0) - vmstat.get("balloon_deflate", 0))


def _memmap_elsewhere(seen: Observation, page: int) -> int:
    """Return the memmap bytes of added memory that lie outside of it.

    Offline blocks show no pages; with memmap_on_memory they are assumed to host their memmap.
    """
    if not seen.kpageflags or seen.memory is None:
        return 0
    counted = (seen.vmstat or {}).get("nr_memmap_pages", 0) * page
    offline = sum(block.state == "offline" for block in seen.memory.blocks.values())
    if seen.parameters.get("memmap_on_memory") not in ("Y", "force"):
        offline = 0
    per_block = seen.memory.block_size_bytes // page * _STRUCT_PAGE_BYTES
    return max(0, counted - self_hosted_nr_pages(seen) * page - offline * per_block)
