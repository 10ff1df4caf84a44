"""``altmap ctl``: the platform's side of a mounted machine, and what was done to it so far.

Effects: environment, files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from altmap.cli.parser import CommandParser, Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

__all__ = ("VERB",)

DONE, REFUSED = 0, 1
_ACTIONS = "plug, unplug, resize, step, show, explain or save; each has --help"
_Action = Callable[[argparse.Namespace], int]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="where the machine is mounted; - in a shell of it"
    )
    below = parser.add_subparsers(
        metavar="ACTION", required=True, parser_class=CommandParser, help=_ACTIONS
    )

    def add(name: str, about: str, action: _Action) -> argparse.ArgumentParser:
        made: CommandParser = below.add_parser(name, help=about, description=f"{about}.")
        made.set_defaults(action=action)
        return made

    plug = add("plug", "plug memory", _plug)
    plug.add_argument("--size", metavar="SIZE", required=True, help="such as 1GiB")
    plug.add_argument("--driver", default="dimm", help="default: dimm")
    plug.add_argument("--id", help="the device's id; default: the driver and a number")
    plug.add_argument("--node", type=int, help="its NUMA node")
    plug.add_argument("--address", help="its physical address, such as 0x100000000")
    unplug = add("unplug", "request a device back", _unplug)
    unplug.add_argument("id", metavar="ID", help="the device's id")
    resize = add("resize", "request another size of a device or balloon", _resize)
    resize.add_argument("id", metavar="ID", help="the device's id")
    resize.add_argument("size", metavar="SIZE", help="such as 2GiB")
    step = add("step", "perform the steps of a scenario", _step)
    step.add_argument("file", metavar="FILE", type=Path, help="a scenario in TOML")
    add("show", "show kernel, blocks and devices", _show)
    explain = add("explain", "show whether a block would go offline, and else why not", _explain)
    explain.add_argument("block", metavar="BLOCK", help="such as 33 or memory33")
    save = add("save", "save what was done so far as a scenario", _save)
    save.add_argument("file", metavar="FILE", type=Path, help="the scenario to write")


def _ctl(args: argparse.Namespace) -> int:
    action: _Action = args.action
    return action(args)


def _ask(args: argparse.Namespace, asked: dict[str, Any]) -> dict[str, Any]:
    from altmap.live.control import request

    folder = args.folder
    if str(folder) == "-":
        given = os.environ.get("ALTMAP_MACHINE")
        if given is None:
            raise InputError("ctl -: this is not a shell of altmap shell: need a folder")
        folder = Path(given)
    return request(folder, asked)


def _perform(args: argparse.Namespace, steps: list[dict[str, Any]]) -> int:
    outcomes: list[str] = _ask(args, {"do": "perform", "steps": steps})["outcomes"]
    for step, outcome in zip(steps, outcomes, strict=True):
        show(f"{' '.join(str(step[key]) for key in ('do', 'id') if key in step)}: {outcome}")
    return DONE if all(outcome == "ok" for outcome in outcomes) else REFUSED


def _plug(args: argparse.Namespace) -> int:
    id_ = args.id or _ask(args, {"do": "new_id", "prefix": args.driver})["id"]
    keys = {"size": args.size, "driver": args.driver, "node": args.node, "address": args.address}
    given = {key: value for key, value in keys.items() if value is not None}
    return _perform(args, [{"do": "plug", "id": id_, **given}])


def _unplug(args: argparse.Namespace) -> int:
    return _perform(args, [{"do": "unplug", "id": args.id}])


def _resize(args: argparse.Namespace) -> int:
    return _perform(args, [{"do": "resize", "id": args.id, "size": args.size}])


def _step(args: argparse.Namespace) -> int:
    from altmap.scenario import load_scenario, plain_table

    return _perform(args, [plain_table(step) for step in load_scenario(args.file).steps])


def _show(args: argparse.Namespace) -> int:
    show(_ask(args, {"do": "show"})["text"], end="")
    return DONE


def _explain(args: argparse.Namespace) -> int:
    from altmap.scenario import Offline, selected_blocks

    (block, *_) = selected_blocks(Offline(blocks=args.block)) or [0]
    show(_ask(args, {"do": "explain", "block": block})["text"])
    return DONE


def _save(args: argparse.Namespace) -> int:
    from altmap.storage.files import write_file

    write_file(args.file, _ask(args, {"do": "save", "name": args.file.stem})["text"])
    return DONE


VERB = Verb(
    "ctl",
    "plug, unplug and inspect a mounted machine",
    (
        Example("altmap ctl /mnt plug --size 1GiB", "a DIMM, as the platform plugs it"),
        Example("altmap ctl /mnt explain 33", "whether memory33 would go offline"),
        Example("altmap ctl /mnt save done.toml", "for altmap run, or compare on a real kernel"),
    ),
    ((0, "done"), (1, "a step was refused"), (2, "no machine, or a request that none can do")),
    _add_arguments,
    _ctl,
)
