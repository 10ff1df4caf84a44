"""What a step is called where it was given no name, and how it is written in a trace."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from altmap.scenario.blocks import selected_blocks
from altmap.scenario.schema import (
    Configure,
    Dump,
    HugePages,
    Offline,
    Online,
    Poison,
    Reboot,
    SetTunables,
    Step,
    Veto,
    Write,
)

__all__ = ("step_name", "step_table")


def step_name(step: Step) -> str:
    """Return the step's name, or one made of its fields: ``plug-d1``."""
    if step.name:
        return step.name
    verb = str(step.__struct_config__.tag)
    if isinstance(step, Configure) and not step.config:
        verb = "deconfigure"
    if isinstance(step, SetTunables | Dump | Reboot):
        return verb
    if isinstance(step, Write):
        return f"{verb}-{'-'.join(step.file.split('/')[-2:])}"
    if isinstance(step, HugePages):
        return f"{verb}-node{step.node or 0}"
    if isinstance(step, Poison):
        return f"{verb}-{step.address:#x}"
    if isinstance(step, Veto):
        return f"{verb}-{step.on}"
    if isinstance(step, Online | Offline | Configure) and step.id is None:
        ids = selected_blocks(step) or []
        return f"{verb}-memory{ids[0]}" + (f"-{ids[-1]}" if len(ids) > 1 else "")
    part = ""
    if isinstance(step, Online | Offline | Configure) and step.part != "all":
        part = f"-{step.part}"
    return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{verb}-{step.id}{part}")


def step_table(step: Step) -> dict[str, Any]:
    """Return a step as JSON's types; sizes and addresses are bytes, defaults are left out."""
    made: dict[str, Any] = msgspec.to_builtins(step, enc_hook=int)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in made.items()}
