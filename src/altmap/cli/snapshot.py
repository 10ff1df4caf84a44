"""``altmap snapshot``: the files that describe a machine's memory, in one archive.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.output import notes, print_json
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show

__all__ = ("VERB",)

DONE = 0
_NAME = "snapshot.tar.gz"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_sysroot(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path(_NAME),
        help=f"new file ending in .tar, .tar.gz, .tar.bz2 or .tar.xz; default: {_NAME}",
    )
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="leave out what identifies the machine and the builder of its kernel",
    )
    parser.add_argument("--json", action="store_true", help="print what was kept as JSON")


def _snapshot(args: argparse.Namespace) -> int:
    from altmap.host.anonymous import anonymous
    from altmap.host.missing import gaps
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot
    from altmap.storage.files import check_file
    from altmap.units import rounded_size

    check_file(args.output, new=True)
    with working("reading and packing files"):
        sysroot = Sysroot.read(args.sysroot, uses=True, leave="pages")
        seen = Observation.read(sysroot)
        missing = list(gaps(sysroot, seen))
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
            "notes": list(seen.problems.values()),
        }
        print_json(made)
    else:
        print(f"{args.output}: {len(sysroot.files)} files, {rounded_size(size_bytes)}")
        for line in missing:
            show(f"missing: {line}")
        notes(seen.problems.values())
    return DONE


VERB = Verb(
    "snapshot",
    "pack the files that describe a machine's memory",
    (
        Example(
            "altmap snapshot --anonymous -o host.tar.gz",
            "this host's files, to predict from or to send to others",
        ),
        Example("altmap snapshot captured.tar -o copy.tar.xz", "of a folder or archive, smaller"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _snapshot,
)
