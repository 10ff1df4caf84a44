"""The program: which commands there are, the one that is asked for, and how it ends.

A command is a module of this package with a ``VERB``. Only the module of the command that is given
is imported, and each imports what it works with when it runs, so that help costs nothing.

Effects: environment, imports, terminal.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from altmap import __version__
from altmap.cli.parser import CommandParser, Example, Verb, add_verbs
from altmap.cli.streams import discard, standard_streams, tell
from altmap.errors import AltmapError, LabError, printable

__all__ = (
    "COMMON_EXIT_CODES",
    "DIFFERENT",
    "EQUAL",
    "FAILED",
    "GROUPS",
    "INTERNAL_ERROR",
    "INTERRUPTED",
    "CommandGroup",
    "command_line",
    "main",
    "verb_named",
)

EQUAL, DIFFERENT, FAILED = 0, 1, 2  # as diff(1)
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
#: Of every command, besides its own.
COMMON_EXIT_CODES = (
    (INTERNAL_ERROR, "internal error: a defect of altmap; --debug shows where"),
    (INTERRUPTED, "interrupted by Ctrl-C"),
)


class CommandGroup(NamedTuple):
    """Commands for one purpose.

    Attributes
    ----------
    name, purpose : str
    verbs : tuple of str
        Names of commands, which are also the names of their modules.
    example : str
    """

    name: str
    purpose: str
    verbs: tuple[str, ...]
    example: str


GROUPS = (
    CommandGroup(
        "predict",
        "predict what memory hotplug does",
        ("run", "account", "report", "vm", "new"),
        "altmap run scenarios/dimm-1GiB.toml",
    ),
    CommandGroup(
        "verify",
        "verify predictions on real kernels",
        ("compare", "record", "conform", "hunt", "check", "lab"),
        "altmap compare scenarios/dimm-1GiB.toml --release 6.12",
    ),
    CommandGroup(
        "operate",
        "operate the memory of this host",
        ("ls", "snapshot", "explain", "plan", "apply", "watch", "export"),
        "altmap plan grow 64GiB -o plan.json",
    ),
    CommandGroup(
        "act",
        "let programs act on the model",
        ("mount", "shell", "ctl"),
        "altmap shell scenarios/small-guest.toml -- lsmem",
    ),
    CommandGroup(
        "explore",
        "explore many scenarios",
        ("explore", "sweep"),
        "altmap explore four-blocks --depth 4",
    ),
    CommandGroup(
        "study",
        "study claims and known bugs",
        ("claims", "bugs"),
        "altmap claims C13",
    ),
)
#: Errors of print: files of a command's own are written by helpers that say which file it is.
_OUTPUT_FAILS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NAMES = tuple(name for group in GROUPS for name in group.verbs)
_ABOUT = "Predict, verify and explain Linux memory hotplug."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy starts threads that no command uses
    with standard_streams():
        return _main(words)


def _main(words: list[str]) -> int:
    failed = FAILED
    try:
        try:
            args = _parser_for(words).parse_args(words)
            failed = FAILED if args.verb is None else args.verb.failed
            return _status(args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)  # the reader has gone
    except OSError as error:
        discard(sys.stdout)
        tell(f"altmap: standard output: {error.strerror}")
    return failed


def _status(args: argparse.Namespace) -> int:
    """Run one command; every error but those of standard output becomes a line and a code."""
    verb: Verb | None = args.verb
    if verb is None or verb.run is None:
        _parser_for([]).print_help()
        return 0
    try:
        return verb.run(args)
    except LabError as error:
        tell(f"altmap: {error}")  # with the console's last lines
        return verb.failed
    except AltmapError as error:
        from altmap.cli.file_kinds import instead

        text = str(error)
        tell(f"altmap: {printable(text + instead(text, args, args.called))}")
        return verb.failed
    except KeyboardInterrupt as interrupt:
        tell(f"altmap: interrupted{'; ' if str(interrupt) else ''}{printable(str(interrupt))}")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_FAILS:
            raise
        _tell_internal_error(error, args.called, debug=args.debug)
        return INTERNAL_ERROR


def _tell_internal_error(error: Exception, called: str, *, debug: bool) -> None:
    if debug:
        import traceback

        tell("".join(traceback.format_exception(error)).rstrip())
        return
    what = printable(": ".join(filter(None, (type(error).__name__, str(error)))))
    tell(f"altmap: internal error: {what} (altmap --debug {called} ... shows where)")


def verb_named(name: str) -> Verb:
    """Return a command by its name, one of :data:`GROUPS`."""
    verb: Verb = importlib.import_module(f"altmap.cli.{name}").VERB
    return verb


def command_line() -> CommandParser:
    """Return the parser of all commands: pages, man pages and completion are made from it."""
    return _parser(map(verb_named, _NAMES))


def _parser_for(words: Sequence[str]) -> CommandParser:
    """Return a parser that has at least the command that the words ask for."""
    first = next((word for word in words if not word.startswith("-")), "")
    return _parser([verb_named(first)] if first in _NAMES else [])


class _ProgramParser(CommandParser):
    """The program's own parser, whose help lists the commands by their purpose."""

    def format_help(self) -> str:
        lines = [self.format_usage(), _ABOUT, ""]
        for group in GROUPS:
            lines.append(f"{group.purpose}:")
            lines += [f"  {name:9} {verb_named(name).about}" for name in group.verbs]
            lines += [f"  example:  {group.example}", ""]
        lines += [
            "altmap help COMMAND shows the arguments, examples and exit codes of a command.",
            "",
            "options:",
            "  -h, --help     show this help",
            "  -V, --version  show the version",
            f"  --debug        {_DEBUG}",
            "",
            "exit codes of every command, besides its own:",
            *(f"  {code:<3}  {meaning}" for code, meaning in COMMON_EXIT_CODES),
        ]
        return "\n".join(lines) + "\n"


_DEBUG = "show where an internal error happens, as a traceback"


def _parser(verbs: Iterable[Verb]) -> CommandParser:
    parser = _ProgramParser(prog="altmap", description=_ABOUT, commands=[*_NAMES, "help"])
    parser.add_argument("-V", "--version", action="version", version=f"altmap {__version__}")
    parser.add_argument("--debug", action="store_true", help=_DEBUG)
    parser.set_defaults(verb=None)
    add_verbs(parser, [*verbs, HELP], "COMMAND", required=False)
    return parser


def _add_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="such as plan, or plan add")


def _help(args: argparse.Namespace) -> int:
    parser = _parser_for(args.command)
    parser.parse_args([*args.command, "--help"])
    raise AssertionError("argparse ends the program after help")


HELP = Verb(
    "help",
    "show the help of a command",
    (Example("altmap help plan", "arguments, examples and exit codes of altmap plan"),),
    ((0, "done"), (2, "no such command")),
    _add_help,
    _help,
)
