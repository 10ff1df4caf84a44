"""The rules that ``docs/architecture.md`` states, read off the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/altmap"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

#: Modules of the standard library with effects, by the word that a docstring declares them with.
EFFECTS = {
    "archives": {"bz2", "gzip", "lzma", "tarfile", "zipfile"},
    "clock": {"datetime", "time"},
    "environment": {"getpass", "locale", "os", "platform"},
    "files": {"fcntl", "glob", "io", "os", "pathlib", "resources", "shutil", "tempfile"},
    "imports": {"importlib"},
    "network": {"http", "select", "socket", "urllib"},
    "processes": {
        "asyncio",
        "ctypes",
        "multiprocessing",
        "os",
        "signal",
        "subprocess",
        "threading",
    },
    "randomness": {"random", "secrets", "uuid"},
    "terminal": {"logging", "sys"},
}
CALLS = {
    "files": {"open"},
    "imports": {"exec", "eval", "__import__"},
    "terminal": {"print", "input", "breakpoint"},
}
METHODS = {
    "environment": {"getenv"},
    "files": {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink"},
}


def package(path):
    """Return the row of a module: its folder, or its name at the top."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(tree):
    """Yield every module that a tree imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports of ours are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path, below=()):
    """Return the names that a module imports below a package of ours, each without its own.

    *below* is the package, such as ``("model",)``; names are those of its folders and modules.
    """
    home = SOURCE.joinpath(*below)
    depth = len(below)
    found = set()
    for name in imported(TREES[path]):
        parts = name.split(".")
        if parts[: depth + 1] != ["altmap", *below] or len(parts) < depth + 2:
            continue
        first = parts[depth + 1]
        known = (home / first).is_dir() or (home / f"{first}.py").is_file()
        found.add(first if known else "__init__")
    own = path.relative_to(SOURCE).with_suffix("").parts
    return found - {own[depth]} if own[:depth] == below else found


def stated():
    """Return the page's table: package to the packages it imports, in the page's order."""
    table = re.search(r"\| package \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {name.strip("`"): set(re.findall(r"`(\w+)`", imports)) for name, _, imports in rows}


STATED = stated()
ACTUAL = {
    name: set().union(*(ours(p) for p in MODULES if package(p) == name)) - {"__init__"}
    for name in STATED
}

#: The parts of ``model``, each importing only from those before it.
MODEL = (
    *("arch", "releases", "kernel", "policies", "platform", "boot", "adopt", "observe"),
    *("drivers", "workload", "machine"),
)


def test_every_module_has_a_row():
    rows = {package(path) for path in MODULES} - {"__init__", "__main__"}
    assert rows == set(STATED), "docs/architecture.md: the table of packages is not the code's"


@pytest.mark.parametrize("name", STATED)
def test_a_package_imports_what_its_row_says(name):
    assert ACTUAL[name] == STATED[name], f"docs/architecture.md: row {name!r}"


def test_imports_go_one_way():
    above = set()
    for name, imports in STATED.items():
        assert imports <= above, f"{name} imports a row below it"
        above.add(name)


def test_the_model_is_built_from_the_kernel_up():
    parts = {path.relative_to(SOURCE / "model").with_suffix("").parts[0] for path in model()}
    assert parts - {"__init__"} == set(MODEL)
    for path in model():
        part = path.relative_to(SOURCE / "model").with_suffix("").parts[0]
        if part != "__init__":
            later = set(MODEL[MODEL.index(part) + 1 :])
            assert not ours(path, ("model",)) & later, f"{path} imports a later part"


def model():
    return [path for path in MODULES if package(path) == "model"]


def in_kernel():
    return [path for path in model() if path.is_relative_to(SOURCE / "model/kernel")]


def test_the_kernel_knows_no_scenario_and_no_files():
    for path in in_kernel():
        assert ours(path) <= {"errors", "model", "pfn", "trace", "units"}, path
        assert ours(path, ("model",)) <= {"arch", "kernel", "releases"}, path


def test_linux_knows_no_kernel():
    assert ACTUAL["linux"] <= {"errors", "pfn", "units"}


def test_lab_and_model_meet_where_they_are_compared_only():
    assert "model" not in ACTUAL["lab"]
    assert "lab" not in ACTUAL["model"]
    both = {name for name in STATED if {"lab", "model"} <= ACTUAL[name]}
    assert both == {"verify", "cli"}  # the command line runs either


def test_nothing_imports_the_commands():
    assert not {name for name in STATED if "cli" in ACTUAL[name]}


def declared(path):
    """Return the effects that a module's docstring declares in its last line."""
    doc = ast.get_docstring(TREES[path]) or ""
    found = re.search(r"^Effects: ([a-z, ]+)\.\Z", doc, re.MULTILINE)
    return set(found[1].split(", ")) if found else set()


def used(path):
    """Yield, for each use of something with effects, the words that may declare it."""
    tree = TREES[path]
    modules = {
        name.replace("importlib.resources", "resources").split(".")[0] for name in imported(tree)
    }
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {func.id for func in calls if isinstance(func, ast.Name)}
    attributes = {func.attr for func in calls if isinstance(func, ast.Attribute)}
    for found, known in ((modules, EFFECTS), (names, CALLS), (attributes, METHODS)):
        for one in found:
            words = {word for word, members in known.items() if one in members}
            if words:
                yield one, words


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_declares_its_effects(path):
    words = declared(path)
    assert words <= set(EFFECTS), f"need some of {', '.join(EFFECTS)}"
    uses = dict(used(path))
    for what, any_of in uses.items():
        assert words & any_of, f"{path}: {what} needs 'Effects: ...' in the docstring"
    unused = words - set().union(*uses.values())
    assert not unused, f"{path} declares {unused} and has none"


@pytest.mark.parametrize("name", ["errors", "pfn", "compare", "trace"])
def test_the_core_has_no_effects(name):
    assert not any(declared(path) for path in MODULES if package(path) == name)


def test_the_model_has_no_effects_but_the_import_of_a_users_policy():
    assert {path.stem for path in model() if declared(path)} == {"policies"}


@pytest.mark.parametrize(
    "path",
    [path for path in model() if path.stem != "releases"],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_rules_ask_for_behaviours_and_compare_no_versions(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Compare):
            text = ast.unparse(node)
            assert not re.search(r"release\.name|_version\(|\(\d+, \d+\)", text), text


def test_class_names_are_unique_across_packages():
    where = {}
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    twice = {name: paths for name, paths in where.items() if len(paths) > 1}
    assert not twice
