"""A guest that answers, and every way in which it may stop to."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from altmap.errors import LabError
from altmap.lab import Guest, KernelFiles

pytestmark = pytest.mark.lab


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return "State:\tZ" not in status  # a zombie waits for its parent, which may not be us


def wait_for_death(pid):
    for _ in range(50):
        if not is_running(pid):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("echo hello", 0, b"hello\n"),
        ("false", 1, b""),
        ("exit 7", 7, b""),
        ("printf x", 0, b"x"),
        ('for i in 1 2; do\n  echo "$i\\\\t"\ndone', 0, b"1\\t\n2\\t\n"),
        ("echo oops >&2", 0, b"oops\n"),
        ("cat", 0, b""),
        ("echo $((", 2, None),
        ("no-such-program", 127, None),
    ],
)
def test_command_gives_its_status_and_output(guest, command, status, output):
    result = guest.run(command)
    assert result.status == status
    assert output is None or result.output == output


def test_kernel_is_the_release_asked_for(guest):
    assert guest.run("uname -r").text.startswith(guest.kernel.release)


def test_output_may_hold_every_byte_while_the_console_is_chatty(guest):
    guest.run("i=0; (while [ $i -lt 10000 ]; do echo noise $i >/dev/kmsg; i=$((i+1)); done) &")
    every_byte = "".join(f"\\{value:03o}" for value in range(256))
    for _ in range(20):
        assert guest.run(f"printf '{every_byte}'").output == bytes(range(256))


def test_no_command_is_cut_while_orphans_die(guest):
    for at in range(150):
        assert guest.run(f"(sleep 0.0{at % 10}; exit) & echo {at}").output == b"%d\n" % at


def test_hanging_command_ends_at_its_time_limit_and_the_guest_stays_usable(guest):
    started = time.monotonic()
    with pytest.raises(LabError, match="not done within 1 s"):
        guest.run("end=$(($(date +%s) + 9)); while [ $(date +%s) -lt $end ]; do :; done", 1)
    assert time.monotonic() - started < 8  # before the command is done
    assert guest.run("echo alive").output == b"alive\n"


def test_panic_is_reported_with_the_console(kernel):
    with Guest(kernel) as guest, pytest.raises(LabError, match="sysrq triggered crash") as caught:
        guest.run("echo c >/proc/sysrq-trigger")
    first, *others = caught.value.console.splitlines()
    assert "Kernel panic - not syncing: sysrq triggered crash" in first
    assert any("Call Trace" in line for line in others)
    assert wait_for_death(guest.pid)


def test_killed_qemu_is_reported_and_leaves_nothing(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with Guest(kernel) as guest:
        threading.Timer(0.5, os.kill, [guest.pid, signal.SIGKILL]).start()
        with pytest.raises(LabError, match="QEMU ended with status -9"):
            guest.run("sleep 20")
        with pytest.raises(LabError, match="QEMU ended with status -9"):
            guest.qmp.execute("query-status")
    assert wait_for_death(guest.pid)
    assert list(tmp_path.iterdir()) == []


def test_qemu_dies_with_a_process_that_is_killed():
    program = (
        "import os, signal\n"
        "from altmap.lab import Guest, fetch\n"
        "with Guest(fetch('6.12')) as guest:\n"
        "    print(guest.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert wait_for_death(int(done.stdout))


def test_guest_that_does_not_boot_in_time_is_ended(kernel):
    guest = Guest(kernel, boot_seconds=0.5)
    with pytest.raises(LabError, match=r"boot: not done within \d+\.5 s"), guest:
        pass
    assert wait_for_death(guest.pid)


def test_missing_qemu_names_the_package_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    nowhere = Path("/nonexistent")  # nothing of it is touched
    kernel = KernelFiles("6.12", nowhere, nowhere, nowhere, {})
    with pytest.raises(LabError, match="apt install qemu-system-x86"), Guest(kernel):
        pass
