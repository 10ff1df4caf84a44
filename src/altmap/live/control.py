"""The platform's side of a live machine: requests over a Unix socket that only its owner can open.

A request and its answer are one line of JSON each. Both ends check who is at the other: the socket
has mode 0600, and the server asks the kernel for the user of each peer.

Effects: environment, files, network, processes.
"""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.linux.node import no_such_block
from altmap.live.machine import LiveMachine, outcome_text
from altmap.live.summary import summary
from altmap.scenario import Offline, build_scenario, scenario_text
from altmap.storage.json_files import decode_json

__all__ = ("SOCKET_FILE", "answer", "controlled", "request")

#: Where a mounted machine says where its socket is.
SOCKET_FILE = "altmap/socket"
_MOST_BYTES = 16 << 20
_TIMEOUT_SECONDS = 60.0
_CREDENTIALS = struct.Struct("iii")  # struct ucred: process, user, group

Answer = dict[str, Any]


def answer(machine: LiveMachine, asked: Answer) -> Answer:
    """Return what a request is answered with.

    Raises
    ------
    InputError
        If the request is unknown, or asks for what no machine can do.
    """
    match asked:
        case {"do": "perform", "steps": list(steps)}:
            made = build_scenario({"name": "ctl", "steps": steps}).steps
            return {"outcomes": [outcome_text(machine.perform(step)) for step in made]}
        case {"do": "new_id", "prefix": str(prefix)}:
            return {"id": machine.new_id(prefix)}
        case {"do": "show"}:
            return {"text": summary(machine)}
        case {"do": "explain", "block": int(block)}:
            return {"text": _explained(machine, block)}
        case {"do": "save", "name": str(name)}:
            return {"text": scenario_text(machine.saved(name))}
    raise InputError(f"request {asked.get('do')!r}: need perform, show, explain or save")


def _explained(machine: LiveMachine, block: int) -> str:
    """Return what an attempt to offline a block would be answered, made on a copy."""
    if block not in machine.model.kernel.added_blocks:
        raise no_such_block("explain ", block, machine.model.kernel.added_blocks)
    if block not in machine.model.kernel.online_blocks:
        return f"memory{block} is offline"
    tried = machine.model.copy().perform(Offline(blocks=block))
    if tried.outcome:
        return f"memory{block} would go offline"
    return f"memory{block} would not go offline: {outcome_text(tried.outcome)}"


# --- server ----------------------------------------------------------------------------------


class _ControlHandler(socketserver.StreamRequestHandler):
    timeout = _TIMEOUT_SECONDS

    def handle(self) -> None:
        raw = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(raw)
        if user not in (0, os.geteuid()):
            return
        line = self.rfile.readline(_MOST_BYTES)
        assert isinstance(self.server, _ControlServer)
        self.wfile.write(msgspec.json.encode(self.server.reply(line)) + b"\n")


class _ControlServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, reply: Callable[[bytes], Answer]) -> None:
        self.reply = reply
        super().__init__(path, _ControlHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop a peer that broke off; the next one is served."""


@contextmanager
def controlled(machine: LiveMachine, path: Path, lock: threading.RLock) -> Iterator[None]:
    """Answer requests at a socket until the block ends; the socket is removed then."""

    def reply(line: bytes) -> Answer:
        try:
            asked = decode_json(line, dict[str, Any], "request")
            with lock:
                return answer(machine, asked)
        except InputError as error:
            return {"error": str(error)}

    before = os.umask(0o177)
    try:
        server = _ControlServer(str(path), reply)
    finally:
        os.umask(before)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)


# --- client ----------------------------------------------------------------------------------


def request(folder: Path, asked: Answer) -> Answer:
    """Ask the machine that is mounted at a folder.

    Raises
    ------
    InputError
        If nothing is mounted there, or the machine refuses the request.
    """
    try:
        path = (folder / SOCKET_FILE).read_text(encoding="utf-8").strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(_TIMEOUT_SECONDS)
            peer.connect(path)
            peer.sendall(msgspec.json.encode(asked) + b"\n")
            with peer.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise InputError(
            f"{folder}: no machine answers there ({error.strerror}); altmap mount shows one"
        ) from error
    if not line:
        raise InputError(f"{folder}: the machine is another user's, or has ended")
    got: Answer = msgspec.json.decode(line)
    if "error" in got:
        raise InputError(got["error"])
    return got
