"""How the program ends: exit codes, one line for each error, a traceback on demand only."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from altmap.cli import ls, plan
from altmap.cli import main as cli
from altmap.errors import AltmapError, InputError, LabError

PLUG = '[[steps]]\ndo = "plug"\nid = "d1"\nsize = "128MiB"\n'


@pytest.fixture
def ending(monkeypatch, capsys):
    """Return the function that runs a command whose work ends in an exception."""

    def run(cause, *words, verb=ls):
        def fail(args):
            raise cause

        monkeypatch.setattr(verb, "VERB", verb.VERB._replace(run=fail))
        status = cli.main(words or ["ls"])
        out, err = capsys.readouterr()
        assert out == ""
        return status, err

    return run


def test_exit_codes_are_those_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text()
    assert (cli.INTERNAL_ERROR, cli.INTERRUPTED) == (70, 130)
    assert "ends with 70 on an internal error" in page
    assert "with 130 if Ctrl-C interrupts it" in page


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(ending):
    status, err = ending(ZeroDivisionError("division\nby \x1b zero"))
    assert status == 70
    assert err == (
        r"altmap: internal error: ZeroDivisionError: division\nby \x1b zero "
        "(altmap --debug ls ... shows where)\n"
    )


def test_the_whole_name_of_a_command_is_given(monkeypatch, capsys):
    def fail(_):
        raise ZeroDivisionError

    verbs = tuple(each._replace(run=fail) for each in plan.VERB.verbs)
    monkeypatch.setattr(plan, "VERB", plan.VERB._replace(verbs=verbs))
    assert cli.main(["plan", "free", "32"]) == 70
    assert "(altmap --debug plan free ... shows where)" in capsys.readouterr().err


def test_an_unexpected_error_without_a_text_is_named(ending):
    status, err = ending(AssertionError())
    assert (status, err.split(" (")[0]) == (70, "altmap: internal error: AssertionError")


@pytest.mark.parametrize("words", [["--debug", "ls"], ["ls", "--debug"]])
def test_debug_shows_the_traceback(ending, words):
    status, err = ending(ZeroDivisionError("no"), *words)
    assert status == 70
    assert err.startswith("Traceback (most recent call last):\n")
    assert re.search(r'test_how_it_ends\.py", line \d+, in fail\n', err)
    assert err.endswith("ZeroDivisionError: no\n")


@pytest.mark.parametrize("cause", [InputError("size\n3: need 4"), AltmapError("size\n3: need 4")])
def test_an_expected_error_is_one_line_with_and_without_debug(ending, cause):
    expected = (2, "altmap: size\\n3: need 4\n")
    assert ending(cause) == expected
    assert ending(cause, "--debug", "ls") == expected


def test_an_error_of_the_lab_keeps_the_lines_of_the_console(ending):
    status, err = ending(LabError("no answer", "one\ntwo"))
    assert status == 2
    assert err.splitlines()[-2:] == ["  | one", "  | two"]


def test_an_interrupt_is_one_line(ending):
    assert ending(KeyboardInterrupt()) == (130, "altmap: interrupted\n")


def test_a_plan_that_cannot_be_made_is_not_taken_for_one_with_steps(capsys, monkeypatch):
    assert cli.main(["plan", "add", "0MiB", "--from", "/nowhere"]) == 1
    assert re.fullmatch("altmap: [^\n]+\n", capsys.readouterr().err)
    assert {verb.failed for verb in (plan.VERB, *plan.VERB.verbs)} == {1}


def run(*words, stdout, unbuffered=""):
    """Run a command whose output is buffered, as by default, or not."""
    command = [sys.executable, "-m", "altmap", *words]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("words", [["--help"], ["ls", "--help"], ["--version"], ["help", "run"]])
def test_a_reader_who_has_gone_is_no_error_of_help(words):
    read, write = os.pipe()
    os.close(read)
    done = run(*words, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="missing: /dev/full")
@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [(["--help"], ""), (["explain", "EBUSY"], ""), (["explain", "EBUSY"], "1")],
)
def test_a_full_disk_behind_standard_output_is_one_line(words, unbuffered):
    with Path("/dev/full").open("w") as full:
        done = run(*words, stdout=full, unbuffered=unbuffered)
    assert done.returncode == 2
    assert done.stderr == "altmap: standard output: No space left on device\n"


def test_ctrl_c_ends_a_running_command_with_130(tmp_path):
    (tmp_path / "s.toml").write_text(PLUG)
    script = (
        "import sys, time; from altmap.model import machine; from altmap.cli import main\n"
        "machine.predict = lambda *_, **__: (print('ready', flush=True), time.sleep(60))\n"
        "sys.exit(main.main(['run', 's.toml']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "altmap: interrupted; 0 of 1 runs are done\n")
