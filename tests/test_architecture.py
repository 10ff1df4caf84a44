"""The rules that ``docs/architecture.md`` states, read off the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from altmap.lab.arches import GUESTS
from altmap.model.arch import ARCHES
from sources import MODULES, SOURCE, name_of, nodes, tree_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

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
    "tracing": {"sys"},
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
    return name_of(path).removesuffix(".py").split("/")[0]


@cache
def imported(tree):
    """Return every module that a tree imports, wherever the statement stands."""
    found = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports of ours are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def is_ours(place):
    return place.is_dir() or place.with_suffix(".py").is_file()


@cache
def ours(path, below=()):
    """Return the names that a module imports below a package of ours, each without its own.

    *below* is the package, such as ``("model",)``; names are those of its folders and modules.
    """
    home = SOURCE.joinpath(*below)
    depth = len(below)
    found = set()
    for name in imported(tree_of(path)):
        parts = name.split(".")
        if parts[: depth + 1] != ["altmap", *below] or len(parts) < depth + 2:
            continue
        first = parts[depth + 1]
        found.add(first if is_ours(home / first) else "__init__")
    own = path.relative_to(SOURCE).with_suffix("").parts
    return found - {own[depth]} if own[:depth] == below else found


def stated():
    """Return the page's table: package to the packages it imports, in the page's order."""
    table = re.search(r"\| package \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {name.strip("`"): set(re.findall(r"`(\w+)`", imports)) for name, _, imports in rows}


STATED = stated()


@cache
def actual(name):
    """Return the packages that a package imports."""
    return set().union(*(ours(p) for p in MODULES if package(p) == name)) - {"__init__"}


#: The parts of ``model``, each importing only from those before it.
MODEL = (
    *("memory_maps", "arch", "neighbours", "releases", "leaves", "pageblocks", "kernel"),
    *("policies", "platform", "boot", "adopt"),
    *("observe", "drivers", "coldplug", "words", "control_files", "workload", "machine"),
)


def test_every_module_has_a_row():
    rows = {package(path) for path in MODULES} - {"__init__", "__main__"}
    assert rows == set(STATED), "docs/architecture.md: the table of packages is not the code's"


def test_a_package_imports_what_its_row_says():
    for name in STATED:
        assert actual(name) == STATED[name], f"docs/architecture.md: row {name!r}"


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


@cache
def model():
    return [path for path in MODULES if package(path) == "model"]


@cache
def in_kernel():
    return [path for path in model() if path.is_relative_to(SOURCE / "model/kernel")]


def test_the_kernel_knows_no_scenario_and_no_files():
    for path in in_kernel():
        assert ours(path) <= {"errors", "model", "pfn", "trace", "units"}, path
        assert ours(path, ("model",)) <= {"arch", "kernel", "leaves", "pageblocks", "releases"}, (
            path
        )


def test_linux_knows_no_kernel():
    assert actual("linux") <= {"errors", "pfn", "units"}


def test_lab_and_model_meet_where_they_are_compared_only():
    assert "model" not in actual("lab")
    assert "lab" not in actual("model")
    both = {name for name in STATED if {"lab", "model"} <= actual(name)}
    assert both == {"verify", "cli"}  # the command line runs either


def test_only_what_a_notebook_shows_asks_the_package_itself():
    for path in MODULES:
        views = {
            statement
            for node in nodes(tree_of(path))
            if isinstance(node, ast.FunctionDef) and node.name == "_repr_html_"
            for statement in ast.walk(node)
        }
        for node in nodes(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "altmap" and node not in views:
                assert {alias.name for alias in node.names} <= {"__version__", *STATED}, path


def test_nothing_imports_the_commands():
    assert not {name for name in STATED if "cli" in actual(name)}


def declared(path):
    """Return the effects that a module's docstring declares in its last line."""
    doc = ast.get_docstring(tree_of(path)) or ""
    found = re.search(r"^Effects: ([a-z, ]+)\.\Z", doc, re.MULTILINE)
    return set(found[1].split(", ")) if found else set()


def used(path):
    """Yield, for each use of something with effects, the words that may declare it."""
    tree = tree_of(path)
    modules = {
        name.replace("importlib.resources", "resources").split(".")[0] for name in imported(tree)
    }
    calls = [node.func for node in nodes(tree) if isinstance(node, ast.Call)]
    names = {func.id for func in calls if isinstance(func, ast.Name)}
    attributes = {func.attr for func in calls if isinstance(func, ast.Attribute)}
    for found, known in ((modules, EFFECTS), (names, CALLS), (attributes, METHODS)):
        for one in found:
            words = {word for word, members in known.items() if one in members}
            if words:
                yield one, words


def test_a_module_declares_its_effects():
    for path in MODULES:
        words = declared(path)
        assert words <= set(EFFECTS), f"{path}: need some of {', '.join(EFFECTS)}"
        uses = dict(used(path))
        for what, any_of in uses.items():
            assert words & any_of, f"{path}: {what} needs 'Effects: ...' in the docstring"
        unused = words - set().union(*uses.values())
        assert not unused, f"{path} declares {unused} and has none"


def test_the_core_has_no_effects():
    core = {"errors", "pfn", "compare", "trace"}
    assert not [path for path in MODULES if package(path) in core and declared(path)]


def test_the_model_has_no_effects_but_the_import_of_a_users_policy():
    assert {path.stem for path in model() if declared(path)} == {"policies"}


def test_rules_ask_for_behaviours_and_compare_no_versions():
    for path in model():
        if path.stem in ("releases", "neighbours"):
            continue
        for node in nodes(tree_of(path)):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                assert not re.search(r"release\.name|_version\(|\(\d+, \d+\)", text), (path, text)


def test_class_names_are_unique_across_packages():
    where = {}
    for path in MODULES:
        for node in nodes(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(name_of(path))
    twice = {name: paths for name, paths in where.items() if len(paths) > 1}
    assert not twice


# --- state has an owner ----------------------------------------------------------------------

#: Names and attributes that lead to a kernel's state.
OWNED = {"kernel", "_kernel", "zone"}
#: Methods of containers and pools that change them in place.
IN_PLACE = {
    *("add", "append", "clear", "discard", "drop", "extend", "insert", "pop", "popitem", "put"),
    *("remove", "reverse", "setdefault", "sort", "update"),
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def base(node):
    """Return what an attribute, item or view of a mapping is looked up in, ``None`` for others."""
    if isinstance(node, ast.Attribute | ast.Subscript):
        return node.value
    view = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return node.func.value if view and node.func.attr in ("values", "items") else None


def is_owned(node, aliases):
    """Tell whether an expression is a kernel, a zone, or something that is looked up in one."""
    while node is not None:
        if isinstance(node, ast.Name):
            return node.id in OWNED or node.id in aliases
        if isinstance(node, ast.Attribute) and node.attr in OWNED:
            return True
        node = base(node)
    return False


def bindings(function):
    """Yield names with what they are bound to, by assignments, loops and comprehensions."""
    for node in nodes(function):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For | ast.comprehension):
            pairs = [(node.target, node.iter)]
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            pairs = [(node.target, node.value)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name):
                yield target.id, value
            elif isinstance(target, ast.Tuple):
                same = isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
                values = value.elts if same else [value] * len(target.elts)
                names = zip(target.elts, values, strict=True)
                yield from ((name.id, item) for name, item in names if isinstance(name, ast.Name))


def aliases_of(function):
    """Return the local names of a function that stand for parts of a kernel's state."""
    found, size = set(), -1
    while size < len(found):
        size = len(found)
        found |= {
            name
            for name, value in bindings(function)
            if base(value) is not None and is_owned(value, found)
        }
    return found


def changes_of_state(tree):
    """Yield the lines and expressions that change a kernel's state without one of its functions."""
    for function in (node for node in nodes(tree) if isinstance(node, _FUNCTIONS)):
        aliases = aliases_of(function)
        for node in nodes(function):
            targets = []
            if isinstance(node, ast.Assign | ast.Delete):
                targets = node.targets
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                for part in parts:
                    alias = isinstance(node, ast.AugAssign) and isinstance(part, ast.Name)
                    if is_owned(base(part), aliases) or (alias and part.id in aliases):
                        yield node.lineno, ast.unparse(part)
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                owner = base(node.func) if name in IN_PLACE else None
                if owner is not None and is_owned(owner, aliases):
                    yield node.lineno, ast.unparse(node.func)
                if name in ("setattr", "delattr", "__setattr__") and is_owned(
                    node.args[0], aliases
                ):
                    yield node.lineno, ast.unparse(node)


def knows_the_model(path):
    return package(path) == "model" or any(
        name.startswith("altmap.model") for name in imported(tree_of(path))
    )


def test_only_the_kernel_changes_its_state():
    """Drivers, adoption and searches call the functions of ``model/kernel``."""
    others = [path for path in MODULES if knows_the_model(path) and path not in in_kernel()]
    assert len(others) > 50
    found = {name_of(path): list(changes_of_state(tree_of(path))) for path in others}
    assert not {name: changes for name, changes in found.items() if changes}


@pytest.mark.parametrize(
    "line",
    [
        "kernel.used |= pages",
        "kernel.max_pfn = 4",
        "self.kernel.fake_offline -= pages",
        "guest.kernel.groups.append(group)",
        "self._kernel.files['a'] = pages",
        "del kernel.files['a']",
        "zone.span = span",
        "zone.present |= pages",
        "kernel.zones[0, 'Normal'].watermarks = marks",
        "kernel.tunables.khugepaged = False",
        "setattr(kernel.notifier, 'going_online', veto)",
        "pages = kernel.used\n    pages |= more",
        "a, b = machine.kernel.additions, 1\n    a.sort()",
        "for addition in kernel.additions:\n        addition.group = group",
        "for each in kernel.zones.values():\n        each.early_nr_pages += 1",
        "for key, each in kernel.zones.items():\n        each.present -= pages",
        "kernel.additions[0].host_pages, x = pages, 1",
    ],
)
def test_a_change_of_a_kernels_state_is_found(line):
    assert list(changes_of_state(ast.parse(f"def function():\n    {line}\n")))


@pytest.mark.parametrize(
    "line",
    [
        "self.kernel = kernel",
        "kernel = made.kernel",
        "free_pages(kernel, pages)",
        "pages = kernel.free(zone)\n    pages -= more",
        "kernel.log.note('driver', text)",
        "pages = kernel.used & other\n    pages |= more",
        "backing.backed |= pages",
    ],
)
def test_reading_a_kernels_state_is_none(line):
    assert not list(changes_of_state(ast.parse(f"def function():\n    {line}\n")))


# --- architectures are data ------------------------------------------------------------------

#: Where architectures are compared by name: their records, what they keep at boot, the records of
#: guests, and of releases.
BY_NAME = {"model/arch.py", "model/boot/costs.py", "lab/arches.py", "model/releases.py"}
NAMES = {*ARCHES, *GUESTS, *(arch.family for arch in ARCHES.values())}


def compared(tree):
    """Yield what decides by a value: comparisons, cases, keys of tables, beginnings of words."""
    for node in nodes(tree):
        match node:
            case ast.Compare() | ast.MatchValue():
                yield node
            case ast.Dict():
                yield from (key for key in node.keys if key is not None)
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith" | "removeprefix")):
                yield from node.args


def architectures_compared(tree):
    return [
        ast.unparse(node)
        for node in compared(tree)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value in NAMES
    ]


def test_architectures_are_data():
    for path in MODULES:
        if name_of(path) not in BY_NAME:
            found = architectures_compared(tree_of(path))
            assert not found, f"{path}: ask the record in model/arch.py instead"


@pytest.mark.parametrize(
    "text",
    [
        'arch.name == "x86_64"',
        'family in ("aarch64", "ppc64le")',
        'name.startswith("s390x")',
        'RULES = {"aarch64-64k": 1}',
        'match name:\n    case "ppc64le-64k":\n        pass',
    ],
)
def test_a_comparison_of_an_architecture_is_found(text):
    assert architectures_compared(ast.parse(text))
