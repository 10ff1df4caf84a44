"""JSON and YAML as plain values: no types, no tags, no expansion of aliases."""

from __future__ import annotations

from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.vm.readers.content import MOST_PARTS

__all__ = ("Mapped", "json_values", "list_in", "mapping_in", "number_in", "yaml_documents")

_MOST_NODES = 400_000
_DEEPEST = 100
_WHITE = " \t\r\n,"


class Mapped(dict[str, Any]):
    """A mapping of YAML with the line of each key."""

    lines: dict[str, int]


def json_values(text: str) -> list[Any]:
    """Return the values of a text: one, or one after the other as programs print them.

    Raises
    ------
    InputError
        If it is no JSON, or is nested too deeply.
    """
    try:
        return [msgspec.json.decode(text)]
    except RecursionError as error:
        raise InputError("is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        first = error
    made = []
    for line in text.split("\n"):
        if line.strip(_WHITE):
            try:
                made.append(msgspec.json.decode(line.strip(_WHITE)))
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                raise InputError(f"is no JSON: {first}") from first
    return made


def yaml_documents(text: str) -> list[Any]:
    """Return the documents of a text. What an alias names is the same object, read once.

    Raises
    ------
    InputError
        If it is no YAML, is nested too deeply, or has too many values.
    """
    _check_depth(text)
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("is YAML, which needs PyYAML: pip install altmap[vm]") from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    made: list[Any] = []
    try:
        for node in yaml.compose_all(text, Loader=loader):
            made.append(_Composed().value(node, 0))
            if len(made) > MOST_PARTS:
                raise InputError(f"has more than {MOST_PARTS} documents")
    except yaml.YAMLError as error:
        raise InputError(f"is no YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise InputError("is nested too deeply") from error
    return made


def _check_depth(text: str) -> None:
    """Refuse what would be nested deeper than the library's own functions can return from."""
    depth = 0
    for char in text:
        if char in "[{":
            depth += 1
            if depth > 1000:
                raise InputError("is nested too deeply")
        elif char in "]}" and depth:
            depth -= 1
    for line in text.split("\n"):
        if line.lstrip(" ").startswith("- " * _DEEPEST):
            raise InputError("is nested too deeply")


class _Composed:
    """Makes values of YAML's nodes, each node once."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._nr_nodes = 0

    def value(self, node: Any, depth: int) -> Any:
        if id(node) in self._made:
            return self._made[id(node)]
        self._nr_nodes += 1
        if self._nr_nodes > _MOST_NODES or depth > _DEEPEST:
            raise InputError("has too many values, or is nested too deeply")
        made: Any
        if node.id == "mapping":
            made = self._made[id(node)] = Mapped()
            made.lines = {}
            self._fill(made, node, depth)
        elif node.id == "sequence":
            made = self._made[id(node)] = []
            made += (self.value(each, depth + 1) for each in node.value)
        else:
            made = self._made[id(node)] = _scalar(node)
        return made

    def _fill(self, made: Mapped, node: Any, depth: int) -> None:
        merged: list[Any] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if value.id == "sequence" else [value]
            elif key.id == "scalar":
                made[key.value] = self.value(value, depth + 1)
                made.lines[key.value] = key.start_mark.line + 1
        for each in merged:
            base = self.value(each, depth + 1)
            if isinstance(base, Mapped):
                self._nr_nodes += len(base)
                if self._nr_nodes > _MOST_NODES:
                    raise InputError("has too many values")
                for name in base:
                    made.setdefault(name, base[name])
                    made.lines.setdefault(name, base.lines.get(name, 0))


def _scalar(node: Any) -> Any:
    kind = node.tag.rpartition(":")[2]
    text: str = node.value
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0)
        if kind == "float":
            return float(text.replace("_", ""))
    except ValueError:
        return text
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    return None if kind == "null" else text


def mapping_in(value: Any, path: str) -> dict[str, Any]:
    """Return the mapping below a path of names with dots, empty where there is none."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def list_in(value: Any, path: str) -> list[Any]:
    """Return the list below a path, empty where there is none.

    Raises
    ------
    InputError
        If it has more parts than any hypervisor allows.
    """
    *above, last = path.split(".")
    holder = mapping_in(value, ".".join(above)) if above else value
    found = holder.get(last) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        return []
    if len(found) > MOST_PARTS:
        raise InputError(f"{path}: {len(found)} parts: need at most {MOST_PARTS}")
    return found


def number_in(value: Any, name: str) -> Any:
    """Return what a mapping says of a name, ``None`` where it says nothing or ``null``."""
    return value.get(name) if isinstance(value, dict) else None
