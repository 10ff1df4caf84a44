"""``altmap export``: memory blocks as numbers for monitoring.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note, notes
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import tell
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.host.metrics import Sample

__all__ = ("VERB",)

DONE = 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_sysroot(parser)
    options.add_machine(parser)
    parser.add_argument(
        "--prometheus", action="store_true", required=True, help="in Prometheus' text format"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--textfile",
        metavar="FILE",
        type=Path,
        help="replace FILE at once, for node_exporter's textfile collector",
    )
    where.add_argument(
        "--listen", metavar="ADDRESS", help="answer scrapes at 127.0.0.1:PORT or [::1]:PORT"
    )


def _export(args: argparse.Namespace) -> int:
    try:
        from altmap.host.prometheus import prometheus_text
    except ModuleNotFoundError as error:
        raise InputError(f"export: needs {error.name} (pip install altmap[host])") from error
    from altmap.host.metrics import samples
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot
    from altmap.storage.files import check_file, write_file

    def read() -> list[Sample]:
        return list(samples(Observation.read(Sysroot.read(args.sysroot), given)))

    given = options.given_by(args)
    if args.textfile is not None:
        check_file(args.textfile)
    with working("reading memory blocks and pages"):
        seen = Observation.read(Sysroot.read(args.sysroot), given)
        list(samples(seen))  # an error ends the command now, not at the first scrape
    notes(seen.problems.values())
    if args.listen is not None:
        from altmap.host.scrapes import listen

        with listen(args.listen, lambda: prometheus_text(read).encode(), note) as listening:
            tell(f"scrapes are answered at {listening.address}")
            listening.wait()
    elif args.textfile is not None:
        write_file(args.textfile, prometheus_text(lambda: samples(seen)))
    else:
        print(prometheus_text(lambda: samples(seen)), end="")
    return DONE


VERB = Verb(
    "export",
    "export blocks, memmap and devices for monitoring",
    (
        Example("altmap export --prometheus", "gauges in Prometheus' text format"),
        Example("altmap export --prometheus --listen 127.0.0.1:9101", "for a Prometheus server"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _export,
)
