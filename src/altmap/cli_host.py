"""The commands about a machine of one's own: its arguments, and nothing else."""

from __future__ import annotations

import argparse
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
