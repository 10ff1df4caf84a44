"""``altmap compare``: the same scenario on the model and on a real kernel.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note
from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.compare import Comparison
    from altmap.model.kernel.accounting import Policy
    from altmap.scenario import Scenario

__all__ = ("VERB",)

EQUAL, DIFFERENT = 0, 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_scenarios(parser, "*")
    parser.add_argument(
        "--recording",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="compare with a recording of a real kernel; needs no QEMU",
    )
    parser.add_argument(
        "--release",
        metavar="RELEASE",
        action="append",
        help="kernel release; default: the scenario's",
    )
    options.add_policies(
        parser,
        "memmap policy of both sides, default: the scenario's; MODULE:CLASS: of the model's alone",
    )
    options.add_touched(parser, "compare the frames that each step reads and writes, too")
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="also write the result, as .html, .json or .txt",
    )
    options.add_kernel(parser)


def _compare(args: argparse.Namespace) -> int:
    from altmap.report.files import check_output, write_comparisons

    if not args.scenario and not args.recording:
        raise InputError("compare: need a SCENARIO or a --recording")
    if args.report is not None:
        check_output(args.report, (".html", ".json", ".txt"))
    if args.policy and not args.scenario:
        raise InputError(f"--policy {args.policy[0]}: a recording has its policy; need a SCENARIO")
    if args.touched and not args.scenario:
        raise InputError("--touched: a recording has what it has; need a SCENARIO")
    if args.kernel is not None and not args.scenario:
        raise InputError(f"--kernel {args.kernel}: a recording has its kernel; need a SCENARIO")
    output = _Output(args)
    found = _comparisons(args, output)
    if args.report is not None:
        write_comparisons(found, args.report)
    output.end()
    return EQUAL if all(comparison.equal for _, comparison in found) else DIFFERENT


class _Output:
    """Results on standard output; with a report, a reader that has gone ends no comparison."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.lasts = args.report is not None
        self.error: BrokenPipeError | None = None

    def show(self, text: str) -> None:
        """Print a result as soon as it is there."""
        if self.error is not None:
            return
        try:
            show(text)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if not self.lasts:
                raise
            self.error = error

    def end(self) -> None:
        """Raise that the reader has gone, now that the report is written."""
        if self.error is not None:
            raise self.error


def _comparisons(args: argparse.Namespace, output: _Output) -> list[tuple[str, Comparison]]:
    """Compare one after the other, and print each result when it is there."""
    from altmap.cli.lab import own_kernel
    from altmap.cli.progress import progress
    from altmap.model.policies import load_policy
    from altmap.model.releases import release_notes
    from altmap.report.text import comparison_text
    from altmap.scenario import load_scenario
    from altmap.storage.recording import read_recording
    from altmap.verify.both_sides import compare_with_lab, compare_with_trace

    recordings = [read_recording(path) for path in args.recording]
    policies: list[tuple[str | None, Policy | None]] = [(None, None)]
    if args.policy:
        policies = [(name, load_policy(name)) for name in args.policy]
    jobs = [
        (*_under(scenario, name, policy), release)
        for scenario in [load_scenario(path, args.settings) for path in args.scenario]
        for name, policy in policies
        for release in args.release or [None if args.kernel else scenario.machine.release]
    ]
    own = {arch: own_kernel(args, arch) for arch in {s.machine.arch for s, _, _ in jobs}}
    found: list[tuple[str, Comparison]] = []

    def add(name: str, comparison: Comparison) -> None:
        found.append((name, comparison))
        for line in release_notes(comparison.traces[1].release) if comparison.traces else ():
            note(f"note: {line}")
        output.show(comparison_text(comparison, name))

    with progress(len(recordings) + len(jobs), what="comparisons") as (tell, advance):
        for recording in recordings:
            comparison = compare_with_trace(recording.scenario, recording.trace)
            add(recording.scenario.name, comparison)
            advance()
        for scenario, policy, release in jobs:
            comparison = compare_with_lab(
                scenario,
                release,
                tell,
                own[scenario.machine.arch],
                touched=args.touched,
                policy=policy,
            )
            add(scenario.name, comparison)
            advance()
    return found


def _under(
    scenario: Scenario, name: str | None, policy: Policy | None
) -> tuple[Scenario, Policy | None]:
    """Return the scenario with a built-in policy, which the kernel follows too; else the user's."""
    from altmap.model.policies import is_built_in

    if name is None or not is_built_in(name):
        return scenario, policy
    return scenario.with_machine(policy=name), None


VERB = Verb(
    "compare",
    "run scenarios on the model and on a real kernel, and compare",
    (
        Example(
            "altmap compare scenarios/dimm-1GiB.toml --release 6.1 --release 6.12",
            "file by file, with two of Debian's kernels in QEMU",
        ),
        Example(
            "altmap compare --recording mine.tar.xz --report page.html",
            "with a recorded kernel, without QEMU, as a page",
        ),
    ),
    (
        (0, "everything equal, or within a stated tolerance"),
        (1, "something differs"),
        (2, "could not be run"),
    ),
    _add_arguments,
    _compare,
)
