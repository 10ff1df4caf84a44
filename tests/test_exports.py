"""``__all__`` of every module with names: there, sorted as ruff sorts it, and complete."""

import ast
import re

import pytest

from sources import MODULES, name_of, nodes, tree_of


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
            yield from nodes(node)
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
                names |= {t.id for target in targets for t in nodes(target) if hasattr(t, "id")}
    return names


def as_ruff_sorts(name):
    """Return the key of ruff's RUF022: CONSTANTS, then Classes, then the rest, numbers by value."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    parts = re.split(r"(\d+)", name)
    return kind, [int(part) if part.isdigit() else part for part in parts]


def check(tree, name):
    """A module lists what it exports, every public class and function among it."""
    names = exported(tree)
    assert names is not None, f"{name}: need __all__"
    assert list(names) == sorted(set(names), key=as_ruff_sorts), f"{name}: order"
    assert set(names) <= bound(tree), f"{name}: lists what it does not have"
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    public = {each for each in defined if not each.startswith("_")}
    assert public <= set(names), f"{name}: has more"


def test_a_module_lists_what_it_exports():
    for path in MODULES:
        tree = tree_of(path)
        if path.name != "__main__.py" and tree.body[1:]:  # not a docstring alone
            check(tree, name_of(path))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(): ...", "need __all__"),
        ("__all__ = ('b', 'a')\na = b = 1", "order"),
        ("__all__ = ('a', 'B')\na = B = 1", "order"),
        ("__all__ = ('a', 'C', 'BIG')\na = C = BIG = 1", "order"),
        ("__all__ = ('a', 'a')\na = 1", "order"),
        ("__all__ = ('a',)", "does not have"),
        ("__all__ = ()\nclass C: ...", "has more"),
        ("__all__ = ()\ndef f(): ...", "has more"),
    ],
)
def test_a_wrong_list_is_noticed(source, reason):
    with pytest.raises(AssertionError, match=reason):
        check(ast.parse(source), "it.py")
