"""The behaviours of a release record, and the values that the records know for each."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from altmap.errors import InputError
from altmap.model.releases import RELEASES, Release

__all__ = ("BEHAVIOURS", "alternatives", "check_behaviour")

#: Fields of a record that are no behaviour: its name, where it comes from, and how a synthetic
#: boot state looks, which a real kernel shows by itself.
_OTHERS = ("name", "shape", "confirmed", "boot_reserved_bytes", "boot_used_bytes", "sources")

BEHAVIOURS = tuple(each.name for each in fields(Release) if each.name not in _OTHERS)


def alternatives(behaviour: str) -> list[Any]:
    """Return the values that the records have for a behaviour, those of old releases first."""
    found: list[Any] = []
    for record in RELEASES.values():
        value = getattr(record, behaviour)
        if value not in found:
            found.append(value)
    return found


def check_behaviour(name: str) -> str:
    """Return the name of a behaviour.

    Raises
    ------
    InputError
        Naming the nearest.
    """
    if name in BEHAVIOURS:
        return name
    near = difflib.get_close_matches(name, BEHAVIOURS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"need one of {', '.join(BEHAVIOURS)}"
    raise InputError(f"behaviour {name!r}: {hint}")
