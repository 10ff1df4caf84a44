"""``altmap report`` and ``altmap compare --report``: formats, files, refusals."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.cli.progress import progress
from altmap.compare import compare
from altmap.model.machine import predict
from altmap.report.files import write_comparisons
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]
CASE = str(ROOT / "scenarios/hyperv-64MiB-second-half.toml")
DIMM = str(ROOT / "scenarios/dimm-1GiB.toml")
BOTH = [CASE, "--policy", "rfc-2018", "--policy", "opt-in"]
SYSROOT = str(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")


def drawn():
    pytest.importorskip("vl_convert", reason="missing: vl-convert (altmap[report])")


@pytest.mark.parametrize("suffix", [".html", ".svg", ".png", ".txt", ".json"])
def test_each_format_is_written_and_is_the_same_again(suffix, tmp_path, capsys):
    drawn()
    one, two = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (one, two):
        assert cli.main(["report", *BOTH, "-o", str(path)]) == 0
    assert capsys.readouterr() == ("", "")
    raw = one.read_bytes()
    assert raw == two.read_bytes()
    start = {".html": b"<!doctype html>", ".svg": b"<svg ", ".png": b"\x89PNG", ".json": b"{"}
    assert raw.startswith(start.get(suffix, b"Hyper-V adds 64 MiB"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [one.name, two.name]


def test_an_export_has_the_same_page_as_its_scenario(tmp_path, capsys):
    drawn()
    out = str(tmp_path / "out")
    assert cli.main(["run", CASE, "--policy", "opt-in", "--export", out]) == 0
    assert cli.main(["report", out, "-o", str(tmp_path / "a.html")]) == 0
    again = ["report", CASE, "--policy", "opt-in", "-o", str(tmp_path / "b.html")]
    assert cli.main(again) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_sysroot_is_one_map(capsys):
    assert cli.main(["report", SYSROOT]) == 0
    shown = capsys.readouterr().out
    assert "Pages in memory blocks after step 0, start" in shown
    (offline,) = [line.split() for line in shown.splitlines() if line.startswith("  offline")]
    assert offline == ["offline", "65536", "(256", "MiB)"]


@pytest.mark.parametrize("forced", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"])
def test_text_is_plain_and_fits_80_columns(forced):
    env = os.environ | {forced: "1", "TERM": "xterm-256color", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "altmap", "report", *BOTH], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()}
    assert rows["fault"] == ["8", "(32", "KiB)", "-"]
    assert rows["fake-offline"] == ["-", "16384", "(64", "MiB)"]


def test_only_the_selected_blocks_are_mapped(capsys):
    assert cli.main(["report", DIMM, "--blocks", "32-39"]) == 0
    shown = capsys.readouterr().out
    assert "unmovable" not in shown.split("Pages in memory blocks")[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([DIMM, "-o", "x.pdf"], "output x.pdf: need a name that ends with .html, .svg, .png, .txt"),
        ([DIMM, "-o", "no/such.txt"], "output no/such.txt: there is no folder no"),
        ([DIMM, "--blocks", "9-3"], "--blocks '9-3': need A-B, such as 32-39"),
        ([DIMM, "--blocks", "x"], "--blocks 'x': need A-B"),
        ([DIMM, "--step", "3", "-o", "x.svg"], "--step 3: need 0 to 2"),
        ([DIMM, CASE, "-o", "x.svg"], "a picture shows one scenario, and 2 were given"),
        ([DIMM, "--blocks", "900", "-o", "x.svg"], "a picture needs files with memory blocks"),
        ([SYSROOT, "--policy", "opt-in"], "--policy is for scenarios in TOML"),
        (["absent.json"], "absent.json: No such file or directory"),
        (["absent"], "absent"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("altmap: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_only_png_cannot_be_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert cli.main(["report", DIMM, "-o", str(tmp_path / "x.png")]) == 2
    assert "pip install 'altmap[report]'" in capsys.readouterr().err
    for other in (".html", ".txt", ".json", ".svg"):
        assert cli.main(["report", DIMM, "-o", str(tmp_path / f"x{other}")]) == 0


def test_an_existing_file_is_replaced_completely_or_kept(tmp_path, capsys):
    path = tmp_path / "x.txt"
    path.write_text("before")
    assert cli.main(["report", DIMM, "--blocks", "no", "-o", str(path)]) == 2
    assert path.read_text() == "before"
    assert cli.main(["report", DIMM, "-o", str(path)]) == 0
    assert path.read_text().startswith("A 1 GiB DIMM")


# --- comparisons -----------------------------------------------------------------------------


@pytest.fixture
def found():
    one, two = (
        predict(load_scenario(Path(DIMM), [f"policy={name}"])) for name in ("opt-in", "existing")
    )
    made = compare(one, two)
    made.traces = (one, two)
    made.provenance = {"kernel": "Linux version 6.12"}
    return [("dimm-1GiB", made)]


def test_a_comparison_as_json_is_reported_again(found, tmp_path, capsys):
    drawn()
    path = tmp_path / "c.json"
    write_comparisons(found, path)
    read = json.loads(path.read_text())
    assert (read["schema"], read["equal"]) == ("altmap-comparison", False)
    assert cli.main(["report", str(path), "-o", str(tmp_path / "c.html")]) == 0
    page = (tmp_path / "c.html").read_text()
    assert "What differs" in page
    assert 'class="map"' not in page
    assert cli.main(["report", str(path)]) == 0
    assert "predicted" in capsys.readouterr().out


def test_the_page_of_a_comparison_has_the_maps_of_both_sides(found, tmp_path):
    drawn()
    write_comparisons(found, tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text()
    assert page.count('class="map"') == 2
    assert page.index("What differs") < page.index('class="map"')


@pytest.mark.lab
def test_a_comparison_with_a_real_kernel_is_a_page(tmp_path, capsys):
    drawn()
    path = tmp_path / "c.html"
    assert cli.main(["compare", DIMM, "--release", "6.12", "--report", str(path)]) == 0
    page = path.read_text()
    assert "everything is equal, or within a stated tolerance" in page
    assert page.count('class="map"') == 2
    assert "linux-image-6.12" in page  # the packages that were compared
    assert "Linux version 6.12" in page


def test_a_recording_of_a_real_kernel_is_mapped_and_compared(tmp_path, capsys):
    drawn()
    recording = str(ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz")
    assert cli.main(["report", recording, "--blocks", "32-39"]) == 0
    shown = capsys.readouterr().out
    assert "lab, 6.12" in shown
    path = tmp_path / "c.html"
    assert cli.main(["compare", "--recording", recording, "--report", str(path)]) == 0
    page = path.read_text()
    assert "everything is equal, or within a stated tolerance" in page
    assert page.count('class="map"') == 2
    assert "QEMU emulator version" in page
    assert "Linux version 6.12" in page


# --- progress --------------------------------------------------------------------------------


def test_progress_in_a_pipe_is_a_line_for_each_item(capsys):
    with progress(2) as (show, advance):
        show("one")
        advance()
        show("two")
    assert capsys.readouterr() == ("", "altmap: one\naltmap: two\n")


CODE = """
import sys
from altmap.cli import progress as bars
from altmap.cli.progress import progress
bars.SHOWN_AFTER_SECONDS = float(sys.argv[1])
with progress(2) as (show, advance):
    show("booting [x]"); advance(); show("more"); advance()
print("result")
"""


def read_all(file):
    """Return what a terminal has received, which one read may give in part."""
    raw = b""
    with os.fdopen(file, "rb", buffering=0) as leader, contextlib.suppress(OSError):
        while chunk := leader.read(65536):  # EIO at the end
            raw += chunk
    return raw


def on_a_terminal(after_seconds):
    """Return what a terminal shows of work whose bar is shown after that time."""
    leader, follower = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", CODE, str(after_seconds)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    assert done.stdout == b"result\n"
    return read_all(leader).decode()


LONG = """
import sys
from altmap.cli import progress as bars
from altmap.cli.main import main
bars.SHOWN_AFTER_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "line",
    [
        ("account", SYSROOT),
        ("ls", "-s", SYSROOT),
        ("explain", "memory33", SYSROOT),
        ("export", "--prometheus", SYSROOT),
        ("plan", "grow", "1.5GiB", "--from", SYSROOT),
        ("snapshot", SYSROOT, "-o", "copy.tar.gz"),
        ("vm", str(ROOT / "examples/vm/web.xml"), "--to", "8GiB"),
    ],
    ids=lambda line: line[0],
)
def test_what_may_take_long_says_on_a_terminal_that_it_is_at_work(line, tmp_path):
    leader, follower = pty.openpty()
    env = os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", LONG, *line]
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=follower, cwd=tmp_path, check=True
    )
    os.close(follower)
    assert b"\x1b" not in done.stdout
    shown = read_all(leader).decode()
    assert re.search(r"0:00:\d\d.* [a-z]{3,}", shown)
    assert shown.endswith("\x1b[2K")  # erased


def test_short_work_shows_no_bar():
    assert on_a_terminal(1000) == ""


def test_progress_on_a_terminal_is_a_bar_that_is_erased():
    shown = on_a_terminal(0)
    assert "2/2" in shown
    assert "\x1b[2K" in shown
