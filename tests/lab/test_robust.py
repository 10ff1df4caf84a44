"""Whatever breaks in the middle of a scenario is one clear error, and leaves nothing behind."""

import functools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from altmap.errors import LabError
from altmap.lab import blocks, devices, fetch, snapshot, state, target
from altmap.lab.capture import capture
from altmap.lab.qemu import Hardware
from altmap.lab.qmp import Qmp
from altmap.lab.shell import Shell
from altmap.scenario import Machine, Offline, Online, Plug, Scenario, Size, Unplug

RELEASE = "6.12"
SCENARIO = Scenario(
    name="robust",
    machine=Machine(release=RELEASE, memory=Size(1 << 30), auto_online_blocks="offline"),
    steps=[
        Plug(id="d", size=Size(128 << 20)),
        Online(id="d", to="online_movable"),
        Offline(id="d"),
        Unplug(id="d"),
    ],
)


def check_one_error(error, *, console=True):
    assert "\n" not in str(error.args[0])
    assert len(str(error.args[0])) < 200
    if console:
        assert error.console
        assert all(c >= " " or c in "\n\t" for c in error.console)


@pytest.mark.lab
class TestScenario:
    @pytest.fixture(autouse=True)
    def guests(self, tmp_path, monkeypatch):
        """Guests of the test, none of which may outlive it, nor any of their files."""
        seen = []

        @contextmanager
        def spied(*args, **options):
            with snapshot.booted(*args, **options) as guest:
                seen.append(guest)
                yield guest

        monkeypatch.setattr(target, "booted", spied)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield seen
        assert seen
        assert not [guest.pid for guest in seen if Path(f"/proc/{guest.pid}").exists()]
        assert list(tmp_path.iterdir()) == []

    @pytest.fixture
    def run(self, guests):
        """Run the scenario, with something done to the guest when a step begins."""

        def run(name="", act=lambda guest: None):
            def progress(step):
                if step.startswith(name) and name:
                    act(guests[-1])

            return target.run_in_guest(SCENARIO, progress)

        return run

    def check_next_is_unaffected(self, run):
        trace, sysroots = run()
        assert [bool(step.outcome) for step in trace.steps] == [True] * 5
        assert len(sysroots) == 5

    @pytest.mark.parametrize("delay", [0, 0.05])
    @pytest.mark.parametrize("step", ["plug", "online", "offline", "unplug"])
    def test_killed_at_a_step(self, run, step, delay):
        def kill(guest):
            if not delay:
                os.kill(guest.pid, signal.SIGKILL)
            else:
                threading.Timer(delay, os.kill, [guest.pid, signal.SIGKILL]).start()

        with pytest.raises(LabError, match="QEMU ended with status -9") as caught:
            run(step, kill)
        check_one_error(caught.value, console=False)

    def test_killed_during_a_capture_the_next_scenario_is_unaffected(
        self, run, guests, monkeypatch
    ):
        def killed(guest):
            threading.Timer(0.1, os.kill, [guest.pid, signal.SIGKILL]).start()
            return capture(guest)

        with monkeypatch.context() as patch:
            patch.setattr(target, "capture", killed)
            with pytest.raises(LabError, match="QEMU ended with status -9"):
                run()
        self.check_next_is_unaffected(run)

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            ("plug", "DIMM 'd': not looked at by the guest within 1 s"),
            ("online", r"command .*online_movable.*: not done within 2 s"),
            ("unplug", "unplug of DIMM 'd': no answer within 1 s"),
        ],
    )
    def test_frozen_guest_ends_at_the_steps_limit(self, run, monkeypatch, step, message):
        stopped = []

        def stop(guest):
            guest.qmp.execute("stop")
            stopped.append(time.monotonic())

        monkeypatch.setattr(state, "_GRACE_SECONDS", 1.0)
        for module, name in (
            (devices, "plug_dimm"),
            (devices, "unplug_dimm"),
            (blocks, "write_block_state"),
        ):
            limited = functools.partial(getattr(module, name), limit_seconds=1)
            # Before the step nothing may be short: this machine may be busy.
            original = getattr(module, name)
            monkeypatch.setattr(
                module,
                name,
                lambda *a, o=original, short=limited: (short if stopped else o)(*a),
            )
        with pytest.raises(LabError, match=message) as caught:
            run(step, stop)
        assert time.monotonic() - stopped[0] < 10
        check_one_error(caught.value, console=False)

    def test_panic_in_the_middle(self, run):
        with pytest.raises(LabError, match=r"Kernel panic.*sysrq triggered crash") as caught:
            run("online", lambda guest: guest.run("(sleep 0.2; echo c >/proc/sysrq-trigger) &"))
        check_one_error(caught.value)
        assert "Call Trace" in caught.value.console

    def test_rubbish_on_the_console_changes_nothing(self, run):
        def act(guest):
            guest.run("head -c 20000 /dev/urandom >/dev/ttyS0")
            guest.run("(while :; do head -c 64 /dev/urandom; done >/dev/ttyS0) &")
            console = guest.console()
            assert console
            # No byte that a terminal would obey.
            assert all(c >= " " or c in "\n\t" for c in console)

        trace, _ = run("plug", act)
        assert [bool(step.outcome) for step in trace.steps] == [True] * 5

    def test_rubbish_on_the_shells_port_is_one_error(self, run):
        noise = "(while :; do head -c 64 /dev/urandom; echo; done >/dev/ttyS1) &"
        with pytest.raises(LabError) as caught:
            run("plug", lambda guest: guest.run(noise))
        check_one_error(caught.value, console=False)
        self.check_next_is_unaffected(run)


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mount of a tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.lab
def test_disk_that_fills_during_a_snapshot_is_one_error(small_disk, monkeypatch):
    monkeypatch.setattr(snapshot, "_LEAST_DISK_BYTES", 0)
    with (
        pytest.raises(LabError, match="no space left for a snapshot") as caught,
        snapshot.booted(fetch(RELEASE), Hardware(), "", small_disk),
    ):
        pass
    check_one_error(caught.value, console=False)
    assert [p for p in small_disk.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


RUBBISH = {
    "bytes": bytes(range(256)) + b"\n",
    "text": b"rubbish\n",
    "no object": b"[1, 2, 3]\n",
    "no message": b'{"rubbish": 1}\n',
    "half a message": b'{"return": \n',
    "unknown id": b'{"return": {}, "id": "nobody"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "long line": b"x" * (20 << 20) + b"\n",
}
GREETING = (
    b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},'
    b' "capabilities": []}}\n'
)


@contextmanager
def qemu_that_writes(*parts):
    """Yield our end of a connection on which the other end writes a part for each command."""
    ours, theirs = socket.socketpair()

    def serve():
        with theirs:
            try:
                for part in parts:
                    theirs.sendall(part)
                    if not theirs.recv(1 << 16):
                        return
                while theirs.recv(1 << 16):
                    pass
            except OSError:
                pass  # hung up on, as rubbish deserves

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        yield ours
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
@pytest.mark.parametrize("when", ["greeting", "answer"])
def test_rubbish_from_qemu_is_one_error(when, rubbish):
    pytest.importorskip("qemu.qmp")
    parts = (rubbish,) if when == "greeting" else (GREETING, b'{"return": {}}\n', rubbish)
    threads = threading.active_count()
    with qemu_that_writes(*parts) as channel:
        with pytest.raises(LabError) as caught:  # noqa: PT012 -- connects or not, then asks
            qmp = Qmp(channel, lambda hung_up: None, limit_seconds=2)
            try:
                qmp.execute("query-status")
            finally:
                qmp.close()
        check_one_error(caught.value, console=False)
    assert threading.active_count() == threads


@pytest.mark.parametrize("status", [b"", b"x", b"\xff\xfe", b"1 2"])
def test_status_that_is_no_number_is_one_error(status):
    ours, theirs = socket.socketpair()

    def serve():
        token = theirs.recv(1 << 16).split()[0]
        theirs.sendall(b"noise" + token + b"\n" + token + b" " + status + b"\n")

    with ours, theirs:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(LabError, match="status") as caught:
            Shell(ours, lambda hung_up: None).run("echo", 5)
        thread.join()
    check_one_error(caught.value, console=False)
