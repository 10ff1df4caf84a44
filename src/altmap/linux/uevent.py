"""Uevents: what the kernel says when a device comes, goes or changes, one datagram each.

A message is ``ACTION@DEVPATH`` and then ``KEY=VALUE``, each ended by a zero byte. Source:
``lib/kobject_uevent.c: kobject_uevent_env, alloc_uevent_skb`` (6.12).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.paths import text_of

__all__ = ("MOST_BYTES", "Uevent", "parse")

#: The kernel's buffer of variables has 2048 bytes, the path at most a page.
MOST_BYTES = 8192

_HEADER = re.compile(r"([a-z]{1,16})@(/[^\n]+)")
_BLOCK = re.compile(r"/devices/system/memory/memory(0|[1-9][0-9]{0,14})")
_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Uevent:
    """One event.

    Attributes
    ----------
    action : str
        ``add``, ``remove``, ``online``, ``offline``, ``change``, ...
    path : str
        The device's folder below ``/sys``, with a leading slash.
    fields : dict
        The variables: ``SUBSYSTEM``, ``SEQNUM`` and the driver's own.
    """

    action: str
    path: str
    fields: dict[str, str]

    @property
    def block(self) -> int | None:
        """The memory block that the event is about, ``None`` if it is about something else."""
        match = _BLOCK.fullmatch(self.path)
        return (
            int(match[1]) if match and self.fields.get("SUBSYSTEM", "memory") == "memory" else None
        )

    @property
    def seqnum(self) -> int | None:
        """The kernel's number of the event; numbers of all devices are one sequence."""
        text = self.fields.get("SEQNUM", "")
        return int(text) if _NUMBER.fullmatch(text) else None


def parse(datagram: bytes) -> Uevent:
    """Return the event in a message of the kernel.

    Raises
    ------
    InputError
        If it is none: udev's own messages to its listeners, or something else.
    """
    if len(datagram) > MOST_BYTES:
        raise InputError(f"uevent of {len(datagram)} bytes: need at most {MOST_BYTES}")
    if not datagram.endswith(b"\0"):
        raise InputError(f"uevent {_shown(datagram)}: need a zero byte at its end")
    head, *rest = datagram[:-1].split(b"\0")
    match = _HEADER.fullmatch(text_of(head))
    if match is None:
        raise InputError(f"uevent {_shown(head)}: need ACTION@/DEVPATH")
    event = Uevent(match[1], match[2], dict(_field(part) for part in rest))
    for name, value in (("ACTION", event.action), ("DEVPATH", event.path)):
        if event.fields.get(name, value) != value:
            raise InputError(f"uevent {_shown(head)}: {name} is {event.fields[name][:80]!r}")
    return event


def _field(part: bytes) -> tuple[str, str]:
    name, equals, value = text_of(part).partition("=")
    if not name or not equals:
        raise InputError(f"uevent {_shown(part)}: need KEY=VALUE")
    return name, value


def _shown(raw: bytes) -> str:
    return repr(text_of(raw[:80]))
