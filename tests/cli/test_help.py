"""Help: grouped by what a user wants, within 80 columns, with examples and exit codes."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from altmap.cli.main import GROUPS, command_line, main, verb_named
from altmap.cli.values import VALUES
from altmap.errors import nearest

ROOT = Path(__file__).parents[2]
#: By what a user wants; each command is in one group.
PURPOSES = {
    "predict": ["run", "account", "report", "vm", "new"],
    "verify": ["compare", "record", "conform", "hunt", "check", "lab"],
    "operate": ["ls", "snapshot", "explain", "plan", "apply", "watch", "export"],
    "act": ["mount", "shell", "ctl"],
    "explore": ["explore", "sweep"],
    "study": ["claims", "bugs"],
}


def parsers(above=None, name="altmap"):
    """Yield every parser by the words that call it."""
    above = above or command_line()
    yield name, above
    for action in above._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, parser in action.choices.items():
                yield from parsers(parser, f"{name} {word}")


PARSERS = dict(parsers())
VERBS = {name: parser.verb for name, parser in PARSERS.items() if parser.verb}


def told(capsys, *words, code=0):
    """Return what a command prints before argparse ends the program."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == code
    return capsys.readouterr()


def section(text, title):
    return text.split(f"\n{title}\n")[1].split("\n\n")[0]


def test_commands_are_grouped_by_purpose_each_with_its_sentence_and_one_example(capsys):
    out = told(capsys, "--help").out
    assert {group.name: list(group.verbs) for group in GROUPS} == PURPOSES
    for group in GROUPS:
        lines = section(out, f"{group.purpose}:").splitlines()
        shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
        assert list(shown) == [*group.verbs, "example:"]
        assert shown.pop("example:") == group.example
        assert shown == {name: verb_named(name).about for name in group.verbs}
        assert group.example.split()[1] in group.verbs


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_example_of_a_group_can_be_parsed(group):
    assert command_line().parse_args(shlex.split(group.example)[1:]).verb


def test_the_help_of_the_program_tells_of_debug_version_and_common_exit_codes(capsys):
    out = told(capsys, "-h").out
    for word in ("-V, --version", "--debug", "  70   internal error", "  130  interrupted"):
        assert word in out


def test_without_a_command_and_with_help_alone_the_same_is_shown(capsys):
    out = told(capsys, "--help").out
    assert main([]) == 0
    assert capsys.readouterr() == (out, "")
    assert told(capsys, "help") == (out, "")
    assert main(["--debug"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_command_is_its_help_option(name, capsys):
    words = name.split()[1:]
    assert told(capsys, "help", *words) == told(capsys, *words, "--help")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_is_one_line(option, capsys):
    assert re.fullmatch(r"altmap \d+\.\d+\.\d+\n", told(capsys, option).out)


@pytest.mark.parametrize("name", VERBS)
def test_each_help_has_a_sentence_an_example_and_exit_codes(name):
    verb, text = VERBS[name], PARSERS[name].format_help()
    (sentence,) = [line for line in text.splitlines() if line.lower() == f"{verb.about}.".lower()]
    assert sentence[0].isupper()
    assert sentence.count(". ") == 0
    # What takes no option, or one word, has one way to be called.
    fewest = 1 if name in ("altmap lab list", "altmap lab build", "altmap help") else 2
    assert fewest <= len(verb.examples) <= 3
    for line, meaning in verb.examples:
        assert f"  # {meaning}\n  {line}\n" in text
        assert line.startswith(f"{name} ") or line == name
    shown = section(text, "exit codes:").splitlines()
    assert [line.split()[0] for line in shown] == [str(code) for code, _ in verb.exit_codes]
    assert str(verb.failed) in {line.split()[0] for line in shown}


@pytest.mark.parametrize("name", VERBS)
def test_each_example_can_be_parsed(name):
    for example in VERBS[name].examples:
        assert command_line().parse_args(shlex.split(example.line)[1:]).verb


@pytest.mark.parametrize("name", PARSERS)
def test_help_fits_80_columns_and_shows_no_placeholder(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = PARSERS[name].format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"%\(|==SUPPRESS==|None", text)


@pytest.mark.parametrize("name", PARSERS)
def test_every_argument_has_a_text(name):
    for action in PARSERS[name]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action.dest


def shown_defaults():
    for name, parser in PARSERS.items():
        for action in parser._actions:
            if "default: " in (action.help or "") and action.default not in (None, []):
                yield pytest.param(action, id=f"{name} {action.dest}")


@pytest.mark.parametrize("action", list(shown_defaults()))
def test_the_default_that_is_shown_is_the_one(action):
    shown = re.search(r"default: (.*)$", action.help)[1]
    known = {"this host": "/", "./scenarios": "scenarios"}
    assert known.get(shown, shown) == str(action.default).removesuffix(".0")


def test_the_default_release_that_is_shown_is_the_one():
    from altmap.scenario import DEFAULT_RELEASE

    assert f"default: {DEFAULT_RELEASE}" in PARSERS["altmap lab boot"].format_help()


def test_the_values_at_the_end_of_help_are_those_of_the_records():
    from altmap.lab.arches import GUESTS
    from altmap.model.arch import ARCHES
    from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES
    from altmap.model.releases import RELEASES

    words = {name: re.findall(r"[^\s,;]+", text) for name, text in VALUES.items()}
    assert words["ARCH"] == list(ARCHES)
    assert words["GUEST"] == list(GUESTS)
    assert words["RELEASE"][: len(RELEASES)] == list(RELEASES)
    assert words["POLICY"][: len(POLICIES)] == list(POLICIES)
    assert {word for word in words["POLICY"] if word[0] == "+"} == {f"+{a}" for a in ACCOUNTINGS}


@pytest.mark.parametrize("name", VERBS)
def test_help_lists_the_values_of_each_argument_that_has_a_list(name):
    text = PARSERS[name].format_help()
    named = {action.metavar for action in PARSERS[name]._actions} & set(VALUES)
    shown = section(text, "values:") if named else ""
    assert ("\nvalues:\n" in text) == bool(named)
    assert set(re.findall(r"^  (\S+)", shown, re.MULTILINE)) == named
    assert not {"R", "A", "P"} & {a.metavar for a in PARSERS[name]._actions if a.dest != "address"}


# --- wrong words -----------------------------------------------------------------------------


WRONG = {
    "rnu": ("altmap", "unknown command 'rnu': did you mean 'run'?"),
    "zzzz": ("altmap", "unknown command 'zzzz': need one of run, account, report, vm, "),
    "--debgu run x.toml": ("altmap", "unknown option '--debgu': did you mean '--debug'?"),
    "help rnu": ("altmap", "unknown command 'rnu': did you mean 'run'?"),
    "run --sumary": ("altmap run", "unknown option '--sumary': did you mean '--summary'?"),
    "run x.toml --sumary=1": ("altmap run", "unknown option '--sumary': did you mean"),
    "run --qqq x.toml": ("altmap run", "unknown option '--qqq'\n"),
    "run x.toml -q": ("altmap run", "unexpected argument '-q'"),
    "run": ("altmap run", "the following arguments are required: SCENARIO"),
    "run x.toml --on moon": ("altmap run", "argument --on: 'moon': need one of model, lab"),
    "ls 32": ("altmap ls", "unexpected argument '32'"),
    "lab": ("altmap lab", "the following arguments are required: COMMAND"),
    "lab fetc 6.1": ("altmap lab", "unknown command 'fetc': did you mean 'fetch'?"),
    "lab boot --cpu 2 --memry 1GiB": ("altmap lab boot", "unknown option '--memry': did you mean"),
    "plan": ("altmap plan", "the following arguments are required: COMMAND"),
    "plan grwo 1GiB": ("altmap plan", "unknown command 'grwo': did you mean 'grow'?"),
    "plan add 1GiB --drivr dimm": ("altmap plan add", "unknown option '--drivr': did you mean"),
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_is_answered_with_the_commands_usage_and_the_nearest_word(line, capsys):
    name, message = WRONG[line]
    # Code 2 of plan means that there are steps, if one asks for it.
    out, err = told(capsys, *line.split(), code=1 if name.startswith("altmap plan") else 2)
    assert out == ""
    assert err.startswith(f"usage: {name} [-h]")
    assert f"\n{name}: error: {message}" in err


#: A mistyped word of each kind of value, and the nearest that exists.
MISTYPED = {
    "run SCENARIO --policy opt-im": "opt-in",
    "run SCENARIO --policy rfc-2018+totl": "total",
    "run SCENARIO --arch x86-64": "x86_64",
    "run SCENARIO --set memroy=1GiB": "memory",
    "run SCENARIO --set platform=q53": "q35",
    "run SCENARIO --set auto_online_blocks=onlin": "online",
    "run SCENARIO --set memory=1gib": "GiB",
    "explore four-block": "four-blocks",
    "explore four-blocks --rule no-fualt --rule bakced": None,
    "explore four-blocks --rule bakced": "backed",
    "sweep GRID -o out --by relase": "release",
    "explain EBUSI": "EBUSY",
    "ls -s SYSROOT -o +BLOCKER": "BLOCKERS",
    "plan remove PNP0C8:00 --from SYSROOT": "PNP0C80:00",
    "lab build rfc2018": "rfc-2018",
    "lab fetch 6.12 --arch aarch64_16k": "aarch64-16k",
}


@pytest.mark.parametrize("line", MISTYPED)
def test_a_mistyped_value_of_any_kind_is_answered_with_the_nearest(line, capsys):
    files = {"SCENARIO": "scenarios/dimm-1GiB.toml", "GRID": "examples/sweeps/overhead.toml"}
    files["SYSROOT"] = "tests/recordings/files/linux-6.12-dimm.tar.xz"
    words = [str(ROOT / files[word]) if word in files else word for word in line.split()]
    assert main(words) == (1 if words[0] == "plan" else 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    nearest_word = MISTYPED[line]
    assert ("did you mean" in err) is (nearest_word is not None), err
    if nearest_word is not None:
        assert f"did you mean {nearest_word!r}?" in err


def test_words_behind_two_dashes_are_left_to_the_command():
    args = command_line().parse_args(["lab", "exec", "--", "ls", "--all"])
    assert args.command == ["ls", "--all"]


def test_the_nearest_word_is_like_the_given_one_or_none_is_named():
    assert nearest("--polcy", ["--policy", "--json"]) == "--policy"
    assert nearest("gib", ["MiB", "GiB"]) == "GiB"
    assert nearest("--x", ["--policy", "--json"]) is None


@pytest.mark.parametrize(
    ("words", "debug"),
    [(["ls"], False), (["--debug", "ls"], True), (["ls", "--debug"], True), (["ls", "-a"], False)],
)
def test_debug_may_stand_before_or_behind_the_command(words, debug):
    assert command_line().parse_args(words).debug is debug
