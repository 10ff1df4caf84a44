"""What each field of the schema's structs accepts, read off its annotation."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, Self

import msgspec

from altmap.errors import InputError
from altmap.units import parse_address, size_bytes

__all__ = (
    "Address",
    "FieldError",
    "FieldKind",
    "Size",
    "element_of",
    "field_kinds",
    "needed",
    "parts_of",
    "words_of",
)


class FieldError(InputError, ValueError):
    """A field of a struct that is refused; the message begins with the field's name.

    As a ``ValueError`` it lets msgspec tell the place of the struct in a file.
    """


class Size(int):
    """Bytes: an integer, or text with a unit, as in ``Size("128MiB")``.

    Raises
    ------
    InputError
        If the text is no size, or the size is below zero or above 4 PiB.
    """

    def __new__(cls, value: int | str = 0) -> Self:  # noqa: D102
        return super().__new__(cls, size_bytes(value))


class Address(int):
    """A physical address in bytes: an integer, or text, as in ``Address("0x100000000")``.

    Raises
    ------
    InputError
        If the text is no address, or the address is below zero or above 4 PiB.
    """

    def __new__(cls, value: int | str = 0) -> Self:  # noqa: D102
        return super().__new__(cls, parse_address(value))


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What one field of a struct accepts as it is.

    Attributes
    ----------
    annotation : object
        A type, or a union.
    default : object
        What the field holds if nothing was given.
    exact : frozenset of type
        Types of which every instance is accepted.
    words : tuple of str
        Those of a ``Literal``; empty if the field has none.
    elements : frozenset of type
        Types of which every instance may be in a list; empty if the field is no list.
    """

    annotation: Any
    default: object
    exact: frozenset[type]
    words: tuple[str, ...]
    elements: frozenset[type]

    def accepts(self, value: object) -> bool:
        """Tell whether a value can be kept; any other has to be decoded first."""
        kind = type(value)
        return value is self.default or kind in self.exact or (kind is str and value in self.words)


#: Generic types that TOML's arrays are decoded to.
_LISTS = (list, tuple)


@functools.cache
def field_kinds(struct: type[msgspec.Struct]) -> dict[str, FieldKind]:
    """Return what the fields of a struct accept, by name."""
    return {
        field.name: FieldKind(
            field.type,
            field.default,
            _types(field.type),
            words_of(field.type),
            _types(element_of(field.type)),
        )
        for field in msgspec.structs.fields(struct)
    }


def parts_of(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation itself."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return list(typing.get_args(annotation)) if union else [annotation]


def _types(annotation: Any) -> frozenset[type]:
    return frozenset(part for part in parts_of(annotation) if isinstance(part, type))


def element_of(annotation: Any) -> Any:
    """Return the annotation of a list's elements, ``None`` if the annotation has no list."""
    parts = [part for part in parts_of(annotation) if typing.get_origin(part) in _LISTS]
    return typing.get_args(parts[0])[0] if parts else None


def words_of(annotation: Any) -> tuple[str, ...]:
    """Return the words that a field takes, none if it takes anything else."""
    literals = [part for part in parts_of(annotation) if typing.get_origin(part) is Literal]
    return tuple(word for part in literals for word in typing.get_args(part))


#: What a message asks for, by type.
_NEEDED: dict[object, str] = {
    Address: "an address such as '0x100000000'",
    Size: "a size such as '128MiB'",
    bool: "true or false",
    float: "a number",
    int: "an integer",
    str: "text",
}


def needed(annotation: Any) -> str:
    """Return what a value must be, as a message says it: ``one of all, first, middle, last``."""
    if words := words_of(annotation):
        return f"one of {', '.join(words)}"
    parts = [part for part in parts_of(annotation) if part is not types.NoneType]
    return " or ".join(dict.fromkeys(map(_in_words, parts)))


def _in_words(part: Any) -> str:
    if part in _NEEDED:
        return _NEEDED[part]
    return "a list" if typing.get_origin(part) in _LISTS else "a table"
