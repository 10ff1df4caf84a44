"""What a command imports: help needs nothing but the parser, a command only what it uses.

Modules are counted, not seconds: which they are is the same on every machine.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from altmap.cli.main import GROUPS, verb_named
from altmap.cli.main import main as cli_main
from altmap.linux.sysroot import Sysroot

ROOT = Path(__file__).parents[2]
DIMM = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
RECORDING = ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz"
#: Every dependency of pyproject.toml, and what is slow in the standard library.
THIRD_PARTY = {
    *("msgspec", "numpy", "pyroaring", "rich", "prometheus_client", "qemu", "altair", "polars"),
    *("vl_convert", "distributed", "dask", "shtab", "hypothesis", "pytest"),
}
SLOW = {"asyncio", "dataclasses", "inspect", "multiprocessing", "subprocess", "tarfile", "tempfile"}
#: All of altmap that help may load, besides the commands themselves.
LIGHT = {"altmap", "altmap.errors", "altmap.host", "altmap.host.columns"}
CHARTS = {"altair", "polars", "vl_convert"}
#: The model itself; the record of an architecture is light.
MODEL = {f"altmap.model.{part}" for part in ("kernel", "machine", "drivers", "observe", "adopt")}


#: Runs each command in a fork of an interpreter that has imported nothing yet.
FORKS = """
import os, sys
null = os.open(os.devnull, os.O_RDWR)
for words in eval(sys.argv[1]):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(null, 1)
        sys.argv = ["altmap", *words]
        code = None
        try:
            from altmap.cli.main import main
            code = main()
        except SystemExit as end:
            code = end.code
        finally:
            with open(write, "w") as file:
                file.write(repr((code or 0, sorted(sys.modules))))
            os._exit(0)
    os.close(write)
    with open(read) as file:
        print(file.read())
    os.waitpid(pid, 0)
"""


def loaded_by(lines, code=0):
    """Return the modules that each command imports, in processes of their own."""
    command = [sys.executable, "-c", FORKS, repr([[*map(str, line)] for line in lines])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ends = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert [end for end, _ in ends] == [code] * len(lines), done.stderr[-500:]
    return [set(modules) for _, modules in ends]


def below(modules, names):
    """Return those of the modules that are one of the names or in a package of that name."""
    return {m for m in modules if any(m == name or m.startswith(f"{name}.") for name in names)}


def helps():
    yield ["--version"]
    yield ["-V"]
    yield ["--help"]
    yield []
    yield ["help"]
    yield ["help", "plan", "add"]
    for group in GROUPS:
        for name in group.verbs:
            yield [name, "--help"]
            yield from ([name, each.name, "--help"] for each in verb_named(name).verbs)


def test_help_and_version_load_the_parser_and_nothing_else():
    lines = list(helps())
    for words, modules in zip(lines, loaded_by(lines), strict=True):
        assert "altmap.cli.main" in modules
        assert below(modules, THIRD_PARTY | SLOW) == set(), words
        ours = {name for name in modules if name.split(".")[0] == "altmap"}
        assert {name for name in ours if not name.startswith("altmap.cli")} <= LIGHT, words


def test_a_wrong_word_is_answered_without_loading_any_command():
    commands = {f"altmap.cli.{name}" for group in GROUPS for name in group.verbs}
    for modules in loaded_by([["rnu"], ["--nope"]], code=2):
        assert below(modules, commands) == set()


def test_a_command_loads_no_other_command():
    commands = {name for group in GROUPS for name in group.verbs}
    words = ("ls", "run", "sweep")
    for word, modules in zip(words, loaded_by([[word, "--help"] for word in words]), strict=True):
        assert below(modules, {f"altmap.cli.{name}" for name in commands - {word}}) == set()


def test_completion_and_man_pages_load_the_parser_and_nothing_else():
    code = "import sys; sys.path.insert(0, 'docs'); import man; man.completions(); man.pages()"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert below(modules, THIRD_PARTY - {"shtab"}) == set()


#: Command lines, and what they must not load.
USES = {
    "ls -s ROOT": {
        "numpy",
        "pyroaring",
        "rich",
        "altmap.model",
        "altmap.scenario",
        "altmap.storage",
    },
    "ls -s DIMM -o +BLOCKERS": {"rich", *MODEL, "altmap.scenario", "altmap.lab"},
    "watch -s ROOT --for 0": {"numpy", "pyroaring", "altmap.model", "altmap.scenario"},
    "apply PLAN --root ROOT --dry-run": {"numpy", "pyroaring", "rich", "altmap.model"},
    "snapshot DIMM -o OUT/s.tar": {"msgspec", "rich", "altmap.model", "altmap.scenario"},
    "explain 33 DIMM": {"rich", *MODEL, "altmap.scenario", "altmap.lab"},
    "explain EBUSY": {"rich", *MODEL, "altmap.scenario", "altmap.lab"},
    "plan free 33 --from DIMM": {"rich", "altmap.lab", "altmap.report"},
    "export --prometheus DIMM": {"rich", *MODEL, "altmap.scenario", "altmap.lab"},
    "account DIMM": {"msgspec", "rich", "altmap.model", "altmap.scenario", "altmap.lab"},
    "account scenarios/dimm-1GiB.toml": {"rich", "altmap.lab", "altmap.host"},
    "run scenarios/dimm-1GiB.toml": {"rich", "altmap.lab", "altmap.host", "altmap.verify"},
    "run scenarios/dimm-1GiB.toml --summary": {"rich", "altmap.lab", "altmap.host"},
    "report scenarios/dimm-1GiB.toml": {"altmap.lab", "altmap.host", "altmap.studies"},
    "compare --recording RECORDING": {"rich", "altmap.host", "altmap.studies"},
    "claims C13": {"rich", "altmap.lab", "altmap.host", "altmap.report"},
    "bugs B8": {"rich", "altmap.lab", "altmap.host", "altmap.report"},
    "explore --list": {"rich", "altmap.lab", "altmap.host", "altmap.report"},
    "explore four-blocks --depth 1": {"rich", "altmap.lab", "altmap.host", "altmap.report"},
    "sweep examples/sweeps/overhead.toml --show 1": {"rich", "altmap.lab", "altmap.host"},
    "vm examples/vm/small.sh --way dimm": {"altmap.lab", "altmap.studies", "altmap.verify"},
    "new policy": {"msgspec", "numpy", "pyroaring", "rich", "altmap.model", "altmap.lab"},
    "lab list": {"rich", *MODEL},
}
#: They need a guest, or FUSE.
RUN_ELSEWHERE = {"check", "conform", "ctl", "hunt", "mount", "record", "shell"}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    Sysroot.read(DIMM).write(folder / "root")
    plan = folder / "plan.json"
    cli_main(["plan", "free", "33", "--from", str(DIMM), "-o", str(plan)])
    return {"ROOT": folder / "root", "PLAN": plan, "OUT": folder, "DIMM": DIMM} | {
        "RECORDING": RECORDING
    }


@pytest.mark.parametrize("line", USES)
def test_a_command_loads_only_what_it_uses(line, names):
    words = [
        re.sub("^[A-Z]{3,9}(?=/|$)", lambda m: str(names.get(m[0], m[0])), w) for w in line.split()
    ]
    code = 2 if words[0] == "apply" else 0
    (modules,) = loaded_by([words], code=code)
    assert below(modules, USES[line] | CHARTS) == set()


def test_every_command_is_checked():
    assert {line.split()[0] for line in USES} | RUN_ELSEWHERE == {
        name for group in GROUPS for name in group.verbs
    }


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("3", "3")])
def test_a_command_starts_no_threads_for_numpy_unless_it_is_told_how_many(given, used, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    program = (
        "import os, sys; from altmap.cli.main import main; main(sys.argv[1:]); import numpy; "
        "print(len(os.listdir('/proc/self/task')), os.environ['OPENBLAS_NUM_THREADS'])"
    )
    command = [sys.executable, "-c", program, "explain", "33", str(DIMM)]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    nr_threads, told = shown.splitlines()[-1].split()
    assert told == used
    assert given or nr_threads == "1"
