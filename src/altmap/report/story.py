"""What a reader wants first of a trace: how it ended, which step shows it, who said what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.pfn import Pages, PfnRange, PfnSet, PfnStride
from altmap.report.account import Level, account_step, bought_bytes
from altmap.trace import HOST_TO_GUEST, UNBACKED, Event, Fault, StepRecord, Trace
from altmap.units import format_size

__all__ = (
    "Conclusion",
    "StoryLine",
    "by_scenario",
    "conversation",
    "ledger",
    "telling_step",
    "verdict",
)

#: Events told of one step; the rest is counted.
_MOST_EVENTS = 200
#: Runs of page frames by which an event is found from a tile.
_MOST_RUNS = 64
_MOST_LISTED = 8


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a trace stands after a step.

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
class StoryLine:
    """One thing said or done in a step.

    Attributes
    ----------
    lane : str
        Who: ``host`` (what the scenario asks for), ``driver``, ``kernel``, ``refusal`` or
        ``fault``.
    text, function : str
    runs : list of PfnRange
        The page frames it is about, the first runs of them.
    message : bytes or None
        A message of a driver's protocol as it would go over the wire.
    """

    lane: str
    text: str
    function: str = ""
    runs: list[PfnRange] = field(default_factory=list)
    message: bytes | None = None


def by_scenario(traces: Sequence[Trace]) -> list[list[Trace]]:
    """Return the traces in groups that took the same steps on machines of the same kind."""
    groups: dict[tuple[object, ...], list[Trace]] = {}
    for trace in traces:
        start = trace.steps[0].observation
        block = start.memory.block_size_bytes if start and start.memory else 0
        steps = tuple(step.name for step in trace.steps)
        groups.setdefault((trace.scenario, steps, block), []).append(trace)
    return list(groups.values())


def telling_step(traces: Sequence[Trace]) -> int:
    """Return the step to look at first: the first with a fault, else the last."""
    faults = [i for trace in traces for i, step in enumerate(trace.steps) if step.faults]
    return min(faults) if faults else len(traces[0].steps) - 1


def verdict(trace: Trace, index: int) -> Conclusion:
    """Return how a trace stands after a step."""
    for number, step in enumerate(trace.steps[: index + 1]):
        if step.faults:
            return _fault_verdict(number, step)
    step = trace.steps[index]
    if step.outcome.status == "refused":
        outcome = step.outcome
        said = f"{outcome.errno} by {outcome.function or 'the kernel'}: {outcome.why}"
        return Conclusion("refused", f"step {index} is refused", f"{step.name}: {said}")
    if not index:
        return Conclusion("ok", "as it was found", _found(trace))
    return Conclusion("ok", "the kernel lives", _gains(trace, index))


def _fault_verdict(number: int, step: StepRecord) -> Conclusion:
    fault = step.faults[0]
    return Conclusion("fault", "the kernel is dead", f"step {number}, {step.name}: {_said(fault)}")


def _said(fault: Fault) -> str:
    why = "where the host backs nothing" if fault.what == UNBACKED else fault.what
    return f"{fault.kind}. {fault.function} {fault.access}s pfn {fault.pfn:#x}, {why}"


def _found(trace: Trace) -> str:
    seen = trace.steps[0].observation
    meminfo = seen.meminfo if seen and seen.meminfo else {}
    names = [name for name in ("MemTotal", "MemFree") if name in meminfo]
    return ", ".join(f"{name} {meminfo[name] / 1024:,.1f} MiB" for name in names)


def _gains(trace: Trace, index: int) -> str:
    size = bought_bytes(trace, index)
    bought = f"bought {format_size(size)}" if size else "nothing is plugged"
    start, now = trace.steps[0].observation, trace.steps[index].observation
    if not (start and now and start.meminfo and now.meminfo):
        return bought
    gained = [
        f"{name} {(now.meminfo.get(name, 0) - start.meminfo.get(name, 0)) / 1024:+,.1f} MiB"
        for name in ("MemTotal", "MemFree")
    ]
    return f"{bought}: {', '.join(gained)}"


def ledger(trace: Trace, index: int) -> list[Level]:
    """Return the levels after a step, what was bought first; empty if the files do not tell."""
    try:
        levels = account_step(trace, index)
    except InputError:
        return []
    if levels[0].name != "bought":
        start = trace.steps[0].observation
        memory = start.memory if start else None
        blocks = len(memory.blocks) * memory.block_size_bytes if memory else 0
        levels.insert(0, Level("bought", blocks + bought_bytes(trace, index)))
    return levels


def conversation(step: StepRecord) -> list[StoryLine]:
    """Return what was asked, said and done in a step, in order."""
    lines = []
    if step.action:
        lines.append(StoryLine("host", _asked(step.action)))
    lines.extend(_line(event) for event in step.events[:_MOST_EVENTS])
    if len(step.events) > _MOST_EVENTS:
        lines.append(StoryLine("kernel", f"… {len(step.events) - _MOST_EVENTS} more events …"))
    lines.extend(
        StoryLine("fault", _said(fault), fault.function, _first_runs(fault.pfns))
        for fault in step.faults
    )
    if step.outcome.status == "refused":
        lines.append(
            StoryLine(
                "refusal",
                f"refused with {step.outcome.errno}: {step.outcome.why}",
                step.outcome.function or "",
            )
        )
    return lines


def _line(event: Event) -> StoryLine:
    lane = "driver" if event.kind == "driver" else "kernel"
    if event.text.startswith(HOST_TO_GUEST):
        lane = "host"
    runs = [] if event.pfns is None else _first_runs(event.pfns)
    return StoryLine(lane, event.text, event.function or "", runs, event.message)


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


def _asked(action: dict[str, object]) -> str:
    words = [str(action.get("do", ""))]
    for key, value in action.items():
        if key == "do" or value is None:
            continue
        if key == "size" and isinstance(value, int):
            words.append(format_size(value))
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
