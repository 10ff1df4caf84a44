"""Two traces of one scenario, compared step by step and field by field of the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from altmap.compare.fields import BLOCKS, FIELDS, LAYOUT, ComparedFile, Field
from altmap.compare.messages import ballooned_after
from altmap.compare.side import UNKNOWN, Key, Side, block_frames
from altmap.compare.tolerance import page_kib
from altmap.compare.verdict import Comparison, Difference, FileVerdict, value_text
from altmap.linux.observation import Observation
from altmap.pfn import PfnSet
from altmap.trace import OK, StepRecord, Trace

__all__ = ("compare", "compare_layout")

_Sides = tuple[Side, Side]
_FILES = tuple(dict.fromkeys(field.file for field in FIELDS))
_OF_STEP, _OF_MACHINE = (
    tuple(file for file in _FILES if file.of == part) for part in ("step", "machine")
)


def compare(predicted: Trace, observed: Trace) -> Comparison:
    """Compare two traces of the same scenario, the prediction first.

    The start has no result. Where only one side shows a machine, because the other kernel crashed,
    its files are not compared; the results of the step differ.

    Raises
    ------
    ValueError
        If the traces do not have the same number of steps.
    """
    result = Comparison(
        f"{predicted.target} {predicted.release}", f"{observed.target} {observed.release}"
    )
    start = observed.steps[0].observation
    chosen, placed, boot = PfnSet(), PfnSet(), _boot_memory(start)
    balloons = [(0, False), (0, False)]
    shared = False
    steps = zip(observed.folder_names(), predicted.steps, observed.steps, strict=True)
    for index, (name, mine, other) in enumerate(steps):
        chosen = _chosen_by_buddy(chosen, mine)
        # Which frames of memory that was online before hold a new memmap, the allocator decides.
        before = observed.steps[index - 1].observation if index else None
        adds = mine.action.get("do") in ("plug", "online") and before is not None
        placed |= _placed_by_chance(mine)
        beside = boot | placed
        if adds and before is not None:
            beside |= block_frames(before, page_kib(before), _ONLINE)
        balloons = [
            ballooned_after(step, *before)
            for step, before in zip((mine, other), balloons, strict=True)
        ]
        sides = _with_balloons(_sides(mine, other, chosen, beside, shared), balloons)
        shared = sides[0].shared_before
        if index:
            result.files.extend(_verdicts(_OF_STEP, name, sides, start or Observation()))
        if not any(seen is None for seen in (start, mine.observation, other.observation)):
            result.files.extend(_verdicts(_OF_MACHINE, name, sides, start or Observation()))
    return result


def compare_layout(booted: Observation, observed: Observation, step: str) -> list[FileVerdict]:
    """Compare a synthetic boot state with a real machine: layout only, as use is estimated."""
    mine, other = (StepRecord(step, {}, OK, observation=seen) for seen in (booted, observed))
    return list(_verdicts((LAYOUT, BLOCKS), step, _sides(mine, other), observed))


_ONLINE = ("online", "going-offline")
#: What an event says of a memmap whose frames the allocator chose, of blocks just onlined too.
_IN_EXISTING = "of existing memory"


def _boot_memory(start: Observation | None) -> PfnSet:
    seen = start or Observation()
    return block_frames(seen, page_kib(seen), ("online", "offline", "going-offline"))


def _sides(
    predicted: StepRecord,
    observed: StepRecord,
    chosen: PfnSet | None = None,
    boot: PfnSet | None = None,
    shared_before: bool = False,
) -> _Sides:
    common = page_kib(observed.observation or Observation()), chosen or PfnSet(), boot or PfnSet()
    mine, other = Side(predicted, *common), Side(observed, *common)
    shares = mine.may_share_zones or other.may_share_zones
    mine, other = (
        replace(side, shares_zones=shares, shared_before=shares or shared_before)
        for side in (mine, other)
    )
    return mine, other


def _with_balloons(sides: _Sides, balloons: Iterable[tuple[int, bool]]) -> _Sides:
    mine, other = (
        replace(side, ballooned=nr_pages if at_floor else None)
        for side, (nr_pages, at_floor) in zip(sides, balloons, strict=True)
    )
    return mine, other


def _chosen_by_buddy(before: PfnSet, step: StepRecord) -> PfnSet:
    """Return the page frames that stand for those that the buddy allocator gave to a balloon."""
    chosen = before.copy()
    for event in step.events:
        if event.pfns is not None and event.kind == "ballooned":
            chosen |= event.pfns
        elif event.pfns is not None and event.kind in ("deflated", "populated"):
            chosen -= event.pfns
    return chosen


def _placed_by_chance(step: StepRecord) -> PfnSet:
    """Return the frames of memmaps that a step put into existing memory: which ones is chance."""
    return PfnSet.of(
        *(
            event.pfns
            for event in step.events
            if event.kind == "memmap-placed" and event.pfns and _IN_EXISTING in event.text
        )
    )


def _verdicts(
    files: Iterable[ComparedFile], step: str, sides: _Sides, start: Observation
) -> Iterator[FileVerdict]:
    for file in files:
        found = list(_compared(file, sides, start))
        if found or not file.optional:
            differences = tuple(difference for difference in found if difference is not None)
            yield FileVerdict.of(step, file.path, len(found), differences)


def _compared(file: ComparedFile, sides: _Sides, start: Observation) -> Iterator[Difference | None]:
    """Yield for each field of the file what differs, ``None`` where it is equal."""
    if not all(_shows(side, file) for side in sides):
        return
    for field in FIELDS:
        if field.file != file:
            continue
        predicted, observed = (dict(field.values(side)) for side in sides)
        for key in dict.fromkeys((*predicted, *observed)):
            values = predicted.get(key), observed.get(key)
            if UNKNOWN not in values:
                yield _difference(field, key, *values, start, sides[1].seen)


def _shows(side: Side, file: ComparedFile) -> bool:
    return not file.shows or getattr(side.seen, file.shows) is not None


def _difference(
    field: Field,
    key: Key,
    predicted: object,
    observed: object,
    start: Observation,
    now: Observation,
) -> Difference | None:
    if field.agrees(predicted, observed):
        return None
    texts = field.label(key), value_text(predicted), value_text(observed), field.source
    if field.tolerance is None:
        return Difference(*texts)
    bound, why = field.tolerance.derive(start, now)
    within = (
        isinstance(predicted, int)
        and isinstance(observed, int)
        and abs(predicted - observed) <= bound
    )
    return Difference(*texts, f"±{bound} {why}", within)
