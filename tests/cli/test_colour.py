"""Verdicts have a colour on a terminal that has colours, and nowhere else."""

import io
import re
from pathlib import Path

import pytest

from altmap.cli.colour import coloured, has_colour
from altmap.cli.main import main

ROOT = Path(__file__).parents[2]
FAULT = str(ROOT / "scenarios/hyperv-64MiB-second-half.toml")
RECORDING = str(ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz")
RED, YELLOW, GREEN = "\033[31m", "\033[33m", "\033[32m"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, *words, stream=None, **environment):
    """Return what a command prints to a terminal, and its exit code."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "100"} | environment).items():
        monkeypatch.setenv(name, value)
    stream = stream or Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    status = main(list(words))
    return stream.getvalue(), status


def plain(text):
    return re.sub(r"\033\[\d+m", "", text)


def test_a_fault_is_red_and_a_refusal_yellow(monkeypatch):
    out, _ = shown(monkeypatch, "run", FAULT, "--policy", "rfc-2018", "--policy", "opt-in")
    assert f"{RED}fault: the kernel crashes\033[0m" in out
    assert out.count("\033[") == 2
    out, _ = shown(monkeypatch, "run", str(ROOT / "scenarios/big-blocks.toml"), "--summary")
    assert f"{YELLOW}refused EINVAL\033[0m by check_hotplug_memory_range" in out


def test_equality_is_green_once_for_all_files(monkeypatch):
    out, status = shown(monkeypatch, "compare", "--recording", RECORDING)
    assert status == 0
    assert re.search(rf"^{re.escape(GREEN)}\d+ equal\033\[0m, ", out, re.MULTILINE)
    assert out.count("\033[") == 2


def test_a_difference_is_red_and_then_nothing_is_green():
    text = "x  proc/meminfo    different (12 fields)\n    ! MemFree: predicted 1\n"
    text += "3 equal, 1 equal within tolerance, 2 different, 0 not compared\n"
    assert coloured(text) == (
        f"x  proc/meminfo    {RED}different (12 fields)\033[0m\n{RED}    !\033[0m MemFree: "
        f"predicted 1\n3 equal, 1 equal within tolerance, {RED}2 different\033[0m, 0 not compared\n"
    )


#: A text of a command, and the words of it that have a colour.
WORDS = {
    "  result    does not end: offline_pages: a pin": "does not end",
    "  BROKEN: a frame is not backed": "  BROKEN",
    "18 scenarios: 3 fault, 2 refused, 13 ok": "3 fault|2 refused",
    "12 scenarios: 12 ok": "",
    "9 scenarios with 40 steps, 60 an hour: 8 equal, 1 finding": "1 finding",
    "C2    refuted": "C2    refuted",
    "0 not testable here. Verdicts that differ from those known: C1, C2.": "C1, C2",
    "0 not testable here. Verdicts that differ from those known: none.": "",
    "risk, likely: the block does not come back": "risk, likely",
    "not-returned: virtio-mem: new blocks": "not-returned",
    "dimm       x86_64      safe         fault:online safe": "fault:online",
    "no counterexample within bounds: backed": "no counterexample",
    "note: an earlier fault ended the kernel": "",
    '"status": "refused"': "",
}


@pytest.mark.parametrize("text", WORDS)
def test_the_words_that_have_a_colour(text):
    found = re.findall(r"\033\[\d+m(.*?)\033\[0m", coloured(text))
    assert "|".join(sorted(found, key=text.index)) == WORDS[text]
    assert plain(coloured(text)) == text


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {"TERM": "unknown"}]
)
def test_there_is_no_colour_where_the_environment_forbids_it(monkeypatch, environment):
    out, _ = shown(monkeypatch, "run", FAULT, "--policy", "rfc-2018", **environment)
    assert "fault: the kernel crashes" in out
    assert "\033" not in out


def test_an_empty_no_color_forbids_nothing():
    assert has_colour(Terminal(), {"TERM": "xterm", "NO_COLOR": ""})
    assert not has_colour(Terminal(), {})


def test_a_pipe_gets_the_same_text_without_colours(monkeypatch):
    words = ("run", FAULT, "--policy", "rfc-2018")
    piped, _ = shown(monkeypatch, *words, stream=io.StringIO())
    assert "\033" not in piped
    assert plain(shown(monkeypatch, *words)[0]) == piped


def test_what_acts_on_a_terminal_is_escaped_where_colours_are_shown(monkeypatch, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('description = "a\\u001b]0;title\\u0007"\n', encoding="utf-8")
    out, _ = shown(monkeypatch, "run", str(path))
    assert "\033" not in out


def test_json_has_no_colour_on_a_terminal(monkeypatch):
    out, _ = shown(monkeypatch, "run", FAULT, "--policy", "rfc-2018", "--json")
    assert "\033" not in out


def test_help_has_no_escape_codes(monkeypatch):
    # argparse of Python 3.14 colours help itself, and the stream would escape its codes.
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "033" not in terminal.getvalue()
    assert "u001b" not in terminal.getvalue()
