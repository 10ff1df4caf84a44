"""``altmap claims``: the claims of the discussion of 2018, tested.

Effects: files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note, notice, print_json, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from altmap.scenario import Scenario
    from altmap.studies.claims.lab_cases import RealCase

__all__ = ("VERB", "placeholder", "scenario_loader")

AS_KNOWN, NOT_AS_KNOWN = 0, 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="*", help="such as C13; default: all")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_write(parser)
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="every driver with every policy: safe, or the simplest fault",
    )
    options.add_policies(
        parser, "with --matrix: only this memmap policy, or MODULE:CLASS; repeatable"
    )
    parser.add_argument(
        "--on",
        choices=("model", "lab"),
        default="model",
        help="lab: measure on a real kernel what it can show, and compare with the model",
    )
    options.add_release(parser, "with --on lab or --matrix: kernel release")
    parser.add_argument(
        "--slow", action="store_true", help="with --on lab: also what takes minutes and gigabytes"
    )


def _claims(args: argparse.Namespace) -> int:
    if args.on != "lab" and (args.slow or (args.release and not args.matrix)):
        raise InputError("claims: --slow goes with --on lab, --release with it or with --matrix")
    if args.policy and not args.matrix:
        raise InputError("claims: --policy goes with --matrix; a claim names its policies itself")
    if args.matrix and args.on == "lab":
        raise InputError("claims --matrix: no lab has every driver and policy")
    if args.matrix:
        return _matrix(args)
    return _on_lab(args) if args.on == "lab" else _on_model(args)


def scenario_loader(folder: Path) -> Callable[[str, Sequence[str]], Scenario]:
    """Return a function that loads the scenarios of a study by name, with settings."""
    from altmap.scenario import load_scenario

    return lambda name, settings: load_scenario(folder / f"{name}.toml", settings)


def placeholder(folder: Path | None) -> str:
    """Return how command lines in the output name the folder of ``--write``."""
    import shlex

    return "DIR" if folder is None else shlex.quote(str(folder))


def _on_model(args: argparse.Namespace) -> int:
    from altmap.storage.files import check_new_folder, write_folder
    from altmap.studies import claims
    from altmap.studies.claims.text import claims_builtins, claims_text

    ours = Path(claims.__file__).with_name("scenarios")
    chosen = claims.claims_named(claims.CLAIMS, args.id)
    if args.write is not None:
        check_new_folder(args.write)
    with working(f"experiments of {len(chosen)} claims"):
        findings = claims.judge(chosen, scenario_loader(ours))
    if args.write is not None:
        write_folder(args.write, {path.name: path.read_bytes() for path in ours.iterdir()})
    if args.json:
        print_json(claims_builtins(findings))
    else:
        show(claims_text(findings, placeholder(args.write), terminal_width()), end="")
    if args.write is not None:
        notice(args, f"scenarios written to {args.write}")
    return AS_KNOWN if all(finding.as_expected for finding in findings) else NOT_AS_KNOWN


def _on_lab(args: argparse.Namespace) -> int:
    from altmap.scenario import DEFAULT_RELEASE
    from altmap.studies import claims
    from altmap.studies.claims.lab_cases import (
        agreements,
        agreements_builtins,
        agreements_text,
        cases_of,
    )

    if args.write is not None:
        raise InputError("claims --write: goes without --on lab; the scenarios are the same")
    ours = Path(claims.__file__).with_name("scenarios")
    ids = [claim.id for claim in claims.claims_named(claims.CLAIMS, args.id)] if args.id else []
    cases = cases_of(ids, slow=args.slow)
    if not cases:
        raise InputError(f"claims {' '.join(ids)}: nothing of it can be seen on a real kernel here")
    found = agreements(_that_can_run(cases), scenario_loader(ours), args.release, note)
    if args.json:
        print_json(agreements_builtins(found, args.release or DEFAULT_RELEASE))
    else:
        show(agreements_text(found), end="")
    return AS_KNOWN if all(item.agrees for item in found) else NOT_AS_KNOWN


def _that_can_run(cases: list[RealCase]) -> list[RealCase]:
    """Return the cases whose kernels can be had; print what is left out, and what it needs."""
    from altmap.errors import LabError
    from altmap.lab import DESIGNS, kernel_of

    others = [case for case in cases if not case.needs_design]
    if len(others) == len(cases):
        return cases
    try:
        for design in DESIGNS.values():
            kernel_of(design.release, design.arch)
    except LabError as error:
        if not others:
            raise
        note(f"left out: {len(cases) - len(others)} numbers: {error}")
        return others
    return cases


def _matrix(args: argparse.Namespace) -> int:
    from altmap.model.policies import is_built_in, load_policy
    from altmap.scenario import DEFAULT_RELEASE
    from altmap.storage.files import check_new_folder, write_folder
    from altmap.studies.claims.matrix import matrix, matrix_builtins, matrix_text, scenario_files

    if args.id:
        raise InputError(f"claims --matrix {args.id[0]}: takes no claim, it runs every cell")
    if args.write is not None:
        check_new_folder(args.write)
    policies = [load_policy(name) for name in args.policy]
    with working("drivers with policies"):
        cells = matrix(policies=policies, release=args.release or DEFAULT_RELEASE)
    users = [name for name in args.policy if not is_built_in(name)]
    if args.write is not None:
        write_folder(args.write, scenario_files(cells))
    if args.json:
        print_json(matrix_builtins(cells))
    else:
        behind = " --policy MODULE:CLASS" if users else ""
        show(matrix_text(cells, placeholder(args.write), behind, terminal_width()), end="")
    if args.write is not None:
        notice(args, f"scenarios written to {args.write}")
    return AS_KNOWN


VERB = Verb(
    "claims",
    "test the claims of the linux-mm discussion of 2018",
    (
        Example("altmap claims C13", "one claim: its experiment, its numbers, its verdict"),
        Example("altmap claims --matrix --release 7.3", "every driver with every memmap policy"),
        Example("altmap claims --matrix --policy mine:Policy", "and with a policy in Python"),
    ),
    (
        (0, "every verdict is the known one; with --on lab: model and kernel agree"),
        (1, "one is not"),
        (2, "could not be run"),
    ),
    _add_arguments,
    _claims,
)
