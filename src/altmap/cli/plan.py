"""``altmap plan``: steps towards a goal, each predicted.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.options import SYSROOT_HELP
from altmap.cli.output import terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from altmap.host.mechanisms import PlugWish
    from altmap.host.plan import Plan
    from altmap.host.platforms import DefinedPlatform
    from altmap.linux.sysroot import Sysroot

__all__ = ("DRIVERS", "VERB")

#: As terraform's ``plan`` has it, the last with ``-detailed-exitcode`` only.
PLANNED, NO_PLAN, CHANGES = 0, 1, 2
#: Keys of ``host.mechanisms.WAYS``, whose import would load the model for the help.
DRIVERS = ("dimm", "hyperv", "virtio-mem", "kmem", "standby", "probe", "xen")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        metavar="SYSROOT",
        type=Path,
        dest="sysroot",
        help=SYSROOT_HELP,
    )
    parser.add_argument(
        "--vm",
        metavar="DEFINITION",
        type=Path,
        help="the guest's definition: its hypervisor, what it leaves, its commands; without "
        "--from, the guest as it boots",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write plan.json")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 2 if there are steps, with 0 only if there is nothing to do",
    )
    options.add_machine(parser)


def _add_plug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--driver",
        metavar="DRIVER",
        choices=DRIVERS,
        help=f"{', '.join(DRIVERS)}; default: the machine's, dimm on most",
    )
    parser.add_argument("--node", type=int, metavar="N", help="NUMA node; default: 0")
    parser.add_argument("--address", metavar="A", help="start address, such as 0x100000000")
    parser.add_argument(
        "--to",
        choices=("online", "online_kernel", "online_movable"),
        help="word for new blocks; default: auto_online_blocks, or online if that is offline",
    )
    _add_common(parser)


def _add_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("size", metavar="SIZE", help="such as 64GiB")
    _add_plug(parser)


def _add_grow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("size", metavar="TOTAL", help="memory online afterwards, such as 64GiB")
    _add_plug(parser)


def _add_free(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("blocks", metavar="BLOCK", nargs="*", help="such as 32, memory32 or 32-39")
    parser.add_argument(
        "--any",
        metavar="N",
        type=int,
        help="instead of named blocks: N of those online that can go, least work first",
    )
    _add_common(parser)


def _add_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", nargs="?", help="as altmap ls -o +DEVICE shows it"
    )
    parser.add_argument(
        "--any",
        metavar="SIZE",
        help="instead of a named device: as much from those that can go, least work first",
    )
    _add_common(parser)


def _add_resize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="such as virtio0; balloon for Xen's")
    parser.add_argument("size", metavar="SIZE", help="requested size, such as 4GiB")
    _add_common(parser)


def _planned(make: Callable[[argparse.Namespace], Plan]) -> Callable[[argparse.Namespace], int]:
    """Return what makes a plan, showing on a terminal that it is at work, and prints it."""

    def run(args: argparse.Namespace) -> int:
        from altmap.storage.files import check_file

        if args.output is not None:
            check_file(args.output, new=True)
        with working("predicting what each step does"):
            plan = make(args)
        return _show(plan, args)

    return run


@_planned
def _add(args: argparse.Namespace) -> Plan:
    from altmap.host.planner_add import plan_add

    wish, given = _wish(args), options.machine_by(args)
    sysroot, platform = _machine(args)
    return plan_add(sysroot, wish, given, platform)


@_planned
def _grow(args: argparse.Namespace) -> Plan:
    from altmap.host.planner_add import plan_grow

    wish, given = _wish(args), options.machine_by(args)
    sysroot, platform = _machine(args)
    return plan_grow(sysroot, wish.size_bytes, wish, given, platform)


@_planned
def _free(args: argparse.Namespace) -> Plan:
    from altmap.host.planner import plan_free
    from altmap.host.planner_any import plan_free_any
    from altmap.scenario import Offline, selected_blocks

    _check_one(args.any is not None, bool(args.blocks), "free", "BLOCK")
    sysroot, _ = _machine(args, uses=True)
    given = options.machine_by(args)
    if args.any is not None:
        return plan_free_any(sysroot, args.any, given)
    ids = selected_blocks(Offline(blocks=args.blocks)) or []
    return plan_free(sysroot, ids, given)


@_planned
def _remove(args: argparse.Namespace) -> Plan:
    from altmap.host.planner import plan_remove
    from altmap.host.planner_any import plan_remove_any
    from altmap.units import parse_size

    _check_one(args.any is not None, args.device is not None, "remove", "DEVICE")
    size_bytes = 0 if args.any is None else parse_size(args.any)
    given = options.machine_by(args)
    sysroot, platform = _machine(args, uses=True)
    if args.any is not None:
        return plan_remove_any(sysroot, size_bytes, given, platform)
    return plan_remove(sysroot, args.device, given, platform)


def _check_one(has_any: bool, has_name: bool, goal: str, name: str) -> None:
    if has_any == has_name:
        raise InputError(f"plan {goal}: need either {name} or --any")


@_planned
def _resize(args: argparse.Namespace) -> Plan:
    from altmap.host.planner import plan_resize
    from altmap.units import parse_size

    size_bytes, given = parse_size(args.size), options.machine_by(args)
    sysroot, platform = _machine(args)
    return plan_resize(sysroot, args.device, size_bytes, given, platform)


def _machine(
    args: argparse.Namespace, *, uses: bool = False
) -> tuple[Sysroot, DefinedPlatform | None]:
    """Return the files of the machine, and what its definition says of its hypervisor."""
    from altmap.linux.sysroot import Sysroot

    if args.vm is None:
        return Sysroot.read(args.sysroot or Path("/"), uses=uses, leave="files"), None
    from altmap.cli.definitions import read_definition_file
    from altmap.linux.observation import Observation
    from altmap.vm.answers import started
    from altmap.vm.platform import files_at_boot, platform_of_definition

    definition = read_definition_file(args.vm, arch=args.arch)
    if args.sysroot is None:
        guest = started(definition, release=args.release)
        return files_at_boot(guest), platform_of_definition(guest)
    sysroot = Sysroot.read(args.sysroot, uses=uses, leave="files")
    guest = started(definition, release=args.release, seen=Observation.read(sysroot))
    return sysroot, platform_of_definition(guest)


def _wish(args: argparse.Namespace) -> PlugWish:
    from altmap.host.mechanisms import PlugWish
    from altmap.units import parse_address, parse_size

    size_bytes = parse_size(args.size)
    if not size_bytes:
        raise InputError(f"size {args.size!r}: need more than 0 bytes")
    address = None if args.address is None else parse_address(args.address)
    return PlugWish(size_bytes, args.driver, args.node, address, to=args.to)


def _show(plan: Plan, args: argparse.Namespace) -> int:
    from altmap.host.plan import encode_plan
    from altmap.host.text.plan import plan_text
    from altmap.storage.files import write_file

    if args.output is not None:
        write_file(args.output, encode_plan(plan), new=True)
    if args.json:
        print(encode_plan(plan), end="")
    else:
        show(plan_text(plan, terminal_width()), end="")
    return CHANGES if plan.steps and args.detailed_exitcode else PLANNED


_EXIT_CODES: tuple[tuple[int | str, str], ...] = (
    (0, "a plan was made; with --detailed-exitcode: nothing to do"),
    (1, "no plan could be made"),
    (2, "with --detailed-exitcode: there are steps"),
)


_GROW = Example("altmap plan grow 64GiB -o plan.json", "steps up to a total, for altmap apply")


def _goal(
    name: str,
    about: str,
    examples: tuple[Example, ...],
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
) -> Verb:
    return Verb(name, about, examples, _EXIT_CODES, add_arguments, run, failed=NO_PLAN)


VERB = Verb(
    "plan",
    "plan steps towards a goal, each with prediction and risks",
    (
        _GROW,
        Example("altmap plan free 33-35", "take three memory blocks offline"),
    ),
    _EXIT_CODES,
    verbs=(
        _goal(
            "add",
            "add memory",
            (
                Example("altmap plan add 1GiB --to online_movable", "a DIMM, its blocks movable"),
                Example("altmap plan add 16GiB --vm examples/vm/web.xml", "by its hypervisor"),
            ),
            _add_add,
            _add,
        ),
        _goal(
            "grow",
            "online what is offline, then add memory, up to a total",
            (
                _GROW,
                Example("altmap plan grow 24GiB --driver virtio-mem", "one device, resized"),
            ),
            _add_grow,
            _grow,
        ),
        _goal(
            "free",
            "take memory blocks offline",
            (
                Example("altmap plan free --any 3", "three memory blocks, whichever can go"),
                Example("altmap plan free 33-35", "these three"),
            ),
            _add_free,
            _free,
        ),
        _goal(
            "remove",
            "take a device's blocks offline, then remove the device",
            (
                Example("altmap plan remove PNP0C80:00", "a DIMM, by its firmware node"),
                Example("altmap plan remove --any 256MiB", "so much, from whichever can give it"),
            ),
            _add_remove,
            _remove,
        ),
        _goal(
            "resize",
            "resize a virtio-mem device or a balloon",
            (
                Example("altmap plan resize virtio0 512MiB", "a virtio-mem device"),
                Example("altmap plan resize virtio0 0MiB --json", "unplug all of it; as JSON"),
            ),
            _add_resize,
            _resize,
        ),
    ),
    failed=NO_PLAN,
)
