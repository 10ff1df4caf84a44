"""Pools of workers: processes of this machine, or the workers of a Dask cluster.

Both are a ``concurrent.futures.Executor`` with facts that an executor does not have: the number of
workers, and the exceptions that mean that a worker crashed.

Effects: processes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from altmap.errors import InputError, missing_extra
from altmap.model.policies import load_policy
from altmap.sweep.grid import Slice
from altmap.sweep.store import parquet
from altmap.sweep.walk import rows_of

__all__ = ("Pool", "cluster", "processes", "run_slice")


_CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Pool:
    """An executor that can be replaced when it is broken.

    Attributes
    ----------
    make : callable
        Returns a new executor.
    nr_workers : int
    crashed : tuple of exception types
        A worker crashed, and its work is lost.
    breaks : bool
        When one worker crashes, all running work and the executor are lost.
    unreachable : tuple of exception types
        No worker is left.
    close : callable
        Releases the resources of the executors.
    kill : callable
        Ends the workers of an executor at once, with what they are doing.
    """

    make: Callable[[], Executor]
    nr_workers: int
    crashed: tuple[type[BaseException], ...]
    breaks: bool
    unreachable: tuple[type[BaseException], ...] = ()
    close: Callable[[], None] = lambda: None
    kill: Callable[[Executor], None] = lambda _: None


def run_slice(part: Slice) -> bytes:
    """Return the rows of a slice as a Parquet file: the work of a worker."""
    loaded = {policy.name: policy for policy in map(load_policy, part.grid.modules)}
    return parquet(rows_of(part.points(), loaded))


def processes(nr_workers: int) -> Pool:
    """Return a pool of processes of this machine."""

    def make() -> Executor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(nr_workers, context, initializer=_begin)

    def kill(executor: Executor) -> None:
        assert isinstance(executor, ProcessPoolExecutor)
        for process in list((executor._processes or {}).values()):
            process.kill()
            process.join()
        executor.shutdown()  # its thread has failed what was left: nobody else may cancel it before

    return Pool(make, nr_workers, (BrokenProcessPool,), breaks=True, kill=kill)


def _begin() -> None:
    """Exit when the parent exits."""
    gc.freeze()  # imported modules stay; no collection needs to scan them
    gc.set_threshold(100_000, 50, 50)  # machines are trees without cycles
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def cluster(address: str) -> Pool:
    """Return the pool of a running Dask cluster.

    Raises
    ------
    InputError
        If ``distributed`` is not installed, no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise missing_extra("--cluster: needs", error, "cluster") from error
    try:
        client: Any = Client(address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster {address}: no Dask scheduler answers") from error
    nr_workers = sum(client.nthreads().values())
    if not nr_workers:
        client.close()
        raise InputError(f"--cluster {address}: has no workers")

    def make() -> Executor:
        executor: Executor = client.get_executor(pure=False)
        return executor

    unreachable = (OSError, CancelledError)
    return Pool(
        make, nr_workers, (KilledWorker,), breaks=False, unreachable=unreachable, close=client.close
    )
