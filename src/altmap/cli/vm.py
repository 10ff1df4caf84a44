"""``altmap vm``: what a guest sees by its definition, how it can grow, and what to change.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altmap.cli import options
from altmap.cli.output import notice, print_json, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import progress, working
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.vm.answers import BootedGuest, WayAnswer
    from altmap.vm.definition import Definition
    from altmap.vm.lint import LintFinding

__all__ = ("VERB",)

DONE, FOUND = 0, 1
#: Names of :data:`altmap.vm.ways.WAY_NAMES`, whose import would load the model for the help.
WAYS = ("dimm", "virtio-mem", "hyperv", "balloon")
_MOST_CONFIG_BYTES = 4 << 20
_RELEASE = re.compile(r"\d{1,3}\.\d{1,3}")


def _add_definition(parser: argparse._ActionsContainer) -> None:
    """Add what is said of a definition's guest."""
    parser.add_argument("--machine", metavar="NAME", help="the machine, if the file has several")
    options.add_release(parser, "the guest's kernel release; default: 6.12")
    parser.add_argument("--cmdline", metavar="TEXT", help="the guest kernel's command line")
    parser.add_argument(
        "--config", metavar="CONFIG", type=Path, help="its configuration; default: Debian's"
    )
    parser.add_argument(
        "--arch", metavar="ARCH", help="the guest's architecture, where the file does not say it"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="its boot memory, where the file does not say it"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "definition",
        metavar="FILE",
        type=Path,
        nargs="?",
        help="libvirt XML, a QEMU command line, JSON, YAML, .conf or .vmx; - for standard input",
    )
    _add_definition(parser)
    parser.add_argument(
        "--guest",
        metavar="SYSROOT",
        type=Path,
        help="start from the files of the running guest: a folder or archive",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--compare",
        metavar=("A", "B"),
        nargs=2,
        help=f"two ways ({', '.join(WAYS)}) or two kernel releases side by side",
    )
    what.add_argument("--rules", action="store_true", help="judge published rules of thumb")
    what.add_argument(
        "--scenario", action="store_true", help="print the growth as a scenario, for altmap run"
    )
    parser.add_argument("--way", metavar="WAY", choices=WAYS, help=f"only {', '.join(WAYS)}")
    parser.add_argument(
        "--policy", metavar="POLICY", help="memmap policy, or MODULE:CLASS for one in Python"
    )
    parser.add_argument("--to", metavar="SIZE", help="one size to reach, with the commands")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if there is a finding, or --to fails"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answers as JSON")
    form.add_argument("-o", "--output", metavar="FILE", type=Path, help="write a page .html")


def _definition(args: argparse.Namespace) -> Definition:
    from dataclasses import replace

    from altmap.cli.definitions import read_definition_file
    from altmap.units import parse_size

    made = read_definition_file(args.definition, args.machine, args.arch)
    return made if args.memory is None else replace(made, memory_bytes=parse_size(args.memory))


def _guest_by(
    args: argparse.Namespace, definition: Definition, release: str | None = None
) -> BootedGuest:
    """Return the guest of a definition, booted on the model.

    Raises
    ------
    InputError
        If no machine is so, or a file cannot be read.
    """
    from altmap.vm.answers import started

    config = None
    if args.config is not None:
        from altmap.storage.files import read_file

        config = read_file(args.config, _MOST_CONFIG_BYTES).decode(errors="replace")
    given: dict[str, Any] = {
        "release": release or args.release,
        "cmdline": args.cmdline,
        "config": config,
    }
    if getattr(args, "guest", None) is not None:
        from altmap.linux.observation import Observation
        from altmap.linux.sysroot import Sysroot

        given["seen"] = Observation.read(Sysroot.read(args.guest, leave="files"))
    if args.policy is not None:
        from altmap.model.policies import load_policy

        given["policy"] = load_policy(args.policy)
    return started(definition, **given)


def _vm(args: argparse.Namespace) -> int:
    if args.policy is not None and (args.rules or args.scenario):
        raise InputError(
            f"--policy {args.policy}: goes with none of --rules and --scenario; altmap run "
            "SCENARIO --policy tries a scenario"
        )
    if args.rules:
        return _rules(args)
    if args.definition is None:
        raise InputError("vm: need a FILE that defines a virtual machine")
    if args.output is not None:
        from altmap.report.files import check_output

        check_output(args.output, (".html",))
    definition = _definition(args)
    if args.compare is not None:
        return _compare(args, definition)
    guest = _guest_by(args, definition)
    answers = _answers(args, guest, [args.way] if args.way else [])
    if args.scenario:
        return _scenario(guest, answers)
    from altmap.vm.lint import lint

    findings = lint(guest, answers)
    _show(args, guest, answers, findings)
    missed = args.to is not None and not any(_reached(each) for each in answers)
    return FOUND if args.check and (findings or missed) else DONE


def _answers(args: argparse.Namespace, guest: BootedGuest, names: Sequence[str]) -> list[WayAnswer]:
    """Return what each way offers: at all sizes, or at the one that is asked for."""
    from altmap.vm.answers import way_answer

    target = _target(args)
    found: list[WayAnswer] = []
    ways = guest.ways(names, target)
    starts = [way.start_bytes for way in ways] or [guest.machine.start_bytes]
    if target is not None and target < min(starts):
        from altmap.units import format_size

        raise InputError(
            f"--to {args.to}: need {format_size(min(starts))} or more, which the guest has at boot"
        )
    with progress(len(ways), lines=False, what="ways") as (tell, advance):
        for way in ways:
            tell(f"growing by {way.driver}")
            found.append(way_answer(guest, way, _sizes(way, target)))
            advance()
    return found


def _target(args: argparse.Namespace) -> int | None:
    from altmap.units import parse_size

    return None if args.to is None else parse_size(args.to)


def _sizes(way: Any, target: int | None) -> list[int]:
    if target is None:
        return []
    return [way.start_bytes, target] if target > way.start_bytes else [way.start_bytes]


def _reached(answer: WayAnswer) -> bool:
    return bool(answer.rows) and answer.rows[-1].result != "refused"


def _show(
    args: argparse.Namespace,
    guest: BootedGuest,
    answers: Sequence[WayAnswer],
    findings: Sequence[LintFinding],
) -> None:
    from altmap.vm.text import answers_text, commands_of

    if args.json:
        from altmap.vm.builtins import answers_builtins

        commands = [list(commands_of(guest, each)) for each in answers]
        print_json(answers_builtins([guest], answers, findings, commands))
    elif args.output is not None:
        from altmap import __version__
        from altmap.storage.files import write_file
        from altmap.vm.page import vm_page

        write_file(args.output, vm_page(guest, answers, findings, __version__))
        notice(args, f"written: {args.output}")
    else:
        width = terminal_width()
        has_target = args.to is not None
        show(answers_text(guest, answers, findings, width, with_commands=has_target), end="")


def _compare(args: argparse.Namespace, definition: Definition) -> int:
    """Show two ways with one kernel, or one way with two kernels."""
    from altmap.vm.text import comparison_table

    guests, answers, titles = [], [], []
    for name in args.compare:
        release = name if _RELEASE.fullmatch(name) else None
        if release is None and name not in WAYS:
            raise InputError(f"--compare {name!r}: need a release, or one of {', '.join(WAYS)}")
        guest = _guest_by(args, definition, release)
        names = [args.way] if args.way else [] if release else [name]
        made = _answers(args, guest, names if names or not release else [])
        if not made:
            raise InputError(
                f"--compare {name}: the definition has no way to grow; --way says which"
            )
        guests.append(guest)
        answers.append(made[0])
        titles.append(f"{made[0].way.driver}, Linux {guest.kernel.release}")
    if args.json:
        from altmap.vm.builtins import answers_builtins

        print_json(answers_builtins(guests, answers, [], []))
    else:
        show(comparison_table(titles, answers, terminal_width()), end="")
    return DONE


def _scenario(guest: BootedGuest, answers: Sequence[WayAnswer]) -> int:
    from altmap.scenario import scenario_text
    from altmap.vm.growth import growth_scenario

    if len(answers) != 1:
        ways = ", ".join(each.way.driver for each in answers) or "none"
        raise InputError(f"--scenario: the definition grows by {ways}; --way says which")
    print(scenario_text(growth_scenario(guest, answers[0])), end="")
    return DONE


def _rules(args: argparse.Namespace) -> int:
    """Judge the rules for the definition's machine, or for a PC."""
    from altmap.vm.answers import started
    from altmap.vm.builtins import rules_builtins
    from altmap.vm.definition import Definition
    from altmap.vm.text import rules_text
    from altmap.vm.thumb import judge

    if args.definition is not None:
        definition = _definition(args)
    else:
        arch = args.arch or "x86_64"
        definition = Definition("defaults", "a guest", "qemu", "qemu", arch, 1 << 30)
    driver = args.way or next(iter(definition.growth), "dimm")
    driver = {"memory": "dimm"}.get(driver, driver)
    if driver == "balloon":
        raise InputError("--rules: a balloon adds nothing; --way names another way")
    config = args.config.read_text(encoding="utf-8") if args.config is not None else None
    given = {"release": args.release, "cmdline": args.cmdline, "config": config}
    kernel = started(definition, **given).kernel
    with working("trying each rule on guests of many sizes"):
        verdicts = judge(definition, driver, **given)
    if args.json:
        print_json(rules_builtins(driver, kernel.release, definition.arch, verdicts))
    else:
        show(
            rules_text(driver, kernel.release, definition.arch, verdicts, terminal_width()), end=""
        )
    return DONE


VERB = Verb(
    "vm",
    "tell what a guest sees by its definition, and how it can grow",
    (
        Example(
            "altmap vm examples/vm/web.xml --release 6.1", "sizes that a libvirt domain can reach"
        ),
        Example(
            "altmap vm examples/vm/web.xml --to 64GiB", "one size, with the hypervisor's commands"
        ),
        Example("altmap vm --rules --way virtio-mem", "published rules of thumb, judged"),
    ),
    (
        (0, "done"),
        (1, "with --check: there is a finding, or --to is not reached"),
        (2, "could not be done"),
    ),
    _add_arguments,
    _vm,
)
