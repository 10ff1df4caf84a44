"""What a report shows of a step: its verdict, its memory accounting, its event log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.pfn import Pages, PfnRange, PfnSet, PfnStride
from altmap.report.account import (
    Level,
    Loss,
    account_step,
    kernel_and_movable_bytes,
    requested_bytes,
)
from altmap.trace import HOST_TO_GUEST, UNBACKED, Event, Fault, StepRecord, Trace
from altmap.units import column_unit, format_size, rounded_size

__all__ = (
    "Conclusion",
    "LogLine",
    "accounting",
    "by_scenario",
    "default_step",
    "event_log",
    "kernel_movable_offline_bytes",
    "size_text",
    "verdict",
)

#: Events of one step that are shown; the rest is counted.
_MOST_EVENTS = 200
#: Runs of page frames that lead from a tile to an event.
_MOST_RUNS = 64
_MOST_LISTED = 8
_WHOLE_BLOCKS = "in the same memory blocks, not requested: blocks are added and removed whole"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The state of a trace after a step.

    Attributes
    ----------
    kind : str
        ``fault``, ``refused`` or ``ok``.
    headline, detail : str
    """

    kind: str
    headline: str
    detail: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a step's event log.

    Attributes
    ----------
    lane : str
        The source: ``host`` (what the scenario requests), ``driver``, ``kernel``, ``refusal``
        or ``fault``.
    text, function : str
    runs : list of PfnRange
        The first runs of the page frames that it is about.
    message : bytes or None
        The bytes of a message of a driver's protocol.
    """

    lane: str
    text: str
    function: str = ""
    runs: list[PfnRange] = field(default_factory=list)
    message: bytes | None = None


def by_scenario(traces: Sequence[Trace]) -> list[list[Trace]]:
    """Return the traces in groups with the same steps and memory block size."""
    groups: dict[tuple[object, ...], list[Trace]] = {}
    for trace in traces:
        start = trace.steps[0].observation
        block = start.memory.block_size_bytes if start and start.memory else 0
        steps = tuple(step.name for step in trace.steps)
        groups.setdefault((trace.scenario, steps, block), []).append(trace)
    return list(groups.values())


def default_step(traces: Sequence[Trace]) -> int:
    """Return the step that is shown first: the first one with a fault, else that of most change.

    Change is in memory blocks: those that a step adds, removes, or gives another state or zone. Of
    steps with as much, the first is returned; if no block changes, the last step.
    """
    faults = [i for trace in traces for i, step in enumerate(trace.steps) if step.faults]
    if faults:
        return min(faults)
    changes = [
        (_nr_changed_blocks(one.observation, other.observation), -index)
        for trace in traces
        for index, (one, other) in enumerate(pairwise(trace.steps), start=1)
    ]
    most, index = max(changes, default=(0, 0))
    return -index if most else len(traces[0].steps) - 1


def _nr_changed_blocks(before: Observation | None, after: Observation | None) -> int:
    if before is None or after is None or before.memory is None or after.memory is None:
        return 0
    old, new = (
        {id_: (each.state, each.valid_zones) for id_, each in seen.blocks.items()}
        for seen in (before.memory, after.memory)
    )
    return len(dict(old.items() ^ new.items()))


def verdict(trace: Trace, index: int) -> Conclusion:
    """Return the state of a trace after a step."""
    for number, step in enumerate(trace.steps[: index + 1]):
        if step.faults:
            return _fault_verdict(number, step)
    step = trace.steps[index]
    if step.outcome.status == "refused":
        outcome = step.outcome
        why = f"{outcome.errno} by {outcome.function or 'the kernel'}: {outcome.why}"
        return Conclusion("refused", f"step {index} is refused", f"{step.name}: {why}")
    if not step.outcome.ends:
        return Conclusion(
            "refused", f"step {index} does not end", f"{step.name}: {step.outcome.why}"
        )
    if not index:
        headline = "initial state" if len(trace.steps) > 1 else "as its files show it"
        return Conclusion("ok", headline, _initial_memory(trace))
    return Conclusion("ok", "the kernel keeps running", _gains(trace, index))


def _fault_verdict(number: int, step: StepRecord) -> Conclusion:
    fault = step.faults[0]
    detail = f"step {number}, {step.name}: {_fault_text(fault)}"
    return Conclusion("fault", "the kernel crashes", detail)


def _fault_text(fault: Fault) -> str:
    why = "not backed by the host" if fault.what == UNBACKED else fault.what
    return f"{fault.kind}. {fault.function} {fault.access}s pfn {fault.pfn:#x}, {why}"


def _initial_memory(trace: Trace) -> str:
    seen = trace.steps[0].observation
    meminfo = seen.meminfo if seen and seen.meminfo else {}
    names = [name for name in ("MemTotal", "MemFree") if name in meminfo]
    return ", ".join(f"{name} {rounded_size(meminfo[name] << 10)}" for name in names)


def _gains(trace: Trace, index: int) -> str:
    size = requested_bytes(trace, index)
    requested = f"requested {rounded_size(size)}" if size else "no memory is requested"
    start, now = trace.steps[0].observation, trace.steps[index].observation
    if not (start and now and start.meminfo and now.meminfo):
        return requested
    texts = []
    for name in ("MemTotal", "MemFree"):
        gained = (now.meminfo.get(name, 0) - start.meminfo.get(name, 0)) << 10
        texts.append(f"{name} {'+' * (gained >= 0)}{rounded_size(gained)}")
    return f"{requested}: {', '.join(texts)}"


def size_text(size_bytes: int, scale_bytes: int, sign: str = "") -> str:
    """Return a size in the unit of sizes up to another; what is less than a MiB is in MiB."""
    of = scale_bytes if abs(size_bytes) >= 1 << 20 or not size_bytes else size_bytes
    return column_unit([of], decimals=1).text(size_bytes, sign)


def accounting(trace: Trace, index: int) -> list[Level]:
    """Return the levels after a step; empty if files are missing.

    Requested memory comes first, if the trace has steps that can request any.
    """
    try:
        levels = account_step(trace, index)
    except InputError:
        return []
    if levels[0].name != "requested" and len(trace.steps) > 1:
        levels.insert(0, _requested(trace, index, levels[0].size_bytes))
    return levels


def _requested(trace: Trace, index: int, blocks_bytes: int) -> Level:
    """Return the level of what is requested, with what memory blocks have beyond it."""
    start = trace.steps[0].observation
    memory = start.memory if start else None
    at_start = len(memory.blocks) * memory.block_size_bytes if memory else 0
    requested = at_start + requested_bytes(trace, index)
    more = blocks_bytes - requested
    gains = (Loss(more, _WHOLE_BLOCKS),) if more > 0 else ()
    return Level("requested", requested, (), gains)


def kernel_movable_offline_bytes(trace: Trace, index: int) -> tuple[int, int, int] | None:
    """Return what is present in kernel zones and in ZONE_MOVABLE, and the bytes of offline blocks.

    ``None`` after a crash, and if no file shows the zones.
    """
    seen = trace.steps[index].observation
    found = kernel_and_movable_bytes(seen) if seen else None
    if seen is None or found is None:
        return None
    blocks = seen.memory.blocks.values() if seen.memory else ()
    size = seen.memory.block_size_bytes if seen.memory else 0
    return *found, size * sum(block.state == "offline" for block in blocks)


def event_log(step: StepRecord) -> list[LogLine]:
    """Return the request, events, faults and refusal of a step, in order."""
    lines = []
    if step.action:
        lines.append(LogLine("host", _request_text(step.action)))
    lines.extend(_line(event) for event in step.events[:_MOST_EVENTS])
    if len(step.events) > _MOST_EVENTS:
        lines.append(LogLine("kernel", f"… {len(step.events) - _MOST_EVENTS} more events …"))
    lines.extend(
        LogLine("fault", _fault_text(fault), fault.function, _first_runs(fault.pfns))
        for fault in step.faults
    )
    if step.outcome.status == "refused":
        lines.append(
            LogLine(
                "refusal",
                f"refused with {step.outcome.errno}: {step.outcome.why}",
                step.outcome.function or "",
            )
        )
    if not step.outcome.ends:
        text = f"does not end: {step.outcome.why}"
        lines.append(LogLine("refusal", text, step.outcome.function or ""))
    return lines


def _line(event: Event) -> LogLine:
    lane = "driver" if event.kind == "driver" else "kernel"
    if event.text.startswith(HOST_TO_GUEST):
        lane = "host"
    runs = [] if event.pfns is None else _first_runs(event.pfns)
    return LogLine(lane, event.text, event.function or "", runs, event.message)


def _first_runs(pages: Pages) -> list[PfnRange]:
    return [run for run, _ in zip(_runs(pages), range(_MOST_RUNS), strict=False)]


def _runs(pages: Pages) -> Iterator[PfnRange]:
    match pages:
        case PfnRange():
            yield pages
        case PfnStride():
            for start in range(pages.start, pages.end, pages.step):
                yield PfnRange(start, start + pages.nr_pages)
        case PfnSet():
            yield from pages.ranges()


def _request_text(action: dict[str, object]) -> str:
    words = [str(action.get("do", ""))]
    for key, value in action.items():
        if key == "do" or value is None:
            continue
        if key == "size" and isinstance(value, int):
            words.append(format_size(value))
        elif key == "requested" and isinstance(value, int):
            words.append(f"{key}={format_size(value).replace(' ', '')}")
        elif key == "address" and isinstance(value, int):
            words.append(f"at {value:#x}")
        else:
            words.append(f"{key}={_word(value)}")
    return " ".join(words)


def _word(value: object) -> str:
    if isinstance(value, list) and len(value) > _MOST_LISTED:
        return f"{value[0]}, {value[1]}, … ({len(value)})"
    if isinstance(value, dict):
        return " ".join(f"{key} {number:#x}" for key, number in value.items())
    return str(value)
