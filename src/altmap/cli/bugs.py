"""``altmap bugs``: known bugs, reproduced.

Effects: files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.output import notice, print_json, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show

__all__ = ("VERB",)

REPRODUCED, NOT_REPRODUCED = 0, 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="*", help="such as B8; default: all")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_write(parser)


def _bugs(args: argparse.Namespace) -> int:
    from altmap.cli.claims import placeholder, scenario_loader
    from altmap.storage.files import check_new_folder, write_folder
    from altmap.studies import bugs
    from altmap.studies.bugs.text import bugs_builtins, bugs_text

    ours = Path(bugs.__file__).with_name("scenarios")
    chosen = bugs.bugs_named(bugs.BUGS, args.id)
    if args.write is not None:
        check_new_folder(args.write)
    with working(f"experiments of {len(chosen)} bugs"):
        found = bugs.find(chosen, scenario_loader(ours))
    if args.write is not None:
        write_folder(args.write, {path.name: path.read_bytes() for path in ours.iterdir()})
    if args.json:
        print_json(bugs_builtins(found))
    else:
        show(bugs_text(found, placeholder(args.write), terminal_width()), end="")
    if args.write is not None:
        notice(args, f"scenarios written to {args.write}")
    return NOT_REPRODUCED if any(shown.reproduced is False for shown in found) else REPRODUCED


VERB = Verb(
    "bugs",
    "reproduce known bugs, with kernels that have them and that do not",
    (
        Example("altmap bugs B8", "one bug: measured with it and without it"),
        Example("altmap bugs --write bugs", "all of them, their scenarios in a folder"),
    ),
    (
        (0, "every bug is reproduced as it is known"),
        (1, "one is not"),
        (2, "could not be run"),
    ),
    _add_arguments,
    _bugs,
)
