"""``altmap record``: what a real kernel does with a scenario, kept.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.output import note
from altmap.cli.parser import Example, Verb

__all__ = ("VERB",)

DONE = 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_scenarios(parser, 1)
    options.add_release(parser, "kernel release; default: the scenario's")
    parser.add_argument(
        "-o", metavar="FILE", dest="output", type=Path, required=True, help="a new *.tar.xz"
    )
    options.add_touched(parser, "record the frames that each step reads and writes, too")
    options.add_kernel(parser)


def _record(args: argparse.Namespace) -> int:
    from altmap.cli.lab import own_kernel
    from altmap.scenario import load_scenario
    from altmap.units import rounded_size
    from altmap.verify.both_sides import record_in_lab

    settings = list(args.settings)
    if args.release is not None:
        settings.append(f"release={args.release}")
    own = own_kernel(args, load_scenario(args.scenario[0], args.settings).machine.arch)
    recording = record_in_lab(
        args.scenario[0], settings, args.output, note, own, touched=args.touched
    )
    size = args.output.stat().st_size
    nr_steps = len(recording.trace.steps)
    print(f"{args.output}: {nr_steps} observations of a real kernel, {rounded_size(size)}")
    return DONE


VERB = Verb(
    "record",
    "run a scenario on a real kernel and record what it does",
    (
        Example(
            "altmap record mine.toml --release 6.12 -o mine.tar.xz",
            "one small file to compare with again",
        ),
        Example(
            "altmap record scenarios/dimm-1GiB.toml -o dimm.tar.xz --touched",
            "also which frames each step reads and writes",
        ),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _record,
)
