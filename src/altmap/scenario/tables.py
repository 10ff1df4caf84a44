"""Scenarios as plain tables, for files: sizes with their units, addresses in hex."""

from __future__ import annotations

from typing import Any

import msgspec

from altmap.scenario.fields import Address, Size
from altmap.scenario.schema import Scenario, Step
from altmap.units import format_size

__all__ = ("plain_table", "scenario_tables")


def scenario_tables(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario as ``scenario_toml`` writes it; defaults are left out."""
    made: dict[str, Any] = {"name": scenario.name}
    if scenario.description:
        made["description"] = scenario.description
    steps = [plain_table(step) for step in scenario.steps]
    return made | {"machine": plain_table(scenario.machine), "steps": steps}


def plain_table(struct: msgspec.Struct | Step) -> dict[str, Any]:
    """Return the keys of a machine or a step that differ from their defaults."""
    return _sized(struct, msgspec.to_builtins(struct, enc_hook=_text))


def _sized(struct: msgspec.Struct, built: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in built.items():
        field = getattr(struct, key, value)
        if value == {}:
            continue  # all defaults
        if isinstance(field, msgspec.Struct):
            made[key] = _sized(field, value)
        elif isinstance(field, tuple) and field and isinstance(field[0], msgspec.Struct):
            made[key] = [_sized(one, two) for one, two in zip(field, value, strict=True)]
        else:
            made[key] = _text(field) if isinstance(field, Size | Address) else value
    return made


def _text(value: object) -> object:
    if isinstance(value, Address):
        return f"{int(value):#x}"
    if isinstance(value, Size):
        return format_size(value).replace(" ", "")
    return int(value)  # type: ignore[call-overload]
