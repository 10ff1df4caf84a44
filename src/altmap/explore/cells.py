"""A machine's state as cells, and working copies that record which cells they read or write.

A cell is one attribute of one of a machine's lasting objects (kernel, zones, parameters, devices).
All objects that are reachable only from an attribute belong to its cell, so every read goes through
a cell. A working copy starts empty and fetches each cell on first use; the cells that it holds at
the end are those that were used.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Iterable
from enum import Enum
from operator import attrgetter
from typing import Any

from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet

__all__ = ("Cell", "Cells", "Contents", "WorkingCopy", "shares_nothing")

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
#: Of these, a value is its own token; ``True == 1``, but the contents differ.
_PLAIN: frozenset[type] = _ATOMS - {bool}
_TRUE, _FALSE = b"true", b"false"

#: An attribute of a lasting object: the object's index, the attribute's name.
Place = tuple[int, str]

#: The contents of every cell. They never change, and refer to the lasting objects of
#: ``Cells.reading``.
Contents = list[Any]

_get, _put, _remove = object.__getattribute__, object.__setattr__, object.__delattr__


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
    origin : Contents
        The machine at its start.
    reading : WorkingCopy
        For reading only, so nothing is copied.
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
        #: Of each lasting object: its cells by attribute.
        self.index: list[dict[str, int]] = [{} for _ in lasting]
        for cell, (index, attribute) in enumerate(self.places):
            self.index[index][attribute] = cell
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
        #: Contents of attributes that are no cells: those of the start, in every copy.
        self.others: dict[Place, Any] = {}
        #: Cells that no step has written so far, and whose contents cannot change otherwise. Every
        #: copy has them, so reading them is not recorded: each is counted as read by every step.
        self.constant: set[int] = set()
        self.reading = WorkingCopy(self, [], is_read_only=True)
        self.origin = self.snapshot(machine)
        self.reading.base = self.origin
        self.constant.update(
            cell
            for cell, content in enumerate(self.origin)
            if _is_immutable(content, self.reading.parts)
        )

    def snapshot(self, machine: ModelMachine) -> Contents:
        """Return copies of the contents of every cell of a machine of the same kind."""
        lasting = [part for _, part in _lasting(machine)]
        parts = self.reading.parts
        copied: dict[int, Any] = {id(part): parts[i] for i, part in enumerate(lasting)}
        copied[id(machine._observer)] = None
        found = {
            (index, name): _copy(getattr(part, name), copied, parts)
            for index, part in enumerate(lasting)
            for name in _attributes(type(part), part)
        }
        made = [found.pop(place) for place in self.places]
        self.others = self.others or found
        return made

    def values(self, contents: Contents) -> tuple[int, ...]:
        """Return a number for each cell: the same number means the same contents.

        Numbers are 64-bit digests, so that several processes agree on them.
        """
        known: dict[int, Any] = {}
        numbers = [self._number(content, known) for content in contents]
        numbers[self.devices] = self._number_of_devices(
            contents[self.devices], contents[self.additions]
        )
        return tuple(numbers)

    def changes(self, copy: WorkingCopy, values: tuple[int, ...]) -> dict[int, int]:
        """Return the cells whose contents differ from the copy's base, with their numbers.

        Parameters
        ----------
        copy : WorkingCopy
        values : tuple of int
            The numbers of the cells in its base.
        """
        some, known = copy.touched.copy(), dict[int, Any]()
        if self.devices in some:
            some.add(self.additions)
        found = self._differing(copy, values, some, known)
        if not self.is_shared.isdisjoint(found):
            found |= self._differing(copy, values, self.is_shared - some, known)
        return found

    def _differing(
        self, copy: WorkingCopy, values: tuple[int, ...], some: Iterable[int], known: dict[int, Any]
    ) -> dict[int, int]:
        """Return those of some cells whose contents differ from the copy's base."""
        base, peek, found = copy.base, copy.peek, {}
        for cell in some:
            was, now = base[cell], peek(cell)
            if now is was or _is_same(now, was, set()):
                continue
            if cell == self.devices:
                number = self._number_of_devices(now, peek(self.additions))
            else:
                number = self._number(now, known)
            if number != values[cell]:
                found[cell] = number
        return found

    # --- contents --------------------------------------------------------------------------

    def _number_of_devices(self, devices: Any, additions: Any) -> int:
        """Return the number of the devices; of their additions it includes only the addresses.

        So it does not change when blocks go online and an addition's counts change. Reading the
        devices counts as reading the additions too.
        """
        known: dict[int, Any] = {id(add): ("add", add.pfns.start) for add in additions}
        return self._number(devices, known)

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
            return tuple([i if type(i) in _PLAIN else token(i, known) for i in value])
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
        items = [_get(value, name) for name in _attributes(kind, value)]
        made: Any = (
            kind.__qualname__,
            *[item if type(item) in _PLAIN else token(item, known) for item in items],
        )
        if _is_frozen(kind):
            # Such values never change; a digest instead of the contents saves memory.
            made = hashlib.blake2b(repr(made).encode(), digest_size=8).digest()
            self._frozen[id(value)] = (value, made)
        else:
            known[id(value)] = made
        return made


def _is_same(now: Any, was: Any, compared: set[tuple[int, int]]) -> bool:
    """Return whether contents are equal by a quick test; false also if it does not decide.

    *compared* has the ids of pairs of objects whose comparison has begun: they may refer to
    each other, and one pair that differs ends all of it.
    """
    if now is was:
        return True
    kind = type(now)
    if kind is not type(was):
        return False
    if kind is PfnSet:
        return bool(now.is_copy_of(was))
    if kind in _ATOMS:
        return bool(now == was)
    if kind is dict:
        return list(now) == list(was) and _are_same(now.values(), was.values(), compared)
    if kind is list or kind is tuple:
        return len(now) == len(was) and _are_same(now, was, compared)
    part = _PLACE_OF.get(kind)
    if part is not None:
        return part(now) == part(was)
    if kind in _CONSTANT or not kind.__module__.startswith("altmap."):
        return False
    pair = (id(now), id(was))
    if pair in compared:
        return True
    compared.add(pair)
    names = _attributes(kind, now)
    return names == _attributes(kind, was) and _are_same(
        [_get(now, name) for name in names], [_get(was, name) for name in names], compared
    )


def _are_same(now: Iterable[Any], was: Iterable[Any], compared: set[tuple[int, int]]) -> bool:
    for each, old in zip(now, was, strict=True):
        if each is not old and not _is_same(each, old, compared):
            return False
    return True


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

    It can be used again: :meth:`load` empties it.

    Parameters
    ----------
    cells : Cells
    base : Contents
    is_read_only : bool
        Contents are not copied: nothing may change them. Then its lasting objects are those that
        contents refer to.

    Attributes
    ----------
    parts : list
        The lasting objects.
    base : Contents
        The contents of every cell that is fetched.
    touched : set of int
        Cells whose attributes were read or written, but for constant ones that were only read.
    """

    __slots__ = (
        *("_completed", "_constant", "_is_read_only", "_made", "_others"),
        *("base", "cells", "parts", "touched"),
    )

    def __init__(self, cells: Cells, base: Contents, *, is_read_only: bool = False) -> None:
        self.cells = cells
        self.base = base
        self.touched: set[int] = set()
        self._is_read_only = is_read_only
        #: Objects that were copied, by the id of that in the base; cells may share them.
        self._made: dict[int, Any] = {}
        #: Contents of cells that were not used, but may share objects with one that was.
        self._completed: dict[int, Any] = {}
        self._others: set[Place] = set()
        self._constant: set[int] = set()
        self.parts = [object.__new__(kind) for kind in cells.kinds]
        for index, part in enumerate(self.parts):
            _put(part, "_copy_of", self)
            _put(part, "_place_of", index)
            _put(part, "_cells_of", cells.index[index])
        if base:
            self._load_constant()

    @property
    def machine(self) -> ModelMachine:
        """The machine."""
        machine: ModelMachine = self.parts[0]
        return machine

    def load(self, base: Contents) -> None:
        """Become a copy of other contents, none of whose cells was used."""
        parts, places = self.parts, self.cells.places
        for index, name in [*[places[cell] for cell in self.touched], *self._others]:
            _remove(parts[index], name)
        self._constant -= self.touched
        self.base, self.touched = base, set()
        self._made, self._completed, self._others = {}, {}, set()
        if len(self._constant) != len(self.cells.constant):
            self._load_constant()

    def _load_constant(self) -> None:
        """Fetch the constant cells, and forget those that are none any more."""
        constant, places = self.cells.constant, self.cells.places
        for index, name in [places[cell] for cell in self._constant - constant]:
            _remove(self.parts[index], name)
        for cell in constant - self._constant:
            index, name = places[cell]
            _put(self.parts[index], name, _copy(self.base[cell], {}, self.parts))
        self._constant = constant.copy()

    def used(self) -> frozenset[int]:
        """Return the cells that may have been read or written: constant ones too.

        Reading the devices counts as reading the additions too, see ``Cells``.
        """
        used = self.touched | self.cells.constant
        if self.cells.devices in used:
            used.add(self.cells.additions)
        return frozenset(used)

    def peek(self, cell: int) -> Any:
        """Return a cell's contents without recording the access."""
        if cell in self.touched:
            index, name = self.cells.places[cell]
            return _get(self.parts[index], name)
        found = self.base[cell]
        if not self._made or cell not in self.cells.is_shared or shares_nothing(found):
            return found
        if cell not in self._completed:
            self._completed[cell] = _copy(found, self._made, self.parts)
        return self._completed[cell]

    def shared_contents(self) -> list[Any]:
        """Return the contents of the cells that may share objects, for a base of other copies."""
        made: dict[int, Any] = {}
        parts = self.cells.reading.parts
        return [_copy(self.peek(cell), made, parts) for cell in self.cells.shared]

    def fetch_other(self, index: int, name: str) -> Any:
        """Return the contents of an attribute that is no cell."""
        found = self.cells.others.get((index, name), self)
        if found is self:
            raise AttributeError(name)
        self._others.add((index, name))
        return [] if type(found) is list else found.copy() if type(found) is PfnSet else found

    def copied(self, cell: int) -> Any:
        """Return a copy of a cell's contents, which may share objects with others."""
        if self._is_read_only:
            return self.base[cell]
        if cell in self._completed:
            return self._completed[cell]
        return _copy(self.base[cell], self._made, self.parts)

    def record_write(self, index: int, name: str) -> None:
        """Record that an attribute is written; it is not constant any more."""
        cell = self.cells.index[index].get(name)
        if cell is None:
            self._others.add((index, name))
        else:
            self.touched.add(cell)
            self.cells.constant.discard(cell)


def shares_nothing(value: Any) -> bool:
    """Return whether contents have no object that others may refer to."""
    return type(value) in _ATOMS or (type(value) in (dict, list, tuple) and not value)


def _is_immutable(value: Any, parts: list[Any]) -> bool:
    """Return whether contents can only be replaced: plain values, records, lasting objects."""
    kind = type(value)
    if kind is types.MethodType:
        return any(value.__self__ is part for part in parts)
    return kind in _ATOMS or kind in _PLACE_OF or _is_frozen(kind) or isinstance(value, Enum)


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
        copied = [i if type(i) in _CONSTANT else _copy(i, made, parts) for i in value]
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
            copy, cell = self._copy_of, self._cells_of.get(name)
            if cell is None:
                value = copy.fetch_other(self._place_of, name)
            else:
                copy.touched.add(cell)
                value = copy.base[cell]
                kind = type(value)
                if kind is PfnSet:
                    value = value.copy()
                elif kind not in _CONSTANT:
                    value = copy.copied(cell)
            _put(self, name, value)
            return value

        def write(self: Any, name: str, value: Any) -> None:
            self._copy_of.record_write(self._place_of, name)
            _put(self, name, value)

        members = {
            "__slots__": ("_cells_of", "_copy_of", "_place_of"),
            "__getattr__": fetch,
            "__setattr__": write,
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
        }
        made = _LAZY[kind] = type(kind)(kind.__name__, (kind,), members)
        _PLACE_OF[made] = attrgetter("_place_of")
    return made
