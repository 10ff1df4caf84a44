"""What a command is, and the parser of its words: a wrong word is answered with the nearest one.

Effects: terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, NoReturn

from altmap.cli.fit import fitted, width_of
from altmap.cli.values import values_text
from altmap.errors import nearest, one_of, unknown

__all__ = ("CommandParser", "Example", "Verb", "add_verbs")


class Example(NamedTuple):
    """A command line to type, and what it does."""

    line: str
    meaning: str


class Verb(NamedTuple):
    """A command, as its help, the pages of the documentation and the parser need it.

    Attributes
    ----------
    name : str
    about : str
        One sentence without its full stop.
    examples : tuple of Example
    exit_codes : tuple of (int or str, str)
        Those that it ends with, and what they mean.
    add_arguments : callable
        Adds its arguments to its parser.
    run : callable or None
        Does the work and returns the exit code; ``None`` if it has commands below it.
    verbs : tuple of Verb
        The commands below it.
    failed : int
        The exit code if it could not be done, a wrong argument included.
    more : str
        Lines for the end of the help, which are kept as they are.
    rest : str
        The argument that takes all words after ``--``, where options may stand before it.
    """

    name: str
    about: str
    examples: tuple[Example, ...]
    exit_codes: tuple[tuple[int | str, str], ...]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    run: Callable[[argparse.Namespace], int] | None = None
    verbs: tuple[Verb, ...] = ()
    failed: int = 2
    more: str = ""
    rest: str = ""


class CommandParser(argparse.ArgumentParser):
    """A parser of one command.

    Parameters
    ----------
    verb : Verb, optional
        The command; without one, the parser of the program itself.
    commands : sequence of str
        The words that may follow it.
    **keywords
        Of ``argparse.ArgumentParser``.
    """

    def __init__(
        self, *, verb: Verb | None = None, commands: Sequence[str] = (), **keywords: Any
    ) -> None:
        super().__init__(**keywords)
        self.color = False  # of Python 3.14: the stream would show its escape codes
        self.verb = verb
        self.commands = tuple(commands)

    def parse_known_args(  # type: ignore[override]  # as typeshed overloads it
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse words; those that are unknown end the program, with the usage of this command."""
        words = sys.argv[1:] if args is None else list(args)
        self._check_options(words)
        self._check_command(words)
        rest: list[str] = []
        if self.verb is not None and self.verb.rest and "--" in words:
            at = words.index("--")
            words, rest = words[:at], words[at + 1 :]
        known, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}")
        if rest and self.verb is not None:
            setattr(known, self.verb.rest, rest)
        return known, []

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help within the width of the terminal, or an error, which is one line."""
        stream = sys.stderr if file is None else file
        width = None if stream is sys.stderr else width_of(stream)
        super()._print_message(message if width is None else fitted(message, width), stream)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and end the program with the command's code for failure."""
        self.print_usage(sys.stderr)
        failed = 2 if self.verb is None else self.verb.failed
        self.exit(failed, f"{self.prog}: error: {message}\n")

    def _check_options(self, words: Iterable[str]) -> None:
        """Refuse an option that does not exist, before anything that is missing is mentioned."""
        if self.commands or self._subparsers is not None:  # what follows is for a parser below
            words = takewhile(lambda word: word.startswith("-"), words)
        known = self._option_string_actions
        for word in takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            if not word.startswith("--") or any(map(str.isspace, word)):
                continue
            if not any(option.startswith(name) for option in known):
                near = nearest(name, known)
                hint = "" if near is None else f": did you mean {near!r}?"
                self.error(f"unknown option {name!r}{hint}")

    def _check_command(self, words: Iterable[str]) -> None:
        given = next((word for word in words if not word.startswith("-")), None)
        if self.commands and given is not None and given not in self.commands:
            self.error(f"unknown command {given!r}: {unknown(given, self.commands)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a word that is none of an argument's, as every other wrong word is refused."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r}: {one_of(value, action.choices)}")


class _Help(argparse.HelpFormatter):
    """Wraps the description, and keeps the lines of what follows the arguments."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return text
        return super()._fill_text(text, width, indent)


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Iterable[Verb], metavar: str, *, required: bool
) -> None:
    """Add the parsers of commands below a parser."""
    below = parser.add_subparsers(metavar=metavar, required=required, parser_class=CommandParser)
    for verb in verbs:
        made: CommandParser = below.add_parser(
            verb.name,
            help=verb.about,
            description=f"{verb.about[0].upper()}{verb.about[1:]}.",
            formatter_class=_Help,
            verb=verb,
            commands=[each.name for each in verb.verbs],
        )
        verb.add_arguments(made)
        made.epilog = "\n".join(_epilog(verb, made._actions))
        if verb.verbs:
            add_verbs(made, verb.verbs, "COMMAND", required=True)
            continue
        # After the command too, though not in each command's help. Without a default, it keeps
        # what was given before the command.
        made.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        made.set_defaults(verb=verb, called=made.prog.partition(" ")[2])


def _epilog(verb: Verb, arguments: Iterable[argparse.Action]) -> Iterator[str]:
    if verb.more:
        yield verb.more
    yield from values_text(arguments)
    yield "examples:" if len(verb.examples) > 1 else "example:"
    for example in verb.examples:
        yield f"  # {example.meaning}"
        yield f"  {example.line}"
    yield "\nexit codes:"
    width = max(len(str(code)) for code, _ in verb.exit_codes)
    yield from (f"  {code!s:{width}}  {meaning}" for code, meaning in verb.exit_codes)
