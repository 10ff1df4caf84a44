"""The command ``altmap explore``: output, files, errors."""

import json
import re
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.explore import built_in, built_in_names
from altmap.explore.rules import RULES
from altmap.explore.spec import Bounds, Operations


def test_a_counterexample_is_printed_and_written(capsys, tmp_path):
    search = ["explore", "order-of-removal", "--depth", "2"]
    assert main([*search, "--rule", "alive", "-o", str(tmp_path)]) == 1

    out = capsys.readouterr().out
    assert "  1. plug m32: 256 MiB by dimm\n  2. unplug m32\n  BROKEN: kernel page fault" in out
    file = tmp_path / "order-of-removal-alive.toml"
    assert f"altmap run {file}" in out
    assert main(["run", str(file)]) == 0
    assert "fault: the kernel crashes" in capsys.readouterr().out
    assert main(["report", str(file), "-o", str(tmp_path / "page.html")]) == 0


def test_no_counterexample_states_the_bounds(capsys):
    assert main(["explore", "four-blocks", "--depth", "3"]) == 0

    out = capsys.readouterr().out
    assert "no counterexample within bounds: backed, alive" in out
    assert "every sequence of up to 3 steps, 4 devices and 4 blocks at a time" in out
    assert "147 states, 383 transitions" in out


def test_json_has_the_same_result(capsys):
    assert main(["explore", "books", "--json"]) == 1

    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["version"]) == ("altmap-exploration-result", 1)
    (found,) = shown["found"]
    assert found["rule"] == "books"
    assert [step["do"] for step in found["steps"]] == ["plug", "online"]
    assert shown["whole"] is True


def test_list_names_every_exploration_and_rule(capsys):
    assert main(["explore", "--list"]) == 0

    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in built_in_names())
    assert all(rule.text in out for rule in RULES)


def test_show_prints_the_file(capsys):
    assert main(["explore", "books", "--show"]) == 0
    assert capsys.readouterr().out == built_in("books").read_text()


@pytest.mark.slow
def test_a_saved_search_continues(capsys, tmp_path):
    whole = ["explore", "four-blocks", "--depth", "5"]
    assert main(whole) == 0
    (figures,) = re.findall(r"[\d,]+ states, [\d,]+ transitions", capsys.readouterr().out)
    keep = ["--keep", str(tmp_path / "kept")]

    assert main([*whole, "--time", "0.05", *keep]) == 0
    assert "ended by its limit of time" in capsys.readouterr().out
    assert main([*whole, *keep]) == 0
    assert figures in capsys.readouterr().out


BAD = [
    (["explore"], "name an exploration"),
    (["explore", "nope"], "exploration 'nope': need one of across-blocks"),
    (["explore", "nope.toml"], "nope.toml: No such file or directory"),
    (["explore", "books", "--depth", "0"], "bounds.depth 0: need 1 to 1000"),
    (["explore", "books", "--rule", "nope"], "rule 'nope': need one of backed"),
    (["explore", "books", "-j", "0"], "--jobs 0: need 1 to 256"),
    (["explore", "books", "--time", "0"], "--time 0.0: need more than 0"),
    (["explore", "books", "--memory", "much"], "much"),
    (["explore", "books", "--set", "policy=nope"], "policy 'nope'"),
    (["explore", "books", "--rules", "nope.py"], "rules nope.py: need a Python file"),
]


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_bad_input_is_one_line(argv, message, capsys):
    assert main(argv) == 2

    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


FILES = [
    ("x = ", "not TOML"),
    ("[operations]\n", "operations: need at least one operation"),
    ("[operations]\nplug = ['0MiB']\n", "operations.plug 0: need more than 0"),
    ("[operations]\nplug = ['1']\n", "need a unit"),
    ("[operations]\nfly = true\n", "operations: unknown field 'fly'"),
    ("[operations.set]\nnope = [1]\n", "operations.set: unknown field 'nope'"),
    ("[operations.set]\nfail_allocation = [3]\n", "operations.set.fail_allocation 3: need 0 to 2"),
    ("[operations]\noffline = true\noffset = ['64MiB']\n", "only a hyperv host"),
    ("[operations]\noffline = true\n[bounds]\ndepth = 0\n", "bounds.depth 0"),
    ("[operations]\noffline = true\n[machine]\ncpus = 0\n", "machine.cpus 0"),
    ("machine = 3\n[operations]\noffline = true\n", "machine 3: need a table"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_bad_file_is_one_line(text, message, capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert main(["explore", str(path)]) == 2

    err = capsys.readouterr().err
    assert message in err
    assert str(path) in err
    assert err.count("\n") == 1


PAGE = (Path(__file__).parents[2] / "docs/explore.md").read_text(encoding="utf-8")


def block(language):
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return text


def test_the_page_has_every_rule_and_key():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \|$", PAGE, re.MULTILINE)
    assert [row for row in rows if row[0] in {rule.name for rule in RULES}] == [
        (rule.name, rule.text) for rule in RULES
    ]
    shown = {
        name
        for names in re.findall(r"^\| (`[a-z_`, ]+`) \|", PAGE, re.MULTILINE)
        for name in re.findall("[a-z_]+", names)
    }
    assert {*Operations.__struct_fields__, *Bounds.__struct_fields__} <= shown


def test_the_file_and_rules_of_the_docs_can_be_used(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(block("toml"))
    (tmp_path / "rules.py").write_text(block("python"))

    search = ["explore", str(tmp_path / "mine.toml"), "--depth", "2"]
    assert main(search) == 0
    rules = ["--rules", str(tmp_path / "rules.py"), "--rule", "mostly-movable"]
    assert main([*search, *rules]) == 1
    assert "2. online_kernel memory32" in capsys.readouterr().out


MINE = """
from altmap.model.kernel.memmap import Memmap

class EachBlock:
    name = "each-block"
    written_at_add = None

    def place(self, arch, release, request):
        block = request.block_nr_pages
        return Memmap(arch, request.pfns, block, arch.memmap_nr_pages(block))

class Raises(EachBlock):
    def place(self, arch, release, request):
        return 1 // (request.block_nr_pages - 32768)

class ReturnsNothing(EachBlock):
    def place(self, arch, release, request):
        return None
"""
RULE = """
from altmap.explore.rules import state_rule

@state_rule("mine", "a rule with a mistake")
def mine(machine, start):
    return machine.kernel.no_such_name
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name of a module with policies in the current folder."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_user_s_policy_is_searched_and_its_counterexample_can_be_run(mine, capsys, jobs):
    chosen = ["--policy", f"{mine}:EachBlock"]
    search = ["explore", "hyperv-merged", "--depth", "2"]
    assert main([*search, *chosen, "-j", jobs, "-o", "found"]) == 1

    out = capsys.readouterr().out
    line = f"altmap run found/hyperv-merged-backed.toml --policy {mine}:EachBlock"
    assert "backed: no step touches" in out
    assert line in out
    assert main([*line.split()[1:], "--check"]) == 1
    assert "mhp_init_memmap_on_memory" in capsys.readouterr().out
    assert main(search) == 0


def test_a_built_in_policy_is_the_machine_s(capsys, tmp_path):
    search = ["explore", "hyperv-merged", "--depth", "2"]
    assert main([*search, "--policy", "rfc-2018", "-o", str(tmp_path)]) == 1

    lines = capsys.readouterr().out.splitlines()
    (line,) = [each for each in lines if "run" in each and "-backed.toml" in each]
    assert "--policy" not in line
    assert 'policy = "rfc-2018"' in (tmp_path / "hyperv-merged-backed.toml").read_text()


@pytest.mark.parametrize(
    ("policy", "words", "jobs"),
    [
        ("Raises", "py:14: ZeroDivisionError: integer", "1"),
        ("Raises", "py:14: ZeroDivisionError: integer", "2"),
        ("ReturnsNothing", "place returned None", "1"),
    ],
)
def test_a_mistake_in_a_user_s_policy_ends_the_search_in_one_line(
    mine, capsys, jobs, policy, words
):
    chosen = ["--policy", f"{mine}:{policy}"]
    assert main(["explore", "four-blocks", *chosen, "-j", jobs]) == 2

    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_mistake_in_a_user_s_rule_ends_the_search_in_one_line(capsys, tmp_path):
    file = tmp_path / "rule.py"
    file.write_text(RULE, encoding="utf-8")
    assert main(["explore", "four-blocks", "--rules", str(file), "--rule", "mine"]) == 2

    err = capsys.readouterr().err
    assert f"rule mine: {file}:6: AttributeError" in err
    assert err.count("\n") == 1


def test_a_saved_search_belongs_to_its_policy(mine, capsys):
    keep = ["explore", "four-blocks", "--depth", "1", "--keep", "kept"]
    assert main([*keep, "--policy", f"{mine}:EachBlock"]) == 0
    assert main(keep) == 2
    assert "kept" in capsys.readouterr().err
