"""The commands: argument handling, and nothing else.

Exit codes of ``run`` and ``lab``: 0 done (a refusal or fault of the kernel is a result), 2 could
not be done. Of ``compare`` and ``conform``: 0 equal, 1 different, 2 could not be run. Of
``claims`` and ``bugs``: 0 every verdict is the known one, 1 one is not, 2 could not be run.

Effects: clock, files, terminal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from altmap import __version__
from altmap.cli.explore import add_explore
from altmap.cli.host import add_host_commands
from altmap.cli.sweep import add_sweep
from altmap.errors import AltmapError, InputError, LabError

if TYPE_CHECKING:
    from altmap.lab import Guest, KernelFiles
    from altmap.linux.sysroot import Sysroot
    from altmap.model.kernel.accounting import Policy
    from altmap.scenario import Scenario
    from altmap.trace import Trace

__all__ = ("DIFFERENT", "EQUAL", "FAILED", "command_line", "main")

EQUAL, DIFFERENT, FAILED = 0, 1, 2  # as diff(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = command_line().parse_args(argv)
    try:
        status: int = args.verb(args)
    except LabError as error:
        print(f"altmap: {error}", file=sys.stderr)  # with the console's last lines
        return FAILED
    except AltmapError as error:
        from altmap.report.text import printable

        print(f"altmap: {printable(str(error))}", file=sys.stderr)
        return getattr(args, "failed", FAILED)
    except KeyboardInterrupt:
        print("altmap: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone; nothing more can be said to it, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def command_line() -> argparse.ArgumentParser:
    """Return the parser of all commands: pages, man pages and completion are made from it."""
    parser = argparse.ArgumentParser(
        prog="altmap", description="Predict, verify and explain Linux memory hotplug."
    )
    parser.add_argument("--version", action="version", version=f"altmap {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    run = verbs.add_parser("run", help="run scenarios on the model or on a real kernel")
    _scenario_arguments(run)
    run.add_argument("--on", choices=("model", "lab"), default="model", help="default: model")
    run.add_argument("--release", metavar="R", help="kernel release, such as 6.12")
    run.add_argument(
        "--policy",
        metavar="P",
        action="append",
        help="memmap policy, or MODULE:CLASS of your own; several are shown side by side",
    )
    run.add_argument(
        "--from", metavar="SYSROOT", type=Path, dest="sysroot", help="folder or tar to start from"
    )
    run.add_argument(
        "--export", metavar="DIR", type=Path, help="write a sysroot per step, and trace.json"
    )
    run.add_argument("--json", action="store_true", help="print the trace as JSON")
    run.add_argument(
        "--driver-log",
        action="store_true",
        help="print what host and guest said to each other instead of the table",
    )
    run.add_argument("--hex", action="store_true", help="with --driver-log: also the bytes")
    run.set_defaults(verb=_run)
    compare = verbs.add_parser(
        "compare", help="run scenarios on the model and on a real kernel, and compare"
    )
    _scenario_arguments(compare, "*")
    compare.add_argument(
        "--recording",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="compare with what a real kernel did when it was recorded; needs no QEMU",
    )
    compare.add_argument(
        "--release", metavar="R", action="append", help="kernel release; default: the scenario's"
    )
    compare.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="also write what was found, as .html, .json or .txt",
    )
    _kernel_arguments(compare)
    compare.set_defaults(verb=_compare)
    record = verbs.add_parser("record", help="run a scenario on a real kernel and keep what it did")
    _scenario_arguments(record, 1)
    record.add_argument("--release", metavar="R", help="kernel release; default: the scenario's")
    record.add_argument(
        "-o", metavar="FILE", dest="output", type=Path, required=True, help="a new *.tar.xz"
    )
    _kernel_arguments(record)
    record.set_defaults(verb=_record)
    conform = verbs.add_parser(
        "conform", help="compare many scenarios with real kernels, and make one table"
    )
    conform.add_argument("cases", metavar="CASES", type=Path, help="a TOML file of cases")
    conform.add_argument(
        "--scenarios",
        metavar="DIR",
        type=Path,
        default=Path("scenarios"),
        help="default: ./scenarios",
    )
    conform.add_argument(
        "-j", metavar="N", type=int, dest="nr_guests", default=1, help="guests side by side"
    )
    conform.add_argument(
        "--rows",
        metavar="FILE",
        type=Path,
        help="rows as they come, one JSON object a line; those that are there are not run again",
    )
    conform.add_argument("--slow", action="store_true", help="the slow cases too")
    conform.add_argument("-o", metavar="PAGE", type=Path, dest="output", help="a Markdown page")
    conform.set_defaults(verb=_conform)
    _report_arguments(verbs.add_parser("report", help="look at it: a page, a picture, or text"))
    account = verbs.add_parser(
        "account", help="where the memory went, from what was bought to what is free"
    )
    account.add_argument(
        "source",
        metavar="SYSROOT|SCENARIO",
        type=Path,
        nargs="?",
        default=Path("/"),
        help="a folder or tar, or a TOML file; default: this machine",
    )
    account.add_argument("--json", action="store_true", help="print the levels as JSON")
    account.set_defaults(verb=_account)
    add_host_commands(verbs)
    add_explore(verbs)
    add_sweep(verbs)
    claims = verbs.add_parser(
        "claims", help="the claims of the discussion of 2018, each run and judged"
    )
    claims.add_argument("id", metavar="ID", nargs="*", help="such as C13; default: all")
    claims.add_argument("--json", action="store_true", help="print the findings as JSON")
    claims.add_argument(
        "--write", metavar="DIR", type=Path, help="copy the scenarios to a new or empty folder"
    )
    claims.add_argument(
        "--matrix",
        action="store_true",
        help="every driver against every policy: safe, or the simplest fault",
    )
    claims.add_argument(
        "--on",
        choices=("model", "lab"),
        default="model",
        help="lab: measure on a real kernel what it can show, and compare with the model",
    )
    claims.add_argument("--release", metavar="R", help="with --on lab: kernel release")
    claims.add_argument(
        "--slow", action="store_true", help="with --on lab: also what takes minutes and gigabytes"
    )
    claims.set_defaults(verb=_claims)
    bugs = verbs.add_parser("bugs", help="known bugs, each shown where it is and where it is not")
    bugs.add_argument("id", metavar="ID", nargs="*", help="such as B8; default: all")
    bugs.add_argument("--json", action="store_true", help="print the findings as JSON")
    bugs.add_argument(
        "--write", metavar="DIR", type=Path, help="copy the scenarios to a new or empty folder"
    )
    bugs.set_defaults(verb=_bugs)
    lab = verbs.add_parser("lab", help="real kernels in QEMU")
    lab_verbs = lab.add_subparsers(required=True, metavar="COMMAND")
    fetch = lab_verbs.add_parser("fetch", help="get Debian's kernel of a release, and busybox")
    fetch.add_argument("release", metavar="RELEASE", help="such as 6.12")
    fetch.add_argument("--arch", metavar="A", default="x86_64", help="such as ppc64le-64k")
    fetch.set_defaults(verb=_fetch)
    listing = lab_verbs.add_parser("list", help="the guests there are, and what they lack here")
    listing.set_defaults(verb=_list)
    for name, verb, text in (
        ("boot", _boot, "boot a guest, say what it is, and end it"),
        ("shell", _shell, "a shell in a guest; from a pipe, a script for it"),
        ("exec", _exec, "one command in a guest"),
    ):
        guest = lab_verbs.add_parser(name, help=text)
        _guest_arguments(guest)
        guest.set_defaults(verb=verb)
        if name == "exec":
            guest.add_argument("command", metavar="COMMAND", nargs="+")
    return parser


def _report_arguments(report: argparse.ArgumentParser) -> None:
    report.add_argument(
        "source",
        metavar="SCENARIO|EXPORT|JSON|SYSROOT",
        type=Path,
        nargs="+",
        help="a TOML file, a folder of run --export, a file of --json or --report, or a sysroot",
    )
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="a file .html, .svg, .png, .txt or .json; default: text to standard output",
    )
    report.add_argument("--title", metavar="TEXT", help="heading of a page or picture")
    report.add_argument("--step", metavar="N", type=int, help="the step that a picture shows")
    report.add_argument(
        "--blocks", metavar="A-B", help="map these memory blocks only, so in full detail"
    )
    report.add_argument(
        "--policy", metavar="P", action="append", default=[], help="for scenarios, as with run"
    )
    report.add_argument("--release", metavar="R", help="for scenarios, as with run")
    report.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
        help="for scenarios, as with run",
    )  # fmt: skip
    report.set_defaults(verb=_report)


def _guest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", metavar="A", default="x86_64", help="default: x86_64")
    parser.add_argument("--release", metavar="R", default=None, help="default: 6.12")
    parser.add_argument("--memory", metavar="SIZE", default="1GiB", help="default: 1GiB")
    parser.add_argument("--cpus", metavar="N", type=int, default=1, help="default: 1")
    parser.add_argument("--cmdline", metavar="TEXT", default="", help="kernel parameters")
    _kernel_arguments(parser)


def _kernel_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", metavar="PATH", type=Path, help="a kernel of your own")
    parser.add_argument(
        "--modules", metavar="DIR", type=Path, help="its modules, as modules_install leaves them"
    )


def _scenario_arguments(parser: argparse.ArgumentParser, nargs: int | str = "+") -> None:
    parser.add_argument("scenario", metavar="SCENARIO", type=Path, nargs=nargs, help="a TOML file")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="set a key of the scenario's [machine], such as memmap_on_memory=force",
    )


# --- run -----------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from altmap.model.policies import load_policy
    from altmap.report.driver_log import driver_log
    from altmap.report.text import side_by_side
    from altmap.storage.export import check_export_folder, export, trace_json

    if args.hex and not args.driver_log:
        raise InputError("--hex: shows the bytes of a --driver-log, which was not asked for")
    if args.json and args.driver_log:
        raise InputError("--driver-log: not with --json, which holds every message")
    policies = [load_policy(name) for name in args.policy or ()]
    scenarios = [_load(path, args) for path in args.scenario]
    _check_distinct("scenario", [scenario.name for scenario in scenarios])
    _check_distinct("--policy", [policy.name for policy in policies])
    if args.export is not None:
        check_export_folder(args.export)
    base = _read_sysroot(args)
    runs = [
        [_trace(scenario, policy, base, args) for policy in policies or (None,)]
        for scenario in scenarios
    ]
    if args.json:
        print(trace_json(*(trace for traces in runs for trace in traces)), end="")
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        for scenario, traces in zip(scenarios, runs, strict=True):
            title = scenario.description or scenario.name
            if args.driver_log:
                for trace in traces:
                    print(driver_log(trace, title, width, show_bytes=args.hex))
            else:
                print(side_by_side(traces, title, width))
    if args.export is not None:
        single = len(runs) == len(runs[0]) == 1
        folders = {
            "" if single else f"{trace.scenario}/{trace.policy}": trace
            for traces in runs
            for trace in traces
        }
        export(folders, args.export, base)
        print(f"sysroots written below {args.export}", file=sys.stderr if args.json else sys.stdout)
    return EQUAL


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


def _load(path: Path, args: argparse.Namespace) -> Scenario:
    from altmap.scenario import load_scenario

    return load_scenario(path, args.settings)


def _trace(
    scenario: Scenario, policy: Policy | None, base: Sysroot | None, args: argparse.Namespace
) -> Trace:
    scenario = scenario.with_machine(release=args.release)
    if args.on == "lab":
        from altmap.lab.target import run_in_guest

        if policy is not None:  # a guest accepts its kernel's policy only
            scenario = scenario.with_machine(policy=policy.name)
        return run_in_guest(scenario, _progress)[0]
    from altmap.linux.observation import Observation
    from altmap.model.machine import predict

    if base is None:
        return predict(scenario, policy=policy)
    seen = Observation.read(base)
    trace = predict(scenario, seen, policy=policy)
    trace.notes.extend(f"the sysroot has no {path}" for path in seen.missing)
    trace.notes.extend(f"{path} could not be read" for path in base.unreadable)
    return trace


def _account(args: argparse.Namespace) -> int:
    import msgspec

    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot
    from altmap.model.machine import predict
    from altmap.report.account import account, account_trace
    from altmap.report.text import account_text
    from altmap.scenario import load_scenario

    if args.source.suffix == ".toml":
        levels = account_trace(predict(load_scenario(args.source)))
    else:
        levels = account(Observation.read(Sysroot.read(args.source)))
    if args.json:
        made = {"schema": "altmap-account", "version": 1, "levels": levels}
        print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    else:
        title = "this machine" if args.source == Path("/") else str(args.source)
        print(account_text(levels, title), end="")
    return EQUAL


def _claims(args: argparse.Namespace) -> int:
    import shlex

    import msgspec

    from altmap.scenario import load_scenario
    from altmap.storage.export import check_export_folder
    from altmap.studies import claims
    from altmap.studies.claims.text import claims_builtins, claims_text

    if args.on != "lab" and (args.release or args.slow):
        raise InputError("claims: --release and --slow go with --on lab")
    if args.matrix and args.on == "lab":
        raise InputError("claims --matrix: no lab has every driver and policy")
    if args.matrix:
        return _matrix(args)
    if args.on == "lab":
        return _claims_on_lab(args)
    ours = Path(claims.__file__).with_name("scenarios")
    chosen = claims.claims_named(claims.CLAIMS, args.id)
    if args.write is not None:
        check_export_folder(args.write)
    findings = claims.judge(
        chosen, lambda name, settings: load_scenario(ours / f"{name}.toml", settings)
    )
    if args.json:
        raw = msgspec.json.encode(claims_builtins(findings))
        print(msgspec.json.format(raw, indent=2).decode())
    else:
        folder = "DIR" if args.write is None else shlex.quote(str(args.write))
        print(claims_text(findings, folder), end="")
    if args.write is not None:
        _copy(ours, args.write)
        print(f"scenarios written to {args.write}", file=sys.stderr if args.json else sys.stdout)
    return EQUAL if all(finding.as_expected for finding in findings) else DIFFERENT


def _claims_on_lab(args: argparse.Namespace) -> int:
    import msgspec

    from altmap.scenario import DEFAULT_RELEASE, load_scenario
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
    found = agreements(
        cases,
        lambda name, settings: load_scenario(ours / f"{name}.toml", settings),
        args.release,
        _progress,
    )
    if args.json:
        made = agreements_builtins(found, args.release or DEFAULT_RELEASE)
        print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    else:
        print(agreements_text(found), end="")
    return EQUAL if all(item.agrees for item in found) else DIFFERENT


def _matrix(args: argparse.Namespace) -> int:
    import shlex

    import msgspec

    from altmap.storage.export import check_export_folder
    from altmap.studies.claims.matrix import matrix, matrix_builtins, matrix_text, scenario_files

    if args.id:
        raise InputError(f"claims --matrix {args.id[0]}: takes no claim, it runs every cell")
    if args.write is not None:
        check_export_folder(args.write)
    cells = matrix()
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(matrix_builtins(cells)), indent=2).decode())
    else:
        folder = "DIR" if args.write is None else shlex.quote(str(args.write))
        print(matrix_text(cells, folder), end="")
    if args.write is not None:
        _write(scenario_files(cells), args.write)
        print(f"scenarios written to {args.write}", file=sys.stderr if args.json else sys.stdout)
    return EQUAL


def _write(files: dict[str, str], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"export folder {folder}: {error.strerror or error}") from error


def _bugs(args: argparse.Namespace) -> int:
    import shlex

    import msgspec

    from altmap.scenario import load_scenario
    from altmap.storage.export import check_export_folder
    from altmap.studies import bugs
    from altmap.studies.bugs.text import bugs_builtins, bugs_text

    ours = Path(bugs.__file__).with_name("scenarios")
    chosen = bugs.bugs_named(bugs.BUGS, args.id)
    if args.write is not None:
        check_export_folder(args.write)
    found = bugs.find(chosen, lambda name, settings: load_scenario(ours / f"{name}.toml", settings))
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(bugs_builtins(found)), indent=2).decode())
    else:
        folder = "DIR" if args.write is None else shlex.quote(str(args.write))
        print(bugs_text(found, folder), end="")
    if args.write is not None:
        _copy(ours, args.write)
        print(f"scenarios written to {args.write}", file=sys.stderr if args.json else sys.stdout)
    return DIFFERENT if any(shown.reproduced is False for shown in found) else EQUAL


def _copy(ours: Path, folder: Path) -> None:
    try:
        shutil.copytree(ours, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"export folder {folder}: {reason}") from error


def _progress(text: str) -> None:
    print(f"altmap: {text}", file=sys.stderr)


# --- compare and lab -----------------------------------------------------------------------


def _compare(args: argparse.Namespace) -> int:
    from altmap.cli.progress import progress
    from altmap.report.files import check_output, write_comparisons
    from altmap.report.text import comparison_text
    from altmap.storage.recording import read_recording
    from altmap.verify.both_sides import compare_with_lab, compare_with_trace

    if not args.scenario and not args.recording:
        raise InputError("compare: need a SCENARIO or a --recording")
    if args.report is not None:
        check_output(args.report, (".html", ".json", ".txt"))
    recordings = [read_recording(path) for path in args.recording]
    if args.kernel is not None and not args.scenario:
        raise InputError(f"--kernel {args.kernel}: a recording has its kernel; need a SCENARIO")
    jobs = [
        (scenario, release)
        for scenario in [_load(path, args) for path in args.scenario]
        for release in args.release or [None if args.kernel else scenario.machine.release]
    ]
    own = {arch: _own_kernel(args, arch) for arch in {s.machine.arch for s, _ in jobs}}
    found = []
    with progress(len(recordings) + len(jobs)) as (tell, advance):
        for recording in recordings:
            comparison = compare_with_trace(recording.scenario, recording.trace)
            found.append((recording.scenario.name, comparison))
            print(comparison_text(comparison, recording.scenario.name), flush=True)
            advance()
        for scenario, release in jobs:
            comparison = compare_with_lab(scenario, release, tell, own[scenario.machine.arch])
            found.append((scenario.name, comparison))
            print(comparison_text(comparison, scenario.name), flush=True)
            advance()
    if args.report is not None:
        write_comparisons(found, args.report)
    return EQUAL if all(comparison.equal for _, comparison in found) else DIFFERENT


def _report(args: argparse.Namespace) -> int:
    from altmap.cli.sources import gather
    from altmap.report.files import ReportOptions, check_output, report_on, write_report

    if args.output is not None:
        check_output(args.output)
    look = ReportOptions.parse(args.title, args.step, args.blocks)
    found = gather(args.source, args.policy, args.release, args.settings)
    if args.output is None:
        print(report_on(found, look), end="")
    else:
        write_report(found, look, args.output)
    return EQUAL


def _record(args: argparse.Namespace) -> int:
    from altmap.verify.both_sides import record_in_lab

    settings = list(args.settings)
    if args.release is not None:
        settings.append(f"release={args.release}")
    own = _own_kernel(args, _load(args.scenario[0], args).machine.arch)
    recording = record_in_lab(args.scenario[0], settings, args.output, _progress, own)
    size = args.output.stat().st_size
    print(f"{args.output}: {len(recording.trace.steps)} looks at a real kernel, {size} bytes")
    return EQUAL


def _conform(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from altmap.verify.conformance import conform, conformance_page, read_cases

    if args.nr_guests < 1:
        raise InputError(f"-j {args.nr_guests}: need at least one guest")
    cases = [case for case in read_cases(args.cases) if args.slow or not case.slow]
    rows = conform(cases, args.scenarios, args.nr_guests, _progress, args.rows)
    page = conformance_page(rows, datetime.now(UTC).date().isoformat())
    if args.output is None:
        print(page, end="")
    else:
        try:
            args.output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(f"page {args.output}: {error.strerror}") from error
    return DIFFERENT if any(row.verdict == "different" for row in rows) else EQUAL


def _fetch(args: argparse.Namespace) -> int:
    from altmap.cli.progress import progress
    from altmap.lab import fetch

    with progress(1, lines=False) as (tell, _):
        tell(f"fetching Linux {args.release}")
        files = fetch(args.release, arch=args.arch)
    for name, version in files.versions.items():
        print(f"{name} {version}")
    print(f"kernel {files.vmlinuz}")
    return EQUAL


def _list(args: argparse.Namespace) -> int:
    from altmap.lab import inventory
    from altmap.model.releases import RELEASES

    del args
    confirmed = [name for name, release in RELEASES.items() if release.confirmed]
    for each in inventory(confirmed):
        kernel = each.kernel or "not fetched"
        missing = f"; missing: {', '.join(each.missing)}" if each.missing else ""
        print(f"{each.arch:<12} {each.release:<6} {kernel}{missing}")
    return EQUAL


def _guest(args: argparse.Namespace) -> Guest:
    from altmap.lab import Guest, Hardware, fetch, guest_arch
    from altmap.scenario import DEFAULT_RELEASE
    from altmap.units import parse_size

    guest_arch(args.arch)
    release = DEFAULT_RELEASE if args.release is None else args.release
    memory = parse_size(args.memory)
    own = _own_kernel(args, args.arch)
    if not 1 <= args.cpus <= _MOST_GUEST_CPUS:
        raise InputError(f"--cpus {args.cpus}: need 1 to {_MOST_GUEST_CPUS}")
    hardware = Hardware(
        memory_bytes=memory,
        maxmem_bytes=2 * memory + (64 << 30),
        smp=args.cpus,
        arch=args.arch,
    )
    kernel = fetch(release, arch=args.arch) if own is None else own
    return Guest(kernel, hardware, args.cmdline)


def _own_kernel(args: argparse.Namespace, arch: str | None) -> KernelFiles | None:
    """Return the kernel that ``--kernel`` names, and say what its configuration lacks."""
    from altmap.lab import own_kernel

    if args.kernel is None:
        if args.modules is not None:
            raise InputError(f"--modules {args.modules}: only with --kernel; Debian's are known")
        return None
    kernel, lacks = own_kernel(args.kernel, args.modules, arch=arch or "x86_64")
    for line in lacks:
        print(f"altmap: note: {line}", file=sys.stderr)
    return kernel


_MOST_GUEST_CPUS = 255


def _boot(args: argparse.Namespace) -> int:
    with _guest(args) as guest:
        print(guest.run("uname -srvm").text, end="")
        size = int(guest.run("cat /sys/devices/system/memory/block_size_bytes").text, 16)
        total = guest.run("grep MemTotal /proc/meminfo").text.split()[1]
        online = guest.run("cat /sys/devices/system/memory/auto_online_blocks").text.strip()
        print(f"MemTotal {total} kB, blocks of {size >> 20} MiB, new ones: {online}")
        print(f"booted with {guest.accelerator} by {guest.hardware.guest.program}")
    return EQUAL


def _exec(args: argparse.Namespace) -> int:
    with _guest(args) as guest:
        result = guest.run(" ".join(args.command), _COMMAND_SECONDS)
    sys.stdout.buffer.write(result.output)
    sys.stdout.flush()
    return result.status


_COMMAND_SECONDS = 3600.0


def _shell(args: argparse.Namespace) -> int:
    from altmap.lab.console import interact, run_lines

    with _guest(args) as guest:
        return interact(guest) if sys.stdin.isatty() else run_lines(guest)
