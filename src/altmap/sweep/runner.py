"""Run the missing scenarios: chunks go to a pool, and their rows into the store.

A chunk whose worker crashed is run again alone, so that the cause is certain. If its worker crashes
again, it is cut in halves until one scenario is left, which becomes a row of result ``lost``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.storage.signals import without_interrupts
from altmap.sweep.grid import Grid, Slice
from altmap.sweep.pool import Pool, run_slice
from altmap.sweep.row import lost_row
from altmap.sweep.store import Store, parquet

__all__ = ("run",)

#: Chunks in the pool for each worker, so that none is idle.
_AHEAD = 2
#: An interrupt that another thread gets is seen by the main one when it wakes up.
_WAKE_SECONDS = 0.5
#: Worker crashes after which a scenario that runs alone is lost.
_MAX_CRASHES = 2

Work = Callable[[Slice], bytes]


def run(
    grid: Grid,
    store: Store,
    pool: Pool,
    *,
    end: int,
    chunk: int,
    advance: Callable[[int], None] = lambda _: None,
    work: Work = run_slice,
    shard: tuple[int, int] | None = None,
) -> None:
    """Run all scenarios below *end* whose rows are not in the store.

    Parameters
    ----------
    grid : Grid
    store : Store
    pool : Pool
    end : int
    chunk : int
        Scenarios that run and are stored together.
    advance : callable
        Called with the number of newly stored scenarios.
    work : callable
        The function that a worker runs on a slice.
    shard : tuple of int, optional
        As for :meth:`Store.missing`.

    Raises
    ------
    InputError
        If rows cannot be stored, or no worker is left.
    """
    slices = (grid.slice(start, stop) for start, stop in list(store.missing(end, chunk, shard)))
    _SweepRun(store, pool, slices, advance, work).finish()


@dataclass(slots=True)
class _SweepRun:
    store: Store
    pool: Pool
    slices: Iterator[Slice]
    advance: Callable[[int], None]
    work: Work
    running: dict[Future[bytes], Slice] = field(default_factory=dict)
    suspects: deque[Slice] = field(default_factory=deque)
    alone: bool = False
    crashes: int = 0

    def finish(self) -> None:
        executor = self.pool.make()
        try:
            while self._submit(executor):
                ready, _ = wait(self.running, _WAKE_SECONDS, return_when=FIRST_COMPLETED)
                failed = [part for future in ready if (part := self._take(future))]
                if not failed:
                    continue
                if self.pool.breaks:
                    failed += [
                        part for future in list(self.running) if (part := self._take(future))
                    ]
                    executor.shutdown()
                    executor = self.pool.make()
                self._retry(failed)
        except self.pool.unreachable as error:
            raise InputError(
                f"the cluster is unreachable ({type(error).__name__}); the rows so far are stored, "
                "and the same command continues"
            ) from error
        except KeyboardInterrupt:
            self.pool.kill(executor)
            raise
        finally:
            for future in self.running:
                future.cancel()
            executor.shutdown()
            self.pool.close()

    def _submit(self, executor: Executor) -> bool:
        """Submit slices up to the pool's limit; return whether any are running."""
        if self.suspects and not self.running:
            self.alone = True
            self._start(executor, self.suspects.popleft())
        elif not self.suspects and not self.alone:
            while len(self.running) < _AHEAD * self.pool.nr_workers:
                part = next(self.slices, None)
                if part is None:
                    break
                self._start(executor, part)
        return bool(self.running)

    def _start(self, executor: Executor, part: Slice) -> None:
        try:
            with without_interrupts():  # starts a worker
                future = executor.submit(self.work, part)
        except self.pool.crashed as error:
            future = Future()
            future.set_exception(error)
        self.running[future] = part

    def _take(self, future: Future[bytes]) -> Slice | None:
        """Store the rows of a worker; return the slice if the worker crashed instead."""
        part = self.running.pop(future)
        try:
            raw = future.result()
        except self.pool.crashed:
            return part
        except ImportError as error:
            raise InputError(f"a worker cannot import a module: {error}") from error
        self._keep(part, raw)
        if self.alone:
            self.alone, self.crashes = False, 0
        return None

    def _keep(self, part: Slice, raw: bytes) -> None:
        self.store.keep(part.start, part.stop, raw)
        self.advance(len(part))

    def _retry(self, failed: list[Slice]) -> None:
        """Retry slices one by one; cut a slice that failed alone, or store its lost row."""
        if not self.alone:
            self.suspects.extend(failed)
            return
        self.alone = False
        (part,) = failed
        if len(part) > 1:
            self.suspects.extendleft(reversed(part.halves()))
            return
        self.crashes += 1
        if self.crashes < _MAX_CRASHES:
            self.suspects.appendleft(part)
            return
        self.crashes = 0
        why = f"each of {_MAX_CRASHES} workers that ran it alone crashed"
        self._keep(part, parquet([lost_row(part.points()[0], why)]))
