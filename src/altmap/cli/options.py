"""Arguments that several commands have.

Effects: files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = (
    "SYSROOT_HELP",
    "add_kernel",
    "add_policies",
    "add_release",
    "add_scenarios",
    "add_settings",
    "add_sysroot",
    "add_touched",
    "add_write",
)

SYSROOT_HELP = "a folder or archive: sysroot, snapshot or sosreport; default: this host"


def add_scenarios(parser: argparse.ArgumentParser, nargs: int | str = "+") -> None:
    """Add scenario files and what is set in them."""
    parser.add_argument("scenario", metavar="SCENARIO", type=Path, nargs=nargs, help="a TOML file")
    add_settings(parser, "set a key of the scenario's [machine], such as memmap_on_memory=force")


def add_settings(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings", help=text
    )


def add_policies(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--policy``, which may be repeated."""
    parser.add_argument("--policy", metavar="P", action="append", default=[], help=text)


def add_release(parser: argparse.ArgumentParser, text: str) -> None:
    """Add one ``--release``."""
    parser.add_argument("--release", metavar="R", help=text)


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add a kernel that is not Debian's."""
    parser.add_argument(
        "--kernel", metavar="PATH", type=Path, help="a kernel image to boot instead of Debian's"
    )
    parser.add_argument(
        "--modules", metavar="DIR", type=Path, help="its modules, as modules_install leaves them"
    )


def add_sysroot(parser: argparse.ArgumentParser) -> None:
    """Add the files of a machine as an argument."""
    parser.add_argument(
        "sysroot", metavar="SYSROOT", type=Path, nargs="?", default=Path("/"), help=SYSROOT_HELP
    )


def add_touched(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--touched``."""
    parser.add_argument("--touched", action="store_true", help=text)


def add_write(parser: argparse.ArgumentParser) -> None:
    """Add a folder for the scenarios of a study."""
    parser.add_argument(
        "--write", metavar="DIR", type=Path, help="copy the scenarios to a new or empty folder"
    )
