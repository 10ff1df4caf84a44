"""A plan as text: one line for all of it, its steps with their predictions, what may go wrong.

Steps that do the same to memory blocks and are predicted to end alike are one entry.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from altmap.errors import printable
from altmap.host.plan import BlockRange, Plan, PlanStep, Prediction, Work
from altmap.linux.node import block_names
from altmap.units import counted_size, format_size, rounded_size

__all__ = ("StepGroup", "plan_line", "plan_text", "step_groups")

_NAME = re.compile(r"\bmemory[0-9]+\b")


@dataclass(frozen=True, slots=True)
class StepGroup:
    """Consecutive steps that differ in their memory block alone.

    Attributes
    ----------
    first : int
        Number of the first step, from 1.
    steps : tuple of PlanStep
    """

    first: int
    steps: tuple[PlanStep, ...]

    @property
    def numbers(self) -> str:
        """``3``, or ``3-22``."""
        last = self.first + len(self.steps) - 1
        return f"{self.first}" if last == self.first else f"{self.first}-{last}"

    @property
    def title(self) -> str:
        """The title of the step, or that of all, such as ``online memory32-47``."""
        step = self.steps[0]
        if len(self.steps) == 1:
            return step.title
        ids = [int(nr) for each in self.steps for nr in re.findall("[0-9]+", each.title)]
        order = ", the highest first" if ids == sorted(ids, reverse=True) else ", in their order"
        return f"{step.value} {block_names(ids)}{'' if ids == sorted(ids) else order}"

    @property
    def blocks(self) -> Iterator[BlockRange]:
        """The blocks of all predictions."""
        for step in self.steps:
            yield from step.prediction.blocks if step.prediction else ()

    @property
    def work(self) -> Work | None:
        """What all of them move, drop and swap, ``None`` if no block goes offline."""
        return _sum(step.prediction.work for step in self.steps if step.prediction)


def step_groups(steps: Sequence[PlanStep]) -> list[StepGroup]:
    """Return the steps in groups, in their order."""
    made: list[StepGroup] = []
    for nr, step in enumerate(steps, start=1):
        if made and _kind(made[-1].steps[-1]) == _kind(step):
            made[-1] = StepGroup(made[-1].first, (*made[-1].steps, step))
        else:
            made.append(StepGroup(nr, (step,)))
    return made


def _kind(step: PlanStep) -> tuple[object, ...]:
    """Return what two steps must share to be shown as one: all but blocks and amounts."""
    made = step.prediction
    if step.by == "platform" or step.action == "set" or made is None:
        return (id(step),)
    ends = (made.status, made.errno, made.function, _NAME.sub("", made.why), made.work is None)
    after = tuple((part.state, part.zone) for part in made.blocks)
    return step.value, step.certainty, *ends, after


def plan_line(plan: Plan) -> str:
    """Return the whole plan in one line, such as ``Plan: 1 to plug, 8 to online; ...``."""
    counts = [f"{nr} to {action}" for action, nr in _counts(plan).items() if nr]
    before = plan.assumes.mem_total_kib
    made = [step.prediction for step in plan.steps if step.prediction is not None]
    after = made[-1].mem_total_kib if made else before
    if not plan.steps:
        counts = ["nothing to do"]
    parts = [", ".join(counts)] if counts else []
    obstacle = plan.obstacle
    if obstacle is not None and obstacle.prediction is not None:
        nr = plan.steps.index(obstacle) + 1
        parts.append(f"step {nr} {_failure(obstacle.prediction)}")
    parts.append(f"MemTotal {_change(before * 1024, after * 1024)}")
    return f"Plan: {'; '.join(parts)}"


def _failure(made: Prediction) -> str:
    return f"is {made.status} ({made.errno})" if made.errno else "does not end"


def _counts(plan: Plan) -> dict[str, int]:
    """Return how many devices are plugged, resized and removed, and blocks change their state."""
    asked = [step.action for step in plan.steps if step is not plan.obstacle]
    online = _online(plan.assumes.blocks)
    now = set(online)
    for step in plan.steps:
        for part in step.prediction.blocks if step.prediction else ():
            ids = range(part.first, part.last + 1)
            now = now.union(ids) if part.state == "online" else now.difference(ids)
    return {
        "plug": asked.count("plug"),
        "resize": asked.count("resize"),
        "online": len(now - online),
        "offline": len(online - now),
        "remove": asked.count("remove"),
    }


def _online(parts: Iterable[BlockRange]) -> set[int]:
    online = [range(part.first, part.last + 1) for part in parts if part.state == "online"]
    return set().union(*online)


def _change(before: int, after: int) -> str:
    """Return two sizes in one unit; one if they are the same."""
    if before == after:
        return rounded_size(before)
    unit = max(before, after)
    first, last = rounded_size(before, unit), rounded_size(after, unit)
    if first == last:
        first, last = format_size(before), format_size(after)
    number, _, name = first.rpartition(" ")
    return f"{number if last.endswith(f' {name}') else first} → {last}"


def plan_text(plan: Plan, width: int = 100) -> str:
    """Return the plan for people."""
    lines = [*_wrap(plan_line(plan), width, ""), *_wrap(f"goal: {plan.goal}", width, "")]
    groups = step_groups(plan.steps)
    for group in groups:
        lines.extend(_wrap(f"[{group.numbers}] {group.title}", width, ""))
        lines.extend(_prediction(group, width))
    if plan.work is not None and sum(group.work is not None for group in groups) > 1:
        lines.extend(_wrap(f"in all: {_work(plan.work)}", width, ""))
    for other in plan.passed_over:
        lines.extend(_wrap(f"passed over, {other.certainty}: {other.name}: {other.why}", width, ""))
    for risk in dict.fromkeys((each.certainty, each.what, each.cure) for each in plan.risks):
        certainty, what, cure = risk
        lines.extend(_wrap(f"risk, {certainty}: {what}", width, ""))
        if cure:
            lines.extend(_wrap(f"helps: {cure}", width, "    "))
    for note in plan.notes:
        lines.extend(_wrap(f"note: {note}", width, ""))
    return "\n".join(lines) + "\n"


def _prediction(group: StepGroup, width: int) -> Iterator[str]:
    step = group.steps[-1]
    if step.by == "platform":
        yield from _wrap(f"by {step.who or 'the platform'}", width, "    ")
    made = step.prediction
    if made is None:
        yield "    no prediction"
        return
    yield from _wrap(f"{step.certainty}: {_ending(made)}", width, "    ")
    if made.why:
        yield from _wrap(made.why, width, "    ")
    for state, ids in _by_state(group.blocks).items():
        count = f" ({len(ids)} blocks)" if len(ids) > 1 else ""
        yield from _wrap(f"{block_names(ids)}{count} {state}", width, "    ")
    if group.work is not None:
        yield from _wrap(_work(group.work), width, "    ")
    total, free = made.mem_total_kib, made.mem_free_kib
    amounts = f"MemTotal {counted_size(total)}, MemFree about {rounded_size(free * 1024)}"
    yield from _wrap(amounts, width, "    ")


def _by_state(parts: Iterable[BlockRange]) -> dict[str, list[int]]:
    """Return the blocks of each state and zone, so that two zones are never one number."""
    made: dict[str, list[int]] = {}
    for part in parts:
        zone = f" in zone {part.zone}" if part.zone else ""
        made.setdefault(f"{part.state}{zone}", []).extend(range(part.first, part.last + 1))
    return made


def _ending(made: Prediction) -> str:
    if made.status == "ok":
        return "ok"
    if made.status == "does_not_end":
        return f"does not end: {made.function}"
    return f"{made.status}: {made.errno} by {made.function}"


def _sum(works: Iterable[Work | None]) -> Work | None:
    parts = [work for work in works if work is not None]
    return sum(parts, Work()) if parts else None


def _work(work: Work) -> str:
    cache = f"{_amount(work.dropped_bytes)} of page cache" if work.dropped_bytes else "no cache"
    swapped = _amount(work.swapped_bytes) if work.swapped_bytes else "nothing"
    moved = _amount(work.moved_bytes) if work.moved_bytes else "nothing"
    return f"{moved} moves, {cache} is dropped, {swapped} is swapped out"


def _amount(size_bytes: int) -> str:
    """Return a size as it is read, and exactly where that is another text."""
    rounded, exact = rounded_size(size_bytes), format_size(size_bytes)
    return rounded if rounded == exact else f"{rounded} ({exact})"


def _wrap(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=indent + "  "
    )
