"""Narrow terminals, encodings, no HOME and folders that take no file: output stays whole."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from altmap.cli.main import main

ROOT = Path(__file__).parents[2]
DIMM = "tests/recordings/files/linux-6.12-dimm.tar.xz"
TRACE = "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz"
SCENARIO = "scenarios/dimm-1GiB.toml"
GREW = "tests/recordings/traces/x86_64-6.12-auto-movable.tar.xz"
HYPERV = "scenarios/hyperv-64MiB-second-half.toml"
COMMANDS = (
    "run",
    "vm",
    "ls",
    "plan grow",
    "apply",
    "explore",
    "sweep",
    "compare",
    "hunt",
    "lab boot",
)
WEB = "examples/vm/web.xml"
LINES = (
    ("account", DIMM),
    ("account", SCENARIO, "--set", "memory=64GiB", "--step", "all"),
    ("run", SCENARIO, HYPERV, "--policy", "rfc-2018", "--summary"),
    ("run", HYPERV, "--driver-log"),
    ("report", SCENARIO),
    ("vm", WEB, "--to", "16GiB"),
    ("vm", WEB, "--compare", "dimm", "virtio-mem"),
    ("vm", WEB, "--compare", "6.1", "6.12"),
    ("compare", "--recording", TRACE),
    ("compare", "--recording", GREW),
    ("ls", "-s", DIMM),
    ("ls", "-s", DIMM, "-o", "+ZONES,MEMMAP,DEVICE,BLOCKERS"),
    ("explain", "EBUSY"),
    ("explain", "memory33", DIMM),
    ("plan", "grow", "8GiB", "--from", DIMM),
    ("explore", "four-blocks", "--depth", "1"),
    ("explore", "--list"),
    ("claims", "--matrix"),
    ("claims", "C13"),
    ("bugs", "B8"),
    ("help",),
    *((*command.split(), "--help") for command in COMMANDS),
)
TWO_POLICIES = ("run", SCENARIO, "--policy", "opt-in", "--policy", "rfc-2018")
#: Not within the width: commands to copy, and the bytes of messages.
KEPT = re.compile(r"^  +(?:Run: +|example: +)?(?:altmap|virsh) |^ +[0-9a-f]{4}  [0-9a-f]{2} ")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths that are shown are relative: no line is longer where the clone lies deeper."""
    monkeypatch.chdir(ROOT)


def words(text):
    return set(re.findall(r"[A-Za-z_]{2,}|\d+", text))


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_narrow_terminal_cuts_no_word(line, capsys, monkeypatch):
    shown = {}
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        with contextlib.suppress(SystemExit):  # of help
            assert main(list(line)) == 0
        shown[columns] = capsys.readouterr().out
    joined = re.sub(r"\s+", "", shown["60"])  # a word may be broken at the end of a line
    lost = {word for word in words(shown["200"]) if word not in joined}
    assert lost == set()
    assert shown["60"].count("…") == shown["200"].count("…")


@pytest.mark.parametrize("line", [*LINES, TWO_POLICIES], ids=" ".join)
def test_lines_are_within_a_narrow_terminal(line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with contextlib.suppress(SystemExit):  # of help
        main(list(line))
    shown = capsys.readouterr().out.splitlines()
    assert shown
    assert [each for each in shown if len(each) > 60 and not KEPT.search(each)] == []


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_no_character_is_lost_in_an_encoding_without_a_home(line, encoding):
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    environment |= {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "COLUMNS": "100"}
    printed = [
        subprocess.run(
            [sys.executable, "-m", "altmap", *line],
            env=environment | {"PYTHONIOENCODING": name},
            capture_output=True,
            check=True,
        ).stdout.decode(name)
        for name in (encoding, "utf-8")
    ]
    assert printed[0].count("?") == printed[1].count("?")
    assert words(printed[1]) <= words(printed[0])


@pytest.mark.parametrize(
    "line",
    [
        ("run", SCENARIO, "--export", "/proc/out"),
        ("report", SCENARIO, "-o", "/proc/page.html"),
        ("vm", WEB, "-o", "/proc/page.html"),
        ("snapshot", DIMM, "-o", "/proc/host.tar.gz"),
        ("plan", "free", "32", "--from", DIMM, "-o", "/proc/plan.json"),
        ("new", "-o", "/proc/new.toml"),
        ("explore", "failed-add", "--depth", "3", "-o", "/proc/found"),
        ("sweep", "examples/sweeps/overhead.toml", "-o", "/proc/out"),
        ("claims", "C13", "--write", "/proc/claims"),
        ("bugs", "B8", "--write", "/proc/bugs"),
        ("hunt", "/proc/hunt", "--time", "1s"),
    ],
    ids=lambda line: line[0],
)
def test_a_folder_that_takes_no_file_is_one_line(line, capsys):
    assert main(list(line)) == (1 if line[0] == "plan" else 2)
    error = capsys.readouterr().err
    assert "/proc" in error
    assert error.startswith("altmap: ")
    assert "internal" not in error


@pytest.mark.parametrize(
    "line",
    [
        ("conform", "none.toml", "-o"),
        ("conform", "none.toml", "--rows"),
        ("export", "--prometheus", "none.tar", "--textfile"),
        ("snapshot", "none.tar", "-o"),
        ("plan", "grow", "64GiB", "--from", "none.tar", "-o"),
    ],
    ids=lambda line: f"{line[0]} {line[-1]}",
)
def test_a_name_that_cannot_be_written_is_refused_before_anything_is_read(line, tmp_path, capsys):
    assert main([*line, "no/such.tar"]) == (1 if line[0] == "plan" else 2)
    error = capsys.readouterr().err
    assert error == "altmap: no/such.tar: cannot be written: there is no folder no\n"
    assert main([*line, str(tmp_path)]) == (1 if line[0] == "plan" else 2)
    assert f"altmap: {tmp_path}: " in capsys.readouterr().err
    if line[0] in ("plan", "snapshot"):
        (tmp_path / "old.tar").touch()
        assert main([*line, str(tmp_path / "old.tar")]) == (1 if line[0] == "plan" else 2)
        assert "old.tar: cannot be written: File exists" in capsys.readouterr().err


def test_a_message_is_one_line_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["vm", WEB, "--way", "dimmm"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("; did you mean 'dimm'?")
    assert main(["run", SCENARIO, "--policy", "opt-im"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
