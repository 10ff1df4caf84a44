"""Traces and comparisons as plain text, readable in 80 columns and in a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from altmap.compare import Comparison, FileVerdict, Verdict
from altmap.errors import printable
from altmap.linux.observation import Observation
from altmap.pfn import Pages, PfnRange, PfnSet, PfnStride
from altmap.report.account import Level, kernel_and_movable_bytes, requested_bytes
from altmap.report.fold import folded, frames_text
from altmap.trace import HOST_TO_GUEST, Event, Outcome, StepRecord, Trace
from altmap.units import column_unit, counted_size, format_size, rounded_size

__all__ = ("account_text", "comparison_text", "pages_text", "side_by_side", "zones_text")

_SHOWN_RUNS = 2
#: Columns that a cause has at least, also where the line gets longer than the terminal.
_LEAST_CAUSE = 12
#: Rows of one label in a step; equal ones of more are one.
_MOST_ROWS = 4
#: Events that a run shows, and the labels of their rows.
_LABELS = {
    "memmap-placed": "memmap",
    "write": "writes",
    "added": "added",
    "onlined": "online",
    "fake-offline": "fake-off",
    "ballooned": "balloon",
    "accessible": "access",
    "inaccessible": "access",
    "deflated": "balloon",
    "settled": "note",
    "veto": "veto",
    "migrated": "migrated",
    "hugetlb": "hugetlb",
    "poison": "poison",
    "offlined": "offline",
    "removed": "removed",
    "driver": "driver",
    "kernel-log": "log",
    "bug": "bug",
}
Cell = list[tuple[str, str]]


def side_by_side(traces: Sequence[Trace], title: str, width: int = 100) -> str:
    """Return traces of one scenario in columns, a paragraph for each step.

    Parameters
    ----------
    traces : sequence of Trace
        The same scenario under different policies, releases or targets.
    title : str
    width : int
        Columns of the terminal.
    """
    label = 12
    column = max(12, (width - label - 2 * (len(traces) - 1)) // len(traces))
    heading = textwrap.wrap(printable(title), width)
    out = [*heading, "=" * max(map(len, heading), default=0)]
    heads = [f"{t.policy} ({t.target}, {t.release})" for t in traces]
    out.append(_row("", heads, label, column))
    for index, step in enumerate(traces[0].steps):
        out.append("")
        out.append(f"[{index}] {step.name}")
        cells = [_cell(trace, index) for trace in traces]
        for name in _row_names(cells):
            columns = [[text for key, text in cell if key == name] for cell in cells]
            for texts in zip_longest(*columns, fillvalue=""):
                out.append(_row(name, list(texts), label, column))
    notes = dict.fromkeys(note for trace in traces for note in trace.notes)
    for note in notes:
        out.extend(textwrap.wrap(f"note: {printable(note)}", width, subsequent_indent="  "))
    return "\n".join(line.rstrip() for line in out) + "\n"


def _row_names(cells: list[Cell]) -> list[str]:
    """Return the labels in the order in which they first appear in any column."""
    longest = sorted(cells, key=len, reverse=True)
    seen = dict.fromkeys(name for cell in longest for name, _ in cell)
    seen.pop("memory", None)
    return [*seen, "memory"]


def _row(name: str, texts: list[str], label: int, column: int) -> str:
    wrapped = [textwrap.wrap(text, column) or [""] for text in texts]
    lines = []
    for index, parts in enumerate(zip_longest(*wrapped, fillvalue="")):
        head = f"  {name if index == 0 else '':{label - 2}}"
        lines.append(head + "  ".join(f"{part:{column}}" for part in parts))
    return "\n".join(line.rstrip() for line in lines)


def _cell(trace: Trace, index: int) -> Cell:
    step = trace.steps[index]
    cell: Cell = []
    if index:
        cell.append(("result", _result(step)))
        cell.append(("fault", _faults(step)))
    cell.extend(_event_rows(step.events))
    if (zones := zones_text(step.observation)) and index:
        cell.append(("zones", zones))
    cell.append(("memory", _memory(trace, index)))
    return cell


def _result(step: StepRecord) -> str:
    outcome = step.outcome
    if outcome.status == "refused":
        why = f"refused: {outcome.errno} by {outcome.function or 'the kernel'}: {outcome.why}"
        return why + _doubt(outcome)
    if outcome.status == "does_not_end":
        return f"does not end: {outcome.function}: {outcome.why}" + _doubt(outcome)
    if outcome.status == "not_reached":
        return f"not reached: {outcome.why}"
    return "fault: the kernel crashes" if outcome.status == "fault" else "ok" + _doubt(outcome)


def _doubt(item: Outcome | Event) -> str:
    if item.certainty == "certain":
        return ""
    return f" ({item.certainty}: {item.doubt})" if item.doubt else f" ({item.certainty})"


def _faults(step: StepRecord) -> str:
    if step.outcome.status == "not_reached":
        return "-"
    if not step.faults:
        return "no fault"
    fault = step.faults[0]
    return (
        f"{fault.kind} at pfn {fault.pfn:#x}, a {fault.access} by {fault.function} "
        f"in this step; {len(fault.pfns)} {fault.what}"
    )


def _event_rows(events: list[Event]) -> Iterator[tuple[str, str]]:
    """Yield a row for each event that has a label; of many with one label equal ones are one."""
    labels: dict[str, list[str]] = {}
    for event in events:
        # Requests and messages are in the driver protocol log.
        in_driver_log = event.message is not None or event.text.startswith(HOST_TO_GUEST)
        if event.kind in _LABELS and not in_driver_log:
            labels.setdefault(_LABELS[event.kind], []).append(_event(event))
    for label, rows in labels.items():
        yield from ((label, row) for row in folded(rows, _MOST_ROWS))


def _event(event: Event) -> str:
    if event.pfns is None or event.kind not in ("memmap-placed", "write", "fake-offline", "bug"):
        return event.text + _doubt(event)
    return f"{event.text}: {pages_text(event.pfns)}"


def pages_text(pages: Pages) -> str:
    """Return the first runs of page frames, and how many there are."""
    match pages:
        case PfnRange():
            runs, nr_ranges = [pages], 1
        case PfnStride():
            starts = range(pages.start, pages.end, pages.step)
            runs = [PfnRange(s, s + pages.nr_pages) for s in starts[:_SHOWN_RUNS]]
            nr_ranges = len(starts)
        case PfnSet():
            runs = [run for run, _ in zip(pages.ranges(), range(_SHOWN_RUNS), strict=False)]
            nr_ranges = pages.nr_ranges()
    return frames_text(runs, nr_ranges)


def _memory(trace: Trace, index: int) -> str:
    requested = requested_bytes(trace, index)
    start, now = trace.steps[0].observation, trace.steps[index].observation
    if start is None or start.meminfo is None:
        return "not shown"
    if now is None or now.meminfo is None:
        return f"requested {format_size(requested)}: none of it is usable, the kernel crashed"
    now_kib, start_kib = now.meminfo, start.meminfo
    names = ("MemTotal", "MemFree")
    if not index:
        return ", ".join(f"{name} {counted_size(now_kib.get(name, 0))}" for name in names)
    gains = {name: now_kib.get(name, 0) - start_kib.get(name, 0) for name in names}
    amounts = ", ".join(
        f"{name} {counted_size(now_kib.get(name, 0), gain)}" for name, gain in gains.items()
    )
    text = f"requested {format_size(requested)}: {amounts}"
    missing = requested - (gains["MemTotal"] << 10)
    if not requested or missing <= 0:
        return text
    return f"{text}; {format_size(missing)} of it not in MemTotal"


def zones_text(seen: Observation | None) -> str:
    """Return how large kernel zones are beside ZONE_MOVABLE, empty if nothing is movable."""
    found = None if seen is None else kernel_and_movable_bytes(seen)
    if not found or not found[1]:
        return ""
    kernel, movable = found
    if not kernel:
        ratio = "all movable"
    elif kernel > movable:
        ratio = f"{kernel / movable:.1f} : 1"
    else:
        ratio = f"1 : {movable / kernel:.1f}"
    return f"kernel : movable {rounded_size(kernel)} : {rounded_size(movable)} ({ratio})"


def account_text(levels: list[Level], title: str, zones: str = "", width: int = 100) -> str:
    """Return the levels of memory accounting, each loss below its level, and *zones* after them.

    Sizes have one unit. MiB with three decimals are exact, as Linux counts KiB; GiB have the exact
    number beside them.
    """
    unit = column_unit((level.size_bytes for level in levels), decimals=3)

    def rows(indent: str, size_bytes: int, sign: str = "", cause: str = "") -> list[str]:
        exact = "" if unit.name == "MiB" else f" {size_bytes >> 10:{sign}15,} kB"
        size = f"{indent}{unit.number(size_bytes, sign):>14} {unit.name}{exact}"
        if not cause:
            return [size]
        wrapped = textwrap.wrap(cause, max(_LEAST_CAUSE, width - len(size) - 2))
        starts = [size, *[" " * len(size)] * (len(wrapped) - 1)]
        return [f"{start}  {line}" for start, line in zip(starts, wrapped, strict=True)]

    out = [printable(title)]
    for level in levels:
        out += rows(f"{level.name:15}", level.size_bytes)
        for loss in level.losses:
            out += rows(" " * 8, -loss.size_bytes, cause=loss.cause)
        for gain in level.gains:
            out += rows(" " * 8, gain.size_bytes, "+", gain.cause)
    if zones:
        out.append(zones)
    return "\n".join(out) + "\n"


def comparison_text(comparison: Comparison, title: str) -> str:
    """Return one line per step and file; below it, each field that is not as predicted."""
    out = [f"{title}: {comparison.predicted} against {comparison.observed}"]
    width = max((len(file.step) for file in comparison.files), default=0)
    for file in comparison.files:
        out.append(f"{file.step:{width}}  {file.file:38} {_verdict(file)}")
        out.extend(_differences(file))
    counts = [
        f"{sum(file.verdict is verdict for file in comparison.files)} {verdict}"
        for verdict in Verdict
    ]
    out.append(", ".join(counts))
    return "\n".join(out) + "\n"


def _verdict(file: FileVerdict) -> str:
    return f"{file.verdict} ({file.nr_fields} fields)" if file.nr_fields else str(file.verdict)


def _differences(file: FileVerdict) -> Iterator[str]:
    for item in file.differences:
        mark = "~" if item.within else "!"
        yield f"    {mark} {item.field}: predicted {item.predicted}, observed {item.observed}"
        if item.tolerance:
            yield f"      tolerance {item.tolerance}"
        if not item.within and item.source:
            yield f"      rule: {item.source}"
