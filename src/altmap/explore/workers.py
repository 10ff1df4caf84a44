"""Shares of a search in worker processes, connected by pipes.

Effects: files, processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from altmap.errors import AltmapError
from altmap.explore.rules import load_rules, rules_named
from altmap.explore.search import Local
from altmap.explore.share import Limits, Parcel, Report, SavedShare, Share, rare_collections
from altmap.explore.space import Space
from altmap.explore.spec import Exploration
from altmap.model.policies import load_policy
from altmap.scenario import Step
from altmap.storage.signals import without_interrupts

__all__ = ("Worker", "workers")

_WAIT_SECONDS = 10


class Worker:
    """A share of the search in another process."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def begin(self, parcels: Sequence[Parcel], steps: dict[int, Step], limits: Limits) -> None:
        """Receive states, and expand a level."""
        self._send("begin", parcels, steps, limits)

    def end(self) -> Report:
        """Return the report on the level."""
        report: Report = self._receive()
        return report

    def save(self) -> SavedShare:
        """Return the share's state for a later run."""
        self._send("save")
        saved: SavedShare = self._receive()
        return saved

    def resume(self, saved: SavedShare) -> None:
        """Continue with the share's part of an earlier run."""
        self._send("resume", saved)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def stop(self) -> None:
        """Wait for the process to end, then kill it."""
        self._pipe.close()
        self._process.join(_WAIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self, *message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._crashed() from error

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._crashed() from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _crashed(self) -> AltmapError:
        self._process.join(1)
        return AltmapError(f"a process of the search ended (exit code {self._process.exitcode})")


@contextmanager
def workers(
    exploration: Exploration,
    rules: Sequence[str],
    files: Sequence[Path],
    nr_processes: int,
    policy: str | None = None,
) -> Iterator[list[Worker]]:
    """Start the processes of a search, and end them in any case.

    Parameters
    ----------
    exploration : Exploration
    rules : sequence of str
        Names; empty for all.
    files : sequence of Path
        Python files with further rules.
    nr_processes : int
    policy : str, optional
        ``MODULE:CLASS``, which each process loads; without it the built-in one of the machine.
    """
    context = multiprocessing.get_context("spawn")
    started: list[Worker] = []
    try:
        for index in range(nr_processes):
            parent_end, child_end = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(child_end, exploration, rules, files, policy, index, nr_processes),
                daemon=True,
            )
            with without_interrupts():
                process.start()
            child_end.close()
            started.append(Worker(process, parent_end))
        yield started
    except KeyboardInterrupt:
        for worker in started:
            worker.kill()
        raise
    finally:
        for worker in started:
            worker.stop()


@rare_collections()
def _serve(
    pipe: Connection,
    exploration: Exploration,
    rules: Sequence[str],
    files: Sequence[Path],
    policy: str | None,
    index: int,
    nr_processes: int,
) -> None:
    """Serve requests until the other end is closed."""
    try:
        more = [rule for file in files for rule in load_rules(file)]
        chosen = None if policy is None else load_policy(policy)
        space = Space(exploration, rules_named(rules, more), chosen)
        local = Local(Share(space, index, nr_processes))
        while True:
            try:
                verb, *arguments = pipe.recv()
            except (EOFError, OSError):
                return
            if verb == "begin":
                local.begin(*arguments)
                pipe.send(local.end())
            elif verb == "save":
                pipe.send(local.save())
            else:
                local.resume(*arguments)
    except Exception as error:
        with suppress(OSError):  # of a search that was interrupted
            pipe.send(error)
