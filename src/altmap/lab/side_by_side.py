"""Guests side by side, each in a thread of its own; an interrupt ends all of them at once.

Effects: processes.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from weakref import WeakSet

__all__ = ("check_interrupted", "guest_started", "side_by_side")

_LOCK = threading.Lock()
_RUNNING: WeakSet[subprocess.Popen[bytes]] = WeakSet()
_INTERRUPTED = threading.Event()


@contextmanager
def side_by_side(nr_guests: int) -> Iterator[ThreadPoolExecutor]:
    """Yield an executor for that many guests.

    If the block is left by an exception, such as an interrupt, the guests that run are killed,
    those that wait are not started, and their threads end before the exception goes on.
    """
    pool = ThreadPoolExecutor(nr_guests)
    try:
        yield pool
    except BaseException:
        _INTERRUPTED.set()
        with _LOCK:
            for process in _RUNNING:
                process.kill()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown()
        _INTERRUPTED.clear()


def guest_started(process: subprocess.Popen[bytes]) -> None:
    """Remember a guest's process, to be killed by an interrupt."""
    with _LOCK:
        _RUNNING.add(process)
    check_interrupted()


def check_interrupted() -> None:
    """End the work of a thread whose guest was killed by an interrupt.

    Raises
    ------
    KeyboardInterrupt
        If the guests of :func:`side_by_side` are being killed: what they did is no result.
    """
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt
