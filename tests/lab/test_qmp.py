"""Against a scripted peer on a socket; it knows no QMP beyond the greeting and fixed answers."""

import json
import socket
import threading

import pytest

from altmap.errors import LabError
from altmap.lab.qmp import QemuRefusedError, Qmp

pytest.importorskip("qemu.qmp")

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                    "capabilities": []}}  # fmt: skip


def event(name, **data):
    return {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}}


class Peer:
    """Answers each command with the messages of a script; hangs up when it has none."""

    def __init__(self, channel, script):
        self.seen = []
        self._channel, self._script = channel, script
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with self._channel:
            self._send(GREETING)
            while data := self._channel.recv(1 << 16):
                # The library waits for each answer, so that one read is one command.
                if not self._answer(json.loads(data)):
                    return

    def _answer(self, command):
        self.seen.append((command["execute"], command.get("arguments")))
        if command["execute"] == "qmp_capabilities":
            self._send({"return": {}})  # the library sends this one without id
            return True
        if not self._script:
            return False
        for message in self._script.pop(0):
            self._send(message if "event" in message else message | {"id": command["id"]})
        return True

    def _send(self, message):
        self._channel.sendall(json.dumps(message).encode() + b"\r\n")

    def join(self):
        self._thread.join()


@pytest.fixture
def connect():
    opened = []

    def connect(*script, check=lambda hung_up: None):
        ours, theirs = socket.socketpair()
        peer = Peer(theirs, list(script))
        qmp = Qmp(ours, check, limit_seconds=60)
        opened.append((qmp, peer))
        return qmp, peer

    yield connect
    for qmp, peer in opened:
        qmp.close()
        peer.join()


def test_answer_is_returned_and_names_get_hyphens(connect):
    qmp, peer = connect([{"return": {"status": "running"}}])
    assert qmp.execute("object-add", qom_type="x", size=1) == {"status": "running"}
    assert peer.seen[-1] == ("object-add", {"qom-type": "x", "size": 1})


def test_refusal_has_qemus_own_words(connect):
    qmp, _ = connect([{"error": {"class": "GenericError", "desc": "no such thing"}}])
    with pytest.raises(QemuRefusedError, match="QEMU refused device_del: no such thing"):
        qmp.execute("device_del", id="d1")


def test_event_that_precedes_the_answer_is_not_lost(connect):
    qmp, _ = connect([event("OTHER"), event("DONE", device="d1"), {"return": {}}])
    with qmp.listen("DONE") as events:
        qmp.execute("device_del", id="d1")
        found = events.wait_for(lambda e: e["data"]["device"] == "d1", 60)
    assert found["event"] == "DONE"


def test_events_before_listening_are_not_seen(connect):
    qmp, _ = connect([event("DONE"), {"return": {}}])
    qmp.execute("query-status")
    with qmp.listen("DONE") as events:
        assert events.wait_for(lambda e: True, 0.1) is None


def test_peer_that_hangs_up_is_asked_about(connect):
    asked = []
    qmp, _ = connect(check=asked.append)
    with pytest.raises(LabError, match="control connection failed"):
        qmp.execute("query-status")
    assert asked == [True]


def test_death_while_waiting_for_an_event_ends_the_wait(connect):
    def check(hung_up):
        raise LabError("QEMU ended")

    qmp, _ = connect([{"return": {}}], check=check)
    with qmp.listen("DONE") as events:
        qmp.execute("device_del", id="d1")
        with pytest.raises(LabError, match="QEMU ended"):
            events.wait_for(lambda e: True, 30)
