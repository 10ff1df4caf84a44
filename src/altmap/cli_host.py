"""The commands about a machine of one's own: its arguments, and nothing else."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.host.blockers import Blocks
    from altmap.linux.observation import MemoryFolder
    from altmap.linux.sysroot import Sysroot

__all__ = ("add_host_commands",)

DONE = 0
_SYSROOT_HELP = "a folder or tar: sysroot, snapshot or sosreport; default: this machine"


def add_host_commands(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the others."""
    _add_ls(verbs)
    _add_snapshot(verbs)
    _add_explain(verbs)


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
    from altmap.report import blocks as report

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
    from altmap.linux.blockfolder import read_blocks
    from altmap.linux.observation import Observation

    if source.is_dir() and not columns & {"MEMMAP", "DRIVER", "DEVICE", "BLOCKERS"}:
        nodes, zones = "NODE" in columns, "ZONES" in columns
        return read_blocks(source, nodes=nodes, zones=zones), None
    seen = Observation.read(_read(source))
    if seen.memory is None:
        raise InputError(f"{source}: has no sys/devices/system/memory")
    return seen.memory, Blocks(seen)


def _read(source: Path) -> Sysroot:
    from altmap.linux.sysroot import Sysroot

    return Sysroot.read(source)


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
    from altmap.host.gaps import gaps
    from altmap.linux.observation import Observation

    sysroot = _read(_source(args))
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
    from altmap.linux.observation import Observation
    from altmap.report.explain import block_text

    nr = block_named(args.what)
    if nr is None:
        return _explain_errno(args)
    found = explain_block(Observation.read(_read(_source(args))), nr)
    if args.json:
        print(_json_text({"schema": "altmap-explain", "version": 1, "block": found}))
    else:
        print(block_text(found, _width()), end="")
    return DONE


def _explain_errno(args: argparse.Namespace) -> int:
    from altmap.host.errnos import reasons_of
    from altmap.host.explain import refused_now
    from altmap.linux.observation import Observation
    from altmap.report.explain import errno_text

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
