"""Numbers and words read off traces: what the claims are judged by."""

from __future__ import annotations

from collections.abc import Sequence

from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.observation import Observation, page_size_bytes
from altmap.pfn import PfnRange, PfnSet
from altmap.studies.claims.claim import Measure, Value
from altmap.trace import StepRecord, Trace

__all__ = (
    "block_kib",
    "brought_online_pages",
    "counter_at",
    "fake_offline_pages",
    "fault_at",
    "gained_kb",
    "hosted_pages",
    "hosted_shown",
    "kept_back_pages",
    "least_safe_kib",
    "marked_pages",
    "memmap_kib_per_block",
    "memmap_pages",
    "missing_kb",
    "most_hosted_in_a_block",
    "most_touched_in_a_block",
    "nr_blocks_gained",
    "nr_changed_callers",
    "nr_faults",
    "nr_misjudged",
    "nr_unmoved_callers",
    "offline_shown",
    "outcome_of",
    "spread_of_free_kb",
    "touched_pages",
    "untouched_pages",
    "usable_per_memmap_page",
    "used_kb",
    "used_kb_at",
    "written_hosted",
)

_BEYOND = 1 << 52
#: A counter of the kernel is an unsigned long.
_WRAPS = 1 << 64
_VERBS = {"plug": "add"}


# --- what a trace says -----------------------------------------------------------------------


def _start(trace: Trace) -> Observation:
    seen = trace.steps[0].observation
    assert seen is not None  # every trace starts with a look
    return seen


def _last(trace: Trace) -> Observation:
    return next(step.observation for step in reversed(trace.steps) if step.observation)


def _page(trace: Trace) -> int:
    page = page_size_bytes(_start(trace))
    assert page is not None  # a machine booted on paper shows its zones
    return page


def _new_memory(trace: Trace) -> PfnRange:
    """Return every frame above boot memory: whatever the scenario adds lies there."""
    lines = _start(trace).iomem or ()
    end = max(line.end for line in lines if line.name == "System RAM")
    return PfnRange(-(-end // _page(trace)), _BEYOND)


def _pages(trace: Trace, steps: Sequence[StepRecord], *kinds: str) -> PfnSet:
    """Return the new memory that events of some kinds are about."""
    found = PfnSet()
    for step in steps:
        for event in step.events:
            if event.kind in kinds and event.pfns is not None:
                found |= event.pfns
    return found & _new_memory(trace)


def _placed(trace: Trace) -> int:
    """Return how many pages hold the memmap of what was added, wherever they lie."""
    events = [event for step in trace.steps for event in step.events]
    return sum(len(e.pfns) for e in events if e.kind == "memmap-placed" and e.pfns is not None)


def _hosted(trace: Trace) -> PfnSet:
    return _pages(trace, trace.steps, "memmap-placed")


def _before_online(trace: Trace) -> list[StepRecord]:
    """Return the steps before the first that onlines something."""
    verbs = [step.action.get("do") for step in trace.steps]
    return trace.steps[: verbs.index("online")] if "online" in verbs else trace.steps


def _faulted(trace: Trace) -> bool:
    return any(step.outcome.status == "fault" for step in trace.steps)


def _at(trace: Trace, step: int | None) -> Observation:
    """Return the look after a step, by default the last one that there is."""
    seen = None if step is None else trace.steps[step].observation
    return seen or _last(trace)


def _grown(trace: Trace, name: str, step: int | None = None) -> int:
    start, now = (_kb(seen, name) for seen in (_start(trace), _at(trace, step)))
    return now - start


def _kb(seen: Observation, name: str) -> int:
    """Return a line of /proc/meminfo in kB; pages on per-CPU lists are free."""
    kb = (seen.meminfo or {})[name]
    if name == "MemFree":
        kb += (
            sum(z.nr_on_cpu_lists for z in seen.zoneinfo or ())
            * (page_size_bytes(seen) or 0)
            // 1024
        )
    return kb


def _given(trace: Trace) -> PfnSet:
    """Return the frames that the platform was asked to back, where the scenario says which."""
    page, given = _page(trace), PfnSet()
    for step in trace.steps:
        if step.action.get("do") == "plug" and step.action.get("address") is not None:
            start = step.action["address"] // page
            given |= PfnRange(start, start + step.action["size"] // page)
    return given


# --- counters --------------------------------------------------------------------------------


def gained_kb(name: str, step: int | None = None) -> Measure:
    """Return a measure: kB that a line of /proc/meminfo gains up to a step, by default the last."""
    return lambda traces: _grown(traces[0], name, step)


def used_kb(traces: Sequence[Trace]) -> Value:
    """Return the kB that MemTotal gains and MemFree, with per-CPU lists, does not."""
    return used_kb_at(None)(traces)


def used_kb_at(step: int | None) -> Measure:
    """Return a measure: the same up to a step."""

    def measure(traces: Sequence[Trace]) -> Value:
        return _grown(traces[0], "MemTotal", step) - _grown(traces[0], "MemFree", step)

    return measure


def missing_kb(step: int) -> Measure:
    """Return a measure: kB of what was plugged up to a step that MemTotal does not gain."""

    def measure(traces: Sequence[Trace]) -> Value:
        actions = [each.action for each in traces[0].steps[: step + 1]]
        plugged_bytes = sum(int(a["size"]) for a in actions if a.get("do") == "plug")
        return plugged_bytes // 1024 - _grown(traces[0], "MemTotal", step)

    return measure


def spread_of_free_kb(traces: Sequence[Trace]) -> Value:
    """Return how far apart the traces end in MemFree, in kB."""
    grown = [_grown(trace, "MemFree") for trace in traces]
    return max(grown) - min(grown)


def counter_at(step: int) -> Measure:
    """Return a measure: what ``nr_memmap_pages`` has gained after a step."""

    def measure(traces: Sequence[Trace]) -> Value:
        (trace,) = traces
        seen = trace.steps[step].observation
        if seen is None:
            return "no further observations"
        start, now = ((each.vmstat or {}).get("nr_memmap_pages") for each in (_start(trace), seen))
        if start is None or now is None:
            return "no such counter"
        gained = (now - start) % _WRAPS
        return gained - _WRAPS if gained >= _WRAPS // 2 else gained

    return measure


# --- the memmap ------------------------------------------------------------------------------


def memmap_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages that hold the memmap of what was added."""
    return _placed(traces[0])


def hosted_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages of the added memory that hold memmap."""
    return len(_hosted(traces[0]))


def memmap_kib_per_block(traces: Sequence[Trace]) -> Value:
    """Return the KiB of memmap that one memory block needs."""
    (trace,) = traces
    added = len(_pages(trace, trace.steps, "added")) * _page(trace)
    per_block = _placed(trace) * _page(trace) * trace.machine["block_size_bytes"] // max(1, added)
    return int(per_block) // 1024


def usable_per_memmap_page(traces: Sequence[Trace]) -> Value:
    """Return how many pages of gained MemTotal each memmap page stands for."""
    (trace,) = traces
    return _grown(trace, "MemTotal") * 1024 // _page(trace) // max(1, _placed(trace))


def nr_unmoved_callers(traces: Sequence[Trace]) -> Value:
    """Return how many of the callers, one per trace, keep the memmap out of what they add."""
    return sum(not _hosted(trace) for trace in traces)


def nr_changed_callers(traces: Sequence[Trace]) -> Value:
    """Return how many of the callers, one per trace, find part of what they add taken."""
    return sum(bool(_hosted(trace)) for trace in traces)


def kept_back_pages(step: int) -> Measure:
    """Return a measure: by how much present grows more than managed, over all zones."""

    def measure(traces: Sequence[Trace]) -> Value:
        start, now = (
            sum(z.pages["present"] - z.pages["managed"] for z in seen.zoneinfo or ())
            for seen in (_start(traces[0]), _at(traces[0], step))
        )
        return now - start

    return measure


def _shown(trace: Trace, step: int) -> PfnSet:
    """Return the new memory that /proc/kpageflags shows as memmap."""
    pages, at = PfnSet(), 0
    for run in _at(trace, step).kpageflags or ():
        if is_memmap(run.flags):
            pages |= PfnRange(at, at + run.nr_pages)
        at += run.nr_pages
    return pages & _new_memory(trace)


def hosted_shown(step: int) -> Measure:
    """Return a measure: pages of the added memory that its files show as memmap."""
    return lambda traces: len(_shown(traces[0], step))


def offline_shown(step: int) -> Measure:
    """Return a measure: pages of the added memory that its files show as fake-offline."""

    def measure(traces: Sequence[Trace]) -> Value:
        (trace,) = traces
        pages, at = PfnSet(), 0
        for run in _at(trace, step).kpageflags or ():
            if run.flags & PageFlag.OFFLINE:
                pages |= PfnRange(at, at + run.nr_pages)
            at += run.nr_pages
        return len(pages & _new_memory(trace))

    return measure


def block_kib(traces: Sequence[Trace]) -> Value:
    """Return the size of a memory block in KiB, as the machine shows it."""
    folder = _start(traces[0]).memory
    return folder.block_size_bytes // 1024 if folder else "no memory blocks"


def most_hosted_in_a_block(step: int) -> Measure:
    """Return a measure: the most of them in one memory block."""

    def measure(traces: Sequence[Trace]) -> Value:
        (trace,) = traces
        shown = _shown(trace, step)
        block = trace.machine["block_size_bytes"] // _page(trace)
        starts = range(shown.span().start // block * block, shown.span().end, block)
        return max((shown.count(PfnRange(start, start + block)) for start in starts), default=0)

    return measure


def written_hosted(step: int) -> Measure:
    """Return a measure: of the memmap that the first block shows, the pages that are written."""

    def measure(traces: Sequence[Trace]) -> Value:
        (trace,) = traces
        shown = _shown(trace, step)
        block = trace.machine["block_size_bytes"] // _page(trace)
        first = shown & PfnRange(shown.span().start, shown.span().start + block)
        return _pages(trace, trace.steps[: step + 1], "write").count(first)

    return measure


# --- touches ---------------------------------------------------------------------------------


def touched_pages(*, before_online: bool = False) -> Measure:
    """Return a measure: pages of the added memory that the kernel reads or writes itself."""

    def measure(traces: Sequence[Trace]) -> Value:
        (trace,) = traces
        steps = _before_online(trace) if before_online else trace.steps
        return len(_pages(trace, steps, "write", "read"))

    return measure


def untouched_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages of the added memory that the kernel leaves alone."""
    (trace,) = traces
    added = _pages(trace, trace.steps, "added")
    return len(added - _pages(trace, trace.steps, "write", "read"))


def most_touched_in_a_block(traces: Sequence[Trace]) -> Value:
    """Return the most pages that are touched in any one memory block."""
    (trace,) = traces
    touched = _pages(trace, trace.steps, "write", "read")
    block = trace.machine["block_size_bytes"] // _page(trace)
    span = _pages(trace, trace.steps, "added").span()
    starts = range(span.start, span.end, block)
    return max(touched.count(PfnRange(start, start + block)) for start in starts)


# --- faults ----------------------------------------------------------------------------------


def fault_at(traces: Sequence[Trace]) -> Value:
    """Return the step that ends in a fault: ``add``, ``online``, ``dump``; or ``no fault``."""
    for step in traces[0].steps:
        if step.outcome.status == "fault":
            verb = str(step.action["do"])
            return f"fault at {_VERBS.get(verb, verb)}"
    return "no fault"


def nr_faults(traces: Sequence[Trace]) -> Value:
    """Return how many of the traces end in a fault."""
    return sum(_faulted(trace) for trace in traces)


def least_safe_kib(traces: Sequence[Trace]) -> Value:
    """Return the least KiB that the host must back at the start, so that no run faults.

    The traces are a sweep of the first plug's size, in any order.
    """
    sizes = {int(trace.steps[1].action["size"]): _faulted(trace) for trace in traces}
    least = 0
    for size in sorted(sizes, reverse=True):
        if sizes[size]:
            break
        least = size
    return least // 1024 if least else "none"


def nr_misjudged(traces: Sequence[Trace]) -> Value:
    """Return the runs where a fault and a memmap on unbacked frames do not come together."""
    return sum(_faulted(t) != bool(_hosted(t) - _given(t)) for t in traces)


# --- outcomes and drivers --------------------------------------------------------------------


def outcome_of(name: str) -> Measure:
    """Return a measure: how the step of that name ended, with the errno of a refusal."""

    def measure(traces: Sequence[Trace]) -> Value:
        (outcome,) = [step.outcome for step in traces[0].steps if step.name == name]
        return f"{outcome.status} {outcome.errno}" if outcome.errno else outcome.status

    return measure


def marked_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages that events of the kind ``bug`` are about."""
    events = [event for step in traces[0].steps for event in step.events]
    return sum(len(e.pfns) for e in events if e.kind == "bug" and e.pfns is not None)


def nr_blocks_gained(traces: Sequence[Trace]) -> Value:
    """Return how many memory blocks there are more at the end."""
    looks = (_start(traces[0]), _last(traces[0]))
    start, last = (len(seen.memory.blocks) if seen.memory else 0 for seen in looks)
    return last - start


def fake_offline_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages that the driver keeps fake-offline when its block goes online."""
    return len(_pages(traces[0], traces[0].steps, "fake-offline"))


def brought_online_pages(traces: Sequence[Trace]) -> Value:
    """Return the pages that were fake-offline and are freed to the buddy allocator later."""
    events = [event for step in traces[0].steps for event in step.events]
    return sum(
        len(e.pfns) for e in events if e.function == "hv_bring_pgs_online" and e.pfns is not None
    )
