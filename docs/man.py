"""Make man pages and shell completion from the commands' own arguments.

``python docs/man.py build`` (or ``make man``) fills ``build/man`` and ``build/completions``: a page
for altmap and one for each command, in section 8 for what acts and 1 for what reads; completion for
bash and zsh.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from altmap import __version__
from altmap.cli.main import COMMON_EXIT_CODES, command_line
from altmap.cli.parser import CommandParser

#: Commands that change a machine.
ACTING = ("altmap apply",)
ENVIRONMENT = [
    ("COLUMNS", "width of tables and paragraphs"),
    ("XDG_CACHE_HOME", "where kernels of the lab are kept, below altmap; default: ~/.cache"),
]


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    commands = {"altmap": command_line(), **dict(_commands("altmap", command_line()))}
    return {
        f"{_file(name)}.{_section(name)}": _page(name, command, list(commands))
        for name, command in commands.items()
    }


def completions() -> dict[str, str]:
    """Return the completion of each shell by its file name."""
    return {
        "altmap": shtab.complete(command_line(), shell="bash"),
        "_altmap": shtab.complete(command_line(), shell="zsh"),
    }


def _commands(name: str, above: CommandParser) -> Iterator[tuple[str, CommandParser]]:
    for action in above._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, parser in action.choices.items():
                full = f"{name} {word}"
                yield full, parser
                yield from _commands(full, parser)


def _section(name: str) -> int:
    return 8 if name in ACTING else 1


def _file(name: str) -> str:
    return name.replace(" ", "-")


def _page(name: str, parser: CommandParser, names: list[str]) -> str:
    title = _file(name)
    verb = parser.verb
    about = "predict, verify and explain memory hotplug" if verb is None else verb.about
    lines = [
        f'.TH {title.upper()} {_section(name)} "" "altmap {__version__}"',
        ".SH NAME",
        rf"{_text(title)} \- {_text(about)}",
        ".SH SYNOPSIS",
        *_synopsis(name, parser),
    ]
    if verb is not None and verb.more:
        lines += [".SH DESCRIPTION", ".nf", *map(_text, verb.more.splitlines()), ".fi"]
    lines += _options(parser)
    if verb is not None:
        lines.append(".SH EXAMPLES")
        lines += _items([(example.line, example.meaning) for example in verb.examples])
    own = () if verb is None else verb.exit_codes
    lines.append(".SH EXIT STATUS")
    lines += _items([(str(code), meaning) for code, meaning in (*own, *COMMON_EXIT_CODES)])
    lines.append(".SH ENVIRONMENT")
    lines += _items(ENVIRONMENT)
    lines.append(".SH SEE ALSO")
    related = [f".BR {_text(_file(each))} ({_section(each)})" for each in names if each != name]
    lines.append(" ,\n".join(related))
    return "\n".join(lines) + "\n"


def _synopsis(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = re.sub(r"\s+", " ", parser.format_usage()).strip()
    words = usage.removeprefix("usage: ").removeprefix(f"{name} ").removeprefix(parser.prog)
    yield rf"\fB{_text(name)}\fR {_text(words.strip())}"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield ".SH OPTIONS"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield from _items([(choice.dest, choice.help or "")])
            continue
        if action.help == argparse.SUPPRESS:
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else (action.dest or "")
        if action.choices is not None and action.metavar is None:
            metavar = "{" + ",".join(map(str, action.choices)) + "}"
        value = "" if action.nargs == 0 else f" {metavar}"
        head = ", ".join(f"{option}{value}" for option in action.option_strings) or metavar
        yield from _items([(head, action.help or "")])


def _items(items: list[tuple[str, str]]) -> Iterator[str]:
    for head, text in items:
        yield ".TP"
        yield rf"\fB{_text(head)}\fR"
        yield _text(text)


def _text(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped[:1] in (".", "'") else escaped


def main(folder: Path) -> None:
    """Write all pages and completions below a folder."""
    for name, made in (("man", pages()), ("completions", completions())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, text in made.items():
            (folder / name / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
