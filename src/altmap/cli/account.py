"""``altmap account``: from requested to free memory, each loss with its cause.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.output import notes, print_json
from altmap.cli.parser import Example, Verb

__all__ = ("VERB",)

DONE = 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SYSROOT|SCENARIO",
        type=Path,
        nargs="?",
        default=Path("/"),
        help="a folder or archive, or a TOML file; default: this host",
    )
    parser.add_argument("--json", action="store_true", help="print the levels as JSON")
    options.add_machine(parser)


def _account(args: argparse.Namespace) -> int:
    from altmap.report.account import account, account_trace
    from altmap.report.text import account_text

    said: list[str] = []
    if args.source.suffix == ".toml":
        from altmap.model.machine import predict
        from altmap.scenario import load_scenario

        scenario = load_scenario(args.source, args.settings)
        scenario = scenario.with_machine(arch=args.arch, release=args.release)
        levels = account_trace(predict(scenario))
    else:
        from altmap.linux.observation import Observation
        from altmap.linux.sysroot import Sysroot

        seen = Observation.read(Sysroot.read(args.source, lazy=True), options.given_by(args))
        said += seen.problems.values()
        levels = account(seen)
    if args.json:
        print_json({"schema": "altmap-account", "version": 2, "levels": levels, "notes": said})
    else:
        notes(said)
        title = "this host" if args.source == Path("/") else str(args.source)
        print(account_text(levels, title), end="")
    return DONE


VERB = Verb(
    "account",
    "account for memory, from requested to free",
    (Example("altmap account captured.tar", "each loss with its cause"),),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _account,
)
