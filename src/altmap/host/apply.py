"""Carry out a plan through a transport: journal and check each step, roll back on a mismatch.

What is written where comes from the plan; this module decides only whether to go on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from enum import StrEnum

from altmap.errors import InputError
from altmap.host.journal import Entry, Journal, JournalError, check_order
from altmap.host.plan import Assumptions, BlockRange, Plan, PlanStep, encode_plan
from altmap.host.transport import Transport
from altmap.linux import version
from altmap.units import counted_size

__all__ = (
    "ApplyResult",
    "apply_plan",
    "differences_from",
    "plan_hash",
    "resume",
    "roll_back",
    "state_of",
)

_MEMORY = "sys/devices/system/memory"
_BLOCK = re.compile(r"memory(0|[1-9][0-9]{0,14})")
_BOOT_ID = "proc/sys/kernel/random/boot_id"
Progress = Callable[[str], None]


class ApplyResult(StrEnum):
    """How an apply ended."""

    DONE = "done"
    WAITS = "waits for the platform"
    ROLLED_BACK = "rolled back"
    KEPT = "stopped, what was done is kept"
    STUCK = "stopped, and not all could be rolled back"


def plan_hash(plan: Plan) -> str:
    """Return what tells plans apart in a journal."""
    return hashlib.sha256(encode_plan(plan).encode()).hexdigest()


def differences_from(assumed: Assumptions, files: Transport) -> Iterator[str]:
    """Yield how a machine is no longer what a plan assumed, a line each."""
    shown = {
        "kernel": (assumed.release, _release(files)),
        "block_size_bytes": (
            f"{assumed.block_size_bytes:x}",
            (files.read(f"{_MEMORY}/block_size_bytes") or "").strip(),
        ),
        "MemTotal": (counted_size(assumed.mem_total_kib), counted_size(_mem_total(files))),
        "auto_online_blocks": (
            assumed.auto_online_blocks,
            _word(files.read(f"{_MEMORY}/auto_online_blocks")),
        ),
    }
    for name, value in assumed.parameters.items():
        path = f"sys/module/memory_hotplug/parameters/{name}"
        shown[name] = (value, _word(files.read(path)))
    for name, (before, now) in shown.items():
        if before != now:
            yield f"{name}: the plan assumes {before!r}, the machine says {now!r}"
    existing = _existing_blocks(files)
    for part in assumed.blocks:
        yield from _block_differences(part, files, existing)


def apply_plan(
    plan: Plan, files: Transport, journal: Journal, progress: Progress, *, keep: bool = False
) -> ApplyResult:
    """Carry out a plan from its first step on.

    Parameters
    ----------
    plan : Plan
    files : Transport
    journal : Journal
        A new one.
    progress : callable
        Told what happens, a line each.
    keep : bool
        On a difference leave what was done, instead of taking it back.
    """
    boot_id = (files.read(_BOOT_ID) or "").strip()
    journal.add(Entry(event="begin", plan=plan_hash(plan), boot_id=boot_id))
    return _carry_on(plan, files, journal, progress, 1, keep=keep)


def resume(
    plan: Plan, files: Transport, journal: Journal, progress: Progress, *, keep: bool = False
) -> ApplyResult:
    """Carry on where a journal ends: what was intended and not confirmed is looked at first.

    Raises
    ------
    InputError
        If the journal is another plan's or over, or the machine is not as the journal left it.
    """
    _check_journal(plan, journal)
    done = _done_steps(journal)
    intended = _open_intent(journal)
    if any(entry.undo for entry in journal.entries):
        return roll_back(plan, files, journal, progress)
    if journal.entries[-1].found:
        return _stop(plan, files, journal, progress, keep=keep)
    if intended is not None:
        step = plan.steps[intended.step - 1]
        if not list(_differences(step, files)):
            journal.add(Entry(event="done", step=intended.step))
            done.add(intended.step)
    for line in _lost(plan, done, files):
        raise InputError(f"resume: {line}: --rollback, or make a new plan")
    return _carry_on(plan, files, journal, progress, max(done, default=0) + 1, keep=keep)


def roll_back(plan: Plan, files: Transport, journal: Journal, progress: Progress) -> ApplyResult:
    """Roll back, last first, what a journal says was done or may have been.

    Raises
    ------
    InputError
        If the journal is another plan's, or over.
    """
    _check_journal(plan, journal)
    taken_back = {e.step for e in journal.entries if e.event == "done" and e.undo and not e.errno}
    maybe = {e.step for e in journal.entries if e.event == "intend" and not e.undo}
    refused = {e.step for e in journal.entries if e.event == "done" and not e.undo and e.errno}
    stuck = False
    for nr in sorted(maybe - refused - taken_back, reverse=True):
        step = plan.steps[nr - 1]
        if step.by == "kernel" and not _take_back(nr, step, files, journal, progress):
            stuck = True
    return _end(ApplyResult.STUCK if stuck else ApplyResult.ROLLED_BACK, journal, progress)


def state_of(plan: Plan, files: Transport, journal: Journal) -> ApplyResult | None:
    """Return how a machine stands that an error has ended the work on.

    Returns
    -------
    ApplyResult or None
        ``None`` if no step was begun, ``ROLLED_BACK`` if none is in force any more, else ``STUCK``.
    """
    begun = {e.step for e in journal.entries if e.event == "intend" and not e.undo}
    if not begun:
        return None
    steps = [plan.steps[nr - 1] for nr in sorted(begun)]
    if all(step.by == "platform" or _is_undone(step, files) for step in steps):
        return ApplyResult.ROLLED_BACK
    return ApplyResult.STUCK


# --- steps ---------------------------------------------------------------------------------


def _carry_on(
    plan: Plan,
    files: Transport,
    journal: Journal,
    progress: Progress,
    start: int,
    *,
    keep: bool,
) -> ApplyResult:
    for nr, step in enumerate(plan.steps[start - 1 :], start=start):
        if step.by == "platform":
            if _is_awaited(step, files):
                progress(f"[{nr}] {step.title}: is the platform's to do; then --resume")
                return ApplyResult.WAITS
            surprise = _note_platform(nr, step, files, journal)
        else:
            surprise = _perform(nr, step, files, journal)
        progress(f"[{nr}] {step.title}: {surprise or 'as predicted'}")
        if surprise:
            return _stop(plan, files, journal, progress, keep=keep)
    return _end(ApplyResult.DONE, journal, progress)


def _end(result: ApplyResult, journal: Journal, progress: Progress) -> ApplyResult:
    """Write how an apply ended. What was done stays done if the disk refuses that line."""
    try:
        journal.add(Entry(event="end", found=result.value))
    except JournalError as error:
        progress(f"{error}: the end is not recorded")
    return result


def _stop(
    plan: Plan, files: Transport, journal: Journal, progress: Progress, *, keep: bool
) -> ApplyResult:
    if keep:
        return _end(ApplyResult.KEPT, journal, progress)
    progress("taking back what was done")
    return roll_back(plan, files, journal, progress)


def _is_awaited(step: PlanStep, files: Transport) -> bool:
    """Tell whether blocks that a step of the platform brings or takes have not come or gone."""
    made = step.prediction
    if made is None:
        return False
    if made.mem_total_gain_kib and made.status == "ok":
        # What comes and goes within memory blocks shows in their sum only.
        before = made.mem_total_kib - made.mem_total_gain_kib
        if _mem_total(files) == before:
            return True
    existing = _existing_blocks(files)
    return any(
        bool(_within(part, existing))
        if part.state == "absent"
        else any(nr not in existing for nr in range(part.first, part.last + 1))
        for part in made.blocks
    )


def _note_platform(nr: int, step: PlanStep, files: Transport, journal: Journal) -> str:
    surprise = next(_differences(step, files), "")
    total, made = _mem_total(files), step.prediction
    if not surprise and made is not None and total != made.mem_total_kib:
        surprise = (
            f"MemTotal is {counted_size(total)}, predicted were {counted_size(made.mem_total_kib)}"
        )
    journal.add(Entry(event="intend", step=nr))
    journal.add(Entry(event="done", step=nr, found=surprise))
    return surprise


def _perform(nr: int, step: PlanStep, files: Transport, journal: Journal) -> str:
    """Write one step's word; return what is not as predicted, empty if all is."""
    assert step.path is not None
    assert step.value is not None
    before = _mem_total(files)
    journal.add(Entry(event="intend", step=nr, path=step.path, value=step.value))
    refused = files.write(step.path, step.value)
    surprise = _surprise(step, refused, before, files)
    journal.add(
        Entry(
            event="done",
            step=nr,
            path=step.path,
            value=step.value,
            errno=refused,
            found=surprise,
        )
    )
    return surprise


def _surprise(step: PlanStep, refused: str | None, before_kib: int, files: Transport) -> str:
    made = step.prediction
    expected = None if made is None or made.status == "ok" else made.errno
    if refused != expected:
        return f"{refused or 'taken'}, predicted was {expected or 'that it is taken'}"
    if refused is not None:
        return f"{refused}, as predicted: the plan ends here"
    for line in _differences(step, files):
        return line
    gained = _mem_total(files) - before_kib
    if made is not None and gained != made.mem_total_gain_kib:
        return f"MemTotal changed by {gained} kB, predicted were {made.mem_total_gain_kib} kB"
    return ""


def _take_back(
    nr: int, step: PlanStep, files: Transport, journal: Journal, progress: Progress
) -> bool:
    assert step.path is not None
    assert step.undo is not None
    if _is_undone(step, files):
        return True
    entry = Entry(event="intend", step=nr, undo=True, path=step.path, value=step.undo)
    journal.add(entry)
    refused = files.write(step.path, step.undo)
    found = "" if refused else ("" if _is_undone(step, files) else "not back as it was")
    journal.add(
        Entry(
            event="done",
            step=nr,
            undo=True,
            path=step.path,
            value=step.undo,
            errno=refused,
            found=found,
        )
    )
    progress(f"[{nr}] back: {step.undo}: {refused or found or 'done'}")
    return refused is None and not found


def _is_undone(step: PlanStep, files: Transport) -> bool:
    shown = _word(files.read(step.path or ""))
    wanted = step.undo or ""
    if (step.path or "").endswith("/state") and wanted.startswith("online"):
        return shown == "online"
    return shown == wanted


# --- the machine ---------------------------------------------------------------------------


def _differences(step: PlanStep, files: Transport) -> Iterator[str]:
    """Yield what a machine shows otherwise than a step's prediction; nothing if it agrees."""
    if step.prediction is not None:
        existing = _existing_blocks(files)
        for part in step.prediction.blocks:
            yield from _block_differences(part, files, existing)
    if step.path is not None and step.path.endswith("/auto_online_blocks"):
        shown = _word(files.read(step.path))
        if shown != step.value:
            yield f"auto_online_blocks is {shown!r}, not {step.value!r}"


def _existing_blocks(files: Transport) -> set[int]:
    """Return the ids of the blocks that a machine has."""
    return {int(match[1]) for name in files.names(_MEMORY) if (match := _BLOCK.fullmatch(name))}


def _within(part: BlockRange, existing: set[int]) -> list[int]:
    """Return the blocks of a range that a machine has: the range may be of any size."""
    return sorted(nr for nr in existing if part.first <= nr <= part.last)


def _block_differences(part: BlockRange, files: Transport, existing: set[int]) -> Iterator[str]:
    absent = part.state == "absent"
    for nr in _within(part, existing) if absent else range(part.first, part.last + 1):
        state = _word(files.read(f"{_MEMORY}/memory{nr}/state")) or "absent"
        if state != part.state:
            yield f"memory{nr} is {state}, not {part.state}"
        elif state == "online" and part.zone is not None:
            words = (files.read(f"{_MEMORY}/memory{nr}/valid_zones") or "").split()
            if words[:1] != [part.zone]:
                yield f"memory{nr} is in zone {' '.join(words)}, not {part.zone}"


def _lost(plan: Plan, done: set[int], files: Transport) -> Iterator[str]:
    """Yield how a machine is not as the steps that were done left it.

    The latest step counts of each block; what the platform's step to come concerns may have changed
    already.
    """
    coming = plan.steps[len(done)] if len(done) < len(plan.steps) else None
    existing = _existing_blocks(files)
    left: dict[int, tuple[int, BlockRange]] = {}
    for nr in sorted(done):
        for block, part in _single_blocks(plan.steps[nr - 1], existing):
            left[block] = nr, part
    if coming is not None and coming.by == "platform":
        parts = coming.prediction.blocks if coming.prediction is not None else []
        left = {
            block: found
            for block, found in left.items()
            if not any(part.first <= block <= part.last for part in parts)
        }
    for block, (nr, part) in left.items():
        alone = BlockRange(block, block, part.state, part.zone)
        for line in _block_differences(alone, files, existing):
            yield f"step {nr} ({plan.steps[nr - 1].title}) was done, but {line}"


def _single_blocks(step: PlanStep, existing: set[int]) -> Iterator[tuple[int, BlockRange]]:
    """Yield the blocks of a step, each with its range; of those that are absent what exists."""
    for part in step.prediction.blocks if step.prediction is not None else ():
        absent = part.state == "absent"
        for nr in _within(part, existing) if absent else range(part.first, part.last + 1):
            yield nr, part


def _word(text: str | None) -> str | None:
    return None if text is None else text.strip()


def _release(files: Transport) -> str:
    try:
        return version.parse(files.read("proc/version") or "").full
    except InputError:
        return ""


def _mem_total(files: Transport) -> int:
    match = re.search(r"^MemTotal: +([0-9]{1,15}) kB$", files.read("proc/meminfo") or "", re.M)
    return int(match[1]) if match else 0


# --- the journal ---------------------------------------------------------------------------


def _check_journal(plan: Plan, journal: Journal) -> None:
    if journal.entries[0].plan != plan_hash(plan):
        raise InputError("journal: is that of another plan")
    check_order(journal.entries, len(plan.steps))
    if any(entry.event == "end" for entry in journal.entries):
        raise InputError(f"journal: is over: {journal.entries[-1].found}")


def _done_steps(journal: Journal) -> set[int]:
    return {
        entry.step
        for entry in journal.entries
        if entry.event == "done" and not entry.undo and entry.errno is None
    }


def _open_intent(journal: Journal) -> Entry | None:
    last = journal.entries[-1]
    return last if last.event == "intend" else None
