"""Hearing the kernel's uevents, on this machine.

This module has effects: it opens a netlink socket, for which no privilege is needed.

Effects: clock, files, network.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from altmap.errors import InputError
from altmap.linux import uevent
from altmap.linux.uevent import Uevent

__all__ = ("Deaf", "Ears", "Heard", "Netlink", "listening")

#: ``include/uapi/linux/netlink.h``; the kernel's own group is 1, udev's 2.
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_PID, _KERNEL_GROUP = 0, 1
_RECEIVE_BYTES = 8 << 20
#: Events that belong together come within that time.
_QUIET_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Heard:
    """Uevents received while listening.

    Attributes
    ----------
    events : tuple of Uevent
        About memory blocks only.
    lost : bool
        There were more than the socket could hold.
    """

    events: tuple[Uevent, ...] = ()
    lost: bool = False


class Ears(Protocol):
    """Receives a machine's uevents; a guest's come another way."""

    def wait(self, seconds: float) -> Heard:
        """Wait for an event, at most so long, and for those that follow at once."""


class Deaf:
    """Receives nothing: time passes."""

    def wait(self, seconds: float) -> Heard:
        """Wait so long."""
        time.sleep(seconds)
        return Heard()


class Netlink:
    """Uevents of this machine, from the kernel alone.

    Parameters
    ----------
    socket : socket
        Of family ``AF_NETLINK``, bound to the kernel's group; closed by its owner.
    """

    def __init__(self, socket: socket.socket) -> None:
        self._socket = socket

    def wait(self, seconds: float) -> Heard:
        """Wait for an event about a memory block, at most so long, and for those that follow."""
        end = time.monotonic() + seconds
        events: list[Uevent] = []
        lost = False
        while True:
            left = end - time.monotonic()
            if events or lost:
                left = min(left, _QUIET_SECONDS)
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return Heard(tuple(events), lost)
            try:
                events.extend(self._read())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True

    def _read(self) -> Iterator[Uevent]:
        raw, sender = self._socket.recvfrom(uevent.MOST_BYTES + 1)
        if sender[0] != _KERNEL_PID:
            return  # another program's; only a privileged one can send it
        with contextlib.suppress(InputError):  # of a driver that breaks the format
            event = uevent.parse(raw)
            if event.block is not None:
                yield event


@contextlib.contextmanager
def listening() -> Iterator[Netlink | str]:
    """Yield this machine's uevents, or why they cannot be had, while inside."""
    try:
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT
        )
    except (OSError, AttributeError) as error:
        yield os.strerror(error.errno or 0) if isinstance(error, OSError) else "this is no Linux"
        return
    with sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            sock.bind((0, _KERNEL_GROUP))
        except OSError as error:
            yield os.strerror(error.errno or 0)
            return
        yield Netlink(sock)
