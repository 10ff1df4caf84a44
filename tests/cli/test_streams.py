"""What commands show acts on no terminal, and a stream that takes nothing is one line."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from altmap.cli.main import GROUPS, main
from altmap.cli.streams import standard_streams, terminal_of

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "tests/recordings"
DIMM = str(RECORDINGS / "files/linux-6.12-dimm.tar.xz")
SCENARIO = str(ROOT / "scenarios/dimm-1GiB.toml")
TRACE = str(next((RECORDINGS / "traces").glob("*6.12-dimm-1GiB.tar.xz")))
MEMORY = "sys/devices/system/memory"

#: A command line that prints something, for each command that does without a guest.
LINES = {
    "run": ["run", SCENARIO],
    "account": ["account", DIMM],
    "report": ["report", DIMM],
    "compare": ["compare", "--recording", TRACE],
    "ls": ["ls", "-s", DIMM],
    "explain": ["explain", "EBUSY"],
    "plan": ["plan", "free", "32", "--from", DIMM],
    "export": ["export", "--prometheus", DIMM],
    "explore": ["explore", "four-blocks", "--depth", "2"],
    "sweep": ["sweep", "--help"],
    "claims": ["claims", "C13"],
    "bugs": ["bugs"],
    "lab": ["lab", "--help"],
    "help": ["help", "run"],
    "watch": ["watch", "--for", "0", "-s", "/"],
    "conform": ["conform", "--help"],
    "record": ["record", "--help"],
    "snapshot": ["snapshot", "--help"],
    "apply": ["apply", "--help"],
    "mount": ["mount", "--help"],
    "shell": ["shell", "--help"],
    "ctl": ["ctl", "--help"],
    "vm": ["vm", "--help"],
    "hunt": ["hunt", "--help"],
    "check": ["check", "--help"],
    "new": ["new"],
}


def altmap(*words, **options):
    command = [sys.executable, "-m", "altmap", *words]
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run(command, **(defaults | options))


def test_every_command_is_among_them():
    assert {name for group in GROUPS for name in group.verbs} <= set(LINES)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("sink", ["/dev/full", "a pipe without a reader"])
def test_output_that_nothing_takes_is_one_line_and_the_code_of_a_failure(name, sink):
    if sink == "/dev/full":
        stdout = os.open(sink, os.O_WRONLY)
    else:
        read, stdout = os.pipe()
        os.close(read)
    done = altmap(*LINES[name], stdout=stdout)
    os.close(stdout)
    assert done.returncode == (1 if name == "plan" else 2)
    assert done.stderr.count("\n") == (1 if sink == "/dev/full" else 0), done.stderr


@pytest.mark.parametrize("words", [["nosuch"], ["run", "nosuch.toml"], ["ls", "-s", "/nowhere"]])
def test_a_full_standard_error_changes_no_exit_code(words):
    with Path("/dev/full").open("w") as full:
        assert altmap(*words, stderr=full).returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_internal_error(closed):
    line = f'"{sys.executable}" -m altmap explain EBUSY {closed}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_terminal_lacks_are_replaced(encoding):
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = altmap("run", SCENARIO, env=env, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"MemTotal" in done.stdout
    arrow = "→".encode() if encoding == "utf-8" else b"->"
    assert b"guest" + arrow + b"host: _OST" in done.stdout
    assert b"?" not in done.stdout


@pytest.mark.parametrize("columns", ["99999999999999", "0", "-3", "\u00b2", "x", "1e9", "10000"])
@pytest.mark.parametrize("words", [["explain", "EBUSY"], ["--help"], ["run", SCENARIO]])
def test_a_width_that_no_terminal_has_is_ignored(columns, words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with contextlib.suppress(SystemExit):
        main(words)
    assert 1 < max(map(len, capsys.readouterr().out.splitlines())) <= 200


ACTING = "\x1b]0;title\x07\x1b[2J\r\x9b31m\u202egpj.exe\u2066\x7f\x85\u2028"


def test_what_acts_on_a_terminal_is_shown_as_json_escapes_it(capsys):
    with standard_streams():
        print(f"a\tb{ACTING}")
        print(ACTING, file=sys.stderr)
    out, err = capsys.readouterr()
    assert out.startswith("a\tb\\u001b]0;title\\u0007")
    assert json.loads(f'"{out[3:-1]}"') == ACTING
    assert json.loads(f'"{err[:-1]}"') == ACTING


def test_the_stream_below_is_there_for_what_draws(capsys):
    with standard_streams():
        assert terminal_of(sys.stdout) is not sys.stdout
        terminal_of(sys.stdout).write("\x1b[2K")
    assert terminal_of(sys.stdout) is sys.stdout
    assert capsys.readouterr().out == "\x1b[2K"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return a sysroot whose texts act on a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    with tarfile.open(DIMM) as tar:
        tar.extractall(folder, filter="data")
    for path in ("proc/version", "proc/cmdline", "proc/iomem"):
        text = (folder / path).read_text().rstrip("\n")
        (folder / path).write_text(f"{text}{ACTING.replace(chr(0x85), '')}\n")
    for name in ("online_policy", "memmap_on_memory"):
        (folder / f"sys/module/memory_hotplug/parameters/{name}").write_text(f"{ACTING}\n")
    (folder / MEMORY / "auto_online_blocks").write_text(f"{ACTING}\n")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "-s"],
        ["ls", "--json", "-s"],
        ["account"],
        ["report"],
        ["explain", "32"],
        ["plan", "free", "32", "--from"],
        ["export", "--prometheus"],
    ],
    ids=" ".join,
)
def test_texts_of_a_machine_do_not_act_on_the_terminal(words, hostile, capsys):
    assert main([*words, str(hostile)]) in (0, 1, 2)
    shown = "".join(capsys.readouterr())
    assert shown
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2066\x7f\x85\u2028")
