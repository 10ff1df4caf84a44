"""Explore: the shortest sequence of ordinary operations that breaks a rule.

Read :mod:`.search` first, then :mod:`.space` (the result of a step), :mod:`.footprint` (results
that are carried over) and :mod:`.cells` (which state a step reads).

Effects: files.
"""

from __future__ import annotations

from pathlib import Path

from altmap.errors import InputError, one_of

__all__ = ("built_in", "built_in_names")

_FOLDER = Path(__file__).parent / "explorations"


def built_in_names() -> list[str]:
    """Return the names of the built-in explorations."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def built_in(name: str) -> Path:
    """Return the file of a built-in exploration.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    path = _FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(f"exploration {name!r}: {one_of(name, built_in_names(), ', or a file')}")
    return path
