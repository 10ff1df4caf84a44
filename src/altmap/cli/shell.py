"""``altmap shell``: a command for which the modelled machine's files are the host's.

Effects: environment, files.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from altmap.cli.mount import add_machine
from altmap.cli.parser import Example, Verb

__all__ = ("VERB",)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine(parser)
    parser.add_argument(
        "--record", metavar="FILE", type=Path, help="append each read and write, as a JSON line"
    )
    parser.add_argument(
        "command", metavar="COMMAND", nargs="*", help="after --; default: your shell"
    )


def _shell(args: argparse.Namespace) -> int:
    from altmap.live.mounting import mounted
    from altmap.live.namespace import run_in_machine

    command = args.command or [os.environ.get("SHELL", "/bin/sh")]
    machine = mounted(args.source, release=args.release, settings=args.settings, record=args.record)
    with machine as machine_here:
        return run_in_machine(machine_here.root, command).returncode


VERB = Verb(
    "shell",
    "run a command on the modelled machine's files instead of this host's",
    (
        Example("altmap shell scenarios/small-guest.toml", "your shell; exit ends it"),
        Example("altmap shell scenarios/dimm-1GiB.toml -- lsmem", "one command"),
    ),
    (
        ("0-255", "the command's own"),
        (2, "the command was not started: files could not be bound"),
    ),
    _add_arguments,
    _shell,
    rest="command",
)
