"""``altmap sweep``: a row for each of many scenarios.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altmap.cli import options
from altmap.cli.fit import width_of
from altmap.cli.output import note, notice
from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.sweep.grid import Grid

__all__ = ("VERB",)

_CHUNK = 2000
_AGAIN = "the same command continues"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", type=Path, help="a TOML file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="a folder for rows, tables and charts; one of an earlier run is continued",
    )
    what.add_argument(
        "--show", metavar="N", type=int, help="print one scenario as TOML, for altmap run"
    )
    what.add_argument(
        "--fleet", action="store_true", help="print the grid's fleet as CSV: a trace to start from"
    )
    parser.add_argument(
        "-j", "--jobs", metavar="N", type=int, help="processes; default: one for each core"
    )
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="a Dask scheduler, such as tcp://127.0.0.1:8786"
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="run each N-th chunk, from the I-th on; N such commands share the folder",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="the first N scenarios only")
    parser.add_argument(
        "--chunk",
        metavar="N",
        type=int,
        default=_CHUNK,
        help=f"scenarios that are run and kept together; default: {_CHUNK}",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="of the example fleet")
    options.add_policies(parser, "instead of the grid's policies; MODULE:CLASS too")
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        action="append",
        default=[],
        help="group the tables by this column, or key of the grid; repeatable; default: those of "
        "the grid that make a difference",
    )
    parser.add_argument(
        "--vm",
        metavar="DEFINITION",
        type=Path,
        help="a guest's definition as the base of the grid's [machine]",
    )
    parser.add_argument("--no-charts", action="store_true", help="tables only")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _sweep(args: argparse.Namespace) -> int:
    from altmap.model.policies import load_policy
    from altmap.scenario import scenario_toml
    from altmap.sweep.fleet import csv_text
    from altmap.sweep.grid import load_grid
    from altmap.sweep.walk import rows_of

    _check(args)
    grid = load_grid(args.grid, seed=args.seed, policies=args.policy, base=_base(args))
    if args.fleet:
        print(csv_text(grid.fleet), end="")
        return 0
    if args.show is None:
        return _run(args, grid)
    if not 0 <= args.show < len(grid):
        raise InputError(f"--show {args.show}: need 0 to {len(grid) - 1}")
    (point,) = grid.slice(args.show, args.show + 1).points()
    if point.error:
        raise InputError(f"scenario {args.show}: {point.error}")
    (row,) = rows_of([point], {made.name: made for made in map(load_policy, grid.modules)})
    if row.result == "invalid":
        raise InputError(f"scenario {args.show}: {row.why}")
    print(scenario_toml(point.data), end="")
    return 0


def _base(args: argparse.Namespace) -> dict[str, Any]:
    """Return the machine of the definition, if one is given, without its devices."""
    if args.vm is None:
        return {}
    from altmap.cli.definitions import read_definition_file
    from altmap.scenario import plain_table
    from altmap.vm.answers import started

    machine = started(read_definition_file(args.vm)).machine.machine
    if machine.devices:
        note(f"{args.vm}: {len(machine.devices)} devices are left out: a grid requests memory")
    return plain_table(machine.replace(devices=()))


def _check(args: argparse.Namespace) -> None:
    for name in ("jobs", "limit", "chunk"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: need 1 or more")
    if args.cluster is not None and args.jobs is not None:
        raise InputError("--jobs: a cluster has as many workers as it has")


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return the number of a shard, from 1, and how many there are."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text!r}: need I/N with I from 1 to N, such as 1/8")
    return int(match[1]), int(match[2])


def _run(args: argparse.Namespace, grid: Grid) -> int:
    from altmap.cli.progress import progress
    from altmap.report.files import require_charts
    from altmap.sweep.files import write_summary
    from altmap.sweep.pool import cluster, processes
    from altmap.sweep.runner import run
    from altmap.sweep.store import open_store, require_polars
    from altmap.sweep.summary import group_columns, summarise
    from altmap.sweep.text import summary_text

    require_polars()
    if not args.no_charts:
        require_charts()
    by = group_columns(grid, args.by)
    end = min(len(grid), args.limit or len(grid))
    shard = _shard(args.shard)
    with open_store(args.output, grid, shared=shard is not None) as store:
        for line in store.remove_damaged(len(grid)) if shard is None else ():
            note(line)
        left = sum(stop - start for start, stop in store.missing(end, args.chunk, shard))
        if left:
            jobs = min(args.jobs or os.cpu_count() or 1, -(-left // args.chunk))
            pool = cluster(args.cluster) if args.cluster else processes(jobs)
            with progress(end, lines=False, what="scenarios", again=_AGAIN) as (tell, advance):
                tell(f"{grid.name}: scenarios")
                advance(end - left)
                run(grid, store, pool, end=end, chunk=args.chunk, advance=advance, shard=shard)
        undone = sum(stop - start for start, stop in store.missing(end, args.chunk))
        if shard is not None and undone:
            notice(args, f"shard {args.shard} is done; {undone} scenarios of others are not yet")
            return 0
        summary = summarise(store.rows(), by, chosen=bool(args.by))
        title = grid.description or grid.name
        text = write_summary(summary, title, args.output, charts=not args.no_charts)
        if args.json:
            text = (args.output / "summary.json").read_text(encoding="utf-8")
        elif width := width_of(sys.stdout):
            text = summary_text(summary, width)
        show(text, end="")
    made = "rows and tables" if args.no_charts else "rows, tables and charts"
    notice(args, f"{made} are in {args.output}")
    return 0


VERB = Verb(
    "sweep",
    "run a grid of parameters, or the requests of a fleet",
    (
        Example(
            "altmap sweep examples/sweeps/overhead.toml -o swept",
            "rows in Parquet, tables and charts; continues if interrupted",
        ),
        Example(
            "altmap sweep examples/sweeps/overhead.toml -o swept --by added --by policy",
            "another table, of the rows that are there",
        ),
        Example("altmap sweep examples/sweeps/overhead.toml --show 13", "one scenario as TOML"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _sweep,
)
