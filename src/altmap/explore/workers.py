"""Shares of a search in processes of their own, joined by pipes.

Effects: files, processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from altmap.errors import AltmapError
from altmap.explore.rules import load_rules, rules_named
from altmap.explore.search import Local
from altmap.explore.share import Carried, Kept, Limits, Report, Share
from altmap.explore.space import Space
from altmap.explore.spec import Exploration
from altmap.scenario import Step

__all__ = ("Worker", "workers")

_WAIT_SECONDS = 10


class Worker:
    """A share of the search in another process."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def begin(self, states: Sequence[Carried], steps: dict[int, Step], limits: Limits) -> None:
        """Take states over, and expand a level."""
        self._send("begin", states, steps, limits)

    def end(self) -> Report:
        """Return what became of the level."""
        report: Report = self._receive()
        return report

    def keep(self) -> Kept:
        """Return what another run needs to go on."""
        self._send("keep")
        kept: Kept = self._receive()
        return kept

    def go_on(self, kept: Kept) -> None:
        """Take one's share of what an earlier run has left."""
        self._send("go_on", kept)

    def stop(self) -> None:
        """Let the process end, or end it."""
        self._pipe.close()
        self._process.join(_WAIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self, *message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._gone() from error

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _gone(self) -> AltmapError:
        self._process.join(1)
        return AltmapError(f"a process of the search ended (exit code {self._process.exitcode})")


@contextmanager
def workers(
    exploration: Exploration, rules: Sequence[str], files: Sequence[Path], nr_processes: int
) -> Iterator[list[Worker]]:
    """Start the processes of a search, and end them whatever happens.

    Parameters
    ----------
    exploration : Exploration
    rules : sequence of str
        Names; empty for all.
    files : sequence of Path
        Python files with further rules.
    nr_processes : int
    """
    context = multiprocessing.get_context("spawn")
    started: list[Worker] = []
    try:
        for index in range(nr_processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(theirs, exploration, rules, files, index, nr_processes),
                daemon=True,
            )
            process.start()
            theirs.close()
            started.append(Worker(process, ours))
        yield started
    finally:
        for worker in started:
            worker.stop()


def _serve(
    pipe: Connection,
    exploration: Exploration,
    rules: Sequence[str],
    files: Sequence[Path],
    index: int,
    nr_processes: int,
) -> None:
    """Answer what is asked until the other end is closed."""
    try:
        more = [rule for file in files for rule in load_rules(file)]
        space = Space(exploration, rules_named(rules, more))
        local = Local(Share(space, index, nr_processes))
        while True:
            try:
                verb, *arguments = pipe.recv()
            except (EOFError, OSError):
                return
            if verb == "begin":
                local.begin(*arguments)
                pipe.send(local.end())
            elif verb == "keep":
                pipe.send(local.keep())
            else:
                local.go_on(*arguments)
    except KeyboardInterrupt:
        return
    except Exception as error:
        pipe.send(error)
