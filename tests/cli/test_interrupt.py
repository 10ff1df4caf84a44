"""Ctrl-C on a terminal: one line that says how far the work is, and no traceback of a worker.

Each command runs on a pseudo-terminal, which sends the interrupt to all of its processes.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from altmap.cli.progress import counted, progress
from altmap.lab.side_by_side import check_interrupted, guest_started, side_by_side

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "examples/sweeps/fleet.toml"
SECONDS = 60
BOUNDS = ["--depth", "30", "--states", "1000000"]


def interrupted(words, shown, folder):
    """Return what a command shows if it gets Ctrl-C when its output has a pattern, and its code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ["COLUMNS"] = "200"
        os.execv(sys.executable, [sys.executable, "-m", "altmap", *map(str, words)])
    out, sent, until = b"", False, time.monotonic() + SECONDS
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                out += os.read(terminal, 65536)
            except OSError:  # the terminal's other end is closed
                break
        if not sent and re.search(shown, out.decode(errors="replace")):
            os.write(terminal, b"\x03")
            sent = True
    else:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    assert sent, out.decode(errors="replace")
    return out.decode(errors="replace"), code


SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))
SOME = ("opt-in", "existing", "rfc-2018", "shared-host")
#: So many runs that none of the machines that there are ends before it shows how far it is.
MANY = [f"--policy={name}{more}" for name in SOME for more in ("", "+total")]
LINES = {
    "sweep": (
        ["sweep", FLEET, "-o", "out", "-j", "2"],
        "/100000",
        r"0 of 100,000 scenarios are done; the same command continues",
    ),
    "explore": (
        ["explore", "four-blocks", *BOUNDS],
        r"[2-9] steps: ",
        r"\d+ steps: [\d,]+ states, .*; nothing is kept; --time with --keep continues later",
    ),
    "explore -j": (
        ["explore", "four-blocks", *BOUNDS, "-j", "2"],
        r"[2-9] steps: ",
        r"\d+ steps: [\d,]+ states, .*; nothing is kept; --time with --keep continues later",
    ),
    "run": (
        ["run", *SCENARIOS, *MANY, "--summary"],
        r"[1-9]\d*/\d{3}",
        r"\d+ of \d+ runs are done",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_an_interrupt_says_how_far_the_work_is(name, tmp_path):
    words, shown, far = LINES[name]
    out, code = interrupted(words, shown, tmp_path)
    assert code == 130, out[-500:]
    assert "Traceback" not in out
    assert re.search(rf"altmap: interrupted; {far}\r?\n$", out), out[-500:]


def test_an_interrupt_of_counted_lines_says_how_many(capsys):
    def work():
        with counted("runs", "again") as tell:
            tell("a")
            tell("b")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^2 runs are done; again$"):
        work()
    assert capsys.readouterr().err == "altmap: a\naltmap: b\n"


@pytest.mark.parametrize(
    ("what", "again", "far"),
    [
        ("runs", "", "3 of 10 runs are done"),
        ("runs", "again", "3 of 10 runs are done; again"),
        ("", "again", "part 3; again"),
        ("", "", "part 3"),
    ],
)
def test_an_interrupt_without_a_terminal_says_how_far_too(what, again, far):
    def work():
        with progress(10, lines=False, what=what, again=again) as (tell, advance):
            tell("part 3")
            advance(2)
            advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert str(caught.value) == far


# --- guests side by side ---------------------------------------------------------------------


def test_an_interrupt_ends_the_guests_that_run_and_starts_no_other():
    started, results, processes = threading.Barrier(3), [], []

    def run(_):
        process = subprocess.Popen(["sleep", "1000"])
        processes.append(process)
        guest_started(process)
        started.wait()
        process.wait()
        check_interrupted()  # before the error of the guest becomes a result
        results.append("a result")

    def work():
        with side_by_side(2) as pool:
            jobs = [pool.submit(run, number) for number in range(5)]
            started.wait()
            assert not any(job.done() for job in jobs)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2
    assert results == []
    check_interrupted()  # later work is not interrupted


def test_guests_that_end_by_themselves_have_results():
    with side_by_side(2) as pool:
        assert list(pool.map(lambda number: number * 2, range(4))) == [0, 2, 4, 6]
