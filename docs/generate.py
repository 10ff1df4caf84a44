"""Write what is made from the code: releases, drivers, claims, bugs, matrix, commands, picture.

Run ``python docs/generate.py`` after a change of a release's record, a claim, a bug or a
prediction; the tests fail until then.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from altmap.cli.main import GROUPS, INTERNAL_ERROR, INTERRUPTED, command_line
from altmap.cli.parser import CommandParser
from altmap.linux.kpageflags import flag_names
from altmap.model import drivers
from altmap.model.drivers.facts import DriverRecord
from altmap.model.machine import predict
from altmap.model.releases import RELEASES, Release
from altmap.report.page import groups
from altmap.report.picture import svg
from altmap.scenario import load_scenario
from altmap.studies import bugs, claims
from altmap.studies.bugs.text import bugs_page
from altmap.studies.claims.matrix import matrix, matrix_page
from altmap.studies.claims.text import claims_page

PAGE = Path(__file__).with_name("releases.md")
CLAIMS_PAGE = Path(__file__).with_name("claims.md")
BUGS_PAGE = Path(__file__).with_name("bugs.md")
MATRIX_PAGE = Path(__file__).with_name("matrix.md")
DRIVERS_PAGE = Path(__file__).with_name("drivers.md")
COMMANDS_PAGE = Path(__file__).with_name("commands.md")
PICTURE = Path(__file__).with_name("hyperv.svg")
PICTURE_SCENARIO = Path(__file__).parents[1] / "scenarios/hyperv-64MiB-second-half.toml"

#: Behaviours that decide what becomes of memmap_on_memory, in the order of a request's way.
MEMMAP = (
    "memmap_scope",
    "self_hosting",
    "memmap_force",
    "acpi_asks_only_if_supported",
    "refuses_unsupported_memmap",
    "memmap_page_flags",
)
#: What is no behaviour of the kernel: how the record is named, made and proved.
_ABOUT = ("name", "confirmed", "sources")

_HEAD = """\
# Releases

What each release does, as the model has it: the records of `src/altmap/model/releases.py`. This
page is made from them by `python docs/generate.py`, so change the records, not the page.
[architecture.md](architecture.md) says how rules use them, and
[CONTRIBUTING.md](../CONTRIBUTING.md#adding-a-release) how to add one.

A release without a record behaves like the newest one here that is not newer.
"""

_PROOF = """\
## How far a record can be trusted

*compared* (`confirmed`): predictions were compared with a real kernel of that release. *history*:
the record rests on the kernel's history alone, and nobody has seen it fail or hold.
"""

_SOURCES = """\
## Sources

Where each value is written. A release that a behaviour's rows leave out names no source of its own
for it: its record was made from that of another release.
"""


def releases_page() -> str:
    """Return the text of ``docs/releases.md``."""
    others = [name for name in _behaviours() if name not in MEMMAP]
    parts = [
        _HEAD,
        _PROOF,
        _table(["release", *RELEASES], [["rests on", *map(_proof, RELEASES.values())]]),
        "## memmap_on_memory: which kernel does what\n",
        _behaviour_table(MEMMAP),
        _meanings(MEMMAP),
        "## Everything else\n",
        _behaviour_table(others),
        _meanings(others),
        _SOURCES,
        _table(["behaviour", "releases", "source"], _source_rows()),
    ]
    return "\n".join(parts)


def _behaviours() -> list[str]:
    return [item.name for item in dataclasses.fields(Release) if item.name not in _ABOUT]


def _proof(release: Release) -> str:
    return "compared" if release.confirmed else "history"


def _behaviour_table(names: Iterable[str]) -> str:
    rows = [
        [f"`{name}`", *(_value(name, getattr(release, name)) for release in RELEASES.values())]
        for name in names
    ]
    return _table(["behaviour", *RELEASES], rows)


def _value(name: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_flags"):
            return " ".join(flag_names(value)) or "none"
        case int() if name.endswith("_bytes"):
            return f"{value // 1024} KiB"
        case tuple():
            return " ".join(value) or "none"
        case dict():
            return ", ".join(f"{key}: `{word}`" for key, word in value.items()) or "none"
        case _:
            return f"`{value}`"


def _meanings(names: Iterable[str]) -> str:
    """Return a list entry for each behaviour, with the words of the class's docstring."""
    told = _documented()
    shown = dict.fromkeys(label for name in names for label in told if name in label.split(", "))
    lines = (
        f"- {', '.join(f'`{name}`' for name in label.split(', '))}: {told[label]}"
        for label in shown
    )
    return "\n".join(lines) + "\n"


def _documented(kind: type = Release) -> dict[str, str]:
    """Return the section Attributes of a class: names to their text in one line."""
    section = inspect.cleandoc(kind.__doc__ or "").split("Attributes\n----------\n")[1]
    entries = re.findall(r"^(\S.*?) : .*\n((?: +.*\n?)+)", section, re.MULTILINE)
    return {names: " ".join(text.split()).replace("``", "`") for names, text in entries}


def _source_rows() -> Iterator[list[str]]:
    for name in _behaviours():
        given = [(r.name, r.sources[name]) for r in RELEASES.values() if name in r.sources]
        for source, group in groupby(given, key=lambda pair: pair[1]):
            yield [f"`{name}`", " ".join(release for release, _ in group), source]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace(" --- ", "---")


_DRIVERS_HEAD = """\
# Drivers

The ways by which memory reaches Linux, one beside the other. This page is made by
`python docs/generate.py` from the records in the modules of `src/altmap/drivers`, so change
those, not the page. [scenario.md](scenario.md) says how to plug each of them,
[releases.md](releases.md) what a release does differently.

A memmap in the added memory itself is safe only if the pages that hold it are backed and may be
written from the moment at which the kernel writes them. A driver that does not ask for one
(MHP_MEMMAP_ON_MEMORY) never gets it under the policy `opt-in`.
"""


def drivers_page() -> str:
    """Return the text of ``docs/drivers.md``."""
    records = driver_records()
    told = _documented(DriverRecord)
    shown = [item.name for item in dataclasses.fields(DriverRecord) if item.name != "name"]
    parts = [_DRIVERS_HEAD]
    parts.append(_table(["", *(record.name for record in records)], _driver_rows(records, shown)))
    parts.append("\n".join(f"- {_label(name)}: {told[name]}" for name in shown) + "\n")
    return "\n".join(parts)


def driver_records() -> list[DriverRecord]:
    """Return the record of every driver's module, by name."""
    modules = [
        importlib.import_module(f"altmap.model.drivers.{info.name}")
        for info in pkgutil.iter_modules(drivers.__path__)
    ]
    found = [module.RECORD for module in modules if hasattr(module, "RECORD")]
    found += [record for module in modules for record in getattr(module, "RECORDS", ())]
    return sorted(found, key=lambda record: record.name.lower())


def _driver_rows(records: list[DriverRecord], names: list[str]) -> Iterator[list[str]]:
    for name in names:
        yield [_label(name), *(getattr(record, name) for record in records)]


def _label(name: str) -> str:
    return f"*{name.replace('_', ' ')}*"


def page_of_claims() -> str:
    """Return the text of ``docs/claims.md``; runs every claim on the model."""
    folder = Path(claims.__file__).with_name("scenarios")
    findings = claims.judge(
        claims.CLAIMS, lambda name, settings: load_scenario(folder / f"{name}.toml", settings)
    )
    return claims_page(findings)


def page_of_bugs() -> str:
    """Return the text of ``docs/bugs.md``; runs every bug on the model."""
    folder = Path(bugs.__file__).with_name("scenarios")
    return bugs_page(
        bugs.find(
            bugs.BUGS, lambda name, settings: load_scenario(folder / f"{name}.toml", settings)
        )
    )


def page_of_matrix() -> str:
    """Return the text of ``docs/matrix.md``; runs every cell on the model."""
    return matrix_page(matrix())


_COMMANDS_HEAD = """\
# Commands

Every command with its arguments and exit codes, made from the program's own help by
`python docs/generate.py`. `altmap help COMMAND` shows the same.

Besides its own exit codes, every command ends with {internal} on an internal error, which
`altmap --debug COMMAND ...` shows as a traceback, and with {interrupted} if Ctrl-C interrupts it.
A command that could not be done says in one line on standard error which value is wrong and why.

## At a glance
"""


def commands_page() -> str:
    """Return the text of ``docs/commands.md``, from the table of commands and their parsers."""
    head = _COMMANDS_HEAD.format(internal=INTERNAL_ERROR, interrupted=INTERRUPTED)
    parsers = dict(command_parsers(command_line(), "altmap"))
    parts = [head, _glance(parsers)]
    for group in GROUPS:
        parts.append(f"## {group.purpose[0].upper()}{group.purpose[1:]}\n")
        for name, parser in parsers.items():
            if name.split()[1] in group.verbs:
                parts += _command(name, parser)
    return "\n".join(parts)


def command_parsers(above: CommandParser, name: str) -> Iterator[tuple[str, CommandParser]]:
    """Yield the parser of each command that has none below it, by its full name."""
    for action in above._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, parser in action.choices.items():
                full = f"{name} {word}"
                if parser.commands:
                    yield from command_parsers(parser, full)
                else:
                    yield full, parser


def _glance(parsers: dict[str, CommandParser]) -> str:
    parts = []
    for group in GROUPS:
        shown = {
            example.line: f"# {example.meaning}\n{example.line}\n"
            for name, parser in parsers.items()
            if name.split()[1] in group.verbs and parser.verb
            for example in parser.verb.examples
        }
        title = f"{group.purpose[0].upper()}{group.purpose[1:]}"
        parts.append(f"{title}:\n\n```sh\n{''.join(shown.values())}```\n")
    return "\n".join(parts)


def _command(name: str, parser: CommandParser) -> Iterator[str]:
    assert parser.verb is not None
    yield f"### {name}\n"
    yield f"{parser.description}\n"
    shown = [item for item in parser._actions if item.help != argparse.SUPPRESS]
    rows = [_argument(item) for item in shown if item.dest != "help"]
    if rows:
        yield _table(["argument", "meaning"], rows)
    codes = [[f"`{code}`", meaning] for code, meaning in parser.verb.exit_codes]
    yield _table(["exit code", "meaning"], codes)


def _argument(action: argparse.Action) -> list[str]:
    value = action.metavar or ("|".join(action.choices) if action.choices else "")
    shown = str(value) if action.nargs != 0 else ""
    words = ", ".join(action.option_strings)
    text = " ".join(filter(None, [words, shown])).replace("|", "\\|")
    more = " (several)" if action.nargs in ("+", "*") else ""
    return [f"`{text}`{more}", (action.help or "").replace("|", "\\|")]


def picture() -> str:
    """Return the picture of the case of 2018, as SVG."""
    policies = ("rfc-2018", "opt-in")
    scenarios = [load_scenario(PICTURE_SCENARIO, [f"policy={name}"]) for name in policies]
    (group,) = groups([predict(scenario) for scenario in scenarios])
    return svg(group, scenarios[0].description)


if __name__ == "__main__":
    BUGS_PAGE.write_text(page_of_bugs(), encoding="utf-8")
    MATRIX_PAGE.write_text(page_of_matrix(), encoding="utf-8")
    COMMANDS_PAGE.write_text(commands_page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
    CLAIMS_PAGE.write_text(page_of_claims(), encoding="utf-8")
    PAGE.write_text(releases_page(), encoding="utf-8")
    DRIVERS_PAGE.write_text(drivers_page(), encoding="utf-8")
