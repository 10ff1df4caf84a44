"""Run the code cells of a notebook, without Jupyter, and write what they print and show.

    python docs/notebook.py examples/api.ipynb

Cells run in one namespace, in the folder of the repository. What the last expression of a cell
gives is shown as its ``repr``, and as HTML if it has that.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def read(path: Path) -> dict[str, Any]:
    """Return a notebook (nbformat 4)."""
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return made


def outputs(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the outputs of each code cell, as nbformat has them."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [_run("".join(cell["source"]), namespace, n) for n, cell in enumerate(cells, 1)]


def _run(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    tree, last = ast.parse(source), None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if last is not None:
            value = eval(compile(last, f"cell {number}", "eval"), namespace)
    made = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        made.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": value._repr_html_().splitlines(keepends=True), **data}
        shown = {"data": data, "execution_count": number, "metadata": {}}
        made.append({**shown, "output_type": "execute_result"})
    return made


def write(path: Path) -> None:
    """Run a notebook and keep its outputs in it."""
    notebook = read(path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, shown) in enumerate(zip(cells, outputs(notebook), strict=True), 1):
        cell["execution_count"], cell["outputs"] = number, shown
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    paths = [Path(name).resolve() for name in sys.argv[1:]]
    os.chdir(ROOT)
    for each in paths:
        write(each)
