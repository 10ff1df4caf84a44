"""``altmap hunt``: scenarios drawn by chance, on the model and on real kernels.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import counted
from altmap.cli.streams import show
from altmap.errors import InputError, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from altmap.verify.hunt.finding import HuntFinding
    from altmap.verify.hunt.store import HuntStore

__all__ = ("VERB",)

NOTHING, FOUND = 0, 1
#: Names of the kinds of :mod:`altmap.verify.hunt.space`, which is imported when it is needed.
KINDS = (
    *("pc", "hyperv", "xen", "arm64", "arm64-16k", "kmem", "kmem-cxl", "kmem-arm64"),
    *("kmem-arm64-16k", "ppc64le", "ppc64le-64k", "s390x"),
)
_UNITS = {"s": 1, "m": 60, "h": 3600}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path("hunt"),
        help="runs and findings; hunts with other seeds may share it; default: hunt",
    )
    parser.add_argument(
        "--time", metavar="T", help="hunt so long, such as 90s, 20m or 1h; default: 10m"
    )
    parser.add_argument("--count", metavar="N", type=int, help="end after so many scenarios")
    parser.add_argument(
        "--seed", metavar="S", type=int, default=1, help="which scenarios are drawn; default: 1"
    )
    parser.add_argument(
        "--kind",
        metavar="K",
        default="pc",
        help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}; default: pc",
    )
    parser.add_argument(
        "--release", metavar="RELEASE", help="kernel release; default: the kind's first"
    )
    options.add_guests(parser)
    parser.add_argument(
        "--draw", action="store_true", help="print the first scenario that is drawn, run nothing"
    )
    parser.add_argument("--list", action="store_true", help="list the findings")
    parser.add_argument("--show", metavar="KEY", help="print a finding as a mail")
    parser.add_argument(
        "--report", action="store_true", help="print what the runs reached, and how often"
    )


def _hunt(args: argparse.Namespace) -> int:
    from altmap.verify.hunt.finding import finding_text
    from altmap.verify.hunt.store import HuntStore
    from altmap.verify.hunt.text import findings_text, report_text

    store = HuntStore(args.folder)
    if args.list or args.report or args.show is not None:
        if not args.folder.is_dir():
            raise InputError(f"{args.folder}: no folder of a hunt")
        if args.list:
            show(findings_text(store.findings()))
        if args.report:
            show(report_text(list(store.runs()), store.coverage()))
        if args.show is not None:
            found = _named(store.findings(), args.show)
            print(finding_text(found, str(store.finding_folder(found.key))), end="")
        return NOTHING
    return _run(args, store)


def _named(findings: Sequence[HuntFinding], key: str) -> HuntFinding:
    found = [each for each in findings if each.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.key for each in findings) or "none"
    raise InputError(f"finding {key!r}: need the key of one finding, which are: {known}")


def _run(args: argparse.Namespace, store: HuntStore) -> int:
    from altmap.scenario import scenario_text
    from altmap.verify.both_sides import compare_with_lab
    from altmap.verify.hunt.draw import draw_scenario
    from altmap.verify.hunt.hunter import Hunt, hunt
    from altmap.verify.hunt.space import family_of
    from altmap.verify.hunt.text import findings_text, summary_text

    family = family_of(args.kind)
    release = args.release or family.releases[0]
    if release not in family.releases:
        rule = one_of(release, family.releases)
        raise InputError(f"release {release!r}: of {family.name}, {rule}")
    options.check_guests(args)
    for name, least in (("count", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: need {least} or more")
    if args.draw:
        scenario, _ = draw_scenario(family, release, args.seed, 0, store.coverage())
        print(scenario_text(scenario), end="")
        return NOTHING
    plan = Hunt(
        family, release, args.seed, _seconds(args.time or "10m"), args.count, args.nr_guests
    )
    again = f"they are in {args.folder}; the same command continues"
    with counted("scenarios", again) as tell:
        result = hunt(
            plan, store, lambda scenario: compare_with_lab(scenario, None, lambda _: None), tell
        )
    show(summary_text(result.rows, result.seconds))
    new = [each for each in store.findings() if each.key in result.new]
    if new:
        show(findings_text(new))
        print(f"altmap hunt {args.folder} --show {new[0].key} prints the first of them as a mail")
    return FOUND if any(row.verdict == "finding" for row in result.rows) else NOTHING


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text)
    if match is None or not float(match[1]):
        raise InputError(f"--time {text!r}: need a number with s, m or h, such as 20m")
    return float(match[1]) * _UNITS[match[2]]


VERB = Verb(
    "hunt",
    "draw scenarios, and find where model and real kernel differ",
    (
        Example("altmap hunt --time 1h -j 2", "two guests at a time; findings go to ./hunt"),
        Example("altmap hunt --kind xen --release 7.3 --time 20m", "Xen's balloon"),
        Example("altmap hunt --list", "what was found so far"),
    ),
    (
        (0, "no difference that each run shows"),
        (1, "a difference that each run shows"),
        (2, "could not be run"),
    ),
    _add_arguments,
    _hunt,
)
