"""``altmap check``: what a kernel does, behaviour by behaviour.

Effects: clock, files, terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import progress
from altmap.cli.streams import show
from altmap.errors import InputError, LabError

if TYPE_CHECKING:
    from altmap.lab import KernelFiles
    from altmap.verify.check.measure import Measurement, Probed

__all__ = ("VERB",)

EQUAL, DIFFERENT, CANNOT = 0, 1, 125


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kernel",
        metavar="KERNEL",
        help="a release, such as 6.12, or the path of a kernel image or of Debian's package",
    )
    parser.add_argument(
        "--against", metavar="OTHER", help="another release: list what differs between the two"
    )
    parser.add_argument(
        "--modules",
        metavar="DIR",
        type=Path,
        help="modules of an image, as modules_install leaves them, or the package with them",
    )
    parser.add_argument(
        "--from",
        metavar="RELEASE",
        dest="record",
        help="release whose record is the measure; default: KERNEL's, of an image 6.12",
    )
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        default="x86_64",
        help="of the guest: x86_64, aarch64, aarch64-16k, ppc64le, s390x, or Debian's name; "
        "default: x86_64",
    )
    parser.add_argument(
        "--only", metavar="BEHAVIOUR", action="append", default=[], help="only this; repeatable"
    )
    parser.add_argument("--slow", action="store_true", help="probes whose guests boot for minutes")
    parser.add_argument(
        "--cases",
        metavar="FILE",
        type=Path,
        help="also run the scenarios of a file of conformance cases that are for this kernel",
    )
    parser.add_argument(
        "--scenarios",
        metavar="DIR",
        type=Path,
        default=Path("scenarios"),
        help="where they are; default: ./scenarios",
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
    from altmap.verify.check.behaviours import check_behaviour
    from altmap.verify.check.text import (
        against_json,
        against_text,
        check_json,
        check_text,
        differences,
        record_text,
    )

    options.check_guests(args)
    _check_options(args)
    wanted = [check_behaviour(name) for name in args.only]
    try:
        found = _measured(args, args.kernel, wanted)
        other = None if args.against is None else _measured(args, args.against, wanted)
    except LabError as error:
        note(f"altmap: {error}")
        return CANNOT
    changed = any(each.verdict == "different" for each in found.behaviours)
    if other is not None:
        changed = bool(differences(found, other))
        if args.json:
            print(json.dumps(against_json(found, other), indent=1, default=str))
        else:
            show(against_text(found, other))
    elif args.json:
        today = {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
        print(json.dumps(check_json(found) | today, indent=1, default=str))
    else:
        print(record_text(found)) if args.as_record else show(check_text(found))
    unnamed = found.different or (other is not None and other.different)
    return _code(found, changed=changed or (not wanted and bool(unnamed)))


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before any guest boots.

    Raises
    ------
    InputError
        Naming the option and the rule.
    """
    from altmap import lab

    debian = {guest.debian: guest.name for guest in reversed(lab.GUESTS.values())}
    args.arch = lab.guest_arch(debian.get(args.arch, args.arch)).name
    if args.against is not None and args.as_record:
        raise InputError("--record: is of one kernel, --against of two")
    if args.modules is not None and not Path(args.kernel).exists():
        raise InputError(f"--modules: are of an image, and {args.kernel!r} is no file")


def _code(found: Measurement, *, changed: bool) -> int:
    if changed:
        return DIFFERENT
    measured = any(each.verdict == "equal" for each in found.behaviours)
    return EQUAL if measured else CANNOT


def _record_name(args: argparse.Namespace, kernel: str) -> str:
    from altmap.scenario import DEFAULT_RELEASE

    if args.record is not None:
        return str(args.record)
    return DEFAULT_RELEASE if Path(kernel).exists() else kernel


def _measured(args: argparse.Namespace, kernel: str, wanted: Sequence[str]) -> Measurement:
    """Run the probes on a kernel, and return what they tell; what differs runs once more."""
    from altmap.lab.target import run_in_guest
    from altmap.model.releases import release_for
    from altmap.verify.check.behaviours import BEHAVIOURS
    from altmap.verify.check.measure import measure, shown_release
    from altmap.verify.check.probes import why_not_measured
    from altmap.verify.check.run import run_probes

    name = _record_name(args, kernel)
    record = release_for(name)
    with contextlib.ExitStack() as stack:
        own = _own(args, kernel, stack)
        probes = _probes(args, record.name, record.name if own else kernel, wanted)
        again = f"the same command continues with {args.keep}" if args.keep else "--keep keeps them"
        tell, advance = stack.enter_context(progress(len(probes), what="probes", again=again))
        number = itertools.count(1)

        def done(text: str) -> None:
            advance()
            tell(f"{kernel}, {next(number)} of {len(probes)}: {text}")

        run = partial(
            run_probes,
            observe=lambda scenario: run_in_guest(scenario, lambda _: None, own=own),
            keep=None if args.keep is None else args.keep / f"{Path(kernel).name}-{args.arch}",
            nr_guests=args.nr_guests,
            progress=done,
        )

        def judge(runs: Sequence[Probed]) -> Measurement:
            return measure(
                release_for(name, shown_release(runs)),
                args.arch,
                runs,
                behaviours=wanted or BEHAVIOURS,
                cannot=why_not_measured(args.arch, slow=args.slow),
                kernel=kernel,
            )

        runs = run(probes)
        found = judge(runs)
        chance = [each for each in runs if each.name in found.different and not each.kept]
        if chance:
            repeated = {each.name: each for each in run(chance, again=True)}
            found = judge([repeated.get(each.name, each) for each in runs])
        return found


def _own(args: argparse.Namespace, kernel: str, stack: contextlib.ExitStack) -> KernelFiles | None:
    """Return a user's own kernel; ``None`` for a release."""
    import tempfile

    from altmap import lab

    image, modules = Path(kernel), args.modules
    if not image.exists():
        return None
    if image.suffix == ".deb":
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="altmap-"))
        return lab.package_kernel(image, Path(folder), modules, arch=args.arch)
    own, lacks = lab.own_kernel(image, modules, arch=args.arch)
    for line in lacks:
        note(f"note: {line}")
    return own


def _probes(
    args: argparse.Namespace, record: str, release: str, wanted: Sequence[str]
) -> list[Probed]:
    """Return the probes to run: all, or those that can tell what is wanted."""
    from altmap.verify.check.probes import case_probes, planned, read_probes
    from altmap.verify.conformance import read_cases

    every = [
        planned(each, args.arch, release)
        for each in read_probes(args.arch, slow=args.slow)
        if not wanted or set(each.measures) & set(wanted)
    ]
    if args.cases is None:
        return every
    cases = read_cases(args.cases)
    return every + case_probes(cases, args.scenarios, args.arch, record, release)


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
