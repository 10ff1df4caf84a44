"""The import rules that ``docs/architecture.md`` states, read off the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/altmap"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

#: Where effects live, as the page says: rooms, and modules of ``linux``.
EDGES = {
    *("lab", "export", "saved", "sources", "output", "progress", "cli", "cli_host", "cli_sweep"),
    *("cli_explore", "cli_watch", "scenario", "policies", "recording", "verify", "conformance"),
}
LINUX_EDGES = {"sysroot", "folder", "blockfolder", "archive", "shapes"}
REPORT_EDGES = {"assets"}
HOST_EDGES = {"journal", "prometheus", "transport", "uevents", "watch"}
EXPLORE_EDGES = {"__init__", "checkpoint", "rules", "search", "share", "spec", "workers"}
SWEEP_EDGES = {"fleet", "grid", "pool", "store", "files", "walk"}
MODEL = {"machine", "kernel", "adopt", "boot", "observe", "platform", "drivers"}

#: Modules of the standard library through which a program reaches the world outside.
EFFECTS = {
    *("asyncio", "ctypes", "fcntl", "multiprocessing", "signal", "subprocess", "threading"),
    *("bz2", "gzip", "lzma", "tarfile", "zipfile", "zlib"),
    *("glob", "importlib", "io", "os", "pathlib", "shutil", "sys", "tempfile"),
    *("datetime", "locale", "logging", "platform", "random", "secrets", "select", "time", "uuid"),
    *("getpass", "http", "socket", "urllib"),
}
CALLS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}
METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "getenv"}


def room(path):
    """Return the room of a module: its folder, or its name at the top."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def imported(tree):
    """Yield every module that a tree imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports of ours are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    """Return the other rooms that a module imports from."""
    found = set()
    for name in imported(TREES[path]):
        top, _, rest = name.partition(".")
        if top != "altmap":
            continue
        first = rest.split(".")[0]
        known = (SOURCE / first).is_dir() or (SOURCE / f"{first}.py").is_file()
        if first and known:
            found.add(first)
        elif first:
            found.add("__init__")  # a name of the package itself
    return found - {room(path)}


def stated():
    """Return the page's table: room to the rooms it imports, in the page's order."""
    table = re.search(r"\| room \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {name.strip("`"): set(re.findall(r"`(\w+)`", imports)) for name, _, imports in rows}


ROOMS = stated()
ACTUAL = {name: set().union(*(ours(p) for p in MODULES if room(p) == name)) for name in ROOMS}


def test_every_module_has_a_row():
    rooms = {room(path) for path in MODULES}
    assert rooms == set(ROOMS), "docs/architecture.md: the table of rooms is not the code's"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_what_its_row_says(name):
    assert ACTUAL[name] == ROOMS[name], f"docs/architecture.md: row {name!r}"


def test_imports_go_one_way():
    above = set()
    for name, imports in ROOMS.items():
        assert imports <= above, f"{name} imports a room below it"
        above.add(name)


def test_the_kernel_knows_no_driver_platform_or_lab():
    assert not ACTUAL["kernel"] & {"drivers", "platform", "lab", "machine", "scenario", "linux"}


def test_linux_knows_no_kernel():
    assert ACTUAL["linux"] <= {"errors"}


def test_lab_and_model_meet_in_verify_only():
    assert not ACTUAL["lab"] & MODEL
    assert not any("lab" in ACTUAL[name] for name in MODEL)
    both = {name for name in ROOMS if {"lab", "machine"} <= ACTUAL[name]}
    assert both == {"verify", "cli"}  # the command line runs either


def test_nothing_imports_cli_but_main():
    assert {name for name in ROOMS if "cli" in ACTUAL[name]} == {"__main__"}


PURE = [
    path
    for path in MODULES
    if room(path) not in {*EDGES, "__main__"}
    and not (room(path) == "linux" and path.stem in LINUX_EDGES)
    and not (room(path) == "report" and path.stem in REPORT_EDGES)
    and not (room(path) == "host" and path.stem in HOST_EDGES)
    and not (room(path) == "sweep" and path.stem in SWEEP_EDGES)
    and not (room(path) == "explore" and path.stem in EXPLORE_EDGES)
]


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_core_has_no_effects(path):
    tree = TREES[path]
    # A room of ours may be called platform.
    assert not {n.split(".")[0] for n in imported(tree)} & EFFECTS
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {func.id for func in calls if isinstance(func, ast.Name)} & CALLS
    assert not {func.attr for func in calls if isinstance(func, ast.Attribute)} & METHODS


def test_the_page_names_the_rooms_with_effects():
    (sentence,) = re.findall(r"The core has no effects:.*?Time, chance", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == (
        EDGES
        | LINUX_EDGES
        | REPORT_EDGES
        | HOST_EDGES
        | SWEEP_EDGES
        | (EXPLORE_EDGES - {"__init__"})
        | {"linux", "report", "host", "sweep", "explore"}
    )


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room(path) in ("kernel", "drivers", "platform")],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_rules_ask_for_behaviours_and_compare_no_versions(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Compare):
            text = ast.unparse(node)
            assert not re.search(r"release\.name|_version\(|\(\d+, \d+\)", text), text
