"""The result of a search as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from altmap.explore.rules import Rule
from altmap.explore.search import SearchResult
from altmap.explore.spec import Exploration
from altmap.scenario import (
    Address,
    Offline,
    Online,
    Plug,
    SetTunables,
    Size,
    Step,
    Veto,
    selected_blocks,
    step_name,
)
from altmap.units import format_size

__all__ = ("exploration_text", "result_json", "step_text")


def exploration_text(
    exploration: Exploration,
    rules: Sequence[Rule],
    result: SearchResult,
    files: Mapping[str, str],
    policy: str = "",
) -> str:
    """Return the broken rules with their shortest sequences, and how far the search went.

    *files* has the scenarios that were written, by rule; *policy* is the user's, if any, which a
    scenario cannot name.
    """
    lines = [exploration.description or exploration.name, ""]
    texts = {rule.name: rule.text for rule in rules}
    for found in result.found:
        lines.append(f"{found.rule}: {texts[found.rule]}")
        lines += [f"  {n}. {step_text(step)}" for n, step in enumerate(found.steps, 1)]
        lines.append(f"  BROKEN: {found.why}")
        if found.rule in files:
            lines.append(f"  altmap run {files[found.rule]}{policy and f' --policy {policy}'}")
        lines.append("")
    broken = {found.rule for found in result.found}
    held = [rule.name for rule in rules if rule.name not in broken]
    if held:
        lines.append(f"no counterexample within bounds: {', '.join(held)}")
    lines += _bounds(exploration, result)
    return "\n".join(lines)


def _bounds(exploration: Exploration, result: SearchResult) -> list[str]:
    bounds = exploration.bounds
    steps = "step" if result.depth == 1 else "steps"
    reach = (
        f"every sequence of any length ({result.depth} {steps} reach all states)"
        if result.whole
        else f"every sequence of up to {result.depth} {steps}"
    )
    lines = [
        f"searched: {reach}, {bounds.devices} devices and {bounds.blocks} blocks at a time",
        f"          {result.nr_states:,} states, {result.nr_transitions:,} transitions, of which "
        f"{result.nr_computed:,} ran on the model; the results of the others were carried over",
    ]
    if result.ended_by:
        lines.append(f"          ended by its limit of {result.ended_by}")
    return lines


def step_text(step: Step) -> str:
    """Return a step as text."""
    match step:
        case Plug():
            place = "" if step.address is None else f" at {int(step.address):#x}"
            return f"plug {step.id}: {format_size(step.size)} by {step.driver}{place}"
        case Online() | Offline() if step.blocks is not None:
            ids = selected_blocks(step) or []
            named = f"memory{ids[0]}" + (f" to memory{ids[-1]}" if len(ids) > 1 else "")
            return f"{step.to if isinstance(step, Online) else 'offline'} {named}"
        case Veto():
            return f"a listener {'stops vetoing' if step.errno == 'none' else 'vetoes'} {step.on}"
        case SetTunables():
            fields = {f: getattr(step, f) for f in step.__struct_fields__ if f != "name"}
            values = (f"{name} = {value}" for name, value in fields.items() if value is not None)
            return f"set {', '.join(values)}"
        case _:
            return step_name(step).replace("-", " ", 1)


def result_json(
    exploration: Exploration, rules: Sequence[Rule], result: SearchResult, files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the result as JSON's types."""
    broken, bounds = {found.rule for found in result.found}, exploration.bounds
    return {
        "schema": "altmap-exploration-result",
        "version": 1,
        "name": exploration.name,
        "description": exploration.description,
        "rules": [{"name": rule.name, "text": rule.text} for rule in rules],
        "found": [
            {
                "rule": found.rule,
                "why": found.why,
                "steps": [msgspec.to_builtins(step, enc_hook=_plain) for step in found.steps],
                "file": files.get(found.rule),
            }
            for found in result.found
        ],
        "held": [rule.name for rule in rules if rule.name not in broken],
        "bounds": {name: getattr(bounds, name) for name in bounds.__struct_fields__},
        "depth": result.depth,
        "whole": result.whole,
        "ended_by": result.ended_by,
        "states": result.nr_states,
        "transitions": result.nr_transitions,
        "worked_out": result.nr_computed,
    }


def _plain(value: object) -> int:
    assert isinstance(value, Size | Address)
    return int(value)
