"""What times are measured by: what a process costs, and a fixed loop of Python.

The loop stands in where no other program does the same work.

Twice as fast a machine runs it in half the time, so a target in loops is the same on both.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass

__all__ = ("RUNS", "Cost", "cost", "loop_seconds")

RUNS = 3
_NR_ROUNDS, _LOOP_RUNS = 1_000_000, 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds and peak memory of a process; it ended with *code*."""

    seconds: float
    peak_mb: float
    code: int


def cost(command: list[str], runs: int = RUNS) -> Cost:
    """Return the least cost of a command in several runs.

    This process stays small, since a child's peak includes that of the process it came from.
    """
    best: Cost | None = None
    for _ in range(runs):
        with tempfile.TemporaryFile() as out:
            actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1)]
            pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
            _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        made = Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, code)
        best = made if best is None or made.seconds < best.seconds else best
    assert best is not None
    return best


def loop_seconds() -> float:
    """Return the least processor time of the loop: about 0.05 s on a machine of 2023."""
    best = float("inf")
    for _ in range(_LOOP_RUNS):
        started = time.process_time()
        _loop()
        best = min(best, time.process_time() - started)
    return best


def _loop() -> int:
    counts: dict[int, int] = {}
    for nr in range(_NR_ROUNDS):
        counts[nr & 1023] = counts.get(nr & 1023, 0) + nr
    return len(counts)
