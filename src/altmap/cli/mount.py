"""``altmap mount``: the modelled machine's files as a file system that programs act on.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.parser import Example, Verb

if TYPE_CHECKING:
    from altmap.live.machine import LiveMachine

__all__ = ("VERB", "add_machine", "live_machine")

DONE = 0


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add a machine: a scenario or the files of a real one, and what is set in it."""
    parser.add_argument(
        "source",
        metavar="SCENARIO|SYSROOT",
        type=Path,
        help="a scenario in TOML: the machine after its steps; or a folder or archive of files",
    )
    options.add_release(parser, "kernel release, such as 6.12; default: the scenario's")
    options.add_settings(
        parser, "set a key of the scenario's [machine], such as memmap_on_memory=force"
    )


def live_machine(args: argparse.Namespace) -> LiveMachine:
    """Return the machine that the arguments of :func:`add_machine` name."""
    from altmap.linux.sysroot import Sysroot
    from altmap.live.machine import LiveMachine
    from altmap.scenario import build_scenario, load_scenario, set_machine_keys

    if args.source.suffix == ".toml":
        scenario = load_scenario(args.source, args.settings)
        return LiveMachine.start(scenario.with_machine(release=args.release))
    sysroot = Sysroot.read(args.source)
    tables: dict[str, object] = {"name": "machine"}
    set_machine_keys(tables, args.settings)
    return LiveMachine.start(build_scenario(tables).with_machine(release=args.release), sysroot)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine(parser)
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        help="an empty folder to mount on; default: a new one, which is removed in the end",
    )
    parser.add_argument(
        "--record", metavar="FILE", type=Path, help="append each read and write, as a JSON line"
    )
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="also unmount when standard input ends, as a pipe does when its program is killed",
    )


def _mount(args: argparse.Namespace) -> int:
    from altmap.live.mounting import mount_folder
    from altmap.live.server import check_tools, serve

    check_tools()
    machine = live_machine(args)

    with mount_folder(args.folder) as folder:

        def ready() -> None:
            print(f"{folder}: {machine.scenario.name} is mounted; Ctrl-C unmounts it", flush=True)

        serve(machine, folder, ready, args.record, until_eof=args.until_eof)
    return DONE


VERB = Verb(
    "mount",
    "mount the modelled machine's files, which programs read and write",
    (
        Example("altmap mount scenarios/small-guest.toml /mnt", "until Ctrl-C or an unmount"),
        Example(
            "altmap mount captured.tar /mnt --set memmap_on_memory=on", "a real machine's files"
        ),
    ),
    ((0, "unmounted"), (2, "could not be mounted")),
    _add_arguments,
    _mount,
)
