"""The behaviours of a release record, and the values that the records know for each."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from altmap.errors import InputError, unknown
from altmap.model.arch import ARCHES
from altmap.model.releases import RELEASES, Release

__all__ = ("BEHAVIOURS", "check_behaviour", "others", "value_on")

#: Fields of a record that are no behaviour: its name, where it comes from, and how a synthetic
#: boot state looks, which a real kernel shows by itself.
_OTHERS = ("name", "shape", "confirmed", "bounces_kmalloc", "boot_used_bytes", "sources")

BEHAVIOURS = tuple(each.name for each in fields(Release) if each.name not in _OTHERS)


#: Behaviours whose value is a list of architectures, by ``uname -m``.
_LISTS = ("self_hosting", "dax_falls_back", "rejects_leaf_split", "virtio_mem")


def value_on(arch: str, behaviour: str, record: Release) -> Any:
    """Return what a record says of a behaviour on one architecture."""
    value, family = getattr(record, behaviour), ARCHES[arch].family
    if behaviour in _LISTS:
        return family in value
    return value.get(family) if isinstance(value, dict) else value


def others(arch: str, behaviour: str, record: Release) -> list[Release]:
    """Return the record with each other value that some record has, those of old releases first.

    Values that say the same of the architecture are one.
    """
    found = {repr(value_on(arch, behaviour, record)): record}
    for each in RELEASES.values():
        value = repr(value_on(arch, behaviour, each))
        found.setdefault(value, replace(record, **{behaviour: getattr(each, behaviour)}))
    return list(found.values())[1:]


def check_behaviour(name: str) -> str:
    """Return the name of a behaviour.

    Raises
    ------
    InputError
        Naming the nearest.
    """
    if name in BEHAVIOURS:
        return name
    raise InputError(f"behaviour {name!r}: {unknown(name, BEHAVIOURS)}")
