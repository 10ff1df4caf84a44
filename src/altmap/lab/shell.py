r"""Commands to a guest's shell and their answers, over its second serial port.

Every command carries a random token, so that its output may hold any bytes::

    host    TOKEN command\n          newline and backslash escaped as for printf %b
    guest   TOKEN\n output TOKEN status\n

Effects: clock, files, network, randomness.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten

from altmap.errors import LabError

__all__ = ("CommandResult", "Shell")

READY = b"ready\n"
_POLL_SECONDS = 0.5
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command printed (standard output and error together) and its exit status."""

    status: int
    output: bytes

    @property
    def text(self) -> str:
        """The output as text, undecodable bytes replaced."""
        return self.output.decode(errors="replace")


class Shell:
    """The host's end of the command channel.

    Parameters
    ----------
    channel : socket
        Connected to the guest's second serial port; closed by its owner.
    check : callable
        Called while waiting with ``False``, and with ``True`` when the guest hung up; raises
        ``LabError`` if the guest is dead.
    """

    def __init__(self, channel: socket.socket, check: Callable[[bool], None]) -> None:
        self._channel = channel
        self._check = check
        self._received = bytearray()

    def wait_ready(self, limit_seconds: float) -> None:
        """Wait until the guest's init answers."""
        self._read_until(READY, _Deadline("boot", limit_seconds))

    def run(self, command: str, limit_seconds: float) -> CommandResult:
        """Run a command line or script in a subshell of the guest, its input empty.

        Raises
        ------
        LabError
            If the guest dies, its answer makes no sense, or the time limit passes. In the last case
            the command still runs, and the next one waits for it.
        """
        deadline = _Deadline(f"command {shorten(command, 60)!r}", limit_seconds)
        token = secrets.token_hex(16).encode()
        self._send(b"%b %b\n" % (token, _escaped(command)), deadline)
        self._read_until(token + b"\n", deadline)
        output = self._read_until(token + b" ", deadline)
        status = self._read_until(b"\n", deadline)
        if not status.isdigit():
            said = shorten(ascii(status.decode(errors="replace")), 40)
            raise LabError(f"{deadline.what}: exit status {said}: the guest garbles its answers")
        return CommandResult(int(status), output)

    def converse(self, command: str, keyboard: int, screen: int) -> int:
        """Run a command whose input and output are ours while it runs; return its exit status.

        Parameters
        ----------
        keyboard, screen : int
            File descriptors; the end of the keyboard's input is passed on as Ctrl-D.

        Raises
        ------
        LabError
            If the guest dies.
        """
        token = secrets.token_hex(16).encode()
        start = _Deadline("shell", _START_SECONDS)
        self._send(b"%b %b\n" % (token, _escaped(command)), start)
        self._read_until(token + b"\n", start)
        end, heard = token + b" ", [keyboard, self._channel.fileno()]
        while (at := self._received.find(end)) < 0:
            shown = len(self._received) - _overlap(self._received, end)
            os.write(screen, self._received[:shown])
            del self._received[:shown]
            ready, _, _ = select.select(heard, [], [], _POLL_SECONDS)
            if keyboard in ready:
                typed = os.read(keyboard, 4096)
                heard = heard if typed else heard[1:]
                self._channel.sendall(typed or b"\x04")
            if self._channel.fileno() in ready:
                self._receive(_POLL_SECONDS)
            elif not ready:
                self._check(False)
        os.write(screen, self._received[:at])
        del self._received[: at + len(end)]
        return int(self._read_until(b"\n", _Deadline("shell", _START_SECONDS)))

    def _send(self, line: bytes, deadline: _Deadline) -> None:
        self._channel.settimeout(max(deadline.left, 0.01))
        try:
            self._channel.sendall(line)
        except TimeoutError:
            pass  # the wait for the answer reports it
        except OSError:
            self._check(True)

    def _read_until(self, marker: bytes, deadline: _Deadline) -> bytes:
        """Return what comes before the marker and forget both."""
        scanned = 0
        while (at := self._received.find(marker, scanned)) < 0:
            scanned = max(0, len(self._received) - len(marker))
            if deadline.left <= 0:
                self._check(False)
                raise LabError(f"{deadline.what}: not done within {deadline.limit_seconds:g} s")
            self._receive(min(deadline.left, _POLL_SECONDS))
        before = bytes(self._received[:at])
        del self._received[: at + len(marker)]
        return before

    def _receive(self, limit_seconds: float) -> None:
        self._channel.settimeout(max(limit_seconds, 0.01))
        try:
            data = self._channel.recv(1 << 16)
        except TimeoutError:
            self._check(False)
            return
        except OSError:
            data = b""
        if not data:
            self._check(True)
        self._received += data


def _escaped(command: str) -> bytes:
    return command.replace("\\", "\\\\").replace("\n", "\\n").encode()


def _overlap(received: bytearray, marker: bytes) -> int:
    """Return how many bytes at the end may be the beginning of the marker."""
    sizes = range(min(len(received), len(marker) - 1), 0, -1)
    return next((size for size in sizes if received.endswith(marker[:size])), 0)


class _Deadline:
    def __init__(self, what: str, limit_seconds: float) -> None:
        self.what, self.limit_seconds = what, limit_seconds
        self._end = time.monotonic() + limit_seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()
