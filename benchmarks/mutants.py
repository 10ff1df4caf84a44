"""Alter the code at one place at a time, and see whether a fast test fails.

    python benchmarks/mutants.py [--all] [--sample N] [--seed S] [-j N] [MODULE...]

Mutants are cosmic-ray's (bounds, signs, comparisons, constants, negations), and each statement of
a function dropped. Without modules they lie in the lines that differ from main, with --all in the
whole of the packages below. One mutant is drawn for each place, so that a place with many
operators weighs no more than another. Each is tested in a copy of the tree by the tests that run
the altered statement, up to the first failure: the quickest of them first, then the others.

Results are kept in build/mutants; an interrupted run goes on while source and tests are the same.
Equivalent mutants are listed in tests/equivalent_mutants.toml with the reason. Exit code: 0 if no
other mutant survives, else 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import itertools
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome
from coverage import CoverageData

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/mutants"
EQUIVALENT = ROOT / "tests/equivalent_mutants.toml"

#: Packages whose rules are proved by mutants.
PACKAGES = (
    "src/altmap/model/kernel",
    "src/altmap/model/drivers",
    "src/altmap/model/adopt",
    "src/altmap/compare",
)
#: Folders with the tests of them and of whatever rests on them.
TESTS = (
    *("tests/model", "tests/compare", "tests/verify", "tests/storage", "tests/studies"),
    *("tests/explore", "tests/host", "tests/cli", "tests/report"),
)
#: Tests of the first stage: most mutants fail there, before all tests are collected.
NR_QUICKEST = 40
PYTEST = "-m pytest -x -n 0 -p no:cacheprovider --hypothesis-seed=0"
SELECTED = "not lab and not browser and not slow"

_CHOSEN = re.compile(
    r"core/(NumberReplacer|AddNot|ZeroIterationForLoop|Replace(True|False|And|Or|Break|Continue)\w+"
    r"|ReplaceUnaryOperator_(Delete_\w+|USub_UAdd)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Lt_GtE|Gt_LtE"
    r"|LtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|FloorDiv_Mul|Mod_FloorDiv|RShift_LShift"
    r"|LShift_RShift|BitOr_BitAnd|BitAnd_BitOr|BitXor_BitOr|Sub_BitAnd|Div_Mul|Pow_Mul))"
)


class DropStatement(Operator):
    """Replace a statement by pass, unless that leaves a name without a value.

    Left are docstrings, bodies of protocols, imports, assertions, the fields of a class and what
    gives a plain name its value: a test that fails there has only seen that the name is missing.
    """

    def mutation_positions(self, node):
        in_suite = node.type == "simple_stmt" and node.parent.type == "suite"
        if in_suite and self._is_droppable(node.children[0]):
            yield node.start_pos, node.end_pos

    @staticmethod
    def _is_droppable(node):
        if node.type in ("string", "strings", "import_name", "import_from", "assert_stmt"):
            return False
        if node.type != "expr_stmt":
            return node.get_code().strip() not in ("pass", "...")
        target, second = node.children[:2]
        is_augmented = second.type == "operator" and second.value not in ("=", ":")
        return is_augmented or (second.type == "operator" and target.type == "atom_expr")

    def mutate(self, node, index):
        assert index == 0
        prefix = node.children[0].get_first_leaf().prefix
        node.children[0] = parso.python.tree.Keyword("pass", node.start_pos, prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


@dataclass(frozen=True)
class Mutant:
    """One altered place: the first line that differs, before and after."""

    module: str
    line: int
    before: str
    after: str
    operator: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before}  ->  {self.after or '(nothing)'}"


OPERATORS: dict[str, Operator] = {"DropStatement": DropStatement()} | {
    name: get_operator(name)() for name in operator_names() if _CHOSEN.fullmatch(name)
}


@dataclass(frozen=True)
class Place:
    """A place of a module, and the operators that can alter it, each by name and occurrence."""

    path: Path
    start: tuple[int, int]
    options: tuple[tuple[str, int], ...]


def places(path: Path, lines: set[int] | None) -> list[Place]:
    """Return the places of a module that can be altered, in some lines or in all."""
    nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name, operator in OPERATORS.items():
        positions = (at for node in nodes for at in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(positions):
            if lines is None or start[0] in lines:
                found.setdefault(start, []).append((name, occurrence))
    return [Place(path, start, tuple(options)) for start, options in sorted(found.items())]


def mutant_of(place: Place, chance: random.Random) -> Mutant | None:
    """Return the module altered by one of a place's operators, none if none changes what runs."""
    source = place.path.read_text(encoding="utf-8")
    for name, occurrence in chance.sample(place.options, len(place.options)):
        changed = MutationVisitor.mutate_code(source, OPERATORS[name], occurrence)
        if changed is not None and meaning(changed) not in (meaning(source), ""):
            return described(place.path, source, changed, name)
    return None


def meaning(source: str) -> str:
    """Return what runs: the code without annotations and docstrings; empty if it is no code."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
    return ast.dump(tree)


def described(path: Path, source: str, changed: str, operator: str) -> Mutant:
    old, new = source.splitlines(), changed.splitlines()
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new) - 1)
    module = str(path.relative_to(ROOT))
    after = new[at].strip() if len(old) == len(new) or operator != "DropStatement" else "pass"
    return Mutant(module, at + 1, old[at].strip(), after, operator, changed)


def changed_lines() -> dict[Path, set[int]]:
    """Return the lines of the packages' modules that differ from where main was left."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    base = git("merge-base", "main", "HEAD").strip() or "HEAD"
    found: dict[Path, set[int]] = {}
    diff = git("diff", "-U0", base, "--", *PACKAGES)
    for file in re.split(r"^diff --git ", diff, flags=re.M)[1:]:
        name = re.search(r"^\+\+\+ b/(.*\.py)$", file, re.M)
        if name:
            hunks = re.findall(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", file, re.M)
            spans = (range(int(at), int(at) + int(nr or 1)) for at, nr in hunks)
            found[ROOT / name[1]] = {line for span in spans for line in span}
    for name in git("ls-files", "--others", "--exclude-standard", "--", *PACKAGES).splitlines():
        if name.endswith(".py"):
            path = ROOT / name
            found[path] = set(range(1, path.read_text(encoding="utf-8").count("\n") + 2))
    return found


class Reach:
    """Which tests run a statement, and the seconds that each takes, from one run under coverage.

    Kept as long as source and tests do not change. A test that starts another process reaches
    nothing by this count, and one that fails under coverage (of what is imported) is left out, so
    neither kills a mutant.
    """

    def __init__(self, folder: Path, tree: Path) -> None:
        data, durations = folder / "coverage", folder / "durations.xml"
        if not data.exists():
            self._measure(tree, data, durations)
        self._data = CoverageData(str(data))
        self._data.read()
        self._modules = {
            path[path.index("src/altmap/") :]: path for path in self._data.measured_files()
        }
        cases = ElementTree.parse(durations).iter("testcase")
        self.seconds = {
            node_id(case): float(case.get("time", 0)) for case in cases if not list(case)
        }

    @staticmethod
    def _measure(tree: Path, data: Path, durations: Path) -> None:
        data.parent.mkdir(parents=True, exist_ok=True)
        written = tree / "build/coverage/data"
        command = (
            f"env -C {tree} PYTHONPATH={tree}/src {sys.executable} -m pytest "
            f"-p no:cacheprovider --hypothesis-seed=0 -m '{SELECTED}' --cov --cov-context=test "
            f"--cov-report= -o junit_family=xunit1 --junitxml={durations} {' '.join(TESTS)}"
        )
        _, output = run_tests(command, 3600)
        print(output[output.rfind("\n", 0, -1) + 1 :], end="", file=sys.stderr)
        shutil.copy2(written, data)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a mutant's statement, the quickest first."""
        path = self._modules.get(mutant.module)
        if path is None:
            return []
        by_line = self._data.contexts_by_lineno(path)
        lines = statement_lines((ROOT / mutant.module).read_text(encoding="utf-8"), mutant.line)
        contexts = {context for line in lines for context in by_line.get(line, ())}
        if contexts <= {""}:  # it runs when the module is imported: whatever runs the module does
            contexts = {context for each in by_line.values() for context in each}
        names = {context.partition("|")[0] for context in contexts}
        return sorted(names & self.seconds.keys(), key=lambda name: (self.seconds[name], name))


def node_id(case: ElementTree.Element) -> str:
    """Return the name by which pytest selects a test of its JUnit report."""
    file, classes = case.attrib["file"], case.attrib["classname"]
    inner = classes[len(file.removesuffix(".py")) + 1 :]
    return "::".join([file, *filter(None, inner.split(".")), case.attrib["name"]])


def statement_lines(source: str, line: int) -> range:
    """Return the lines of the innermost statement at a line; of a compound one, its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):  # outer statements come first
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            body = getattr(node, "body", None)
            end = body[0].lineno if body else (node.end_lineno or line) + 1
            found = range(node.lineno, max(end, node.lineno + 1))
    return found


class Trees:
    """Copies of the tree, one for each process, in which mutants are tested."""

    def __init__(self, nr_trees: int) -> None:
        self._free: queue.Queue[Path] = queue.Queue()
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for nr in range(nr_trees):
            tree = BUILD / f"tree{nr}"
            shutil.rmtree(tree, ignore_errors=True)
            for name in filter(None, names):
                if (ROOT / name).is_file():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, tree / name)
            compile_all = [sys.executable, "-m", "compileall", "-q", str(tree / "src")]
            subprocess.run(compile_all, check=True)
            self._free.put(tree)

    @contextlib.contextmanager
    def taken(self) -> Iterator[Path]:
        tree = self._free.get()
        try:
            yield tree
        finally:
            self._free.put(tree)

    def run(self, tree: Path, tests: Sequence[str], limit: float) -> tuple[TestOutcome, str]:
        """Run tests in a copy; they end at the first failure or after *limit* processor seconds.

        Processor time, so that a busy machine kills no mutant; what sleeps ends by the clock.
        """
        selection = tree / "build/selected"
        selection.parent.mkdir(exist_ok=True)
        selection.write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
        command = (
            f"env -C {tree} PYTHONPATH={tree}/src prlimit --cpu={limit:.0f} "
            f"{sys.executable} {PYTEST} -m '{SELECTED}' @{selection}"
        )
        return run_tests(command, 10 * limit)

    def killed_by(self, mutant: Mutant, tests: Sequence[str], reach: Reach) -> str:
        """Return what kills a mutant: a test, the time limit; empty if it survives."""
        with self.taken() as tree:
            path = tree / mutant.module
            original = path.read_bytes()
            try:
                path.write_text(mutant.source, encoding="utf-8")
                for stage in filter(None, (tests[:NR_QUICKEST], tests[NR_QUICKEST:])):
                    limit = 30 + 3 * sum(reach.seconds[test] for test in stage)
                    outcome, output = self.run(tree, stage, limit)
                    if outcome is not TestOutcome.SURVIVED:
                        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
                        return (failed or [output.strip()[-60:] or "the time limit"])[0]
            finally:
                path.write_bytes(original)
        return ""


class Results:
    """Verdicts by mutant, kept as long as source and tests do not change."""

    def __init__(self) -> None:
        digest = hashlib.sha256()
        for folder in ("src", "tests"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                digest.update(path.read_bytes())
        self.state = digest.hexdigest()[:12]
        self._path = BUILD / f"results-{self.state}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        read = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        self.by_mutant = {each.pop("mutant"): each["killed_by"] for each in read}

    @staticmethod
    def key(mutant: Mutant) -> str:
        return hashlib.sha256(f"{mutant.module}\n{mutant.source}".encode()).hexdigest()

    def add(self, mutant: Mutant, killed_by: str) -> None:
        row = asdict(mutant) | {"mutant": self.key(mutant), "killed_by": killed_by}
        del row["source"]
        self.by_mutant[self.key(mutant)] = killed_by
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def equivalent() -> set[tuple[str, str, str]]:
    """Return mutants that change nothing that can be observed: module, line before and after."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return {(each["module"], each["before"], each["after"]) for each in listed}


def drawn(arguments: argparse.Namespace) -> list[Mutant]:
    """Return the mutants of this run."""
    chance = random.Random(arguments.seed)
    if arguments.module:
        where = {path.resolve(): None for path in arguments.module}
    elif arguments.all:
        where = {path: None for each in PACKAGES for path in sorted((ROOT / each).rglob("*.py"))}
    else:
        where = changed_lines()
    everywhere = [each for path, lines in where.items() for each in places(path, lines)]
    chance.shuffle(everywhere)
    left_out = equivalent()
    made = (mutant_of(place, chance) for place in everywhere)
    fit = (m for m in made if m and (m.module, m.before, m.after) not in left_out)
    return list(itertools.islice(fit, arguments.sample))


def main() -> int:
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("module", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-j", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    chosen, results = drawn(arguments), Results()
    if not chosen:
        print("no mutants: no line of these packages has changed")
        return 0
    left = [each for each in chosen if results.key(each) not in results.by_mutant]
    if left:
        trees = Trees(arguments.j)
        with trees.taken() as tree:
            reach = Reach(BUILD / f"reach-{results.state}", tree)
        with ThreadPoolExecutor(arguments.j) as pool:
            jobs = {
                pool.submit(trees.killed_by, each, reach.tests(each), reach): each for each in left
            }
            for nr, job in enumerate(as_completed(jobs), 1):
                killed_by = job.result()
                results.add(jobs[job], killed_by)
                told = f"killed by {killed_by}" if killed_by else "SURVIVES"
                print(f"{nr}/{len(left)} {jobs[job]}: {told}", file=sys.stderr, flush=True)
    survivors = [each for each in chosen if not results.by_mutant[results.key(each)]]
    nr_killed = len(chosen) - len(survivors)
    print(f"{nr_killed} of {len(chosen)} mutants killed ({nr_killed / len(chosen):.1%})")
    for each in sorted(survivors, key=str):
        print(f"survives: {each} [{each.operator}]")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
