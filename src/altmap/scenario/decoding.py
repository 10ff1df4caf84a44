"""Plain tables, as TOML reads them, decoded to structs; every refusal names place, value, rule."""

from __future__ import annotations

import re
import reprlib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from altmap.errors import InputError, nearest, unknown
from altmap.scenario.fields import (
    Address,
    FieldError,
    FieldKind,
    Size,
    element_of,
    field_kinds,
    needed,
    parts_of,
    words_of,
)
from altmap.units import parse_size

__all__ = ("decode", "decode_field", "missing_field", "unknown_field")

_Decoded = TypeVar("_Decoded")
_AT = re.compile(r" - at (?:`key` in )?`\$([\w.\[\]]*)`\Z")
_TOKEN = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


class _UnitError(FieldError):
    """A size or an address that cannot be read; the message begins with its value."""


def decode(data: object, wanted: type[_Decoded], where: str = "") -> _Decoded:
    """Return the struct that plain tables describe.

    A size needs a unit here: an integer is refused.

    Parameters
    ----------
    data : object
    wanted : type
    where : str
        The place of the tables in their file, for messages: ``machine``.

    Raises
    ------
    InputError
        Naming the place in the tables, the value and the rule.
    """
    made: _Decoded = _converted(data, wanted, where, _unit_of_text)
    return made


def decode_field(name: str, value: object, kind: FieldKind) -> Any:
    """Return what a field of that kind holds for a value that Python code passed.

    An integer is a size in bytes here; a list becomes a tuple.

    Raises
    ------
    InputError
        Naming the field, the value and the rule.
    """
    if kind.elements and isinstance(value, list | tuple):
        value = tuple(value)
        if kind.elements.issuperset(map(type, value)):
            return value
    return _converted(value, kind.annotation, name, _unit_of)


def _converted(data: object, wanted: Any, where: str, units: Any) -> Any:
    try:
        return msgspec.convert(data, wanted, dec_hook=units)
    except msgspec.ValidationError as error:
        raise _refusal(error, data, wanted, where) from None


def _unit_of_text(wanted: type[Size] | type[Address], value: Any) -> Size | Address:
    try:
        return Size(parse_size(value)) if wanted is Size else Address(value)
    except InputError as error:
        raise _UnitError(str(error).partition(" ")[2]) from None


def _unit_of(wanted: type[Size] | type[Address], value: Any) -> Size | Address:
    try:
        return wanted(value)
    except InputError as error:
        raise _UnitError(str(error).partition(" ")[2]) from None


# --- messages --------------------------------------------------------------------------------


def unknown_field(struct: type[msgspec.Struct], name: str) -> str:
    """Return the message for a field that a struct does not have, with the nearest one."""
    known = struct.__struct_fields__
    return f"unknown field {name!r}: {unknown(name, known)}"


def missing_field(name: str) -> str:
    """Return the message for a field that was not given and has no default."""
    return f"need the field {name!r}"


def _refusal(error: msgspec.ValidationError, data: object, wanted: Any, where: str) -> InputError:
    """Return the error for people: ``machine.nodes[0].memory 5: need a size``."""
    at = _AT.search(str(error))
    path, text = (at[1], str(error)[: at.start()]) if at else ("", str(error))
    place = f"{where}{path}".removeprefix(".")
    match error.__cause__:
        case _UnitError() as unit:
            return InputError(f"{place} {unit}".lstrip())
        case FieldError() as check:
            return InputError(f"{place}.{check}" if place else str(check))
    annotation, value = _walk(wanted, data, path)
    found = re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", text)
    if found:
        struct = _struct_of(annotation, value)
        rule = missing_field(found[2])
        if found[1] != "missing required" and struct is not None:
            rule = unknown_field(struct, found[2])
        return InputError(f"{place}: {rule}" if place else rule)
    rule = text if annotation is None else f"need {needed(annotation)}"
    near = nearest(value, words_of(annotation)) if isinstance(value, str) else None
    if near is not None:
        rule += f"; did you mean {near!r}?"
    return InputError(f"{place} {reprlib.repr(value)}: {rule}".lstrip())


def _walk(annotation: Any, value: Any, path: str) -> tuple[Any, Any]:
    """Return annotation and value at a path; no annotation where the path leaves the structs."""
    for name, index in _TOKEN.findall(path):
        if index:
            annotation, value = element_of(annotation), _item(value, index)
            continue
        struct = _struct_of(annotation, value)
        if struct is None or name not in struct.__struct_fields__:
            tags = [part.__struct_config__.tag for part in _structs(annotation)]
            value = value.get(name) if isinstance(value, Mapping) else value
            return (typing.Literal[tuple(map(str, tags))] if tags else None), value
        annotation, value = field_kinds(struct)[name].annotation, _member(value, name)
    return annotation, value


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _item(value: Any, index: str) -> Any:
    return value[int(index)] if index.isdigit() and isinstance(value, list | tuple) else value


def _structs(annotation: Any) -> list[type[msgspec.Struct]]:
    return [
        part
        for part in parts_of(annotation)
        if isinstance(part, type) and issubclass(part, msgspec.Struct)
    ]


def _struct_of(annotation: Any, value: Any) -> type[msgspec.Struct] | None:
    """Return the struct that a table is decoded to; of several, the one that its tag names."""
    structs = _structs(annotation)
    if len(structs) == 1:
        return structs[0]
    for struct in structs:
        config = struct.__struct_config__
        if isinstance(value, Mapping) and value.get(config.tag_field) == config.tag:
            return struct
    return None
