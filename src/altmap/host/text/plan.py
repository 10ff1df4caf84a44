"""A plan as text: its steps with their predictions, then what may go wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from altmap.errors import printable
from altmap.host.plan import Plan, PlanStep, Prediction, Work
from altmap.units import format_size

__all__ = ("plan_text",)

#: Consecutive steps of one kind that are shown one by one; more are folded.
_MOST_ALIKE = 4


def plan_text(plan: Plan, width: int = 100) -> str:
    """Return the plan for people."""
    lines = [*_wrap(f"plan: {plan.goal}", width, "")]
    if not plan.steps:
        lines.append("  nothing to do")
    nr = 0
    while nr < len(plan.steps):
        run = _run(plan.steps, nr)
        hidden = run[2:-1] if len(run) > _MOST_ALIKE else []
        for step in run:
            nr += 1
            if step in hidden:
                if step is hidden[0]:
                    lines.append(f"      … {len(hidden)} more like it …")
                continue
            lines.extend(_wrap(f"[{nr}] {step.title}", width, ""))
            lines.extend(_prediction(step, width))
    if plan.work is not None:
        lines.extend(_wrap(f"in all: {_work(plan.work)}", width, ""))
    for other in plan.passed_over:
        lines.extend(_wrap(f"passed over, {other.certainty}: {other.name}: {other.why}", width, ""))
    for risk in plan.risks:
        lines.extend(_wrap(f"risk, {risk.certainty}: {risk.what}", width, ""))
        if risk.cure:
            lines.extend(_wrap(f"helps: {risk.cure}", width, "    "))
    for note in plan.notes:
        lines.extend(_wrap(f"note: {note}", width, ""))
    return "\n".join(lines) + "\n"


def _run(steps: list[PlanStep], start: int) -> list[PlanStep]:
    """Return the steps from *start* on that are alike but for the block."""
    first, end = steps[start], start + 1
    while end < len(steps) and _kind(steps[end]) == _kind(first):
        end += 1
    return steps[start:end]


def _kind(step: PlanStep) -> tuple[str, str | None, str | None, str]:
    status = step.prediction.status if step.prediction else None
    return step.by, step.value, status, step.certainty


def _prediction(step: PlanStep, width: int) -> Iterator[str]:
    if step.by == "platform":
        yield from _wrap(f"by {step.who or 'the platform'}", width, "    ")
    made = step.prediction
    if made is None:
        yield "    no prediction"
        return
    yield from _wrap(f"{step.certainty}: {_ending(made)}", width, "    ")
    if made.why:
        yield from _wrap(made.why, width, "    ")
    for part in made.blocks:
        name = f"memory{part.first}" if part.first == part.last else ""
        name = name or f"memory{part.first}-{part.last}"
        zone = f" in zone {part.zone}" if part.zone else ""
        yield f"    {name} {part.state}{zone}"
    if made.work is not None:
        yield from _wrap(_work(made.work), width, "    ")
    yield f"    MemTotal {made.mem_total_kib} kB, MemFree about {made.mem_free_kib} kB"


def _ending(made: Prediction) -> str:
    if made.status == "ok":
        return "ok"
    if made.status == "does_not_end":
        return f"does not end: {made.function}"
    return f"{made.status}: {made.errno} by {made.function}"


def _work(work: Work) -> str:
    cache = f"{format_size(work.dropped_bytes)} of page cache" if work.dropped_bytes else "no cache"
    swapped = format_size(work.swapped_bytes) if work.swapped_bytes else "nothing"
    moved = format_size(work.moved_bytes) if work.moved_bytes else "nothing"
    return f"{moved} moves, {cache} is dropped, {swapped} is swapped out"


def _wrap(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=indent + "  "
    )
