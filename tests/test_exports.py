"""``__all__`` of every module with names: there, sorted as ruff sorts it, and complete."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/altmap"
MODULES = {
    str(path.relative_to(SOURCE)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name != "__main__.py"
}
MODULES = {name: tree for name, tree in MODULES.items() if tree.body[1:]}  # not a docstring alone


def exported(tree):
    """Return ``__all__`` as it is written, ``None`` if a module has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def bodies(tree):
    """Yield the statements of a module, those below ``if`` and ``try`` among them."""
    for node in tree.body:
        if isinstance(node, ast.If | ast.Try):
            yield from ast.walk(node)
        yield node


def bound(tree):
    """Return the names that a module defines or imports at its top level."""
    names = set()
    for node in bodies(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {t.id for target in targets for t in ast.walk(target) if hasattr(t, "id")}
    return names


def as_ruff_sorts(name):
    """Return the key of ruff's RUF022: CONSTANTS, then Classes, then the rest, numbers by value."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    parts = re.split(r"(\d+)", name)
    return kind, [int(part) if part.isdigit() else part for part in parts]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_lists_what_it_exports(name):
    tree = MODULES[name]
    names = exported(tree)
    assert names is not None, "need __all__"
    assert list(names) == sorted(set(names), key=as_ruff_sorts)
    assert set(names) <= bound(tree)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_is_listed(name):
    tree = MODULES[name]
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert {each for each in defined if not each.startswith("_")} <= set(exported(tree))


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(): ...", "need __all__"),
        ("__all__ = ('b', 'a')\na = b = 1", "assert"),
        ("__all__ = ('a', 'B')\na = B = 1", "assert"),
        ("__all__ = ('a', 'C', 'BIG')\na = C = BIG = 1", "assert"),
        ("__all__ = ('a', 'a')\na = 1", "assert"),
        ("__all__ = ('a',)", "assert"),
        ("__all__ = ()\nclass C: ...", "assert"),
        ("__all__ = ()\ndef f(): ...", "assert"),
    ],
)
def test_a_wrong_list_is_noticed(source, missing, monkeypatch):
    monkeypatch.setitem(MODULES, "it.py", ast.parse(source))

    def both():
        test_a_module_lists_what_it_exports("it.py")
        test_every_public_class_and_function_is_listed("it.py")

    with pytest.raises(AssertionError, match=missing):
        both()
