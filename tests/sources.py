"""The modules of altmap as syntax trees, each parsed once for all tests that read them."""

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src/altmap"
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path):
    """Return a module's path below the package, as messages name it."""
    return str(path)[len(str(SOURCE)) + 1 :]


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path):
    return ast.parse(text_of(path))


@cache
def nodes(tree):
    """Return every node of a tree, as ``ast.walk`` yields them."""
    return tuple(ast.walk(tree))
