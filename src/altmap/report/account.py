"""Where the memory went: from what was bought to what is free, each loss with its cause.

Everything is read off one look at a machine; what a file does not show is not guessed but left in
the next wider loss, and said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.addedpages import fake_offline_nr_pages, self_hosted_nr_pages
from altmap.linux.observation import Observation, page_size_bytes
from altmap.trace import Trace

__all__ = ("Level", "Loss", "account", "account_step", "account_trace", "bought_bytes")


_STRUCT_PAGE_BYTES = 64
_HOSTED = "memmap of added memory, in that memory itself"
#: Below what was bought, in order.
_LEVELS = ("memory blocks", "online", "present", "managed", "MemTotal", "MemFree")


@dataclass(frozen=True, slots=True)
class Loss:
    """Bytes that do not reach the next level, and why."""

    size_bytes: int
    cause: str


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the walk: its bytes, and what is lost below it."""

    name: str
    size_bytes: int
    losses: tuple[Loss, ...] = ()


def bought_bytes(trace: Trace, index: int) -> int:
    """Return the bytes that were bought up to a step of a trace.

    They are those of all devices that are plugged, or what a balloon has gained. Of a device that
    is resized it is what was asked for last, not the most that it could have.
    """
    looks = [step.observation for step in trace.steps[: index + 1] if step.observation]
    if looks and looks[0].balloon and looks[-1].balloon:
        return max(0, looks[-1].balloon.current_kb - looks[0].balloon.current_kb) * 1024
    sizes: dict[str, int] = {}
    for step in trace.steps[1 : index + 1]:
        action = step.action
        if action.get("do") == "plug" and step.outcome.status != "not_reached":
            more = sum(item["size"] for item in action.get("more_ranges", ()))
            resized = action.get("driver") == "virtio-mem"
            whole = action.get("requested", 0) if resized else action["size"]
            sizes[action["id"]] = whole + more
        elif action.get("do") == "resize" and action["id"] in sizes:
            sizes[action["id"]] = action["size"]
        elif action.get("do") == "unplug" and step.outcome:
            sizes.pop(action["id"], None)
    return sum(sizes.values())


def account_trace(trace: Trace) -> list[Level]:
    """Return the levels after the last step of a trace after which the machine could be looked at.

    What the platform was asked for and no memory block holds is the first loss.
    """
    return account_step(
        trace, max(i for i, step in enumerate(trace.steps) if step.observation is not None)
    )


def account_step(trace: Trace, index: int) -> list[Level]:
    """Return the levels after one step of a trace.

    After a fault nothing is left of the machine: all that was bought is lost to it.

    Raises
    ------
    InputError
        If the machine did not show its zones, memory blocks or meminfo.
    """
    start, now = trace.steps[0].observation, trace.steps[index].observation
    if start is None:
        raise InputError("account: the trace has no files of the machine")
    if now is None:
        bought = _block_bytes(start) + bought_bytes(trace, index)
        return [
            Level("bought", bought, (Loss(bought, "the kernel is dead"),)),
            *(Level(name, 0) for name in _LEVELS),
        ]
    bought = bought_bytes(trace, index)
    added = _block_bytes(now) - _block_bytes(start)
    return account(now, unplugged_bytes=max(0, bought - added))


def _block_bytes(seen: Observation) -> int:
    return len(seen.memory.blocks) * seen.memory.block_size_bytes if seen.memory else 0


def account(seen: Observation, unplugged_bytes: int | None = None) -> list[Level]:
    """Return the levels from memory blocks down to free memory.

    Parameters
    ----------
    seen : Observation
    unplugged_bytes : int, optional
        Memory that was bought but reached no memory block (a refused or partly backed plug); adds
        a level above the blocks.

    Raises
    ------
    InputError
        If the machine did not show its zones, memory blocks or meminfo.
    """
    if not seen.zoneinfo or seen.memory is None or not seen.meminfo:
        raise InputError("account: needs proc/zoneinfo, proc/meminfo and sys/devices/system/memory")
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
    total, free = (seen.meminfo[name] * 1024 for name in ("MemTotal", "MemFree"))
    levels = [
        Level(name, size, losses)
        for name, size, losses in zip(
            _LEVELS,
            (blocks, online, present, managed, total, free),
            (
                _losses((blocks - online, "blocks that are offline")),
                _losses((online - present, "holes in blocks of boot memory")),
                tuple(_withheld(seen, page, present - managed)),
                _losses((managed - total, "MemTotal says otherwise")),
                tuple(_in_use(seen, page, total - free)),
                (),
            ),
            strict=True,
        )
    ]
    if unplugged_bytes:
        bought = blocks + unplugged_bytes
        cause = "plugged, but in no memory block"
        levels.insert(0, Level("bought", bought, (Loss(unplugged_bytes, cause),)))
    return levels


def _losses(*candidates: tuple[int, str]) -> tuple[Loss, ...]:
    return tuple(Loss(size, cause) for size, cause in candidates if size)


def _withheld(seen: Observation, page: int, missing: int) -> Iterator[Loss]:
    """Yield what is present but not managed."""
    if not seen.kpageflags:
        yield from _losses(
            (missing, "memmap, kernel image, fake-offline pages (kpageflags would tell)")
        )
        return
    hosted = self_hosted_nr_pages(seen) * page
    left = missing - hosted
    fake_nr_pages = fake_offline_nr_pages(seen)
    if fake_nr_pages is None:
        cause = "kept at boot, or fake-offline (too many page frames to tell them apart)"
        yield from _losses((hosted, _HOSTED), (left, cause))
        return
    # Ballooned pages were managed once; only those that never were can explain the gap.
    fake = min(fake_nr_pages * page, max(0, left))
    yield from _losses(
        (hosted, _HOSTED),
        (fake, "fake-offline: withheld by a driver"),
        (left - fake, "kept at boot: kernel image, memmap of boot memory, firmware"),
    )


def _in_use(seen: Observation, page: int, used: int) -> Iterator[Loss]:
    """Yield what is managed but not free, by the lines of meminfo that do not overlap."""
    meminfo = {name: kib * 1024 for name, kib in (seen.meminfo or {}).items()}
    waiting = page * sum(
        pageset.get("count", 0) for zone in seen.zoneinfo or () for pageset in zone.pagesets
    )
    known = [
        (sum(meminfo.get(n, 0) for n in ("AnonPages", "Buffers", "Cached")), "processes and files"),
        (meminfo.get("Slab", 0), "slab"),
        (meminfo.get("KernelStack", 0) + meminfo.get("PageTables", 0), "stacks and page tables"),
        (meminfo.get("Hugetlb", 0), "hugetlb pages"),
        (_memmap_elsewhere(seen, page), "memmap of added memory, in existing memory"),
        (waiting, "free, but on per-CPU lists"),
    ]
    rest = used - sum(size for size, _ in known)
    yield from _losses(*known, (rest, "other kernel memory"))


def _memmap_elsewhere(seen: Observation, page: int) -> int:
    """Return the memmap bytes of added memory that the added memory does not hold itself.

    Offline blocks show no pages; with memmap_on_memory they are taken to hold their own.
    """
    if not seen.kpageflags or seen.memory is None:
        return 0
    counted = (seen.vmstat or {}).get("nr_memmap_pages", 0) * page
    offline = sum(block.state == "offline" for block in seen.memory.blocks.values())
    if seen.parameters.get("memmap_on_memory") not in ("Y", "force"):
        offline = 0
    per_block = seen.memory.block_size_bytes // page * _STRUCT_PAGE_BYTES
    return max(0, counted - self_hosted_nr_pages(seen) * page - offline * per_block)
