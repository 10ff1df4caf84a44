"""Which branches of the model's rules a prediction runs.

A branch is the first line of what an ``if``, ``else``, ``case``, loop or handler of an exception
has, in the modules on the kernel and its drivers.

Effects: files, tracing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

from altmap.model import machine

__all__ = ("all_branches", "with_branches")

_Result = TypeVar("_Result")
_MODEL = Path(machine.__file__).parent
#: Folders of the model whose branches are rules.
_FOLDERS = ("kernel", "drivers")
_SUITES = ("body", "orelse", "handlers", "finalbody")
_BRANCHING = (ast.If, ast.For, ast.While, ast.Try, ast.match_case)


def with_branches(run: Callable[[], _Result]) -> tuple[_Result, frozenset[str]]:
    """Return what a call returns, and the branches that it ran, as features of a hunt.

    A debugger or a measurement of coverage that is at work keeps its place; nothing is told then.
    """
    if sys.gettrace() is not None:
        return run(), frozenset()
    ran = set[tuple[CodeType, int]]()

    def line(frame: FrameType, *_: Any) -> Any:
        ran.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame: FrameType, *_: Any) -> Any:
        return line if _branches_of_code(frame.f_code) else None

    sys.settrace(call)
    try:
        result = run()
    finally:
        sys.settrace(None)
    names = (_branches_of_code(code).get(number) for code, number in ran)
    return result, frozenset(name for name in names if name is not None)


def all_branches() -> Iterator[str]:
    """Yield every branch that there is."""
    for name in _files().values():
        yield from _branches(name).values()


@cache
def _branches_of_code(code: CodeType) -> dict[int, str]:
    """Return the branches of a function, by line."""
    name = _files().get(code.co_filename)
    if name is None:
        return {}
    lines = {line for *_, line in code.co_lines()}
    return {line: text for line, text in _branches(name).items() if line in lines}


@cache
def _files() -> dict[str, str]:
    """Return the modules in question by the path that their code names."""
    paths = [
        module.__file__
        for name, module in list(sys.modules.items())
        if name.startswith(tuple(f"altmap.model.{folder}." for folder in _FOLDERS))
    ]
    root = str(_MODEL)
    return {path: path[len(root) + 1 :] for path in paths if path}


@cache
def _branches(name: str) -> dict[int, str]:
    """Return the branches of a module by line, each named by module, function and line in it."""
    tree = ast.parse(_MODEL.joinpath(name).read_bytes())
    found = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, _BRANCHING):
                suites = (getattr(node, suite, None) for suite in _SUITES)
                for suite in filter(None, suites):
                    line = suite[0].lineno
                    where = line - function.lineno
                    found[line] = f"branch {name} {function.name}+{where}"
    return found
