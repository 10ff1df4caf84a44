"""A machine's state as cells, and working copies that record which cells they read or write.

A cell is one attribute of one of a machine's lasting objects (kernel, zones, parameters, devices).
All objects that are reachable only from an attribute belong to its cell, so every read goes through
a cell. A working copy starts empty and fetches each cell on first use; the cells that it holds at
the end are those that were used.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any

from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet

__all__ = ("Cell", "Cells", "WorkingCopy")

#: An attribute of a lasting object, as ``kernel.used`` or ``zone 0 Normal.span``.
Cell = str

#: Attributes for observers, or for a reboot, only; no step of a search depends on them.
_NOT_CELLS = frozenset(
    {
        "machine._boots",
        "machine._plugs",
        "machine._observer",
        "machine._base_parameters",
        "machine.notes",
        "kernel.changed.blocks",
        "kernel.changed.pages",
        "kernel.log.events",
        "kernel.max_pfn",
    }
)
_ATOMS: frozenset[type] = frozenset({int, str, bool, bytes, float, type(None)})
_TRUE, _FALSE = b"true", b"false"

#: An attribute of a lasting object: the object's index, the attribute's name.
Place = tuple[int, str]

_get, _put = object.__getattribute__, object.__setattr__


class Cells:
    """The cells of one machine and of all its copies.

    Parameters
    ----------
    machine : ModelMachine
        At its start; objects that it gains later belong to the cells that lead to them.

    Attributes
    ----------
    names : list of Cell
        Every cell; elsewhere a cell is its index here.
    origin : WorkingCopy
        The machine at its start.
    """

    def __init__(self, machine: ModelMachine) -> None:
        lasting = _lasting(machine)
        self.kinds: list[type[Any]] = [_lazy(type(part)) for _, part in lasting]
        self.names: list[Cell] = []
        self.places: list[tuple[int, str]] = []
        first = [part for _, part in lasting]
        for index, (path, part) in enumerate(lasting):
            for attribute in _attributes(type(part), part):
                name = f"{path}.{attribute}"
                if name not in _NOT_CELLS:
                    self.names.append(name)
                    self.places.append((index, attribute))
        self.index = {place: cell for cell, place in enumerate(self.places)}
        #: Cells with more than page sets and plain values: they may share objects, so they are
        #: copied and compared together.
        self.shared = [
            cell
            for cell, (index, attribute) in enumerate(self.places)
            if not _is_unshared(getattr(first[index], attribute), first)
        ]
        self.is_shared = frozenset(self.shared)
        self.devices = self.names.index("devices.by_id")
        self.additions = self.names.index("kernel.additions")
        self._digests: dict[Any, int] = {}
        self._frozen: dict[int, tuple[Any, bytes]] = {}
        self.origin = self.snapshot(machine)

    def snapshot(self, machine: ModelMachine) -> WorkingCopy:
        """Return a complete copy of a machine of the same kind."""
        return WorkingCopy.of_parts(self, [part for _, part in _lasting(machine)])

    def values(self, copy: WorkingCopy) -> tuple[int, ...]:
        """Return a number for each cell: the same number means the same contents.

        Numbers are 64-bit digests, so that several processes agree on them.
        """
        known: dict[int, Any] = {}
        numbers = [self._number(copy.peek(place), known) for place in self.places]
        numbers[self.devices] = self._number_of_devices(copy)
        return tuple(numbers)

    def changes(self, copy: WorkingCopy, values: tuple[int, ...]) -> dict[int, int]:
        """Return the cells whose contents differ from the copy's base, with their numbers.

        Parameters
        ----------
        copy : WorkingCopy
        values : tuple of int
            The numbers of the cells in its base.
        """
        base = copy.base
        known: dict[int, Any] = {}
        found: dict[int, int] = {}
        assert base is not None
        cells = copy.touched if copy.shared is None else copy.touched.union(self.shared)
        for cell in cells:
            place = self.places[cell]
            was, now = base.peek(place), copy.peek(place)
            if now is was or _plainly_equal(now, was):
                continue
            number = (
                self._number_of_devices(copy) if cell == self.devices else self._number(now, known)
            )
            if number != values[cell]:
                found[cell] = number
        return found

    # --- contents --------------------------------------------------------------------------

    def _number_of_devices(self, copy: WorkingCopy) -> int:
        """Return the number of the devices; of their additions it includes only the addresses.

        So it does not change when blocks go online and an addition's counts change. Reading the
        devices counts as reading the additions too.
        """
        additions = copy.peek(self.places[self.additions])
        known: dict[int, Any] = {id(add): ("add", add.pfns.start) for add in additions}
        return self._number(copy.peek(self.places[self.devices]), known)

    def _number(self, value: Any, known: dict[int, Any]) -> int:
        content = self._token(value, known)
        digest = self._digests.get(content)
        if digest is None:
            raw = hashlib.blake2b(repr(content).encode(), digest_size=8).digest()
            digest = self._digests[content] = int.from_bytes(raw)
        return digest

    def _token(self, value: Any, known: dict[int, Any]) -> Any:
        """Return something hashable that is equal for equal contents.

        *known* has the contents of objects that were visited already.
        """
        kind = type(value)
        if kind is bool:
            return _TRUE if value else _FALSE  # True == 1, but the contents differ
        if kind in _ATOMS:
            return value
        if kind is PfnSet:
            return value.edges()
        token = self._token
        if kind is dict:
            return tuple([(token(key, known), token(item, known)) for key, item in value.items()])
        if kind is list or kind is tuple:
            return tuple([token(item, known) for item in value])
        part = _PLACE_OF.get(kind)
        if part is not None:
            return ("part", part(value))
        contents = known.get(id(value))
        if contents is not None:
            return contents
        kept = self._frozen.get(id(value))
        if kept is not None:
            return kept[1]
        if kind is set or kind is frozenset:
            return tuple(sorted([token(item, known) for item in value], key=repr))
        if kind is types.MethodType:
            return (value.__func__.__qualname__, token(value.__self__, known))
        if isinstance(value, type | types.FunctionType):
            return value.__qualname__
        if isinstance(value, Enum):
            return str(value)
        if not _is_frozen(kind):
            known[id(value)] = ("above", kind.__qualname__)  # a reference cycle
        made: Any = (
            kind.__qualname__,
            *[token(_get(value, name), known) for name in _attributes(kind, value)],
        )
        if _is_frozen(kind):
            # Such values never change; a digest instead of the contents saves memory.
            made = hashlib.blake2b(repr(made).encode(), digest_size=8).digest()
            self._frozen[id(value)] = (value, made)
        else:
            known[id(value)] = made
        return made


def _plainly_equal(now: Any, was: Any) -> bool:
    """Return whether two contents are equal by a quick test; false also if it does not decide."""
    if type(now) is not type(was):
        return False
    if type(now) is PfnSet:
        return now.is_copy_of(was)
    return type(now) in (dict, list) and not now and not was


def _lasting(machine: ModelMachine) -> list[tuple[str, Any]]:
    """Return a machine's lasting objects with the prefixes of their cells' names."""
    kernel = machine.kernel
    return [
        ("machine", machine),
        ("kernel", kernel),
        ("kernel.changed", kernel.changed),
        ("kernel.failures", kernel.failures),
        ("kernel.log", kernel.log),
        ("kernel.rfc2018", kernel.rfc2018),
        ("parameters", kernel.tunables),
        ("notifier", kernel.notifier),
        ("backing", machine.backing),
        ("devices", machine.devices),
        ("usage", machine.usage),
        *((f"zone {node} {name}", zone) for (node, name), zone in kernel.zones.items()),
    ]


# --- working copies ------------------------------------------------------------------------


class WorkingCopy:
    """A copy of a machine that fetches its cells on first use.

    Attributes
    ----------
    cells : Cells
    base : WorkingCopy or None
        The copy that cells are fetched from; it must not change any more.
    parts : list
        The lasting objects.
    touched : set of int
        Cells that were read or written.
    shared : dict or None
        The cells that are copied together, once one of them was used.
    resolved : dict
        Cache of values found in the chain of bases.
    """

    __slots__ = ("base", "cells", "parts", "resolved", "shared", "touched")

    def __init__(self, cells: Cells, base: WorkingCopy | None) -> None:
        self.cells = cells
        self.base = base
        self.touched: set[int] = set()
        self.shared: dict[Place, Any] | None = None
        self.resolved: dict[Place, Any] = {}
        self.parts = [object.__new__(kind) for kind in cells.kinds]
        for index, part in enumerate(self.parts):
            _put(part, "_copy_of", self)
            _put(part, "_place_of", index)

    @classmethod
    def of_parts(cls, cells: Cells, parts: list[Any]) -> WorkingCopy:
        """Return a first copy, of the lasting objects themselves."""
        made = cls(cells, None)
        places = {id(part): index for index, part in enumerate(parts)}
        copied: dict[int, Any] = {part_id: made.parts[i] for part_id, i in places.items()}
        copied[id(parts[0]._observer)] = None
        for index, part in enumerate(parts):
            for name in _attributes(type(part), part):
                _put(made.parts[index], name, _copy(getattr(part, name), copied, made.parts))
        return made

    @property
    def machine(self) -> ModelMachine:
        """The machine."""
        machine: ModelMachine = self.parts[0]
        return machine

    def peek(self, place: Place) -> Any:
        """Return an attribute's contents without recording the access."""
        try:
            return _get(self.parts[place[0]], place[1])
        except AttributeError:
            pass
        found = self.resolved.get(place, self)
        if found is self:
            if self.shared is not None and place in self.shared:
                found = self.shared[place]
            elif self.base is None:
                raise AttributeError(place[1])
            else:
                found = self.base.peek(place)
            self.resolved[place] = found
        return found

    def fetch(self, place: Place) -> Any:
        """Return an attribute's contents for a part that does not have it yet."""
        cell, base = self.cells.index.get(place), self.base
        if base is None:
            raise AttributeError(place[1])
        found = base.peek(place)
        if cell is None:
            return [] if type(found) is list else found.copy() if type(found) is PfnSet else found
        self.touched.add(cell)
        if cell == self.cells.devices:
            self.touched.add(self.cells.additions)  # see Cells._number_of_devices
        if type(found) in _CONSTANT:
            return found
        if cell not in self.cells.is_shared:
            return _copy(found, {}, self.parts)
        if self.shared is None:
            copied: dict[int, Any] = {}
            self.shared = {
                each: _copy(base.peek(each), copied, self.parts)
                for each in map(self.cells.places.__getitem__, self.cells.shared)
            }
            self.resolved.clear()
        return self.shared[place]


def _is_unshared(value: Any, lasting: list[Any]) -> bool:
    """Return whether contents are reachable from one cell only, or never change."""
    kind = type(value)
    if kind is dict:
        return bool(value) and all(_is_unshared(item, lasting) for item in value.values())
    if kind is types.MethodType:
        return any(value.__self__ is part for part in lasting)
    alone = kind is PfnSet or (value is not None and (kind in _CONSTANT or _is_constant(kind)))
    return (alone and kind not in (list, tuple, set)) or any(value is part for part in lasting)


def _copy(value: Any, made: dict[int, Any], parts: list[Any]) -> Any:
    kind = type(value)
    if kind in _CONSTANT:
        return value
    if kind is PfnSet:
        return value.copy()  # no two attributes of a machine share one set
    known = id(value)
    if known in made:
        return made[known]
    part = _PLACE_OF.get(kind)
    if part is not None:
        return parts[part(value)]
    copied: Any
    if kind is list:
        copied = [_copy(item, made, parts) for item in value] if value else []
    elif kind is dict:
        copied = {key: _copy(item, made, parts) for key, item in value.items()} if value else {}
    elif kind is tuple:
        return tuple([_copy(item, made, parts) for item in value])
    elif kind is set:
        copied = set(value)
    elif kind is types.MethodType:
        return types.MethodType(value.__func__, _copy(value.__self__, made, parts))
    elif _is_constant(kind):
        _CONSTANT.add(kind)
        return value
    else:
        copied = object.__new__(kind)
        made[known] = copied
        for name in _attributes(kind, value):
            item = _get(value, name)
            _put(copied, name, item if type(item) in _CONSTANT else _copy(item, made, parts))
        return copied
    made[known] = copied
    return copied


#: Types whose values never change.
_CONSTANT: set[type] = {*_ATOMS, frozenset}


def _is_constant(kind: type) -> bool:
    plain = issubclass(kind, Enum | int | str | bytes)
    return plain or _is_frozen(kind) or not kind.__module__.startswith("altmap.")


def _is_frozen(kind: type) -> bool:
    frozen = _FROZEN.get(kind)
    if frozen is None:
        parameters = getattr(kind, "__dataclass_params__", None)
        struct = getattr(kind, "__struct_config__", None)  # steps of scenarios
        frozen = any(each is not None and each.frozen for each in (parameters, struct))
        _FROZEN[kind] = frozen
    return frozen


def _attributes(kind: type, value: Any) -> list[str]:
    """Return the names of an object's attributes."""
    slots = _SLOTS.get(kind)
    if slots is None:
        slots = _SLOTS[kind] = [
            name
            for base in reversed(kind.__mro__)
            for name in getattr(base, "__slots__", ())
            if not name.startswith("__")
        ]
    held = _get(value, "__dict__") if kind.__dictoffset__ else None
    return slots if not held else [*slots, *sorted(held)]


_FROZEN: dict[type, bool] = {}
_SLOTS: dict[type, list[str]] = {}
#: Of the types of lasting objects in working copies: what returns an object's place.
_PLACE_OF: dict[type, Callable[[Any], int]] = {}
_LAZY: dict[type, type] = {}


def _lazy(kind: type) -> type:
    """Return a subclass whose attributes are fetched by its working copy on first use."""
    made = _LAZY.get(kind)
    if made is None:

        def fetch(self: Any, name: str) -> Any:
            value = self._copy_of.fetch((self._place_of, name))
            _put(self, name, value)
            return value

        def write(self: Any, name: str, value: Any) -> None:
            copy = self._copy_of
            cell = copy.cells.index.get((self._place_of, name))
            if cell is not None:
                copy.touched.add(cell)
            _put(self, name, value)

        members = {
            "__slots__": ("_copy_of", "_place_of"),
            "__getattr__": fetch,
            "__setattr__": write,
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
        }
        made = _LAZY[kind] = type(kind)(kind.__name__, (kind,), members)
        _PLACE_OF[made] = attrgetter("_place_of")
    return made
