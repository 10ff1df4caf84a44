"""Scenarios as TOML: reading and writing.

Effects: files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.scenario.decoding import decode
from altmap.scenario.schema import Scenario
from altmap.scenario.tables import scenario_tables

__all__ = (
    "build_scenario",
    "load_scenario",
    "parse_scenario",
    "read_toml",
    "scenario_text",
    "scenario_toml",
    "set_machine_keys",
)

_MOST_BYTES = 8 << 20
_TOO_DEEP = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){65}""")


def load_scenario(path: str | Path, settings: Sequence[str] = ()) -> Scenario:
    """Read a scenario file.

    Parameters
    ----------
    path : str or Path
    settings : sequence of str
        ``key=value`` for keys of ``[machine]``, which replace the file's.

    Raises
    ------
    InputError
        Naming the file, the place in it, and the rule.
    """
    path = Path(path)
    try:
        return parse_scenario(_read_text(path), path.stem, settings)
    except InputError as error:
        raise InputError(f"scenario {path}: {error}") from error


def parse_scenario(text: str, name: str, settings: Sequence[str] = ()) -> Scenario:
    """Return the scenario that TOML text describes.

    Parameters
    ----------
    text : str
    name : str
        The scenario's name if the text has none.
    settings : sequence of str
        As for :func:`load_scenario`.

    Raises
    ------
    InputError
        Naming the place in the text, and the rule.
    """
    data = _parse_toml(text)
    data.setdefault("name", name)
    set_machine_keys(data, settings)
    return build_scenario(data)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file, a scenario's or another.

    Raises
    ------
    InputError
        Why it cannot be read, without its name: the caller knows what the file is for.
    """
    return _parse_toml(_read_text(path))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:  # a pipe too, as a shell's <(...) is one
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(str(error.strerror or error)) from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"need at most {_MOST_BYTES} bytes of TOML")
    try:
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text") from error


def _parse_toml(text: str) -> dict[str, Any]:
    if _TOO_DEEP.search(text):  # tomllib's memory grows by the square of the depth
        raise InputError("not TOML: keys are nested more than 64 deep")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # tomllib lets Python's own limits (digits of a number, nesting) through.
        raise InputError(f"not TOML: {error}") from error


def build_scenario(data: Mapping[str, Any]) -> Scenario:
    """Return the scenario that plain tables describe, as TOML reads them.

    Raises
    ------
    InputError
        Naming the place in the tables, and the rule.
    """
    return decode(data, Scenario)


def set_machine_keys(data: dict[str, Any], settings: Sequence[str]) -> None:
    """Put ``key=value`` into the table ``[machine]`` of a file that was read.

    Raises
    ------
    InputError
        If ``machine`` is no table, or a setting has no key or value.
    """
    machine = data.setdefault("machine", {})
    if not isinstance(machine, dict):
        raise InputError(f"machine {machine!r}: need a table")
    machine |= dict(_setting(text) for text in settings)


def _setting(text: str) -> tuple[str, bool | int | str]:
    key, given, value = text.partition("=")
    if not key or not given:
        raise InputError(f"setting {text!r}: need KEY=VALUE")
    if value in ("true", "false"):
        return key, value == "true"
    return key, int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else value


def scenario_toml(data: Mapping[str, Any]) -> str:
    """Return plain tables of a scenario as TOML text, which :func:`parse_scenario` reads."""
    heads = [key for key in ("name", "description") if key in data]
    lines = [f"{key} = {_toml(data[key])}" for key in heads]
    lines += ["", "[machine]", *_toml_keys(data.get("machine", {}))]
    for step in data.get("steps", ()):
        lines += ["", "[[steps]]", *_toml_keys(step)]
    return "\n".join(lines).lstrip("\n") + "\n"


def scenario_text(scenario: Scenario) -> str:
    """Return a scenario as TOML text, without what is a default."""
    return scenario_toml(scenario_tables(scenario))


def _toml_keys(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_toml_keys(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode()  # of text, numbers and booleans it is TOML's too
