"""``altmap run --summary`` and ``--check``, and the first screen that ``make run`` shows."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from altmap.cli.main import main

ROOT = Path(__file__).parents[2]
HALVES = [str(ROOT / f"scenarios/hyperv-64MiB-{half}-half.toml") for half in ("first", "second")]
BOTH = ["--policy", "rfc-2018", "--policy", "opt-in"]
LINES = """\
hyperv-64MiB-first-half   rfc-2018  ok
hyperv-64MiB-first-half   opt-in    ok
hyperv-64MiB-second-half  rfc-2018  fault at step 1: write by mark_vmemmap_pages at [0x100000, 0x100008)
hyperv-64MiB-second-half  opt-in    ok
"""  # noqa: E501  # a line is a line, however long


def test_a_line_for_each_scenario_and_policy(capsys):
    assert main(["run", *HALVES, *BOTH, "--summary"]) == 0
    assert capsys.readouterr() == (LINES, "")


@pytest.mark.parametrize("form", [[], ["--summary"], ["--json"], ["--driver-log"]])
@pytest.mark.parametrize(
    ("files", "policy", "code"),
    [(HALVES, "rfc-2018", 1), (HALVES[::-1], "rfc-2018", 1), (HALVES, "opt-in", 0)],
)
def test_check_is_1_if_any_run_is_not_ok_whatever_is_printed(capsys, form, files, policy, code):
    assert main(["run", *files, "--policy", policy, "--check", *form]) == code
    assert capsys.readouterr().out


def test_check_is_1_for_a_refusal_and_an_export_is_written(capsys, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('[[steps]]\ndo = "online"\nblocks = 0\n')  # it is online already
    options = ["--check", "--summary", "--export", str(tmp_path / "out")]
    assert main(["run", str(path), *options]) == 1
    line, written = capsys.readouterr().out.splitlines()
    assert line == "s  opt-in  refused EINVAL by state_store at step 1"
    assert written == f"sysroots written below {tmp_path}/out"
    assert (tmp_path / "out/trace.json").is_file()
    assert main(["run", str(path)]) == 0


@pytest.mark.parametrize("other", ["--json", "--driver-log"])
def test_a_summary_is_one_form_of_output(capsys, other):
    with pytest.raises(SystemExit) as left:
        main(["run", *HALVES, "--summary", other])
    assert left.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.fixture
def installed(tmp_path):
    """A copy of what ``make run`` needs, with an environment that is set up already."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    command = tmp_path / ".venv/bin/altmap"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m altmap "$@"\n')
    command.chmod(0o755)
    (tmp_path / ".venv/run").touch()
    return tmp_path


def outside_of_make():
    """Return a user's environment: below another make, make prints which folder it enters."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def on_terminal(command, folder, columns=80, lines=25):
    """Return what a command shows on a terminal of this size, as lines."""
    leader, follower = pty.openpty()
    env = outside_of_make() | {"TERM": "xterm", "PYTHONPATH": str(ROOT / "src")}
    for name in ("COLUMNS", "LINES"):
        env.pop(name, None)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait() == 0, shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())  # colours have no width
    return plain.replace("\r\n", "\n").splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="missing: make")
def test_the_first_screen_fits_and_ends_with_what_to_do_next(installed):
    shown = on_terminal(["make", "run"], installed)
    assert len(shown) <= 24  # and the prompt
    assert max(map(len, shown)) <= 80
    assert sum(line.startswith("hyperv-64MiB-") for line in shown) == 4
    assert "sysroots written below build/run" in shown
    last = shown[shown.index("") + 1 :]
    assert len(last) == 3
    assert last[0].startswith("Next: ")
    for word in ("altmap run", "altmap help", "docs/start.md", "make test"):
        assert word in " ".join(last)


@pytest.mark.skipif(shutil.which("make") is None, reason="missing: make")
def test_one_line_says_how_long_set_up_takes_before_pip_begins(installed):
    shutil.rmtree(installed / ".venv")
    done = subprocess.run(
        ["make", "-n", "run"],
        cwd=installed,
        env=outside_of_make(),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    (told,) = [number for number, line in enumerate(lines) if "about a minute" in line]
    pip = [number for number, line in enumerate(lines) if re.search(r"\bpip .*\binstall\b", line)]
    assert told < min(pip)


def test_a_release_that_stands_in_is_told_beside_a_summary(capsys):
    scenario = str(Path(__file__).parents[2] / "scenarios/small-guest.toml")
    assert main(["run", scenario, "--summary", "--release", "5.4"]) == 0
    assert "note: no record of 5.4; that of 4.20 is used" in capsys.readouterr().err
    assert main(["run", scenario, "--summary", "--release", "6.12"]) == 0
    assert capsys.readouterr().err == ""
