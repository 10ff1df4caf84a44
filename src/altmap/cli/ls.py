"""``altmap ls``: memory blocks as a table.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.fit import width_of
from altmap.cli.options import SYSROOT_HELP
from altmap.cli.output import notes
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.errors import InputError
from altmap.host.columns import COLUMNS, DEFAULT_COLUMNS, columns_named, split_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from altmap.host.blockers import Blocks
    from altmap.linux.memory import MemoryFolder

__all__ = ("VERB",)

DONE = 0
#: Columns that need more of a machine's files than the folder of memory blocks.
_OF_OTHER_FILES = {"MEMMAP", "DRIVER", "DEVICE", "BLOCKERS"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-J", "--json", action="store_true", help="print JSON")
    form.add_argument("-P", "--pairs", action="store_true", help='print NAME="value" pairs')
    form.add_argument("-r", "--raw", action="store_true", help="print without alignment")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("-a", "--all", action="store_true", help="list each memory block")
    split.add_argument(
        "-S", "--split", metavar="LIST", help="columns that keep ranges apart, or none"
    )
    parser.add_argument("-b", "--bytes", action="store_true", help="print sizes in bytes")
    parser.add_argument("-n", "--noheadings", action="store_true", help="print no headings")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "-o",
        "--output",
        metavar="LIST",
        help=f"columns to print, +LIST adds to {','.join(DEFAULT_COLUMNS)}",
    )
    output.add_argument("--output-all", action="store_true", help="print every column")
    parser.add_argument(
        "-s", "--sysroot", metavar="PATH", type=Path, default=Path("/"), help=SYSROOT_HELP
    )
    options.add_machine(parser)
    parser.add_argument(
        "--summary",
        nargs="?",
        const="only",
        default=None,
        choices=("never", "always", "only"),
        help="print the lines below the table: default with the table, not with -J, -P and -r",
    )


def _ls(args: argparse.Namespace) -> int:
    from altmap.host.listing import listing
    from altmap.host.text import blocks as text

    columns = list(COLUMNS) if args.output_all else list(DEFAULT_COLUMNS)
    if args.output is not None:
        columns = columns_named(args.output)
    split = None if args.split is None else split_columns(args.split)
    plain = not (args.json or args.pairs or args.raw)
    if args.summary == "only" and not plain:
        raise InputError("--summary=only: cannot go with --json, --pairs or --raw")
    with working("reading memory blocks"):
        memory, blocks, met = _memory(args, {*columns, *(split or ())})
        rows = listing(memory, columns, split, blocks, each=args.all)
    notes(met())
    heads = not args.noheadings
    if args.json:
        print(text.rows_json(rows, columns, memory, exact=args.bytes), end="")
        return DONE
    if args.pairs:
        print(text.rows_pairs(rows, columns, exact=args.bytes), end="")
    elif args.raw:
        print(text.rows_raw(rows, columns, exact=args.bytes, heads=heads), end="")
    elif args.summary != "only":
        print(
            text.rows_table(
                rows, columns, exact=args.bytes, heads=heads, width=width_of(sys.stdout)
            ),
            end="",
        )
    if args.summary in ("always", "only") or (plain and args.summary is None):
        gap = "\n" if args.summary != "only" else ""
        print(gap + text.summary_text(memory, exact=args.bytes), end="")
    return DONE


def _memory(
    args: argparse.Namespace, columns: set[str]
) -> tuple[MemoryFolder, Blocks | None, Callable[[], Iterable[str]]]:
    """Return the blocks, what else tells of them, and what returns the problems met so far."""
    source: Path = args.sysroot
    from altmap.linux.blockfolder import has_blocks, read_blocks
    from altmap.linux.reading import Problems

    if not columns & _OF_OTHER_FILES and source.is_dir() and has_blocks(source):
        nodes, zones = "NODE" in columns, "ZONES" in columns
        problems = Problems()
        memory = read_blocks(source, nodes=nodes, zones=zones, problems=problems)
        return memory, None, lambda: problems.by_path().values()
    from altmap.host.blockers import Blocks
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot

    seen = Observation.read(Sysroot.read(source, leave="files"), options.given_by(args))
    seen.require(str(source), "memory")
    assert seen.memory is not None
    blocks = Blocks(seen) if columns & _OF_OTHER_FILES else None
    return seen.memory, blocks, lambda: seen.problems.values()


VERB = Verb(
    "ls",
    "list memory blocks as lsmem does, on demand with their blockers",
    (
        Example(
            "altmap ls -o +ZONES,MEMMAP,DEVICE,BLOCKERS",
            "memory blocks of this host, and what keeps each from going offline",
        ),
        Example("altmap ls -s captured.tar", "of another machine, from its files"),
        Example("altmap ls -J -b", "as JSON, sizes in bytes"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _ls,
    more="columns:\n" + "".join(f"  {name:10} {text}\n" for name, text in COLUMNS.items()),
)
