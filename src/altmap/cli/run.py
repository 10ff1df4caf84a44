"""``altmap run``: scenarios on the model or on a real kernel.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.fit import width_of
from altmap.cli.output import note, notice, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.linux.sysroot import Sysroot
    from altmap.model.kernel.accounting import Policy
    from altmap.scenario import Scenario
    from altmap.trace import Trace

__all__ = ("VERB",)

DONE, NOT_OK = 0, 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_scenarios(parser)
    parser.add_argument("--on", choices=("model", "lab"), default="model", help="default: model")
    options.add_release(parser, "kernel release, such as 6.12; default: the scenario's")
    parser.add_argument(
        "--arch", metavar="ARCH", help="architecture, such as aarch64-64k; default: the scenario's"
    )
    options.add_policies(
        parser, "memmap policy, or MODULE:CLASS for one in Python; several are shown side by side"
    )
    parser.add_argument(
        "--from",
        metavar="SYSROOT",
        type=Path,
        dest="sysroot",
        help="start from the files of a real machine: a folder or archive",
    )
    parser.add_argument(
        "--export", metavar="DIR", type=Path, help="write a sysroot per step, and trace.json"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 unless every step of every run is ok"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--summary", action="store_true", help="print a line per scenario and policy: its verdict"
    )
    form.add_argument("--json", action="store_true", help="print the trace as JSON")
    form.add_argument(
        "--driver-log", action="store_true", help="print the driver protocol log, not the table"
    )
    parser.add_argument(
        "--hex", action="store_true", help="with --driver-log: also the bytes of each message"
    )


def _run(args: argparse.Namespace) -> int:
    from altmap.model.policies import load_policy
    from altmap.report.verdict import all_ok
    from altmap.scenario import load_scenario
    from altmap.storage.files import check_new_folder

    if args.hex and not args.driver_log:
        raise InputError("--hex: shows the bytes of a --driver-log, which was not asked for")
    policies = [load_policy(name) for name in args.policy]
    scenarios = [load_scenario(path, args.settings) for path in args.scenario]
    _check_distinct("scenario", [scenario.name for scenario in scenarios])
    _check_distinct("--policy", [policy.name for policy in policies])
    if args.export is not None:
        check_new_folder(args.export)
    base = _read_sysroot(args)
    traces = _traces([(s, p) for s in scenarios for p in policies or (None,)], base, args)
    if args.export is not None:
        _export(traces, base, args)
    _print(scenarios, traces, args)
    if args.export is not None:
        notice(args, f"sysroots written below {args.export}")
    return NOT_OK if args.check and not all(map(all_ok, traces)) else DONE


def _check_distinct(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} {name!r}: given twice")


def _read_sysroot(args: argparse.Namespace) -> Sysroot | None:
    if args.sysroot is None:
        return None
    if args.on == "lab":
        raise InputError("--from: a guest boots by itself; only the model starts from a sysroot")
    from altmap.linux.sysroot import Sysroot

    return Sysroot.read(args.sysroot)


def _traces(
    runs: Sequence[tuple[Scenario, Policy | None]], base: Sysroot | None, args: argparse.Namespace
) -> list[Trace]:
    from altmap.cli.progress import progress

    traces: list[Trace] = []
    with progress(len(runs), lines=False, what="runs") as (tell, advance):
        for scenario, policy in runs:
            tell(scenario.name)
            traces.append(_trace(scenario, policy, base, args))
            advance()
    return traces


def _trace(
    scenario: Scenario, policy: Policy | None, base: Sysroot | None, args: argparse.Namespace
) -> Trace:
    scenario = scenario.with_machine(release=args.release, arch=args.arch)
    if args.on == "lab":
        from altmap.lab.target import run_in_guest

        named = scenario if policy is None else scenario.with_machine(policy=policy.name)
        return run_in_guest(named, note)[0]
    from altmap.model.machine import predict

    return predict(scenario, base, policy=policy)


def _print(
    scenarios: Sequence[Scenario], traces: Sequence[Trace], args: argparse.Namespace
) -> None:
    from altmap.report.driver_log import driver_log
    from altmap.report.text import side_by_side
    from altmap.report.verdict import verdict_lines
    from altmap.storage.export import trace_json

    if args.json:
        print(trace_json(*traces), end="")
        return
    if args.summary:
        for line in dict.fromkeys(note for trace in traces for note in trace.notes):
            note(f"note: {line}")
        show(verdict_lines(traces, width_of(sys.stdout)), end="")
        return
    for scenario in scenarios:
        title = scenario.description or scenario.name
        of_one = [trace for trace in traces if trace.scenario == scenario.name]
        if args.driver_log:
            for trace in of_one:
                show(driver_log(trace, title, terminal_width(), show_bytes=args.hex))
        else:
            show(side_by_side(of_one, title, terminal_width()))


def _export(traces: Sequence[Trace], base: Sysroot | None, args: argparse.Namespace) -> None:
    from altmap.storage.export import export
    from altmap.storage.files import private_files

    folders = {
        "" if len(traces) == 1 else f"{trace.scenario}/{trace.policy}": trace for trace in traces
    }
    with contextlib.nullcontext() if base is None else private_files():
        export(folders, args.export, base)


VERB = Verb(
    "run",
    "run scenarios on the model or on a real kernel",
    (
        Example(
            "altmap run scenarios/dimm-1GiB.toml --policy opt-in --policy rfc-2018",
            "two memmap policies side by side",
        ),
        Example(
            "altmap run mine.toml --from captured.tar --export out",
            "from a real machine's files to a sysroot for each step",
        ),
        Example("altmap run scenarios/dimm-1GiB.toml --on lab", "on a real kernel in QEMU"),
    ),
    (
        (0, "done; a refusal or a fault of the kernel is a result"),
        (1, "with --check: a step was refused, or the kernel crashed"),
        (2, "could not be done"),
    ),
    _add_arguments,
    _run,
)
