"""``altmap account``: from requested to free memory, each loss with its cause.

Effects: files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import notes, print_json, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.report.account import Level

__all__ = ("VERB",)

DONE = 0
_Part = tuple[str, "list[Level]", str]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SYSROOT|SCENARIO",
        type=Path,
        nargs="?",
        default=Path("/"),
        help="a folder or archive, or a TOML file; default: this host",
    )
    parser.add_argument(
        "--step", metavar="N|all", help="of a scenario: after step N or after each; default: last"
    )
    parser.add_argument("--json", action="store_true", help="print the levels as JSON")
    options.add_machine(parser)


def _account(args: argparse.Namespace) -> int:
    from altmap.report.text import account_text

    said: list[str] = []
    read = _of_scenario if args.source.suffix == ".toml" else _of_files
    with working("accounting for memory"):
        parts = list(read(args, said))
    if args.json:
        made: dict[str, object] = {"schema": "altmap-account", "version": 2}
        if args.step == "all":
            made["steps"] = [{"step": name, "levels": levels} for name, levels, _ in parts]
        else:
            made["levels"] = parts[0][1]
        print_json(made | {"notes": said})
    else:
        notes(said)
        width = terminal_width()
        texts = [account_text(levels, title, zones, width) for title, levels, zones in parts]
        show("\n".join(texts), end="")
    return DONE


def _of_files(args: argparse.Namespace, said: list[str]) -> Iterator[_Part]:
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot
    from altmap.report.account import account
    from altmap.report.text import zones_text

    if args.step is not None:
        raise InputError(f"--step {args.step}: files have no steps; need a scenario in TOML")
    seen = Observation.read(Sysroot.read(args.source, leave="files"), options.given_by(args))
    levels = account(seen)
    said += seen.problems.values()
    title = "this host" if args.source == Path("/") else str(args.source)
    yield title, levels, zones_text(seen)


def _of_scenario(args: argparse.Namespace, said: list[str]) -> Iterator[_Part]:
    from altmap.model.machine import predict
    from altmap.report.account import account_step, account_trace
    from altmap.report.text import zones_text
    from altmap.scenario import load_scenario

    scenario = load_scenario(args.source, args.settings)
    numbers = _steps(args.step, len(scenario.steps))
    trace = predict(scenario.with_machine(arch=args.arch, release=args.release))
    said += trace.notes
    if args.step is None:
        shown = [step.observation for step in trace.steps if step.observation is not None]
        yield str(args.source), account_trace(trace), zones_text(shown[-1] if shown else None)
    for nr in numbers:
        step = trace.steps[nr]
        if step.outcome.status != "not_reached":
            title = f"{args.source}, step {nr}: {step.name}"
            yield title, account_step(trace, nr), zones_text(step.observation)


def _steps(given: str | None, last: int) -> range:
    """Return the numbers of the steps, the start being 0."""
    if given is None:
        return range(0)
    if given == "all":
        return range(last + 1)
    if not (given.isascii() and given.isdecimal() and int(given[:9]) <= last):
        raise InputError(f"--step {given!r}: need all, or 0 to {last}")
    return range(int(given), int(given) + 1)


VERB = Verb(
    "account",
    "account for memory, from requested to free",
    (
        Example("altmap account captured.tar", "each loss with its cause"),
        Example("altmap account scenarios/dimm-1GiB.toml --step all", "after each step"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _account,
)
