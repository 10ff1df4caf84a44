"""What a reader collects beside the values: where a file says them, and what is not understood."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from altmap.errors import InputError
from altmap.vm.definition import DefinedBalloon, DefinedDevice, Growth, Unread, Written
from altmap.vm.readers.content import MOST_PARTS

__all__ = ("Notes", "at", "bounded_parts", "growth_of")

_Read = TypeVar("_Read")
_Part = TypeVar("_Part")
#: Notes in all; a file that says more says nothing new.
_MOST_NOTES = 50


@dataclass(slots=True)
class Notes:
    """Collects :attr:`Definition.written` and :attr:`Definition.unread`."""

    written: dict[str, Written] = field(default_factory=dict)
    _unread: dict[Unread, None] = field(default_factory=dict)

    def wrote(self, name: str, text: str, line: int | None) -> None:
        """Keep where the file says a field of a definition."""
        self.written[name] = Written(text, line)

    def leave(self, value: str, reason: str, line: int | None = None) -> None:
        """Keep that a value matters for memory and is not understood."""
        if len(self._unread) < _MOST_NOTES:
            self._unread[Unread(value[:200], reason, line)] = None

    @property
    def unread(self) -> tuple[Unread, ...]:
        """What matters and is not understood, each once."""
        return tuple(self._unread)


def at(where: str, line: int | None, read: Callable[[], _Read]) -> _Read:
    """Return what *read* returns.

    Raises
    ------
    InputError
        What *read* raises, with the place before it.
    """
    try:
        return read()
    except InputError as error:
        place = where if line is None else f"line {line}: {where}"
        raise InputError(f"{place}: {error}") from error


def bounded_parts(what: str, parts: Iterable[_Part]) -> list[_Part]:
    """Return the parts.

    Raises
    ------
    InputError
        If there are more than any hypervisor allows.
    """
    made = []
    for part in parts:
        made.append(part)
        if len(made) > MOST_PARTS:
            raise InputError(f"has more than {MOST_PARTS} {what}: need at most {MOST_PARTS}")
    return made


def growth_of(
    memory_bytes: int,
    max_memory_bytes: int | None,
    slots: int | None,
    devices: Iterable[DefinedDevice],
    balloon: DefinedBalloon,
) -> tuple[Growth, ...]:
    """Return how QEMU lets memory be added while the guest runs, what is set up for it first.

    A virtio-mem device that is not at its size grows; a free slot takes a DIMM and, as room below
    the maximum without a slot does, another virtio-mem device; a balloon gives back what it holds.
    """
    devices = list(devices)
    dimms = [device for device in devices if device.kind in ("dimm", "nvdimm")]
    total_bytes = memory_bytes + sum(
        device.size_bytes for device in devices if device.kind != "other"
    )
    room = max_memory_bytes is not None and max_memory_bytes > total_bytes
    start_bytes = memory_bytes + sum(
        each.size_bytes if each.kind == "dimm" else each.requested_bytes or 0 for each in devices
    )
    found: list[Growth] = []
    if any(
        device.kind == "virtio-mem" and (device.requested_bytes or 0) < device.size_bytes
        for device in devices
    ):
        found.append("virtio-mem")
    if room and (slots or 0) > len(dimms):
        found.append("dimm")
    if room and "virtio-mem" not in found:
        found.append("virtio-mem")
    if balloon.present is not False and (balloon.current_bytes or start_bytes) < start_bytes:
        found.append("balloon")
    return tuple(found)
