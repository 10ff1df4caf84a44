"""``altmap explore``: the shortest sequence of operations that breaks a rule.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from altmap.explore.search import Process, SearchResult
    from altmap.explore.space import Space
    from altmap.explore.spec import Exploration

__all__ = ("VERB",)

HELD, BROKEN = 0, 1
_MOST_BYTES = 1 << 20
_AGAIN = "nothing is kept; --time with --keep continues later"
_MOST_JOBS = 256


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "exploration",
        metavar="EXPLORATION",
        nargs="?",
        help="a TOML file, or the name of one that is built in",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the built-in explorations and rules"
    )
    parser.add_argument("--show", action="store_true", help="print the exploration's file")
    options.add_settings(parser, "set a key of the file's [machine], such as release=6.12")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        help="memmap policy instead of the file's, or MODULE:CLASS for one in Python",
    )
    parser.add_argument(
        "--rule", metavar="NAME", action="append", default=[], help="only this rule; repeatable"
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a Python file with more rules",
    )
    parser.add_argument("--depth", metavar="N", type=int, help="steps of a sequence at most")
    parser.add_argument("--states", metavar="N", type=int, help="different states at most")
    parser.add_argument("--time", metavar="SECONDS", type=float, help="end after this time")
    parser.add_argument("--memory", metavar="SIZE", help="end at this much memory, such as 2GiB")
    parser.add_argument("--first", action="store_true", help="end with the first broken rule")
    parser.add_argument(
        "-j", "--jobs", metavar="N", type=int, default=1, help="processes; default: 1"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="write a scenario for each broken rule into this folder",
    )
    parser.add_argument(
        "--keep",
        metavar="FILE",
        type=Path,
        help="keep the rest of the search in a file, and continue from it if it exists",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _explore(args: argparse.Namespace) -> int:
    from altmap.explore.counterexample import confirm
    from altmap.explore.rules import load_rules, rules_named
    from altmap.explore.space import Space
    from altmap.explore.text import exploration_text, result_json
    from altmap.model.policies import load_policy

    if args.list:
        _list()
        return HELD
    path = _path(args)
    if args.show:
        print(_text_of(path), end="")
        return HELD
    exploration = _bounded(args, path)
    more = [rule for file in args.rules for rule in load_rules(file)]
    rules = rules_named(args.rule or exploration.rules, more)
    module = _module(args)
    space = Space(exploration, rules, load_policy(module) if module else None)
    result = _search(args, space, [rule.name for rule in rules])
    for found in result.found:
        confirm(space, found)
    written = _write(args.output, exploration, result)
    files = {rule: str(path) for rule, path in written.items()}
    if args.json:
        print(json.dumps(result_json(exploration, rules, result, files), indent=1))
    else:
        show(exploration_text(exploration, rules, result, files, module))
    return BROKEN if result.found else HELD


def _text_of(path: Path) -> str:
    from altmap.storage.files import read_file

    try:
        return read_file(path, _MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"exploration {path}: not UTF-8 text") from error


def _module(args: argparse.Namespace) -> str:
    """Return ``MODULE:CLASS`` if the policy is one, else an empty string."""
    from altmap.model.policies import is_built_in

    return "" if args.policy is None or is_built_in(args.policy) else str(args.policy)


def _path(args: argparse.Namespace) -> Path:
    from altmap.explore import built_in

    if args.exploration is None:
        raise InputError("explore: name an exploration, or see --list")
    path = Path(args.exploration)
    return path if path.suffix == ".toml" or path.is_file() else built_in(args.exploration)


def _list() -> None:
    from altmap.explore import built_in, built_in_names
    from altmap.explore.rules import RULES
    from altmap.explore.spec import load_exploration

    names = built_in_names()
    width = max(map(len, (*names, *(rule.name for rule in RULES))))
    show("explorations:")
    for name in names:
        show(f"  {name:<{width}}  {load_exploration(built_in(name)).description}")
    show("rules:")
    for rule in RULES:
        show(f"  {rule.name:<{width}}  {rule.text}")


def _bounded(args: argparse.Namespace, path: Path) -> Exploration:
    """Return the exploration with the bounds of the command line."""
    from altmap.explore.spec import check_bounds, load_exploration
    from altmap.model.policies import load_policy

    settings = list(args.settings)
    if args.policy is not None and not _module(args):
        settings.append(f"policy={load_policy(args.policy).name}")
    exploration = load_exploration(path, settings)
    for name in ("depth", "states"):
        value = getattr(args, name)
        if value is not None:
            setattr(exploration.bounds, name, value)
    check_bounds(exploration.bounds)
    if not 1 <= args.jobs <= _MOST_JOBS:
        raise InputError(f"--jobs {args.jobs}: need 1 to {_MOST_JOBS}")
    if args.time is not None and not args.time > 0:
        raise InputError(f"--time {args.time}: need more than 0 seconds")
    return exploration


def _search(args: argparse.Namespace, space: Space, rules: list[str]) -> SearchResult:
    from altmap.explore.checkpoint import read_checkpoint, write_checkpoint
    from altmap.explore.search import search
    from altmap.units import parse_size

    begun = None
    if args.keep is not None and args.keep.exists():
        begun, saved = read_checkpoint(args.keep, space)
    with _processes(args, space, rules) as processes, _progress(space) as on_level:
        if begun is not None:
            for process in processes:
                process.resume(saved)
        result = search(
            space,
            processes,
            seconds=args.time,
            most_bytes=None if args.memory is None else parse_size(args.memory),
            first_only=args.first,
            result=begun,
            on_level=on_level,
        )
        if args.keep is not None:
            write_checkpoint(args.keep, space, result, [each.save() for each in processes])
    return result


@contextlib.contextmanager
def _processes(args: argparse.Namespace, space: Space, rules: list[str]) -> Iterator[list[Process]]:
    from altmap.explore.search import Local
    from altmap.explore.share import Share
    from altmap.explore.workers import workers

    if args.jobs == 1:
        yield [Local(Share(space))]
        return
    module = _module(args) or None
    with workers(space.exploration, rules, args.rules, args.jobs, module) as started:
        yield list(started)


@contextlib.contextmanager
def _progress(space: Space) -> Iterator[Callable[[SearchResult, int], None]]:
    from altmap.cli.progress import progress

    with progress(space.exploration.bounds.depth, lines=False, again=_AGAIN) as (say, done):

        def on_level(result: SearchResult, nr_waiting: int) -> None:
            done()
            say(
                f"{result.depth} steps: {result.nr_states:,} states, "
                f"{result.nr_transitions:,} transitions, {nr_waiting:,} waiting"
            )

        yield on_level


def _write(folder: Path | None, exploration: Exploration, result: SearchResult) -> dict[str, Path]:
    """Write the counterexamples as scenarios; return their files by rule."""
    from altmap.explore.counterexample import counterexample_toml
    from altmap.storage.files import write_file

    if folder is None:
        return {}
    files = {found.rule: folder / f"{exploration.name}-{found.rule}.toml" for found in result.found}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    for found in result.found:
        write_file(files[found.rule], counterexample_toml(exploration, found))
    return files


VERB = Verb(
    "explore",
    "find the shortest sequence of operations that breaks a rule",
    (
        Example("altmap explore four-blocks --depth 4", "every sequence of up to four operations"),
        Example(
            "altmap explore four-blocks --depth 4 --policy mine:Policy",
            "a policy in Python, from mine.py",
        ),
        Example("altmap explore --list", "built-in explorations and rules"),
    ),
    (
        (0, "no rule is broken within the bounds"),
        (1, "a rule is broken"),
        (2, "could not be done"),
    ),
    _add_arguments,
    _explore,
)
