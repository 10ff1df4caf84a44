"""QEMU's control socket: a synchronous front for the ``qemu.qmp`` library.

Effects: clock, network, processes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar

from altmap.errors import LabError

if TYPE_CHECKING:
    from qemu.qmp import EventListener

__all__ = ("Event", "Events", "QemuRefusedError", "Qmp")

_POLL_SECONDS = 0.5
_CLOSE_SECONDS = 5.0
_T = TypeVar("_T")
Event = dict[str, Any]
"""A QMP event: ``event`` is its name, ``data`` its members."""


class QemuRefusedError(LabError):
    """QEMU answered a command with an error; the message is QEMU's own."""


class Qmp:
    """A connection to a QMP server, usable from ordinary code.

    The library is asynchronous, so its loop runs in a thread that ends with :meth:`close`.

    Parameters
    ----------
    channel : socket
        Connected to the server; owned from here on.
    check : callable
        Called while waiting with ``False``, and with ``True`` when the connection failed; raises
        ``LabError`` if QEMU is dead.
    limit_seconds : float
        Time limit of each command.
    """

    def __init__(
        self, channel: socket.socket, check: Callable[[bool], None], limit_seconds: float = 30.0
    ) -> None:
        try:
            from qemu.qmp import QMPClient
        except ImportError as error:
            channel.close()
            raise LabError("library qemu.qmp is missing: pip install altmap[lab]") from error
        self._check = check
        self._limit_seconds = limit_seconds
        self._client = QMPClient("altmap")
        # The wait for QEMU's end reports that it ended.
        self._client.logger.disabled = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._ask(self._client.connect(channel))
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, /, **arguments: object) -> Any:
        """Run a QMP command and return its answer; underscores in names become hyphens.

        Raises
        ------
        QemuRefusedError
            If QEMU answers with an error.
        LabError
            If QEMU does not answer.
        """
        from qemu.qmp import ExecuteError

        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return self._ask(self._client.execute(command, named))
        except ExecuteError as error:
            raise QemuRefusedError(f"QEMU refused {command}: {error}") from error

    @contextmanager
    def listen(self, *names: str) -> Iterator[Events]:
        """Collect events of these names from here on: enter before the command that causes them."""
        from qemu.qmp import EventListener

        listener = EventListener(names)
        self._in_loop(self._client.register_listener, listener)
        try:
            yield Events(lambda seconds: self._next(listener, seconds))
        finally:
            self._in_loop(self._client.remove_listener, listener)

    def close(self) -> None:
        """Hang up; may be called again."""
        if self._loop.is_closed():
            return
        # Nobody asks any more why the connection ended.
        with suppress(Exception):
            self._wait(self._client.disconnect(), _CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, _T], limit_seconds: float) -> _T:
        limited = asyncio.wait_for(coroutine, limit_seconds)
        return asyncio.run_coroutine_threadsafe(limited, self._loop).result()

    def _in_loop(self, function: Callable[[EventListener], None], listener: EventListener) -> None:
        async def call() -> None:
            function(listener)

        self._wait(call(), self._limit_seconds)

    def _ask(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        from qemu.qmp import ExecuteError, QMPError

        try:
            return self._wait(coroutine, self._limit_seconds)
        except ExecuteError:
            raise
        except TimeoutError as error:
            self._check(False)
            raise LabError(f"QEMU did not answer within {self._limit_seconds:g} s") from error
        except (QMPError, OSError, EOFError, CancelledError) as error:
            self._check(True)
            # The library's words may be lines, and hold all that was received.
            said = shorten(str(error), 120)
            raise LabError(f"QEMU's control connection failed: {said}") from error

    def _next(self, listener: EventListener, limit_seconds: float) -> Event | None:
        with suppress(TimeoutError):
            return dict(self._wait(listener.get(), limit_seconds))
        self._check(False)
        return None


class Events:
    """Events seen since :meth:`Qmp.listen` was entered, oldest first.

    Parameters
    ----------
    take : callable
        Returns the next event, or ``None`` after the given seconds.
    """

    def __init__(self, take: Callable[[float], Event | None]) -> None:
        self._take = take

    def wait_for(self, wanted: Callable[[Event], bool], limit_seconds: float) -> Event | None:
        """Return the first event that is wanted, dropping those before; ``None`` if none comes.

        Raises
        ------
        LabError
            If QEMU dies meanwhile.
        """
        deadline = time.monotonic() + limit_seconds
        while (left := deadline - time.monotonic()) > 0:
            event = self._take(min(left, _POLL_SECONDS))
            if event is not None and wanted(event):
                return event
        return None
