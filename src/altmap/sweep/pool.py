"""Who does the work: processes of this machine, or the workers of a Dask cluster.

Both are a ``concurrent.futures.Executor``; beside it stands what an executor does not tell: how
many pieces of work it takes at a time, and which exceptions mean that a worker died.

Effects: processes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from altmap.errors import InputError
from altmap.model.policies import load_policy
from altmap.sweep.grid import Slice
from altmap.sweep.store import parquet
from altmap.sweep.walk import rows_of

__all__ = ("Pool", "cluster", "processes", "run_slice")


_CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Pool:
    """An executor that can be had again when it is broken.

    Attributes
    ----------
    make : callable
        Returns a new executor.
    nr_workers : int
    died : tuple of exception types
        A worker died, and with it what it did.
    breaks : bool
        When one worker dies, all that runs is lost, and the executor with it.
    gone : tuple of exception types
        Nobody is left who could do the work.
    close : callable
        Lets go of what the executors came from.
    """

    make: Callable[[], Executor]
    nr_workers: int
    died: tuple[type[BaseException], ...]
    breaks: bool
    gone: tuple[type[BaseException], ...] = ()
    close: Callable[[], None] = lambda: None


def run_slice(part: Slice) -> bytes:
    """Return the rows of a slice as a Parquet file: what a worker does."""
    loaded = {policy.name: policy for policy in map(load_policy, part.grid.modules)}
    return parquet(rows_of(part.points(), loaded))


def processes(nr_workers: int) -> Pool:
    """Return a pool of processes of this machine."""

    def make() -> Executor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(nr_workers, context, initializer=_begin)

    return Pool(make, nr_workers, (BrokenProcessPool,), breaks=True)


def _begin() -> None:
    """Leave an interrupt to the parent, and end with it whichever way it ends."""
    gc.freeze()  # what is imported by now stays; no collection need look at it
    gc.set_threshold(100_000, 50, 50)  # machines are trees, which go without the collector
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def cluster(address: str) -> Pool:
    """Return the pool of a Dask cluster that is there.

    Raises
    ------
    InputError
        If ``distributed`` is not installed, nobody answers, or there are no workers.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise InputError(
            f"--cluster: needs the Python module {error.name!r}: pip install 'altmap[cluster]'"
        ) from error
    try:
        client: Any = Client(address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster {address}: no scheduler of Dask answers there") from error
    nr_workers = sum(client.nthreads().values())
    if not nr_workers:
        client.close()
        raise InputError(f"--cluster {address}: has no workers")

    def make() -> Executor:
        executor: Executor = client.get_executor(pure=False)
        return executor

    gone = (OSError, CancelledError)
    return Pool(make, nr_workers, (KilledWorker,), breaks=False, gone=gone, close=client.close)
