"""Scrapes answered on this machine's loopback, within limits of time and connections.

A client that sends nothing, or a byte now and then, is disconnected; while all connections are
taken, others are turned away at once. So nothing that connects keeps the exporter from the server
that it is for.

Effects: network, processes.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from altmap.errors import AltmapError, InputError, printable

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ("MOST_CONNECTIONS", "REQUEST_SECONDS", "Listening", "listen")

#: Of reading a request, and of sending a piece of the answer.
REQUEST_SECONDS = 10.0
MOST_CONNECTIONS = 16
_MOST_LINE_BYTES = 1 << 16

_ADDRESS = re.compile(r"(?:(127\.0\.0\.1)|\[(::1)\]):([0-9]{1,5})", re.ASCII)
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\ntoo many connections\n"


class Listening(NamedTuple):
    """Scrapes are answered.

    Attributes
    ----------
    address : str
        Where, with the port that was taken if any was to be.
    wait : callable
        Waits indefinitely.
    """

    address: str
    wait: Callable[[], None]


@contextmanager
def listen(
    address: str, render: Callable[[], bytes], tell: Callable[[str], None] = lambda _: None
) -> Iterator[Listening]:
    """Answer scrapes at ``127.0.0.1:PORT`` or ``[::1]:PORT`` while inside.

    Parameters
    ----------
    address : str
        Port 0 is any that is free.
    render : callable
        Returns the body of an answer. What it raises as ``AltmapError`` or ``OSError`` is the one
        line of an answer with status 503.
    tell : callable
        Takes that line, too.

    Raises
    ------
    InputError
        If the address is another.
    AltmapError
        If it cannot be had.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) > 65535:
        raise InputError(f"--listen {address!r}: need 127.0.0.1:PORT or [::1]:PORT, nothing else")
    host = match[1] or match[2]
    kind = _ScrapeServer6 if ipaddress.ip_address(host).version == 6 else _ScrapeServer
    try:
        server = kind((host, int(match[3])), _ScrapeRequest)
    except OSError as error:
        raise AltmapError(f"--listen {address}: {error.strerror}") from error
    server.set_app(_application(render, tell))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Listening(f"{address.rpartition(':')[0]}:{server.server_port}", thread.join)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _application(render: Callable[[], bytes], tell: Callable[[str], None]) -> WSGIApplication:
    one_at_a_time = threading.Lock()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return [b"need GET\n"]
        try:
            with one_at_a_time:
                body = render()
        except (AltmapError, OSError) as error:
            line = printable(str(error))
            tell(line)
            start_response("503 Service Unavailable", [("Content-Type", _PLAIN)])
            return [f"{line}\n".encode(errors="replace")]
        start_response("200 OK", [("Content-Type", _METRICS)])
        return [body]

    return answer


_PLAIN = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class _ScrapeHandler(ServerHandler):
    """Keeps errors of a connection to itself: the client has gone, or was too slow."""

    def log_exception(self, exc_info: Any) -> None:
        """Log nothing."""


class _ScrapeRequest(WSGIRequestHandler):
    """One request of one connection, within a time."""

    def handle(self) -> None:
        """Read the request and answer it, each within the time."""
        with suppress(OSError):
            if self._read_request():
                self.connection.settimeout(REQUEST_SECONDS)
                self._answer()

    def _read_request(self) -> bool:
        """Read all of it; at the end of the time the connection is shut down."""
        timer = threading.Timer(REQUEST_SECONDS, self._shut_down)
        timer.daemon = True
        timer.start()
        try:
            self.raw_requestline = self.rfile.readline(_MOST_LINE_BYTES + 1)
            return len(self.raw_requestline) <= _MOST_LINE_BYTES and self.parse_request()
        finally:
            timer.cancel()

    def _answer(self) -> None:
        server: Any = self.server
        handler = _ScrapeHandler(
            cast("IO[bytes]", self.rfile),
            cast("IO[bytes]", self.wfile),
            self.get_stderr(),
            self.get_environ(),
            multithread=True,
        )
        handler.request_handler = self  # type: ignore[attr-defined]  # wsgiref's backpointer
        handler.run(server.get_app())

    def _shut_down(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base
        """Log nothing."""


class _ScrapeServer(ThreadingMixIn, WSGIServer):
    """A thread for each connection, of a bounded number."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*args)

    def server_bind(self) -> None:
        """Bind without asking for the name of the host."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread, or turn the client away."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a connection that broke."""


class _ScrapeServer6(_ScrapeServer):
    address_family = socket.AF_INET6
