"""``altmap conform``: many scenarios on many real kernels, one table.

Effects: clock, files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import counted
from altmap.errors import InputError

__all__ = ("VERB",)

EQUAL, DIFFERENT = 0, 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", metavar="CASES", type=Path, help="a TOML file of cases")
    parser.add_argument(
        "--scenarios",
        metavar="DIR",
        type=Path,
        default=Path("scenarios"),
        help="default: ./scenarios",
    )
    options.add_guests(parser)
    parser.add_argument(
        "--rows",
        metavar="FILE",
        type=Path,
        help="keep each row as a line of JSON; rows that the file has are not run again",
    )
    parser.add_argument("--slow", action="store_true", help="include the slow cases")
    parser.add_argument("-o", metavar="PAGE", type=Path, dest="output", help="a Markdown page")


def _conform(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from altmap.storage.files import check_file, write_file
    from altmap.verify.conformance import conform, conformance_page, read_cases

    if args.nr_guests < 1:
        raise InputError(f"-j {args.nr_guests}: need at least one guest")
    for path in filter(None, (args.output, args.rows)):
        check_file(path)
    cases = [case for case in read_cases(args.cases) if args.slow or not case.slow]
    again = f"the same command continues with {args.rows}" if args.rows else "--rows keeps them"
    with counted("runs", again) as tell:
        rows = conform(cases, args.scenarios, args.nr_guests, tell, args.rows)
    page = conformance_page(rows, datetime.now(UTC).date().isoformat())
    if args.output is None:
        print(page, end="")
    else:
        write_file(args.output, page)
    return DIFFERENT if any(row.verdict == "different" for row in rows) else EQUAL


VERB = Verb(
    "conform",
    "compare many scenarios with real kernels, in one table",
    (
        Example(
            "altmap conform tests/conformance.toml -j 2 --rows rows.jsonl -o table.md",
            "two guests at a time; continues if interrupted",
        ),
        Example("altmap conform tests/conformance.toml --slow", "the slow cases too"),
    ),
    (
        (0, "no run differs, beyond a stated tolerance"),
        (1, "a run differs"),
        (2, "could not be run"),
    ),
    _add_arguments,
    _conform,
)
