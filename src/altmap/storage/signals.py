"""Interrupts that wait while a process is started.

Effects: processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ("without_interrupts",)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait while inside; a process that is started there never gets it.

    A terminal sends Ctrl-C to every process of the command. A worker that has not yet begun to
    ignore it would print a traceback; the mask of blocked signals is inherited.
    """
    resource_tracker.ensure_running()  # it would unblock them again: it starts with a worker
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
