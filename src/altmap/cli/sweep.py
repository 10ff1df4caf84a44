"""The command ``sweep``: argument handling, and nothing else.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from altmap.errors import InputError

__all__ = ("add_sweep",)

_CHUNK = 2000


def add_sweep(verbs: Any) -> None:
    """Add the command to the parser's."""
    sweep = verbs.add_parser(
        "sweep", help="many scenarios: a grid of parameters, or the requests of a fleet"
    )
    sweep.add_argument("grid", metavar="GRID", type=Path, help="a TOML file")
    what = sweep.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "-o", "--output", metavar="DIR", type=Path,
        help="a new folder for rows, tables and charts, or one that was begun: it carries on",
    )  # fmt: skip
    what.add_argument(
        "--show", metavar="N", type=int, help="print one scenario as TOML, for altmap run"
    )
    what.add_argument(
        "--fleet", action="store_true", help="print the grid's fleet as CSV: a trace to start from"
    )
    sweep.add_argument(
        "-j", "--jobs", metavar="N", type=int, help="processes; default: one for each core"
    )
    sweep.add_argument(
        "--cluster", metavar="ADDRESS", help="a Dask scheduler, such as tcp://127.0.0.1:8786"
    )
    sweep.add_argument("--limit", metavar="N", type=int, help="the first N scenarios only")
    sweep.add_argument(
        "--chunk", metavar="N", type=int, default=_CHUNK,
        help=f"scenarios that are done and kept together; default: {_CHUNK}",
    )  # fmt: skip
    sweep.add_argument("--seed", metavar="N", type=int, help="of the example fleet")
    sweep.add_argument(
        "--policy", metavar="P", action="append", default=[],
        help="instead of the grid's policies; MODULE:CLASS of your own too",
    )  # fmt: skip
    sweep.add_argument(
        "--by", metavar="COLUMN", action="append", default=[],
        help="group the tables by it; default: what varies",
    )  # fmt: skip
    sweep.add_argument("--no-charts", action="store_true", help="tables only")
    sweep.add_argument("--json", action="store_true", help="print the summary as JSON")
    sweep.set_defaults(verb=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    from altmap.scenario import scenario_toml
    from altmap.sweep.fleet import csv_text
    from altmap.sweep.grid import load_grid

    _check(args)
    grid = load_grid(args.grid, seed=args.seed, policies=args.policy)
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
    print(scenario_toml(point.data), end="")
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("jobs", "limit", "chunk"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: need 1 or more")
    if args.cluster is not None and args.jobs is not None:
        raise InputError("--jobs: a cluster has as many workers as it has")


def _run(args: argparse.Namespace, grid: Any) -> int:
    from altmap.cli.progress import progress
    from altmap.report.accounting_chart import require_charts
    from altmap.sweep.files import write_summary
    from altmap.sweep.pool import cluster, processes
    from altmap.sweep.runner import run
    from altmap.sweep.store import open_store, require_polars
    from altmap.sweep.summary import group_columns, summarise

    require_polars()
    if not args.no_charts:
        require_charts()
    by = group_columns(grid, args.by)
    end = min(len(grid), args.limit or len(grid))
    with open_store(args.output, grid) as store:
        left = sum(stop - start for start, stop in store.missing(end, args.chunk))
        if left:
            jobs = min(args.jobs or os.cpu_count() or 1, -(-left // args.chunk))
            pool = cluster(args.cluster) if args.cluster else processes(jobs)
            with progress(end, lines=False) as (tell, advance):
                tell(f"{grid.name}: scenarios")
                advance(end - left)
                run(grid, store, pool, end=end, chunk=args.chunk, advance=advance)
        summary = summarise(store.rows(), by)
        title = grid.description or grid.name
        text = write_summary(summary, title, args.output, charts=not args.no_charts)
        if args.json:
            text = (args.output / "summary.json").read_text(encoding="utf-8")
        print(text, end="")
    made = "rows and tables" if args.no_charts else "rows, tables and charts"
    print(f"{made} are in {args.output}", file=sys.stderr if args.json else sys.stdout)
    return 0
