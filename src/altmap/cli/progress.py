"""Progress of long work: a bar if standard error is a terminal, else a line for each part.

It never reaches standard output, so that results can be piped.

Effects: terminal.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from altmap.cli.output import note
from altmap.cli.streams import terminal_of
from altmap.errors import printable

__all__ = ("progress",)


@contextlib.contextmanager
def progress(
    total: int, *, lines: bool = True
) -> Iterator[tuple[Callable[[str], None], Callable[..., None]]]:
    """Yield two functions: one takes the text of the present part, the other counts parts done.

    Parameters
    ----------
    total : int
        Parts of the work.
    lines : bool
        Print a line for each part if there is no terminal.
    """
    if not sys.stderr.isatty():
        yield (note if lines else lambda _: None), (lambda _=1: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    def shown(text: str) -> None:
        bar.update(task, description=printable(text))

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(file=terminal_of(sys.stderr)), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield (
            shown,
            lambda nr=1: bar.advance(task, nr),
        )
