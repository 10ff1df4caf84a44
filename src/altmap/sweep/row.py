"""One flat row for each scenario: its parameters, its result, and its cost."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from altmap.errors import InputError
from altmap.model.kernel.accounting import ACCOUNTINGS
from altmap.model.kernel.hugetlb import hugepage_sizes_bytes
from altmap.model.kernel.pool import aligned_chunks
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE, Zone
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Plug, Scenario
from altmap.sweep.grid import Point
from altmap.sweep.requests import boot_bytes
from altmap.trace import StepRecord
from altmap.units import format_size

__all__ = (
    "COLUMNS",
    "MachineNumbers",
    "SweepRow",
    "columns_of",
    "lost_row",
    "row_of_error",
    "row_of_run",
)

#: How a scenario ended.
#: A step that does not end counts as refused.
_REFUSED = ("refused", "does_not_end")
Result = Literal["ok", "refused", "fault", "invalid", "crashed", "lost"]


class SweepRow(msgspec.Struct, kw_only=True):
    """A scenario's parameters, outcome and memory.

    Unknown values are null: memory after a crash of the kernel, and all numbers of an invalid
    scenario.

    Attributes
    ----------
    scenario : int
        Its number in the grid; rows are unique by it.
    digest : str
        Hash of the machine and the steps, without the name; equal scenarios share it.
    member : str
        The machine of a fleet, else empty.
    arch : str
        Architecture with its page size, as a scenario names it.
    page_size_bytes : int
        PAGE_SIZE.
    release : str
        The kernel's release.
    policy : str
        The memmap policy.
    placement : str
        The policy's placement of the memmap.
    accounting : str
        The policy's accounting of the memmap.
    driver : str
        The driver; `mixed` if the grid's steps plug by several.
    backing : str
        `whole`, or the half of the region that the host backs.
    block_size_bytes : int
        Size of a memory block.
    boot_bytes : int
        Boot memory.
    nodes : int
        NUMA nodes at boot.
    requests : str
        Memory beyond boot memory that each request is for, such as `1 GiB, 4 GiB`.
    memmap_on_memory : str
        The parameter as it is in force: `off`, `on` or `force`.
    online_policy : str
        `contig-zones` or `auto-movable`.
    auto_online_blocks : str
        The state that added blocks get.
    settings : str
        The other keys of `[machine]` that were given, as `key=value`.
    result : str
        `ok`; `refused`: the kernel refused a step; `fault`: the kernel crashed; `invalid`: the
        scenario is not valid; `crashed`: a defect of altmap; `lost`: each of its workers crashed.
    steps : int
        Steps of the scenario.
    steps_refused : int
        Steps that the kernel refused.
    steps_not_reached : int
        Steps after a fault.
    failed_step : int
        The first step that was refused or ended in a fault, from 1 on.
    failed_name : str
        That step's name.
    failed_request : int
        The request that it belongs to, from 1 on.
    failed_at : str
        The time of that request in the trace.
    errno : str
        The error's name, such as `EBUSY`.
    function : str
        The kernel function that refused, or that touched the frame.
    why : str
        One sentence: the refusal or fault, or the error in the scenario.
    certainty : str
        `certain`, `likely` or `unknown`, of that step's outcome.
    asked_bytes : int
        Requested memory beyond boot memory, of the last request.
    seen_bytes : int
        Gain of MemTotal.
    not_seen_bytes : int
        `asked_bytes` less `seen_bytes`.
    added_bytes : int
        Memory that the kernel has added and not removed.
    online_bytes : int
        The part of it that is online.
    withheld_bytes : int
        Fake-offline and ballooned pages.
    memmap_bytes : int
        Memmap of added memory as nr_memmap_pages counts it, wherever it lies.
    memmap_self_hosted_bytes : int
        Pages of added memory set aside for its own memmap, padding included.
    memmap_existing_bytes : int
        Pages of existing memory that hold memmap of added memory.
    memmap_elsewhere_bytes : int
        Pages of another added range that hold memmap (policy `shared-host`).
    page_table_bytes : int
        Page tables that map added memory.
    overhead_percent : float
        Memmap of all three places in percent of added memory.
    free_before_bytes : int
        MemFree before the first step.
    free_after_bytes : int
        MemFree after the last step.
    mem_total_before_bytes : int
        MemTotal before the first step.
    mem_total_after_bytes : int
        MemTotal after the last step.
    gigantic_page_bytes : int
        Size of the largest huge page of the architecture.
    gigantic_before : int
        Such pages that kernel zones could provide before the first step.
    gigantic_after : int
        The same after the last step.
    gigantic_lost : int
        Such pages that added memory in kernel zones has room for, but could not provide.
    kernel_bytes : int
        Present pages of kernel zones.
    movable_bytes : int
        Present pages of ZONE_MOVABLE.
    movable_ratio : float
        Movable to kernel memory.
    cpu_seconds : float
        Processor time of what this scenario does not share with the one before it in its chunk;
        differs between runs.
    """

    scenario: int
    digest: str = ""
    member: str = ""
    arch: str = ""
    page_size_bytes: int | None = None
    release: str = ""
    policy: str = ""
    placement: str = ""
    accounting: str = ""
    driver: str = ""
    backing: str = ""
    block_size_bytes: int | None = None
    boot_bytes: int | None = None
    nodes: int | None = None
    requests: str = ""
    memmap_on_memory: str = ""
    online_policy: str = ""
    auto_online_blocks: str = ""
    settings: str = ""
    result: Result
    steps: int | None = None
    steps_refused: int | None = None
    steps_not_reached: int | None = None
    failed_step: int | None = None
    failed_name: str | None = None
    failed_request: int | None = None
    failed_at: str | None = None
    errno: str | None = None
    function: str | None = None
    why: str | None = None
    certainty: str | None = None
    asked_bytes: int | None = None
    seen_bytes: int | None = None
    not_seen_bytes: int | None = None
    added_bytes: int | None = None
    online_bytes: int | None = None
    withheld_bytes: int | None = None
    memmap_bytes: int | None = None
    memmap_self_hosted_bytes: int | None = None
    memmap_existing_bytes: int | None = None
    memmap_elsewhere_bytes: int | None = None
    page_table_bytes: int | None = None
    overhead_percent: float | None = None
    free_before_bytes: int | None = None
    free_after_bytes: int | None = None
    mem_total_before_bytes: int | None = None
    mem_total_after_bytes: int | None = None
    gigantic_page_bytes: int | None = None
    gigantic_before: int | None = None
    gigantic_after: int | None = None
    gigantic_lost: int | None = None
    kernel_bytes: int | None = None
    movable_bytes: int | None = None
    movable_ratio: float | None = None
    cpu_seconds: float = 0.0


def _kind(hint: Any) -> type:
    """Return the type of a column's values that are not null."""
    named = [each for each in get_args(hint) or (hint,) if each is not type(None)]
    return named[0] if isinstance(named[0], type) else str


#: Every column with its type.
COLUMNS: dict[str, type] = {name: _kind(hint) for name, hint in get_type_hints(SweepRow).items()}
#: Keys of a machine that are columns of the same name, and of another name.
_LABELS = (
    *("arch", "release", "policy"),
    *("memmap_on_memory", "online_policy", "auto_online_blocks"),
)
_OTHER_LABELS = ("memory", "nodes", "block_size")


@dataclass(frozen=True, slots=True)
class MachineNumbers:
    """Numbers of a machine at one moment, in pages.

    Attributes
    ----------
    total, free : int
        MemTotal and MemFree.
    gigantic : int
        Gigantic pages that kernel zones could provide.
    """

    total: int
    free: int
    gigantic: int

    @classmethod
    def of(cls, kernel: Kernel) -> MachineNumbers:
        """Return the numbers of a kernel."""
        gigantic = len(_gigantic(kernel, _available(kernel))) // _gigantic_nr_pages(kernel)
        return cls(kernel.total_ram_nr_pages(), kernel.free_nr_pages(), gigantic)


def _gigantic_nr_pages(kernel: Kernel) -> int:
    return hugepage_sizes_bytes(kernel.arch)[-1] // kernel.arch.page_size_bytes


def _available(kernel: Kernel) -> PfnSet:
    """Return the pages that may become part of a gigantic page: free or movable, in kernel zones.

    Source: ``mm/page_alloc.c: alloc_contig_pages, pfn_range_valid_contig``.
    """
    fixed = (kernel.used - kernel.movable) | kernel.pinned
    return PfnSet.of(*(kernel.managed(zone) - fixed for zone in _kernel_zones(kernel)))


def _gigantic(kernel: Kernel, pages: PfnSet) -> PfnSet:
    """Return the aligned chunks of gigantic size within one kernel zone each."""
    size = _gigantic_nr_pages(kernel)
    return PfnSet.of(
        *(aligned_chunks(pages & zone.present, size) for zone in _kernel_zones(kernel))
    )


def _kernel_zones(kernel: Kernel) -> list[Zone]:
    return [zone for zone in kernel.zones.values() if zone.name != MOVABLE and zone.present]


# --- rows ------------------------------------------------------------------------------------


def columns_of(machine: ModelMachine, start: MachineNumbers) -> dict[str, Any]:
    """Return the columns that depend on the machine alone, not on the point.

    Parameters
    ----------
    machine : ModelMachine
        After the last step.
    start : MachineNumbers
        Before the first one.
    """
    kernel = machine.kernel
    page = kernel.arch.page_size_bytes
    made = {
        **_described(kernel),
        "result": "fault" if machine.crashed else "ok",
        "free_before_bytes": start.free * page,
        "mem_total_before_bytes": start.total * page,
        "gigantic_before": start.gigantic,
        "gigantic_page_bytes": _gigantic_nr_pages(kernel) * page,
    }
    return made if machine.crashed else made | _measured(kernel, start)


def row_of_run(
    point: Point, scenario: Scenario, records: Sequence[StepRecord], columns: dict[str, Any]
) -> SweepRow:
    """Return the row of a scenario that was run.

    Parameters
    ----------
    point : Point
    scenario : Scenario
    records : sequence of StepRecord
    columns : dict of str to object
        Columns that equal scenarios share: the digest, and the result of :func:`columns_of`.
    """
    statuses = [record.outcome.status for record in records]
    row = SweepRow(
        **_labels(point) | columns,
        steps=len(records),
        steps_refused=sum(status in _REFUSED for status in statuses),
        steps_not_reached=statuses.count("not_reached"),
        asked_bytes=_asked_bytes(point, scenario),
    )
    assert row.asked_bytes is not None  # set above
    row.not_seen_bytes = row.asked_bytes - (row.seen_bytes or 0)
    failed = next((at for at, each in enumerate(statuses) if each in (*_REFUSED, "fault")), None)
    if failed is not None:
        _set_failure(row, point, failed, records[failed])
    return row


def row_of_error(point: Point, error: Exception, *, invalid: bool) -> SweepRow:
    """Return the row of an invalid scenario, or of one on which the model raises."""
    row = SweepRow(**_labels(point), result="invalid" if invalid else "crashed", why=str(error))
    if not invalid:
        row.why = f"{type(error).__name__}: {error}"
        frames = traceback.extract_tb(error.__traceback__)
        row.function = frames[-1].name if frames else None
    return row


def lost_row(point: Point, why: str) -> SweepRow:
    """Return the row of a scenario on which every worker crashed."""
    return SweepRow(**_labels(point), result="lost", why=why)


def _labels(point: Point) -> dict[str, Any]:
    """Return the columns that are known before the run, without the machine's defaults."""
    machine = point.data["machine"]
    requests = point.requests
    others = {key: value for key, value in machine.items() if key not in (*_LABELS, *_OTHER_LABELS)}
    return {
        "scenario": point.number,
        "member": point.member,
        **{key: str(machine.get(key, "")) for key in _LABELS},
        "boot_bytes": _boot_bytes(machine),
        "nodes": max(1, len(machine.get("nodes", ()))),
        "driver": requests.driver if requests else _plugged_by(point.data["steps"]),
        "backing": requests.backing if requests else "",
        "requests": ", ".join(map(_signed, requests.added_bytes)) if requests else "",
        "settings": " ".join(f"{key}={_text(value)}" for key, value in sorted(others.items())),
    }


def _boot_bytes(machine: dict[str, Any]) -> int | None:
    try:
        return boot_bytes(machine)
    except InputError:
        return None


def _signed(size_bytes: int) -> str:
    return f"-{format_size(-size_bytes)}" if size_bytes < 0 else format_size(size_bytes)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _plugged_by(steps: Sequence[dict[str, Any]]) -> str:
    drivers = {step.get("driver", "dimm") for step in steps if step.get("do") == "plug"}
    return drivers.pop() if len(drivers) == 1 else "mixed" if drivers else ""


def _asked_bytes(point: Point, scenario: Scenario) -> int:
    """Return the size of the last request, else the sum of the plugs in the grid's steps."""
    if point.requests is not None:
        return point.requests.added_bytes[-1] if point.requests.added_bytes else 0
    sizes = {}
    for step in scenario.steps:
        if isinstance(step, Plug):
            whole = step.requested or 0 if step.driver == "virtio-mem" else step.size
            sizes[step.id] = whole + sum(each.size for each in step.more_ranges)
    return sum(sizes.values())


def _described(kernel: Kernel) -> dict[str, Any]:
    """Return the machine's parameters as they are in force."""
    page, tunables, policy = kernel.arch.page_size_bytes, kernel.tunables, kernel.policy
    known = (name for name, each in ACCOUNTINGS.items() if each == policy.accounting)
    return {
        "arch": kernel.arch.name,
        "release": kernel.release.name,
        "page_size_bytes": page,
        "policy": policy.name,
        "placement": policy.placement.name,
        "accounting": next(known, "own"),
        "block_size_bytes": kernel.block_nr_pages * page,
        "memmap_on_memory": tunables.memmap_on_memory,
        "online_policy": tunables.online_policy,
        "auto_online_blocks": tunables.auto_online_blocks,
    }


def _set_failure(row: SweepRow, point: Point, at: int, record: StepRecord) -> None:
    """Fill in the first step that failed."""
    outcome = record.outcome
    if row.result == "ok":
        row.result = "refused"
    row.failed_step, row.failed_name = at + 1, record.name
    row.errno, row.function, row.why = outcome.errno, outcome.function, outcome.why
    row.certainty = outcome.certainty
    left = at
    for number, nr_steps in enumerate(point.nr_request_steps):
        if left < nr_steps:
            row.failed_request = number + 1
            row.failed_at = point.times[number] if point.times else None
            return
        left -= nr_steps


def _measured(kernel: Kernel, start: MachineNumbers) -> dict[str, Any]:
    """Return the memory of a machine whose kernel runs."""
    now, page = MachineNumbers.of(kernel), kernel.arch.page_size_bytes
    added = PfnSet(add.pfns for add in kernel.additions)
    online = added & kernel.pages_of(kernel.online_blocks)
    hosts = sum(len(add.host_pages) for add in kernel.additions if add.memmap.host is not None)
    everywhere = sum(len(add.host_pages) for add in (*kernel.additions, *kernel.failed_additions))
    memmap = len(kernel.self_hosted) + everywhere
    zones = kernel.zones.values()
    movable = sum(kernel.nr_present(zone) for zone in zones if zone.name == MOVABLE)
    others = sum(kernel.nr_present(zone) for zone in zones if zone.name != MOVABLE)
    return {
        "seen_bytes": (now.total - start.total) * page,
        "free_after_bytes": now.free * page,
        "mem_total_after_bytes": now.total * page,
        "added_bytes": len(added) * page,
        "online_bytes": len(online) * page,
        "withheld_bytes": len(kernel.fake_offline | kernel.ballooned) * page,
        "memmap_bytes": kernel.memmap_nr_pages() * page,
        "memmap_self_hosted_bytes": len(kernel.self_hosted) * page,
        "memmap_elsewhere_bytes": hosts * page,
        "memmap_existing_bytes": (everywhere - hosts) * page,
        "page_table_bytes": len(kernel.page_tables) * page,
        "overhead_percent": 100 * memmap / len(added) if added else None,
        "gigantic_after": now.gigantic,
        "gigantic_lost": _gigantic_lost(kernel, online),
        "movable_bytes": movable * page,
        "kernel_bytes": others * page,
        "movable_ratio": movable / others if others else None,
    }


def _gigantic_lost(kernel: Kernel, added: PfnSet) -> int:
    """Return how many gigantic pages added memory has room for but could not provide."""
    room = _gigantic(kernel, added)
    return (len(room) - len(_gigantic(kernel, room & _available(kernel)))) // (
        _gigantic_nr_pages(kernel)
    )
