"""``altmap check``: what a kernel does, behaviour by behaviour.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import counted
from altmap.cli.streams import show

if TYPE_CHECKING:
    from altmap.model.releases import Release
    from altmap.verify.check.measure import Measurement

__all__ = ("VERB",)

EQUAL, DIFFERENT, CANNOT = 0, 1, 125


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kernel", metavar="KERNEL", help="a release, such as 6.12, or the path of a kernel image"
    )
    parser.add_argument(
        "--against", metavar="OTHER", help="another release: list what differs between the two"
    )
    parser.add_argument(
        "--modules", metavar="DIR", type=Path, help="modules of an image, as modules_install leaves"
    )
    parser.add_argument(
        "--from",
        metavar="RELEASE",
        dest="record",
        help="release whose record is the measure of an image; default: 6.12",
    )
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        default="x86_64",
        help="x86_64, aarch64, ppc64le or s390x; default: x86_64",
    )
    parser.add_argument(
        "--only", metavar="BEHAVIOUR", action="append", default=[], help="only this; repeatable"
    )
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="keep recordings, and use those that are there"
    )
    options.add_guests(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--record", dest="as_record", action="store_true", help="print a release record"
    )


def _check(args: argparse.Namespace) -> int:
    from altmap.model.releases import release_for
    from altmap.verify.check.text import (
        against_text,
        check_json,
        check_text,
        differences,
        record_text,
    )

    options.check_guests(args)
    record = release_for(_record_name(args))
    found = _measured(args, args.kernel, record)
    if args.against is not None:
        other = _measured(args, args.against, release_for(args.against))
        show(against_text((args.kernel, args.against), found, other))
        return _code(found, changed=bool(differences(found, other)))
    if args.json:
        print(json.dumps(check_json(args.kernel, record, found), indent=1, default=str))
    elif args.as_record:
        show(record_text(args.kernel, record, found))
    else:
        show(check_text(args.kernel, record, found))
    return _code(found, changed=any(each.verdict == "different" for each in found.behaviours))


def _code(found: Measurement, *, changed: bool) -> int:
    if changed or found.different:
        return DIFFERENT
    return EQUAL if any(each.verdict == "equal" for each in found.behaviours) else CANNOT


def _record_name(args: argparse.Namespace) -> str:
    from altmap.scenario import DEFAULT_RELEASE

    if args.record is not None:
        return str(args.record)
    return DEFAULT_RELEASE if Path(args.kernel).exists() else str(args.kernel)


def _measured(args: argparse.Namespace, kernel: str, record: Release) -> Measurement:
    """Run the probes on a kernel, and return what they tell."""
    from altmap import lab
    from altmap.lab.target import run_in_guest
    from altmap.verify.check.behaviours import BEHAVIOURS, check_behaviour
    from altmap.verify.check.measure import measure
    from altmap.verify.check.probes import read_probes
    from altmap.verify.check.run import run_probes

    wanted = [check_behaviour(name) for name in args.only] or list(BEHAVIOURS)
    own = None
    if Path(kernel).exists():
        own, lacks = lab.own_kernel(Path(kernel), args.modules, arch=args.arch)
        for line in lacks:
            note(f"note: {line}")
    probes = [each for each in read_probes(args.arch) if set(each.measures) & set(wanted)]
    again = f"the same command continues with {args.keep}" if args.keep else "--keep keeps them"
    with counted("probes", again) as tell:
        runs = run_probes(
            probes,
            record.name if own else kernel,
            lambda scenario: run_in_guest(scenario, lambda _: None, own=own),
            keep=None if args.keep is None else args.keep / f"{Path(kernel).name}-{args.arch}",
            nr_guests=args.nr_guests,
            progress=lambda text: tell(f"{kernel}: {text}"),
        )
    return measure(record, args.arch, runs, wanted)


VERB = Verb(
    "check",
    "measure the behaviours of a release record on a kernel",
    (
        Example("altmap check 6.12 -j 2", "each behaviour of the record, on Debian's kernel"),
        Example("altmap check 7.3 --against 6.12", "what changed, and the probe that shows it"),
        Example(
            "altmap check arch/x86/boot/bzImage --only keeps_poison_offline",
            "for git bisect run: 0 as the record says, 1 different, 125 not measured",
        ),
    ),
    (
        (0, "what could be measured is equal: to the record, or between two kernels"),
        (1, "something differs"),
        (2, "the request cannot be understood"),
        (125, "nothing could be measured, as git bisect run takes it"),
    ),
    _add_arguments,
    _check,
)
