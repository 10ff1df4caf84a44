"""Arguments that several commands have.

Effects: files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.linux.evidence import Given
    from altmap.scenario import Machine

__all__ = (
    "SYSROOT_HELP",
    "add_guests",
    "add_kernel",
    "add_machine",
    "add_policies",
    "add_release",
    "add_scenarios",
    "add_settings",
    "add_sysroot",
    "add_touched",
    "add_write",
    "check_guests",
    "given_by",
    "machine_by",
)

_MOST_GUESTS = 64
SYSROOT_HELP = "a folder or archive: sysroot, snapshot or sosreport; default: this host"


def add_scenarios(parser: argparse.ArgumentParser, nargs: int | str = "+") -> None:
    """Add scenario files and what is set in them."""
    parser.add_argument("scenario", metavar="SCENARIO", type=Path, nargs=nargs, help="a TOML file")
    add_settings(parser, "set a key of the scenario's [machine], such as memmap_on_memory=force")


def add_settings(parser: argparse._ActionsContainer, text: str) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings", help=text
    )


def add_policies(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--policy``, which may be repeated."""
    parser.add_argument("--policy", metavar="POLICY", action="append", default=[], help=text)


def add_release(parser: argparse._ActionsContainer, text: str) -> None:
    """Add one ``--release``."""
    parser.add_argument("--release", metavar="RELEASE", help=text)


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add a kernel that is not Debian's."""
    parser.add_argument(
        "--kernel", metavar="PATH", type=Path, help="a kernel image to boot instead of Debian's"
    )
    parser.add_argument(
        "--modules", metavar="DIR", type=Path, help="its modules, as modules_install leaves them"
    )


def add_guests(parser: argparse.ArgumentParser) -> None:
    """Add ``-j``."""
    parser.add_argument(
        "-j",
        metavar="N",
        type=int,
        dest="nr_guests",
        default=1,
        help="guests at a time; default: 1",
    )


def check_guests(args: argparse.Namespace) -> None:
    """Check ``-j``.

    Raises
    ------
    InputError
        If it is no number of guests.
    """
    if not 1 <= args.nr_guests <= _MOST_GUESTS:
        raise InputError(f"-j {args.nr_guests}: need 1 to {_MOST_GUESTS} guests")


def add_sysroot(parser: argparse.ArgumentParser) -> None:
    """Add the files of a machine as an argument."""
    parser.add_argument(
        "sysroot", metavar="SYSROOT", type=Path, nargs="?", default=Path("/"), help=SYSROOT_HELP
    )


def add_touched(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--touched``."""
    parser.add_argument("--touched", action="store_true", help=text)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add what may be said of the machine whose files are read."""
    group = parser.add_argument_group("what the files do not tell, or tell wrongly")
    group.add_argument("--arch", metavar="ARCH", help="architecture, such as aarch64-64k")
    add_release(group, "kernel release, such as 6.12")
    add_settings(group, "set a key of a scenario's [machine], such as page_size=64KiB")


def machine_by(args: argparse.Namespace) -> Machine:
    """Return the machine of a scenario that these options make.

    Raises
    ------
    InputError
        If there is no such key, or its value is none of it.
    """
    from altmap.scenario import build_scenario
    from altmap.scenario.toml import set_machine_keys

    keys = {name: getattr(args, name) for name in ("arch", "release")}
    data: dict[str, Any] = {"name": "host", "machine": {k: v for k, v in keys.items() if v}}
    set_machine_keys(data, args.settings)
    return build_scenario(data).machine


def given_by(args: argparse.Namespace) -> Given:
    """Return what these options say of the machine itself."""
    from altmap.linux.evidence import NOTHING_GIVEN

    if not (args.arch or args.release or args.settings):
        return NOTHING_GIVEN  # without an import of the model
    from altmap.model.adopt.rules import given_of

    return given_of(machine_by(args))


def add_write(parser: argparse.ArgumentParser) -> None:
    """Add a folder for the scenarios of a study."""
    parser.add_argument(
        "--write", metavar="DIR", type=Path, help="copy the scenarios to a new or empty folder"
    )
