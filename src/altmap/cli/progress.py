"""Progress of long work: a bar if standard error is a terminal, else a line for each part.

It never reaches standard output, so that results can be piped. An interrupt says how far the work
has come.

Effects: processes, terminal.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from altmap.cli.output import note
from altmap.cli.streams import terminal_of
from altmap.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ("SHOWN_AFTER_SECONDS", "counted", "progress", "working")

#: Shorter work shows no bar.
SHOWN_AFTER_SECONDS = 1.0


@contextlib.contextmanager
def progress(
    total: int, *, lines: bool = True, what: str = "", again: str = ""
) -> Iterator[tuple[Callable[[str], None], Callable[..., None]]]:
    """Yield two functions: one takes the text of the present part, the other counts parts done.

    Parameters
    ----------
    total : int
        Parts of the work.
    lines : bool
        Print a line for each part if there is no terminal.
    what : str
        The parts, such as ``scenarios``; without it the text of the present part says how far the
        work is.
    again : str
        What an interrupt says besides how far the work is, such as how to continue.

    Raises
    ------
    KeyboardInterrupt
        With that text, if there is an interrupt.
    """
    done, present = 0, ""

    def tell(text: str) -> None:
        nonlocal present
        present = text
        show(text)

    def advance(nr: int = 1) -> None:
        nonlocal done
        done += nr
        move(nr)

    with _shown(total, lines=lines) as (show, move):
        try:
            yield tell, advance
        except KeyboardInterrupt:
            far = f"{done:,} of {total:,} {what} are done" if what else present
            raise KeyboardInterrupt("; ".join(filter(None, (far, again)))) from None


@contextlib.contextmanager
def counted(what: str, again: str = "") -> Iterator[Callable[[str], None]]:
    """Yield what prints a line for each part that is done; an interrupt says how many were.

    Raises
    ------
    KeyboardInterrupt
        With that text, if there is an interrupt.
    """
    done = 0

    def tell(text: str) -> None:
        nonlocal done
        done += 1
        note(text)

    try:
        yield tell
    except KeyboardInterrupt:
        far = f"{done:,} {what} are done"
        raise KeyboardInterrupt("; ".join(filter(None, (far, again)))) from None


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal that work goes on which has no parts to count."""
    with progress(1, lines=False) as (tell, _):
        tell(text)
        yield


@contextlib.contextmanager
def _shown(
    total: int, *, lines: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    if not sys.stderr.isatty():
        yield (note if lines else lambda _: None), (lambda _: None)
        return
    bar = _Bar(total)
    timer = threading.Timer(SHOWN_AFTER_SECONDS, bar.start)
    timer.daemon = True
    if SHOWN_AFTER_SECONDS:
        timer.start()
    else:
        bar.start()
    try:
        yield bar.say, bar.advance
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        bar.stop()


class _Bar:
    """A bar of which nothing is imported before it is shown: short work costs nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._text, self._done = "", 0
        self._lock = threading.Lock()
        self._shown: tuple[Progress, TaskID] | None = None

    def start(self) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            SpinnerColumn(),
            *([BarColumn(bar_width=20), MofNCompleteColumn()] if self._total > 1 else []),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        bar = Progress(*columns, console=Console(file=terminal_of(sys.stderr)), transient=True)
        with self._lock:
            task = bar.add_task(printable(self._text), total=self._total, completed=self._done)
            self._shown = bar, task
        bar.start()

    def stop(self) -> None:
        """Erase the bar."""
        if self._shown is not None:
            self._shown[0].stop()

    def say(self, text: str) -> None:
        """Show the text of the present part."""
        with self._lock:
            self._text = text
            if self._shown is not None:
                bar, task = self._shown
                bar.update(task, description=printable(text))

    def advance(self, nr: int) -> None:
        """Count parts that are done."""
        with self._lock:
            self._done += nr
            if self._shown is not None:
                bar, task = self._shown
                bar.advance(task, nr)
