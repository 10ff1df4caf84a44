"""Lines within the width of a terminal: what goes on below, and what is left as it is."""

import io

import pytest

from altmap.cli.fit import fitted, width_of
from altmap.cli.streams import show, standard_streams


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("one two three", ["one two", "  three"]),
        ("  one two three", ["  one two", "    three"]),
        ("- one two three", ["- one two", "    three"]),
        ("ab  one two three", ["ab  one", "    two", "    three"]),
        ("# one two three", ["# one two", "# three"]),
        ("one two three  four", ["one two", "  three", "  four"]),  # a gap in the second half
        ("a bcdefghijklm", ["a", "bcdefghijklm"]),  # no room for the indentation
        ("ab  one twothree", ["ab  one", "  twothree"]),  # nor for the last column
        ("altmap a b c", ["altmap a b", "  c"]),  # a sentence
        ("0123456789-123", ["0123456789-123"]),
    ],
)
def test_a_long_line_goes_on_below_the_start_of_its_last_column(line, parts):
    assert fitted(line, 10).split("\n") == parts
    assert fitted(f"short\n{line}\n", 10).split("\n") == ["short", *parts, ""]
    assert fitted(line, len(line)) == line


@pytest.mark.parametrize(
    "line",
    [
        "  altmap run scenarios/dimm-1GiB.toml",
        "Run:      altmap run x.toml --set release=6.8",
        "  virsh setmem web 4194304KiB --live",
        '  {"execute": "balloon", "arguments": {"value": 1}}',
        "    0000  01 00 10 00 01 00 00 00",
    ],
)
def test_what_is_copied_keeps_its_line(line):
    assert fitted(line, 10) == line


def test_a_pipe_has_no_width_unless_it_is_given(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of(io.StringIO()) is None
    with standard_streams():
        show("one two three " * 40, end="")
        monkeypatch.setenv("COLUMNS", "10")
        assert width_of(io.StringIO()) == 10
        show("one two three")
    assert capsys.readouterr().out == "one two three " * 40 + "one two\n  three\n"
