"""The values of arguments that several commands have, as the end of each help lists them.

They are text, since help loads no model; ``tests/cli/test_help.py`` compares them with the records.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator

from altmap.cli.fit import columns

__all__ = ("VALUES", "values_text")

_SIZE = "a number and KiB, MiB, GiB, TiB or PiB, such as 512MiB"
#: What is listed for an argument, by its name in the usage.
VALUES = {
    "ARCH": "x86_64, x86_64-la57, aarch64, aarch64-16k, aarch64-64k, ppc64le, ppc64le-64k, s390x",
    "POLICY": "opt-in, rfc-2018, existing, per-block, hinted, shared-host, total-and-allocated; "
    "one of these and +merged, +hidden, +total or +meminfo; MODULE:CLASS for one in Python",
    "RELEASE": "4.20, 5.10, 5.13, 5.15, 6.1, 6.6, 6.8, 6.12, 6.18, 7.0, 7.2, 7.3; for another "
    "number the nearest of them stands in",
    "GUEST": "x86_64, ppc64le, ppc64le-64k, aarch64, aarch64-16k, s390x",
    "SIZE": _SIZE,
    "TOTAL": _SIZE,
    "SYSROOT": "a folder or archive (.tar, .tar.gz, .tar.xz) with files of /proc and /sys: what "
    "altmap snapshot packs, a sosreport, a step of run --export",
    "KEY=VALUE": "a key of a scenario's [machine], such as memory=2GiB, memmap_on_memory=on, "
    "auto_online_blocks=online_movable, online_policy=auto-movable",
}
_INDENT = 14


def values_text(actions: Iterable[argparse.Action]) -> Iterator[str]:
    """Yield the lines about the values of these arguments, empty if none has a list of them."""
    named = {action.metavar for action in actions if action.help != argparse.SUPPRESS}
    shown = {name: text for name, text in VALUES.items() if name in named}
    if not shown:
        return
    width = min(80, columns(80)) - 2  # as argparse has it
    yield "values:"
    for name, text in shown.items():
        yield from textwrap.wrap(
            text, width, initial_indent=f"  {name:{_INDENT - 2}}", subsequent_indent=" " * _INDENT,
            break_on_hyphens=False,
        )  # fmt: skip
    yield ""
