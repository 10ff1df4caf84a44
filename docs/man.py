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
from altmap.cli.main import command_line

#: Commands that change a machine.
ACTING = ("altmap apply",)
EXIT_STATUS = {
    "": [("0", "done"), ("2", "could not be done: one line on standard error says why")],
    "altmap compare": [
        ("0", "everything equal, or within a stated tolerance"),
        ("1", "something differs"),
        ("2", "could not be run"),
    ],
    "altmap claims": [
        ("0", "every verdict is the known one"),
        ("1", "one is not"),
        ("2", "could not be run"),
    ],
    "altmap watch": [
        ("0", "ended by Ctrl-C or --for; with --once: something happened"),
        ("1", "with --once: nothing has happened in that time"),
        ("2", "the machine cannot be watched"),
    ],
    "altmap plan": [
        ("0", "nothing to do"),
        ("1", "no plan could be made"),
        ("2", "there are steps"),
    ],
    "altmap apply": [
        ("0", "done, a dry run, or all taken back by --rollback"),
        ("1", "a surprise: everything was taken back"),
        ("2", "not begun"),
        ("64", "done in part"),
    ],
}
ENVIRONMENT = [
    ("COLUMNS", "width of tables and paragraphs"),
    ("XDG_CACHE_HOME", "where kernels of the lab are kept, below altmap; default: ~/.cache"),
]


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    parser = command_line()
    commands = dict(_leaves("altmap", parser))
    made = {"altmap.1": _page("altmap", parser, "predict, verify and explain memory hotplug", {})}
    for name, (command, about) in commands.items():
        made[f"{_file(name)}.{_section(name)}"] = _page(name, command, about, commands)
    return made


def completions() -> dict[str, str]:
    """Return the completion of each shell by its file name."""
    return {
        "altmap": shtab.complete(command_line(), shell="bash"),
        "_altmap": shtab.complete(command_line(), shell="zsh"),
    }


def _leaves(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, tuple[argparse.ArgumentParser, str]]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for verb, command in action.choices.items():
                full = f"{name} {verb}"
                yield full, (command, about.get(verb, ""))
                yield from _leaves(full, command)


def _section(name: str) -> int:
    return 8 if name in ACTING else 1


def _file(name: str) -> str:
    return name.replace(" ", "-")


def _page(
    name: str,
    parser: argparse.ArgumentParser,
    about: str,
    commands: dict[str, tuple[argparse.ArgumentParser, str]],
) -> str:
    title = _file(name)
    lines = [
        f'.TH {title.upper()} {_section(name)} "" "altmap {__version__}"',
        ".SH NAME",
        rf"{_text(title)} \- {_text(about or parser.description or title)}",
        ".SH SYNOPSIS",
        *_synopsis(name, parser),
    ]
    described = [text for text in (parser.description, parser.epilog) if text]
    if described:
        lines.append(".SH DESCRIPTION")
        for text in described:
            keeps_lines = parser.formatter_class is not argparse.HelpFormatter
            lines += (
                [".nf", *map(_text, text.splitlines()), ".fi"] if keeps_lines else [_text(text)]
            )
    lines += _options(parser)
    lines.append(".SH EXIT STATUS")
    lines += _items(EXIT_STATUS.get(name) or EXIT_STATUS.get(_above(name)) or EXIT_STATUS[""])
    lines.append(".SH ENVIRONMENT")
    lines += _items(ENVIRONMENT)
    related = [other for other in ("altmap", *commands) if other != name]
    if related:
        lines.append(".SH SEE ALSO")
        lines.append(
            ",\n".join(f".BR {_text(_file(each))} ({_section(each)})" for each in related).replace(
                ",\n", " ,\n"
            )
        )
    return "\n".join(lines) + "\n"


def _above(name: str) -> str:
    return name.rpartition(" ")[0]


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
        metavar = action.metavar if isinstance(action.metavar, str) else (action.dest or "")
        if action.choices is not None and action.metavar is None:
            metavar = "{" + ",".join(map(str, action.choices)) + "}"
        value = "" if action.nargs == 0 else f" {metavar}"
        head = ", ".join(f"{option}{value}" for option in action.option_strings) or metavar
        text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        yield from _items([(head, text)])


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
