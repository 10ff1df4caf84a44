"""``altmap apply``: a plan carried out, journaled and checked.

Effects: environment, files, terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show, tell
from altmap.errors import InputError, printable

if TYPE_CHECKING:
    from altmap.host.apply import ApplyResult
    from altmap.host.journal import Journal, JournalError
    from altmap.host.plan import Plan
    from altmap.host.transport import LocalFiles

__all__ = ("VERB",)

#: Done in part: as chmem(8) has it.
DONE, ROLLED_BACK, PARTLY = 0, 1, 64
_MOST_SECONDS = 86400
_MOST_PLAN_BYTES = 16 << 20


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", metavar="PLAN", type=Path, help="what altmap plan -o wrote")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--dry-run", action="store_true", help="show what would be written")
    parser.add_argument(
        "--on-bare-metal",
        action="store_true",
        help="act although the host is not a guest; without it that is a dry run",
    )
    parser.add_argument(
        "--attempt",
        action="store_true",
        help="begin although a step is predicted to be refused, if that is not certain",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="on a prediction mismatch keep what was done, without rolling back",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue where the journal ends")
    again.add_argument("--rollback", action="store_true", help="roll back what the journal lists")
    parser.add_argument(
        "--journal", metavar="FILE", type=Path, help="default: the plan's name and .journal"
    )
    parser.add_argument(
        "--limit", metavar="SECONDS", type=float, default=60.0, help="of one write; default: 60"
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        type=Path,
        default=Path("/"),
        help="where the machine's proc and sys are; default: /",
    )


def _apply(args: argparse.Namespace) -> int:
    from altmap.host.plan import decode_plan
    from altmap.host.transport import LocalFiles
    from altmap.storage.files import read_file

    if not 0 < args.limit <= _MOST_SECONDS:
        raise InputError(f"--limit {args.limit}: need seconds, more than 0 and a day at most")
    plan = decode_plan(read_file(args.plan, _MOST_PLAN_BYTES), str(args.plan))
    files = LocalFiles(args.root, args.limit)
    if args.dry_run:
        return _begun(args, plan, files)
    with _only_one(args.root):
        return _begun(args, plan, files)


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Hold the lock of the machine: two plans at a time would each change what the other assumes.

    It is on the kernel's own folder, which is one for all users, containers and journals.
    """
    from altmap.storage.locks import locked_folder

    path = root / "sys/devices/system/memory"
    try:
        with locked_folder(path, "apply: another apply is at work on this machine"):
            yield
    except OSError as error:
        raise InputError(f"apply: {path}: {error.strerror}") from error


def _begun(args: argparse.Namespace, plan: Plan, files: LocalFiles) -> int:
    from altmap.host.apply import differences_from
    from altmap.host.guard import hypervisor_of
    from altmap.host.journal import Journal

    again = args.resume or args.rollback
    if not again:
        _check_obstacle(plan, attempt=args.attempt)
        for line in differences_from(plan.assumes, files):
            raise InputError(f"the machine has changed: {line}; make a new plan")
    writes = [step for step in plan.steps if step.path is not None]
    hypervisor = hypervisor_of(files)
    if args.dry_run or (hypervisor is None and not args.on_bare_metal):
        return _dry_run(plan, asked=args.dry_run)
    if not writes and not again:
        show("nothing to write: the plan has no steps, or the platform takes them")
        return DONE
    _check_root(args.root, plan)
    if not args.yes and not _confirmed(plan, hypervisor):
        raise InputError("apply: not confirmed (--yes confirms in advance)")
    name = args.journal or args.plan.with_name(f"{args.plan.name}.journal")
    with Journal(name, new=not again) as journal:
        return _carry_out(args, plan, files, journal)


def _carry_out(args: argparse.Namespace, plan: Plan, files: LocalFiles, journal: Journal) -> int:
    from altmap.host.apply import apply_plan, resume, roll_back
    from altmap.host.journal import JournalError

    try:
        if args.rollback:
            result = roll_back(plan, files, journal, _tell)
        elif args.resume:
            result = resume(plan, files, journal, _tell, keep=args.keep)
        else:
            result = apply_plan(plan, files, journal, _tell, keep=args.keep)
    except JournalError as error:
        return _ended_early(args, plan, files, journal, error)
    except KeyboardInterrupt:
        _tell(_HOW_ON)
        raise
    _tell(f"{plan.goal}: {result}")
    return _code_of(args, result)


def _code_of(args: argparse.Namespace, result: ApplyResult) -> int:
    from altmap.host.apply import ApplyResult

    if result is ApplyResult.DONE or (result is ApplyResult.ROLLED_BACK and args.rollback):
        return DONE
    return ROLLED_BACK if result is ApplyResult.ROLLED_BACK else PARTLY


_HOW_ON = "apply: what was begun is in the journal: --resume continues it, --rollback rolls it back"


def _ended_early(
    args: argparse.Namespace, plan: Plan, files: LocalFiles, journal: Journal, error: JournalError
) -> int:
    """Tell how the machine stands when a line of the journal could not be written."""
    from altmap.host.apply import ApplyResult, state_of

    state = state_of(plan, files, journal)
    undone = any(entry.undo for entry in journal.entries)
    if state is ApplyResult.STUCK:
        done = sorted({e.step for e in journal.entries if e.event == "intend" and not e.undo})
        _tell(
            f"altmap: {error}; steps begun: {', '.join(map(str, done))}; with space again, "
            "--resume continues and --rollback rolls back"
        )
        return PARTLY
    if state is None or not undone:
        raise error
    _tell(f"{error}; {plan.goal}: {state}")
    return _code_of(args, state)


def _check_obstacle(plan: Plan, *, attempt: bool) -> None:
    step = plan.obstacle
    if step is None or step.prediction is None:
        return
    made = step.prediction
    if step.certainty == "certain" or not attempt:
        hint = "" if step.certainty == "certain" else "; --attempt tries it"
        raise InputError(
            f"plan: {step.title}: {step.certainty} to be refused: {made.errno} by "
            f"{made.function}: {made.why}{hint}"
        )


def _check_root(root: Path, plan: Plan) -> None:
    if root == Path("/") and os.geteuid():
        raise InputError("apply: need root to write to this host")
    for step in plan.steps:
        path = root / (step.path or "")
        if step.path is not None and path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"apply: need root to write to {path}")


def _confirmed(plan: Plan, hypervisor: str | None) -> bool:
    from altmap.host.text.plan import plan_line

    if not sys.stdin.isatty():
        return False
    where = f"this guest ({hypervisor})" if hypervisor else "this host, which is not a guest"
    nr_writes = sum(step.path is not None for step in plan.steps)
    _tell(plan_line(plan))
    _tell(f"{plan.goal}: {nr_writes} writes to {where}")
    _tell("continue? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _dry_run(plan: Plan, *, asked: bool) -> int:
    from altmap.host.text.plan import plan_line, step_groups

    if not asked:
        show("no file shows that this is a guest: a dry run (--on-bare-metal acts)")
    show(printable(plan_line(plan)))
    for group in step_groups(plan.steps):
        paths = [f"/{step.path}" for step in group.steps if step.path is not None]
        if not paths:
            what = f"would wait for the platform: {group.title}"
        elif len(paths) == 1:
            what = f"would write {group.steps[0].value} to {paths[0]}"
        else:
            what = f"would {group.title}: {len(paths)} writes, {paths[0]} to {paths[-1]}"
        show(printable(f"[{group.numbers}] {what}"))
    return DONE


def _tell(text: str) -> None:
    tell(printable(text))


VERB = Verb(
    "apply",
    "carry out a plan as root: confirmed, journaled, checked",
    (
        Example("altmap apply plan.json", "rolled back on a prediction mismatch"),
        Example("altmap apply plan.json --dry-run", "what would be written"),
    ),
    (
        (0, "done, a dry run, or rolled back by --rollback"),
        (1, "a prediction mismatch: rolled back"),
        (2, "not begun, or nothing was changed"),
        (64, "done in part"),
    ),
    _add_arguments,
    _apply,
)
