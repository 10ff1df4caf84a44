"""From what is missing to what is kept: chunks go to a pool, and their rows into the store.

A chunk whose worker died is done again, alone, so that it is certain who is to blame. If it takes
its worker with it again it is cut in half, until one scenario is left: that becomes a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.sweep.grid import Grid, Slice
from altmap.sweep.pool import Pool, run_slice
from altmap.sweep.row import lost_row
from altmap.sweep.store import Store, parquet

__all__ = ("run",)

#: Chunks that wait in the pool for each worker, so that none is idle: no more, whatever the grid.
_AHEAD = 2
#: How often one scenario alone may take its worker with it.
_MOST_DEATHS = 2

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
) -> None:
    """Do all scenarios below *end* that are not kept.

    Parameters
    ----------
    grid : Grid
    store : Store
    pool : Pool
    end : int
    chunk : int
        Scenarios that are done and kept together.
    advance : callable
        Told how many scenarios more are kept.
    work : callable
        What a worker does with a slice.

    Raises
    ------
    InputError
        If rows cannot be kept, or nobody is left to do the work.
    """
    slices = (grid.slice(start, stop) for start, stop in list(store.missing(end, chunk)))
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
    deaths: int = 0

    def finish(self) -> None:
        executor = self.pool.make()
        try:
            while self._submit(executor):
                ready, _ = wait(self.running, return_when=FIRST_COMPLETED)
                dead = [part for future in ready if (part := self._take(future))]
                if not dead:
                    continue
                if self.pool.breaks:
                    dead += [part for future in list(self.running) if (part := self._take(future))]
                    executor.shutdown()
                    executor = self.pool.make()
                self._mourn(dead)
        except self.pool.gone as error:
            raise InputError(
                f"the cluster is gone ({type(error).__name__}); what is kept stays, "
                "and the same command carries on"
            ) from error
        finally:
            for future in self.running:
                future.cancel()
            executor.shutdown()
            self.pool.close()

    def _submit(self, executor: Executor) -> bool:
        """Give the pool what it can take; false if nothing is left to wait for."""
        if self.suspects and not self.running:
            self.alone = True
            self._give(executor, self.suspects.popleft())
        elif not self.suspects and not self.alone:
            while len(self.running) < _AHEAD * self.pool.nr_workers:
                part = next(self.slices, None)
                if part is None:
                    break
                self._give(executor, part)
        return bool(self.running)

    def _give(self, executor: Executor, part: Slice) -> None:
        try:
            future = executor.submit(self.work, part)
        except self.pool.died as error:
            future = Future()
            future.set_exception(error)
        self.running[future] = part

    def _take(self, future: Future[bytes]) -> Slice | None:
        """Keep what a worker returned; return the slice if the worker died instead."""
        part = self.running.pop(future)
        try:
            raw = future.result()
        except self.pool.died:
            return part
        except ImportError as error:
            raise InputError(f"a worker cannot do it: {error}") from error
        self._keep(part, raw)
        if self.alone:
            self.alone, self.deaths = False, 0
        return None

    def _keep(self, part: Slice, raw: bytes) -> None:
        self.store.keep(part.start, part.stop, raw)
        self.advance(len(part))

    def _mourn(self, dead: list[Slice]) -> None:
        """Suspect all that ran; of one that ran alone it is certain."""
        if not self.alone:
            self.suspects.extend(dead)
            return
        self.alone = False
        (part,) = dead
        if len(part) > 1:
            self.suspects.extendleft(reversed(part.halves()))
            return
        self.deaths += 1
        if self.deaths < _MOST_DEATHS:
            self.suspects.appendleft(part)
            return
        self.deaths = 0
        why = f"each of {_MOST_DEATHS} workers that were given it alone died"
        self._keep(part, parquet([lost_row(part.points()[0], why)]))
