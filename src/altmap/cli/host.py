"""The commands about a machine of one's own: its arguments, and nothing else.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from altmap.cli.watch import add_watch
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.host.blockers import Blocks
    from altmap.host.journal import Journal
    from altmap.host.metrics import Sample
    from altmap.host.plan import Plan
    from altmap.host.transport import LocalFiles
    from altmap.linux.observation import MemoryFolder
    from altmap.linux.sysroot import Sysroot

__all__ = ("add_host_commands",)

DONE = 0
#: As terraform's ``plan -detailed-exitcode``.
NO_PLAN, CHANGES = 1, 2
#: Of ``apply``: taken back; done in part, as chmem(8) has it.
TAKEN_BACK, PARTLY = 1, 64
#: Keys of ``host.ways.WAYS``, whose import would load the model for every command.
_DRIVERS = ("dimm", "hyperv", "virtio-mem", "kmem", "standby", "probe", "xen")
_SYSROOT_HELP = "a folder or tar: sysroot, snapshot or sosreport; default: this machine"


def add_host_commands(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the others."""
    _add_ls(verbs)
    _add_snapshot(verbs)
    _add_explain(verbs)
    _add_plan(verbs)
    _add_apply(verbs)
    add_watch(verbs)
    _add_export(verbs)


def _source(args: argparse.Namespace) -> Path:
    return Path("/") if args.sysroot is None else args.sysroot


# --- ls ------------------------------------------------------------------------------------


def _add_ls(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from altmap.host.listing import COLUMNS, DEFAULT_COLUMNS

    ls = verbs.add_parser(
        "ls",
        help="list memory blocks, as lsmem does, with memmap, driver and blockers on demand",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="columns:\n" + "".join(f"  {name:10} {text}\n" for name, text in COLUMNS.items()),
    )
    form = ls.add_mutually_exclusive_group()
    form.add_argument("-J", "--json", action="store_true", help="print JSON")
    form.add_argument("-P", "--pairs", action="store_true", help='print NAME="value" pairs')
    form.add_argument("-r", "--raw", action="store_true", help="print without alignment")
    split = ls.add_mutually_exclusive_group()
    split.add_argument("-a", "--all", action="store_true", help="list each memory block")
    split.add_argument(
        "-S", "--split", metavar="LIST", help="columns that keep ranges apart, or none"
    )
    ls.add_argument("-b", "--bytes", action="store_true", help="print sizes in bytes")
    ls.add_argument("-n", "--noheadings", action="store_true", help="print no headings")
    output = ls.add_mutually_exclusive_group()
    output.add_argument(
        "-o",
        "--output",
        metavar="LIST",
        help=f"columns to print, +LIST adds to {','.join(DEFAULT_COLUMNS)}",
    )
    output.add_argument("--output-all", action="store_true", help="print every column")
    ls.add_argument("-s", "--sysroot", metavar="PATH", type=Path, help=_SYSROOT_HELP)
    ls.add_argument(
        "--summary",
        nargs="?",
        const="only",
        default=None,
        choices=("never", "always", "only"),
        help="print the lines below the table: default with the table, not with -J, -P and -r",
    )
    ls.set_defaults(verb=_ls)


def _ls(args: argparse.Namespace) -> int:
    from altmap.host.listing import COLUMNS, DEFAULT_COLUMNS, columns_named, listing, split_columns
    from altmap.host.text import blocks as report

    columns = list(COLUMNS) if args.output_all else list(DEFAULT_COLUMNS)
    if args.output is not None:
        columns = columns_named(args.output)
    split = None if args.split is None else split_columns(args.split)
    split = ["BLOCK"] if args.all else split
    if args.summary == "only" and (args.json or args.pairs or args.raw):
        raise InputError("--summary=only: cannot go with --json, --pairs or --raw")
    memory, blocks = _memory(_source(args), {*columns, *(split or ())})
    rows = listing(memory, columns, split, blocks)
    if args.json:
        print(report.rows_json(rows, columns, memory, exact=args.bytes), end="")
    elif args.pairs:
        print(report.rows_pairs(rows, columns, exact=args.bytes), end="")
    elif args.raw:
        print(report.rows_raw(rows, columns, exact=args.bytes, heads=not args.noheadings), end="")
    elif args.summary != "only":
        heads = not args.noheadings
        print(report.rows_table(rows, columns, exact=args.bytes, heads=heads), end="")
    plain = not (args.json or args.pairs or args.raw)
    if args.summary in ("always", "only") or (plain and args.summary is None):
        gap = "\n" if args.summary != "only" else ""
        if not args.json:
            print(gap + report.summary_text(memory, exact=args.bytes), end="")
    return DONE


def _memory(source: Path, columns: set[str]) -> tuple[MemoryFolder, Blocks | None]:
    from altmap.host.blockers import Blocks
    from altmap.linux.blockfolder import has_blocks, read_blocks
    from altmap.linux.observation import Observation

    quick = not columns & {"MEMMAP", "DRIVER", "DEVICE", "BLOCKERS"}
    if quick and source.is_dir() and has_blocks(source):
        nodes, zones = "NODE" in columns, "ZONES" in columns
        return read_blocks(source, nodes=nodes, zones=zones), None
    seen = Observation.read(_read(source))
    if seen.memory is None:
        raise InputError(f"{source}: has no sys/devices/system/memory")
    return seen.memory, Blocks(seen)


def _read(source: Path, *, uses: bool = False) -> Sysroot:
    from altmap.linux.sysroot import Sysroot

    return Sysroot.read(source, uses=uses)


# --- snapshot ------------------------------------------------------------------------------


def _add_snapshot(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    snapshot = verbs.add_parser(
        "snapshot", help="keep the files that describe a machine's memory, in one archive"
    )
    _add_source(snapshot)
    snapshot.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("snapshot.tar.gz"),
        help="new file ending in .tar, .tar.gz, .tar.bz2 or .tar.xz; default: %(default)s",
    )
    snapshot.add_argument(
        "--anonymous",
        action="store_true",
        help="leave out what identifies the machine and whoever built its kernel",
    )
    snapshot.add_argument("--json", action="store_true", help="print what was kept as JSON")
    snapshot.set_defaults(verb=_snapshot)


def _snapshot(args: argparse.Namespace) -> int:
    from altmap.host.anonymous import anonymous
    from altmap.host.missing import gaps
    from altmap.linux.observation import Observation

    sysroot = _read(_source(args), uses=True)
    missing = list(gaps(sysroot, Observation.read(sysroot)))
    if args.anonymous:
        sysroot = anonymous(sysroot)
    sysroot.pack(args.output)
    size_bytes = args.output.stat().st_size
    if args.json:
        made = {
            "schema": "altmap-snapshot",
            "version": 1,
            "file": str(args.output),
            "size_bytes": size_bytes,
            "nr_files": len(sysroot.files),
            "nr_links": len(sysroot.links),
            "anonymous": args.anonymous,
            "missing": missing,
        }
        print(_json_text(made))
    else:
        print(f"{args.output}: {len(sysroot.files)} files, {size_bytes} bytes")
        for line in missing:
            print(f"missing: {line}")
    return DONE


def _json_text(made: object) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode()


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sysroot", metavar="SYSROOT", type=Path, nargs="?", help=_SYSROOT_HELP)


# --- explain -------------------------------------------------------------------------------


def _add_explain(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = verbs.add_parser(
        "explain", help="why a memory block does not go offline, or what an errno means"
    )
    explain.add_argument("what", metavar="BLOCK|ERRNO", help="such as 32, memory32 or EBUSY")
    _add_source(explain)
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(verb=_explain)


def _explain(args: argparse.Namespace) -> int:
    from altmap.host.explain import block_named, explain_block
    from altmap.host.text.explanation import block_text
    from altmap.linux.observation import Observation

    nr = block_named(args.what)
    if nr is None:
        return _explain_errno(args)
    found = explain_block(Observation.read(_read(_source(args), uses=True)), nr)
    if args.json:
        print(_json_text({"schema": "altmap-explain", "version": 1, "block": found}))
    else:
        print(block_text(found, _width()), end="")
    return DONE


def _explain_errno(args: argparse.Namespace) -> int:
    from altmap.host.errnos import reasons_of
    from altmap.host.explain import refused_now
    from altmap.host.text.explanation import errno_text
    from altmap.linux.observation import Observation

    reasons = reasons_of(args.what)
    blocks: dict[str, str] = {}
    if args.sysroot is not None:
        blocks = refused_now(Observation.read(_read(args.sysroot)), reasons[0].errno)
    if args.json:
        made = {"schema": "altmap-explain", "version": 1, "reasons": reasons, "refused_now": blocks}
        print(_json_text(made))
    else:
        print(errno_text(reasons, blocks, _width()), end="")
    return DONE


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


# --- plan ----------------------------------------------------------------------------------


class _PlanParser(argparse.ArgumentParser):
    """A parser whose errors exit with 1, since 2 means that there is something to do."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NO_PLAN, f"{self.prog}: error: {message}\n")


def _add_plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = verbs.add_parser(
        "plan",
        help="steps towards a goal, each with its prediction, and what may go wrong",
        description="Exit code: 0 nothing to do, 2 there are steps, 1 no plan could be made.",
    )
    goals = plan.add_subparsers(
        required=True, metavar="GOAL", parser_class=_PlanParser, dest="goal"
    )
    add = goals.add_parser("add", help="add memory")
    add.add_argument("size", metavar="SIZE", help="such as 64GiB")
    grow = goals.add_parser("grow", help="online what is offline, then add, up to a total")
    grow.add_argument("size", metavar="TOTAL", help="memory online afterwards, such as 64GiB")
    free = goals.add_parser("free", help="take memory blocks offline")
    free.add_argument("blocks", metavar="BLOCK", nargs="+", help="such as 32, memory32 or 32-39")
    remove = goals.add_parser("remove", help="take a device's blocks offline, and it back")
    remove.add_argument("device", metavar="DEVICE", help="as altmap ls -o +DEVICE shows it")
    resize = goals.add_parser("resize", help="have a virtio-mem device or a balloon resized")
    resize.add_argument("device", metavar="DEVICE", help="such as virtio0; balloon for Xen's")
    resize.add_argument("size", metavar="SIZE", help="what is requested of it, such as 4GiB")
    for goal in (add, grow):
        goal.add_argument(
            "--driver",
            choices=_DRIVERS,
            help="how it comes; default: the machine's usual way, dimm on most",
        )
        goal.add_argument("--node", type=int, metavar="N", help="NUMA node; default: 0")
        goal.add_argument("--address", metavar="A", help="where it lies, such as 0x100000000")
        goal.add_argument(
            "--to",
            choices=("online", "online_kernel", "online_movable"),
            help="word for new blocks; default: auto_online_blocks, or online if that is offline",
        )
    for goal in (add, grow, free, remove, resize):
        goal.add_argument(
            "--from", metavar="SYSROOT", type=Path, dest="sysroot", help=_SYSROOT_HELP
        )
        goal.add_argument("-o", "--output", metavar="FILE", type=Path, help="write plan.json")
        goal.add_argument("--json", action="store_true", help="print the plan as JSON")
        goal.set_defaults(verb=_plan, failed=NO_PLAN)


def _plan(args: argparse.Namespace) -> int:
    from altmap.host.plan import encode_plan
    from altmap.host.text.plan import plan_text
    from altmap.storage.files import write_file

    plan = _planned(args)
    if args.output is not None:
        write_file(args.output, encode_plan(plan), new=True)
    print(encode_plan(plan) if args.json else plan_text(plan, _width()), end="")
    return CHANGES if plan.steps else DONE


def _planned(args: argparse.Namespace) -> Plan:
    from altmap.host import planner
    from altmap.scenario import Offline, selected_blocks
    from altmap.units import parse_address, parse_size

    sysroot = _read(_source(args), uses=args.goal in ("free", "remove"))
    if args.goal == "remove":
        return planner.plan_remove(sysroot, args.device)
    if args.goal == "free":
        return planner.plan_free(sysroot, selected_blocks(Offline(blocks=args.blocks)) or [])
    size = parse_size(args.size)
    if args.goal == "resize":
        return planner.plan_resize(sysroot, args.device, size)
    if not size:
        raise InputError(f"size {args.size!r}: need more than 0 bytes")
    address = None if args.address is None else parse_address(args.address)
    wish = planner.PlugWish(size, args.driver, args.node, address, args.to)
    return (
        planner.plan_add(sysroot, wish)
        if args.goal == "add"
        else planner.plan_grow(sysroot, size, wish)
    )


# --- apply ---------------------------------------------------------------------------------


def _add_apply(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    apply = verbs.add_parser(
        "apply",
        help="carry out a plan: as root, after a question, each step journaled and checked",
        description="Exit code: 0 done, 1 taken back, 64 done in part, 2 not begun.",
    )
    apply.add_argument("plan", metavar="PLAN", type=Path, help="what altmap plan -o wrote")
    apply.add_argument("--yes", action="store_true", help="do not ask")
    apply.add_argument("--dry-run", action="store_true", help="show what would be written")
    apply.add_argument(
        "--on-bare-metal",
        action="store_true",
        help="act although the machine is no guest; else that is a dry run",
    )
    apply.add_argument(
        "--attempt",
        action="store_true",
        help="begin although a step is predicted to be refused, if that is not certain",
    )
    apply.add_argument(
        "--keep", action="store_true", help="on a surprise keep what was done, take nothing back"
    )
    again = apply.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="carry on where the journal ends")
    again.add_argument("--rollback", action="store_true", help="take back what the journal says")
    apply.add_argument(
        "--journal", metavar="FILE", type=Path, help="default: the plan's name and .journal"
    )
    apply.add_argument(
        "--limit", metavar="SECONDS", type=float, default=60.0, help="of one write; default: 60"
    )
    apply.add_argument(
        "--root",
        metavar="FOLDER",
        type=Path,
        default=Path("/"),
        help="where the machine's proc and sys are; default: /",
    )
    apply.set_defaults(verb=_apply)


def _apply(args: argparse.Namespace) -> int:
    from altmap.host.apply import differences_from
    from altmap.host.guard import hypervisor_of
    from altmap.host.journal import Journal
    from altmap.host.plan import decode_plan
    from altmap.host.transport import LocalFiles

    if not 0 < args.limit <= 86400:
        raise InputError(f"--limit {args.limit}: need seconds, more than 0 and a day at most")
    plan = decode_plan(_bytes_of(args.plan), str(args.plan))
    files = LocalFiles(args.root, args.limit)
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
        print("nothing to write: the plan's steps are the platform's, or there are none")
        return DONE
    _check_root(args.root, plan)
    if not args.yes and not _agreed(plan, hypervisor):
        raise InputError("apply: nobody agreed (--yes agrees beforehand)")
    name = args.journal or args.plan.with_name(f"{args.plan.name}.journal")
    with Journal(name, new=not again) as journal:
        return _carried_out(args, plan, files, journal)


def _carried_out(args: argparse.Namespace, plan: Plan, files: LocalFiles, journal: Journal) -> int:
    from altmap.host.apply import ApplyResult, apply_plan, resume, roll_back

    if args.rollback:
        result = roll_back(plan, files, journal, _say)
    elif args.resume:
        result = resume(plan, files, journal, _say, keep=args.keep)
    else:
        result = apply_plan(plan, files, journal, _say, keep=args.keep)
    _say(f"{plan.goal}: {result}")
    if result is ApplyResult.DONE or (result is ApplyResult.ROLLED_BACK and args.rollback):
        return DONE
    return TAKEN_BACK if result is ApplyResult.ROLLED_BACK else PARTLY


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
        raise InputError("apply: need root to write to this machine")
    for step in plan.steps:
        path = root / (step.path or "")
        if step.path is not None and path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"apply: need root to write to {path}")


def _agreed(plan: Plan, hypervisor: str | None) -> bool:
    if not sys.stdin.isatty():
        return False
    where = f"this guest ({hypervisor})" if hypervisor else "this machine, which is no guest"
    nr_writes = sum(step.path is not None for step in plan.steps)
    _say(f"{plan.goal}: {nr_writes} writes to {where}")
    _say("go on? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _dry_run(plan: Plan, *, asked: bool) -> int:
    if not asked:
        print("no file says that this is a guest: a dry run (--on-bare-metal acts)")
    for step in plan.steps:
        if step.path is not None:
            print(f"would write {step.value} to /{step.path}")
        else:
            print(f"would wait for the platform: {step.title}")
    return DONE


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


# --- export --------------------------------------------------------------------------------


def _add_export(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = verbs.add_parser("export", help="numbers about memory blocks for monitoring")
    _add_source(export)
    export.add_argument(
        "--prometheus", action="store_true", required=True, help="in Prometheus' text format"
    )
    where = export.add_mutually_exclusive_group()
    where.add_argument(
        "--textfile",
        metavar="FILE",
        type=Path,
        help="replace FILE at once, for node_exporter's textfile collector",
    )
    where.add_argument(
        "--listen", metavar="ADDRESS", help="answer scrapes at 127.0.0.1:PORT or [::1]:PORT"
    )
    export.set_defaults(verb=_export)


def _export(args: argparse.Namespace) -> int:
    from altmap.host.metrics import samples
    from altmap.storage.files import write_file

    try:
        from altmap.host.prometheus import listen, prometheus_text
    except ModuleNotFoundError as error:
        raise InputError(f"export: needs {error.name} (pip install altmap[host])") from error

    def look() -> list[Sample]:
        return list(samples(_read(_source(args))))

    if args.listen is not None:
        look()  # what cannot be read is said now, not at the first scrape
        with listen(args.listen, look) as wait:
            _say(f"scrapes are answered at {args.listen}")
            wait()
    elif args.textfile is not None:
        write_file(args.textfile, prometheus_text(look))
    else:
        print(prometheus_text(look), end="")
    return DONE
