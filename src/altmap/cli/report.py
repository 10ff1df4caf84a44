"""``altmap report``: traces, comparisons and sysroots as a page, a picture or text.

Effects: files.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from altmap.cli import options
from altmap.cli.output import terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show

__all__ = ("VERB",)

DONE = 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SCENARIO|EXPORT|JSON|SYSROOT",
        type=Path,
        nargs="+",
        help="a TOML file, a folder of run --export, a file of --json or --report, a recording or "
        "a sysroot",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="a file .html, .svg, .png, .txt or .json; default: text to standard output",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of a page or picture")
    parser.add_argument("--step", metavar="N", type=int, help="the step that a picture shows")
    parser.add_argument(
        "--blocks", metavar="A-B", help="map these memory blocks only, so in full detail"
    )
    options.add_policies(parser, "for scenarios, as with run")
    options.add_machine(parser)


def _report(args: argparse.Namespace) -> int:
    from altmap.report.files import ReportOptions, check_output, report_on, write_report

    if args.output is not None:
        check_output(args.output)
    asked = ReportOptions.parse(args.title, args.step, args.blocks)
    from altmap.cli.sources import gather
    from altmap.storage.files import private_files

    with working("machines and steps"):
        found = gather(args.source, args.policy, args)
    if args.output is None:
        show(report_on(found, asked, min(80, terminal_width())), end="")
        return DONE
    only_scenarios = all(source.suffix == ".toml" for source in args.source)
    private = contextlib.nullcontext() if only_scenarios else private_files()
    with private, working(f"writing {args.output}"):
        write_report(found, asked, args.output)
    return DONE


VERB = Verb(
    "report",
    "show a run or a machine as a page, a picture or text",
    (
        Example(
            "altmap report scenarios/dimm-1GiB.toml -o page.html",
            "maps, memory accounting and event log in one page that opens offline",
        ),
        Example(
            "altmap report captured.tar -o now.png", "a picture of the memory of a real machine"
        ),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _report,
)
